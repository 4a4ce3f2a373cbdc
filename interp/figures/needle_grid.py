"""Recall of the needle by text length (columns) and needle depth (rows)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from interp.figures import style
from interp.figures.head_map import READABLE
from interp.figures.portable_figure import Figure

if TYPE_CHECKING:
    import pandas as pd

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
    rows: list[Any] = list(cells.itertuples())
    for row in rows:
        at = depths.index(row.depth), lengths.index(row.length)
        recall[at] = row.recall
        title_of_cell = f"needle at {row.depth:.0f}% of {row.length:,} tokens"
        hover[at] = f"<b>{title_of_cell}</b><br>recall {style.number(row.recall)}<br>{row.accepted} of {row.n} trials answered"
    width, height = (min(LARGEST_CELL, max(14, size // n)) for size, n in zip((WIDTH, HEIGHT), recall.shape[::-1], strict=True))
    trials, answered = (sum(getattr(row, name) for row in rows) for name in ("n", "accepted"))
    caption = [
        record.caption(),
        f"{answered:,} of {trials:,} trials answered" + ("; grey: not measured" if np.isnan(recall).any() else ""),
    ]
    size = width * len(lengths), height * len(depths)
    figure = style.canvas(*size, title or "Recall by length and depth of the needle", caption)
    figure.update_layout(plot_bgcolor=style.EMPTY)
    figure.add_heatmap(
        z=recall,
        x=list(range(len(lengths))),
        y=list(range(len(depths))),
        zmin=0,
        zmax=1,
        colorscale=style.scale(style.SEQUENTIAL),
        colorbar=style.colour_bar("recall"),
        hovertext=hover,
        hoverinfo="text",
        xgap=1,
        ygap=1,
        **(style.cell_text(recall) if width >= READABLE else {}),
    )
    across, down = style.ticks(len(lengths)), style.ticks(len(depths))
    room = max(1, -(-6 * len(f"{lengths[-1]:,}") // width))  # labels are wider than small cells
    across = across[::room]
    figure.update_xaxes(title_text="length in tokens", tickvals=across, ticktext=[f"{lengths[i]:,}" for i in across])
    figure.update_yaxes(title_text="depth of the needle", tickvals=down, ticktext=[f"{depths[i]:.0f}%" for i in down])
    figure.update_xaxes(range=[-0.5, len(lengths) - 0.5])
    figure.update_yaxes(range=[len(depths) - 0.5, -0.5])
    return figure
