"""Layers x heads as a heat map: layer on y with 0 at the top, head on x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.ablation.effect_tables import sign_meaning
from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.heads import Head, HeadScores

READABLE = 44  # cells at least this wide, in pixels, show their number
ROOMY = 30  # marked cells at least this large are outlined, smaller ones get a dot: outlines would fill the map
EDGE = 5  # pixels from the edge of a cell with a number to its dot
MARKED = "interval farther from 0 than that of the other heads' mean, q\u00a0≤\u00a00.05"


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
    heads, mark = None if marked is None else list(marked), ""
    if isinstance(data, HeadScores):
        values, bounds, unit = data.values, data.bounds, data.unit
        hover = np.full(values.shape, style.escape_markup(data.nan_reason or "not measured"), dtype=object)
        for head in data.top(values.size):
            hover[head] = style.score_lines(data, head)
        usual, origin = data.name, data.record.caption()
        notes = [*notes, *([sign_meaning(data.record.metric)] if data.name.startswith("effect") else [])]
        why = f": {data.nan_reason}" if data.nan_reason else ""
    else:
        rows: list[Any] = [row for row in data.itertuples() if getattr(row, "layer2", -1) < 0]
        size = tuple(shape) if shape else (max(row.layer for row in rows) + 1, max(row.head for row in rows) + 1)
        values, hover = np.full(size, np.nan), np.full(size, "not measured", dtype=object)
        for row in rows:
            values[row.layer, row.head], hover[row.layer, row.head] = row.effect, style.hover_lines(row)
        if heads is None:
            heads, mark = [Head(row.layer, row.head) for row in rows if row.exceeds_control], MARKED
        bounds, unit, metric = (None, None), f"effect ({rows[0].unit})", str(rows[0].metric)
        usual, origin = f"Effect of each head on {metric}", style.caption_of(rows[0])
        notes, why = [*notes, sign_meaning(metric)], ""
    n_layers, n_heads = values.shape
    cell_width, cell_height = _cell(440 / n_heads, 96), _cell(440 / n_layers, 46)
    roomy = min(cell_width, cell_height) >= ROOMY
    if heads and mark:
        notes = [*notes, f"{'outlined' if roomy else 'dotted'}: {mark}"]
    if absent := int(np.isnan(values).sum()):
        notes = [*notes, f"grey: {absent:,} of {values.size:,} heads have no number{why}"]
    plot = cell_width * n_heads, cell_height * n_layers
    figure = style.canvas(plot, title or usual, [caption or origin, "; ".join(notes)])
    colours = style.colour_range(values, bounds)
    numbers = cell_width >= READABLE
    style.add_cells(figure, values, hover, colours, unit, numbers=numbers)
    if heads:
        beside = EDGE / cell_width - 0.5 if numbers else 0.0
        marks = _outlines(heads, cell_width) if roomy else _dots(heads, values, colours[1], beside)
        figure.add_scatter(**marks, hoverinfo="skip")
    figure.update_xaxes(title_text="head", tickvals=style.ticks(n_heads))
    figure.update_yaxes(title_text="layer", tickvals=style.ticks(n_layers))
    return figure


def _outlines(heads: list[Head], cell_width: int) -> dict[str, Any]:
    """One closed path around each head, slightly inside its cell so that neighbouring outlines stay apart."""
    inset = 0.46
    across, down = (-inset, inset, inset, -inset, -inset), (-inset, -inset, inset, inset, -inset)
    x = [value for head in heads for value in (*(head.head + step for step in across), None)]
    y = [value for head in heads for value in (*(head.layer + step for step in down), None)]
    return {"x": x, "y": y, "mode": "lines", "line": {"color": style.INK, "width": 2 if cell_width >= READABLE else 1.2}}


def _dots(heads: list[Head], values: np.ndarray, reach: float, across: float) -> dict[str, Any]:
    """A dot in each head's cell, ``across`` cells beside its middle, white on dark cells."""
    colours = [style.ink_on(values[head], reach) for head in heads]
    marker = {"size": 4, "color": colours, "line": {"width": 0}}
    return {
        "x": [head.head + across for head in heads],
        "y": [head.layer for head in heads],
        "mode": "markers",
        "marker": marker,
    }


def _cell(wanted: float, most: int) -> int:
    return int(min(max(wanted, 14), most))
