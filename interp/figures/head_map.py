"""Layers x heads as a heat map: layer on y with 0 at the top, head on x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.ablation.effect_tables import sign_meaning
from interp.figures import style
from interp.figures.portable_figure import Figure
from interp.heads import Head, HeadScores

if TYPE_CHECKING:
    import pandas as pd

READABLE = 44  # cells at least this wide, in pixels, show their number
ROOMY = 30  # marked cells at least this large are outlined, smaller ones get a dot: outlines would fill the map
MARKED = "effect exceeds the other heads', q\u00a0≤\u00a00.05"


@dataclass(frozen=True)
class _Map:
    """Content of a map: values and hover texts [n_layers n_heads], marked heads and the meaning of the mark, bounds, texts."""

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
) -> Figure:
    """Heat map of one number per head.

    ``data`` is ``HeadScores`` or a head table (effects, with interval and q-value on hover, and its ``exceeds_control`` heads marked).
    Quantities that can be negative get a diverging scale centred at 0, others a sequential scale from their lower bound to the largest
    value. ``marked`` overrides the marked heads; ``shape`` (n_layers, n_heads) is for tables that do not cover every head. Heads
    without a number are grey. ``notes`` are added below the caption.
    """
    heads = None if marked is None else list(marked)
    content = _from_scores(data, heads or [], title) if isinstance(data, HeadScores) else _from_table(data, heads, shape, title)
    return _figure(replace(content, caption=caption or content.caption, notes=[*notes, *content.notes]))


def _from_scores(scores: HeadScores, marked: list[Head], title: str | None) -> _Map:
    absent = np.isnan(scores.values).any()
    hover = np.full(scores.values.shape, style.escape_markup(scores.nan_reason or "not measured"), dtype=object)
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


def _from_table(table: pd.DataFrame, marked: list[Head] | None, shape: Sequence[int] | None, title: str | None) -> _Map:
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


def _figure(content: _Map) -> Figure:
    n_layers, n_heads = content.values.shape
    cell_width, cell_height = _cell(440 / n_heads, 96), _cell(440 / n_layers, 46)
    roomy = min(cell_width, cell_height) >= ROOMY
    notes = [
        *content.notes,
        *([f"{'outlined' if roomy else 'dotted'}: {content.mark}"] if content.marked and content.mark else []),
    ]
    caption = [content.caption, "; ".join(notes)]
    figure = style.canvas(cell_width * n_heads, cell_height * n_layers, content.title, caption)
    figure.update_layout(plot_bgcolor=style.EMPTY)
    low, high, colours = style.colour_range(content.values, content.bounds)
    figure.add_heatmap(
        z=content.values,
        x=list(range(n_heads)),
        y=list(range(n_layers)),
        zmin=low,
        zmax=high,
        colorscale=style.scale(colours),
        colorbar=style.colour_bar(content.legend),
        hovertext=content.hover,
        hoverinfo="text",
        xgap=1,
        ygap=1,
        **(style.cell_text(content.values) if cell_width >= READABLE else {}),
    )
    if content.marked:
        mark = _outlines(content.marked, cell_width) if roomy else _dots(content.marked, content.values, high)
        figure.add_scatter(**mark, hoverinfo="skip")
    figure.update_xaxes(title_text="head", tickvals=style.ticks(n_heads), range=[-0.5, n_heads - 0.5])
    figure.update_yaxes(title_text="layer", tickvals=style.ticks(n_layers), range=[n_layers - 0.5, -0.5])
    return figure


def _outlines(heads: list[Head], cell_width: int) -> dict[str, Any]:
    """One closed path around each head, slightly inside its cell so that neighbouring outlines stay apart."""
    inset = 0.46
    across, down = (-inset, inset, inset, -inset, -inset), (-inset, -inset, inset, inset, -inset)
    x = [value for head in heads for value in (*(head.head + step for step in across), None)]
    y = [value for head in heads for value in (*(head.layer + step for step in down), None)]
    return {"x": x, "y": y, "mode": "lines", "line": {"color": style.INK, "width": 2 if cell_width >= READABLE else 1.2}}


def _dots(heads: list[Head], values: np.ndarray, reach: float) -> dict[str, Any]:
    """A dot in the middle of each head's cell, white on dark cells."""
    colours = [style.ink_on(values[head], reach) for head in heads]
    marker = {"size": 4, "color": colours, "line": {"width": 0}}
    return {"x": [head.head for head in heads], "y": [head.layer for head in heads], "mode": "markers", "marker": marker}


def _cell(wanted: float, most: int) -> int:
    return int(min(max(wanted, 14), most))
