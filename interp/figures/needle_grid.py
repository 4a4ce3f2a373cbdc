"""Recall of the needle by text length (columns) and needle depth (rows)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.head_map import READABLE
from interp.records import RunRecord

WIDTH, HEIGHT = 560, 340
LARGEST_CELL = 96


def needle_grid(cells: pd.DataFrame, record: RunRecord, *, title: str | None = None) -> Figure:
    """Recall of the answer, 0 to 1, in every cell of a grid of lengths and depths; depth 0 (the start) is at the top.

    ``cells`` has one row per cell: ``length`` (tokens), ``depth`` (percent), ``n`` trials of which ``accepted`` were
    answered, ``recall``. Cells that were not measured are grey. ``record`` captions the figure.
    """
    lengths, depths = sorted({*cells["length"]}), sorted({*cells["depth"]})
    recall = np.full((len(depths), len(lengths)), np.nan)
    hover = np.full(recall.shape, "not measured", dtype=object)
    row: Any
    for row in cells.itertuples():
        at = depths.index(row.depth), lengths.index(row.length)
        recall[at] = row.recall
        where = f"<b>needle at {row.depth:.0f}% of {row.length:,} tokens</b>"
        hover[at] = f"{where}<br>recall {style.number(row.recall)}<br>{row.accepted} of {row.n} trials answered"
    width, height = (min(LARGEST_CELL, max(14, size // n)) for size, n in zip((WIDTH, HEIGHT), recall.shape[::-1], strict=True))
    answered = f"{cells['accepted'].sum():,} of {cells['n'].sum():,} trials answered"
    caption = [record.caption(), answered + ("; grey: not measured" if np.isnan(recall).any() else "")]
    size = width * len(lengths), height * len(depths)
    figure = style.canvas(size, title or "Recall by length and depth of the needle", caption)
    style.add_cells(figure, recall, hover, (0.0, 1.0, style.SEQUENTIAL), "recall", numbers=width >= READABLE)
    room = max(1, -(-6 * len(f"{lengths[-1]:,}") // width))  # labels are wider than small cells
    across, down = style.ticks(len(lengths))[::room], style.ticks(len(depths))
    figure.update_xaxes(title_text="length in tokens", tickvals=across, ticktext=[f"{lengths[i]:,}" for i in across])
    figure.update_yaxes(title_text="depth of the needle", tickvals=down, ticktext=[f"{depths[i]:.0f}%" for i in down])
    return figure
