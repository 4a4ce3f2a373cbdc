"""What patching does, layer by layer and position by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.figures import style
from interp.figures.figure import Figure
from interp.figures.head_map import head_map
from interp.heads import HeadScores

if TYPE_CHECKING:
    from interp.circuits.activation_patching import PatchGrid


def patch_map(grid: PatchGrid, *, tokens: Sequence[str] | None = None, title: str | None = None) -> Figure:
    """Layer x position map of mean effects, diverging with 0 in the middle; ``tokens`` (one a position) are written beside positions.

    Pointing at a cell tells its effect and the share of the whole swap. Raises ValueError for another number of tokens.
    """
    names = [*grid.positions]
    if tokens is not None and len(tokens) != len(names):
        raise ValueError(f"The grid has {len(names)} positions, and {len(tokens)} tokens were given: give one for each.")
    words = names if tokens is None else [f"{style.token(word)} {name}" for word, name in zip(tokens, names, strict=True)]
    scores = HeadScores(grid.site, grid.effects, grid.unit, (None, None), grid.record)
    ends = (
        ("denoising: 0 = corrupted", "clean") if grid.record.arguments.get("swapped") else ("noising: 0 = clean", "corrupted")
    )
    whole = f"{ends[0]} run, {style.number(grid.gap)} = {ends[1]} run"
    figure: Any = head_map(scores, title=title or f"Effect of patching {grid.site} on {grid.record.metric}", notes=[whole])
    cells: Any = figure.data[0]
    hover = np.empty(grid.effects.shape, dtype=object)
    for (layer, place), effect in np.ndenumerate(grid.effects):
        where = f"<b>layer {layer}, {style.escape_markup(words[place])}</b>"
        hover[layer, place] = (
            f"{where}<br>effect {style.number(effect)} {grid.unit}<br>{effect / grid.gap:.0%} of the whole swap"
        )
    cells.hovertext = hover
    labels = [style.escape_markup(word) for word in words]
    figure.update_xaxes(title_text="position", tickvals=list(range(len(labels))), ticktext=labels)
    needed, layout = int(style.LETTER * max(map(style.display_width, words))), figure.layout
    if needed > (layout.width - layout.margin.l - layout.margin.r) / len(words):
        height = layout.height + needed
        layout.update(
            height=height, margin_b=layout.margin.b + needed, title_y=1 - (1 - layout.title.y) * layout.height / height
        )
        figure.update_xaxes(tickangle=-90)
    return figure
