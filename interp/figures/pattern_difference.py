"""Where one head looks more and where less: a piece of its attention pattern after, minus the same piece before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from interp.figures import style
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
) -> go.Figure:
    """``after - before`` [query key], weights of one head on two texts of as many tokens, diverging with 0 in the middle.

    Where the texts differ, the label shows both tokens, that of ``tokens_before`` first. The rest is as in ``pattern_heatmap``. Raises
    ValueError for tiles or texts of different sizes, and as ``pattern_heatmap``.
    """
    if after.shape != before.shape or len(tokens) != len(tokens_before):
        raise ValueError(
            f"Patterns are compared cell by cell, and these are of {len(tokens_before):,} and {len(tokens):,} tokens: compare texts of as "
            f"many tokens."
        )
    pairs = zip(map(style.token, tokens_before), map(style.token, tokens), strict=True)
    words = [new if old == new else f"{style.token(old, 8)}│{style.token(new, 7)}" for old, new in pairs]
    place = {"first_query": first_query, "first_key": first_key, "causal": causal}
    figure = pattern_heatmap(after, words, head, record, **place, title=title or f"Change of attention of {head}")
    cells: Any = figure.data[0]
    seen = ~np.isnan(np.asarray(cells.z, dtype=float))
    change = np.where(seen, after - before, np.nan)
    hover: Any = np.array(cells.hovertext, dtype=object)
    for at in map(tuple, np.argwhere(seen)):
        pair, _ = hover[at].split("<br>", 1)
        weights = f"{style.number(float(after[at]))} after, {style.number(float(before[at]))} before"
        hover[at] = f"{pair}<br>{weights}<br>change {style.number(float(change[at]))}"
    reach = style.largest(change)
    cells.update(
        z=change,
        zmin=-reach,
        zmax=reach,
        colorscale=style.scale(style.DIVERGING),
        colorbar=style.colour_bar("change of weight"),
        hovertext=hover,
    )
    return figure
