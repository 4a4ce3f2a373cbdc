"""Effects of activation patching by layer and position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.circuits.activation_patching import PatchGrid
from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.head_map import head_map
from interp.heads import HeadScores


def patch_map(grid: PatchGrid, *, tokens: Sequence[str] | None = None, title: str | None = None) -> Figure:
    """Layer x position map of mean effects, diverging around 0; ``tokens`` (one per position) label the positions.

    A cell's hover text gives its effect and its share of the total effect. Raises ValueError for another number of tokens.
    """
    names = [*grid.positions]
    if tokens is not None and len(tokens) != len(names):
        raise ValueError(f"The grid has {len(names)} positions, and {len(tokens)} tokens were given: give one per position.")
    texts = names if tokens is None else [f"{style.token(text)} {name}" for text, name in zip(tokens, names, strict=True)]
    scores = HeadScores(grid.site, grid.effects, grid.unit, (None, None), grid.record)
    swapped = grid.record.arguments.get("swapped")
    zero, one = ("denoising: 0 = corrupted", "clean") if swapped else ("noising: 0 = clean", "corrupted")
    note = f"{zero} run, {style.number(grid.gap)} = {one} run"
    figure: Any = head_map(scores, title=title or f"Effect of patching {grid.site} on {grid.record.metric}", notes=[note])
    labels = [style.escape_markup(text) for text in texts]
    hover = np.empty(grid.effects.shape, dtype=object)
    for (layer, place), effect in np.ndenumerate(grid.effects):
        shown = f"effect {style.number(effect)} {grid.unit}<br>{effect / grid.gap:.0%} of the total effect"
        hover[layer, place] = f"<b>layer {layer}, {labels[place]}</b><br>{shown}"
    figure.data[0].hovertext = hover
    figure.update_xaxes(title_text="position", tickvals=list(range(len(labels))), ticktext=labels)
    needed, layout = int(style.LETTER * max(map(style.display_width, texts))), figure.layout
    if needed > (layout.width - layout.margin.l - layout.margin.r) / len(texts):
        height = layout.height + needed
        title_y = 1 - (1 - layout.title.y) * layout.height / height
        layout.update(height=height, margin_b=layout.margin.b + needed, title_y=title_y)
        figure.update_xaxes(tickangle=-90)
    return figure
