"""Layers x heads as a heat map: layer on y with 0 at the top, head on x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from interp.ablation.effect_tables import sign_meaning
from interp.figures import style
from interp.heads import Head, HeadScores

if TYPE_CHECKING:
    import pandas as pd

READABLE = 44  # cells at least this many pixels wide show their number
ROOMY = 30  # marked cells at least this wide and high are outlined, smaller ones carry a dot: outlines would fill the map
MARKED = "beyond the other heads, q\u00a0≤\u00a00.05"


@dataclass(frozen=True)
class _Map:
    """What is drawn: numbers and hover texts [n_layers n_heads], marked heads and what marks them, bounds of the numbers, texts."""

    values: np.ndarray
    hover: np.ndarray
    marked: list[Head]
    mark: str
    bounds: tuple[float | None, float | None]
    legend: str
    title: str
    caption: str
    notes: list[str]


def head_map(
    data: HeadScores | pd.DataFrame,
    *,
    marked: Iterable[Head] | None = None,
    shape: Sequence[int] | None = None,
    title: str | None = None,
    caption: str | None = None,
    notes: Sequence[str] = (),
) -> go.Figure:
    """A heat map of one number per head.

    ``data`` is ``HeadScores``, or a head table (its effects, with interval and q-value on hover; its ``exceeds_control`` heads are
    marked). Numbers that can be negative get a diverging scale centred at 0, others one hue from their lower bound to the largest.
    ``marked`` heads are marked instead; ``shape`` (n_layers, n_heads) is for tables that do not hold every head. Heads without
    a number are grey. ``notes`` stand below the caption.
    """
    chosen = None if marked is None else list(marked)
    if isinstance(data, HeadScores):
        what = _of_scores(data, chosen or [], title)
    else:
        what = _of_table(data, chosen, shape, title)
    return _draw(replace(what, caption=caption or what.caption, notes=[*notes, *what.notes]))


def _of_scores(scores: HeadScores, marked: list[Head], title: str | None) -> _Map:
    absent = np.isnan(scores.values).any()
    hover = np.full(scores.values.shape, style.safe(scores.nan_reason or "not measured"), dtype=object)
    for place in np.argwhere(~np.isnan(scores.values)):
        head = Head(*map(int, place))
        hover[head] = style.score_lines(scores, head)
    return _Map(
        values=scores.values,
        hover=hover,
        marked=marked,
        mark="",
        bounds=scores.bounds,
        legend=scores.unit,
        title=title or scores.name,
        caption=scores.record.caption(),
        notes=[
            *([sign_meaning(scores.record.metric)] if scores.name.startswith("effect") else []),
            *([f"grey: {scores.nan_reason}"] if absent and scores.nan_reason else []),
        ],
    )


def _of_table(table: pd.DataFrame, marked: list[Head] | None, shape: Sequence[int] | None, title: str | None) -> _Map:
    rows: list[Any] = [row for row in table.itertuples() if getattr(row, "layer2", -1) < 0]
    size = tuple(shape) if shape else (max(row.layer for row in rows) + 1, max(row.head for row in rows) + 1)
    values, hover = np.full(size, np.nan), np.full(size, "not measured", dtype=object)
    for row in rows:
        values[row.layer, row.head], hover[row.layer, row.head] = row.effect, style.hover_lines(row)
    return _Map(
        values=values,
        hover=hover,
        marked=[Head(row.layer, row.head) for row in rows if row.exceeds_control] if marked is None else marked,
        mark=MARKED if marked is None else "",
        bounds=(None, None),
        legend=f"effect ({rows[0].unit})",
        title=title or f"Effect of each head on {rows[0].metric}",
        caption=style.caption_of(rows[0]),
        notes=[sign_meaning(str(rows[0].metric))],
    )


def _draw(what: _Map) -> go.Figure:
    n_layers, n_heads = what.values.shape
    cell_width, cell_height = _cell(440 / n_heads, 96), _cell(440 / n_layers, 46)
    roomy = min(cell_width, cell_height) >= ROOMY
    notes = [*what.notes, *([f"{'outlined' if roomy else 'dotted'}: {what.mark}"] if what.marked and what.mark else [])]
    caption = [what.caption, "; ".join(notes)]
    figure = style.canvas(cell_width * n_heads, cell_height * n_layers, what.title, caption)
    figure.update_layout(plot_bgcolor=style.EMPTY)
    low, high, colours = style.colour_range(what.values, what.bounds)
    figure.add_heatmap(
        z=what.values,
        x=list(range(n_heads)),
        y=list(range(n_layers)),
        zmin=low,
        zmax=high,
        colorscale=style.scale(colours),
        colorbar=style.colour_bar(what.legend),
        hovertext=what.hover,
        hoverinfo="text",
        xgap=1,
        ygap=1,
        **(style.written(what.values) if cell_width >= READABLE else {}),
    )
    if what.marked:
        mark = _outlines(what.marked, cell_width) if roomy else _dots(what.marked, what.values, high)
        figure.add_scatter(**mark, hoverinfo="skip")
    figure.update_xaxes(title_text="head", tickvals=style.ticks(n_heads), range=[-0.5, n_heads - 0.5])
    figure.update_yaxes(title_text="layer", tickvals=style.ticks(n_layers), range=[n_layers - 0.5, -0.5])
    return figure


def _outlines(heads: list[Head], cell_width: int) -> dict[str, Any]:
    """One closed path around each head, with gaps between; a little inside the cell, so that neighbours stay apart."""
    inset = 0.46
    across, down = (-inset, inset, inset, -inset, -inset), (-inset, -inset, inset, inset, -inset)
    x = [value for head in heads for value in (*(head.head + step for step in across), None)]
    y = [value for head in heads for value in (*(head.layer + step for step in down), None)]
    return {"x": x, "y": y, "mode": "lines", "line": {"color": style.INK, "width": 2 if cell_width >= READABLE else 1.2}}


def _dots(heads: list[Head], values: np.ndarray, reach: float) -> dict[str, Any]:
    """A dot in the middle of each head's cell, white where the cell is dark."""
    colours = [style.ink_on(values[head], reach) for head in heads]
    marker = {"size": 4, "color": colours, "line": {"width": 0}}
    return {"x": [head.head for head in heads], "y": [head.layer for head in heads], "mode": "markers", "marker": marker}


def _cell(wanted: float, most: int) -> int:
    return int(min(max(wanted, 14), most))
