"""Layers x heads as a heat map: layer on y with 0 at the top, head on x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from interp.figures import style
from interp.heads import Head, HeadScores
from interp.metrics.importance import meaning

if TYPE_CHECKING:
    import pandas as pd

READABLE = 44  # cells at least this many pixels wide show their number
MARKED = "outlined: distinct from the other heads, q\u00a0≤\u00a00.05"


@dataclass(frozen=True)
class _Map:
    """What is drawn: numbers and hover texts [n_layers n_heads], outlined heads, bounds of the numbers, and texts."""

    values: np.ndarray
    hover: np.ndarray
    outlined: list[Head]
    bounds: tuple[float | None, float | None]
    legend: str
    title: str
    caption: list[str]


def head_map(
    source: HeadScores | pd.DataFrame,
    *,
    marked: Iterable[Head] | None = None,
    shape: Sequence[int] | None = None,
    title: str | None = None,
) -> go.Figure:
    """A heat map of one number per head.

    ``source`` is ``HeadScores``, or a head table (its effects, with interval and q-value on hover; its ``distinct`` heads are
    outlined). Numbers that can be negative get a diverging scale centred at 0, others one hue from their lower bound up.
    ``marked`` heads are outlined instead; ``shape`` (n_layers, n_heads) is for tables that do not hold every head. Heads without
    a number are grey.
    """
    chosen = None if marked is None else list(marked)
    if isinstance(source, HeadScores):
        return _draw(_of_scores(source, chosen or [], title))
    return _draw(_of_table(source, chosen, shape, title))


def _of_scores(scores: HeadScores, outlined: list[Head], title: str | None) -> _Map:
    hover = np.full(scores.values.shape, "not measured", dtype=object)
    for place in np.argwhere(~np.isnan(scores.values)):
        head = Head(*map(int, place))
        hover[head] = f"<b>{head}</b><br>{style.safe(scores.name)} {style.number(scores[head])} {style.safe(scores.unit)}"
    sign = meaning(scores.record.metric) if scores.name.startswith("effect") else ""
    caption = [scores.record.caption(), sign]
    return _Map(scores.values, hover, outlined, scores.bounds, scores.unit, title or scores.name, caption)


def _of_table(table: pd.DataFrame, marked: list[Head] | None, shape: Sequence[int] | None, title: str | None) -> _Map:
    rows: list[Any] = [row for row in table.itertuples() if getattr(row, "layer2", -1) < 0]
    size = tuple(shape) if shape else (max(row.layer for row in rows) + 1, max(row.head for row in rows) + 1)
    values, hover = np.full(size, np.nan), np.full(size, "not measured", dtype=object)
    for row in rows:
        values[row.layer, row.head], hover[row.layer, row.head] = row.effect, style.hover_lines(row)
    outlined = [Head(row.layer, row.head) for row in rows if row.distinct] if marked is None else marked
    metric = str(rows[0].metric)
    notes = [meaning(metric), *([MARKED] if marked is None and outlined else [])]
    caption = [style.caption_of(rows[0]), "; ".join(notes)]
    return _Map(
        values, hover, outlined, (None, None), f"effect ({rows[0].unit})", title or f"Effect of each head on {metric}", caption
    )


def _draw(what: _Map) -> go.Figure:
    n_layers, n_heads = what.values.shape
    cell_width, cell_height = _cell(440 / n_heads, 96), _cell(440 / n_layers, 46)
    figure = style.canvas(cell_width * n_heads, cell_height * n_layers, what.title, what.caption)
    figure.update_layout(plot_bgcolor=style.EMPTY)
    low, high, colours = _scale(what.values, what.bounds)
    title = {"text": style.safe(what.legend), "side": "right"}
    figure.add_heatmap(
        z=what.values,
        x=list(range(n_heads)),
        y=list(range(n_layers)),
        zmin=low,
        zmax=high,
        colorscale=[[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)],
        colorbar={"title": title, "thickness": 12, "outlinewidth": 0, "x": 1, "xpad": 14},
        hovertext=what.hover,
        hoverinfo="text",
        xgap=1,
        ygap=1,
        **(_numbers(what.values) if cell_width >= READABLE else {}),
    )
    if what.outlined:
        line = {"color": style.INK, "width": 2 if cell_width >= READABLE else 1.2}
        figure.add_scatter(**_outlines(what.outlined), mode="lines", line=line, hoverinfo="skip")
    figure.update_xaxes(title_text="head", tickvals=_ticks(n_heads), range=[-0.5, n_heads - 0.5])
    figure.update_yaxes(title_text="layer", tickvals=_ticks(n_layers), range=[n_layers - 0.5, -0.5])
    return figure


def _scale(values: np.ndarray, bounds: tuple[float | None, float | None]) -> tuple[float, float, list[str]]:
    """Lowest and highest number of the colour scale, and its colours."""
    low, high = bounds
    if low is not None and low >= 0:
        return low, high if high is not None else float(np.nanmax(values)), style.SEQUENTIAL
    reach = float(np.nanmax(np.abs(values))) or 1.0
    return -reach, reach, style.DIVERGING


def _numbers(values: np.ndarray) -> dict[str, Any]:
    """The number of each cell as text in it."""
    digits = style.decimals(float(np.nanmax(np.abs(values))))
    texts = [["" if np.isnan(value) else style.fixed(value, digits) for value in row] for row in values.tolist()]
    return {"text": texts, "texttemplate": "%{text}", "textfont": {"size": 11}}


def _outlines(heads: list[Head]) -> dict[str, list[float | None]]:
    """One closed path around each head, with gaps between; a little inside the cell, so that neighbours stay apart."""
    inset = 0.46
    across, down = (-inset, inset, inset, -inset, -inset), (-inset, -inset, inset, inset, -inset)
    x = [value for head in heads for value in (*(head.head + step for step in across), None)]
    y = [value for head in heads for value in (*(head.layer + step for step in down), None)]
    return {"x": x, "y": y}


def _cell(wanted: float, most: int) -> int:
    return int(min(max(wanted, 14), most))


def _ticks(n: int) -> list[int]:
    """Every index, or every second, fifth, tenth ... so that at most 16 are written."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if n <= 16 * step)
    return list(range(0, n, step))
