"""Change of one head's attention: a tile of its pattern after, minus the same tile before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.figures.pattern_heatmap import pattern_heatmap
from interp.heads import Head
from interp.records import RunRecord


def pattern_difference(
    after: np.ndarray,
    before: np.ndarray,
    tokens: Sequence[str],
    tokens_before: Sequence[str],
    head: Head,
    record: RunRecord,
    *,
    first_query: int = 0,
    first_key: int = 0,
    causal: bool = True,
    title: str | None = None,
) -> Figure:
    """Heat map of ``after - before`` [query key], weights of one head on two texts of equal length, diverging around 0.

    Where the texts differ, the label shows both tokens, that of ``tokens_before`` first. Other arguments as in ``pattern_heatmap``.
    Raises ValueError for tiles or texts of different lengths, and as ``pattern_heatmap``.
    """
    if after.shape != before.shape or len(tokens) != len(tokens_before):
        raise ValueError(
            f"Patterns are compared cell by cell, and these texts have {len(tokens_before):,} and {len(tokens):,} tokens: compare texts of "
            f"equal length."
        )
    pairs = zip(map(style.token, tokens_before), map(style.token, tokens), strict=True)
    words = [new if old == new else f"{style.token(old, 8)}│{style.token(new, 7)}" for old, new in pairs]
    note = "" if words == [*map(style.token, tokens)] else "a│b: tokens of the first and the second text"
    offsets: Any = {"first_query": first_query, "first_key": first_key, "causal": causal, "note": note}
    figure = pattern_heatmap(after, words, head, record, **offsets, title=title or f"Change of the attention of {head}")
    heatmap: Any = figure.data[0]
    visible = ~np.isnan(np.asarray(heatmap.z, dtype=float))
    change = np.where(visible, after - before, np.nan)
    hover: Any = np.array(heatmap.hovertext, dtype=object)
    for at in map(tuple, np.argwhere(visible)):
        pair, _ = hover[at].split("<br>", 1)
        weights = f"{style.number(float(after[at]))} after, {style.number(float(before[at]))} before"
        hover[at] = f"{pair}<br>{weights}<br>change {style.number(float(change[at]))}"
    reach = style.max_abs(change)
    heatmap.update(
        z=change,
        zmin=-reach,
        zmax=reach,
        colorscale=style.scale(style.DIVERGING),
        colorbar=style.colour_bar("change of weight"),
        hovertext=hover,
    )
    return figure
