"""A tile of one head's attention pattern: queries down, keys across, labelled with their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.heads import Head
from interp.records import RunRecord

MAX_SIDE = 256  # queries or keys of one figure
LABELS = 48  # most tokens printed along a side


def pattern_heatmap(
    weights: np.ndarray,
    tokens: Sequence[str],
    head: Head,
    record: RunRecord | str,
    *,
    first_query: int = 0,
    first_key: int = 0,
    causal: bool = True,
    title: str | None = None,
) -> Figure:
    """Heat map of the weights [query key] of one head on one text; row 0 is the query at ``first_query`` of ``tokens``, column 0 the key at
    ``first_key``.

    Every position has its own row and column, also where tokens repeat. ``causal``: keys after their query are grey. ``record`` gives
    the caption, or is it. Raises ValueError for a tile outside the text or of more than 256 queries or keys.
    """
    n_queries, n_keys = weights.shape
    if max(first_query + n_queries, first_key + n_keys) > len(tokens):
        raise ValueError(
            f"The tile of queries {first_query}-{first_query + n_queries - 1} and keys {first_key}-{first_key + n_keys - 1} is outside the "
            f"text of {len(tokens)} tokens."
        )
    if not 0 < n_queries <= MAX_SIDE or not 0 < n_keys <= MAX_SIDE:
        raise ValueError(
            f"A pattern heat map holds 1 to {MAX_SIDE} queries and keys, not {n_queries} x {n_keys}: choose a smaller tile."
        )
    queries, keys = list(range(first_query, first_query + n_queries)), list(range(first_key, first_key + n_keys))
    words = [style.token(token) for token in tokens]
    shown = np.where(np.greater(keys, np.array(queries)[:, None]), np.nan, weights) if causal else weights
    cell = int(np.clip(620 / max(n_queries, n_keys), 3, 28))
    caption = [
        f"{head} · {record if isinstance(record, str) else record.caption()}",
        "grey: masked (keys after the query)" if np.isnan(shown).any() else "",
    ]
    margins = {"left": _room([words[i] for i in queries]) + 24, "bottom": _room([words[i] for i in keys]) + 34}
    size = max(cell * n_keys, 240), max(cell * n_queries, 60)
    figure = style.canvas(size, title or f"Attention of {head}", caption, **margins)
    rows = zip(queries, shown.tolist(), strict=True)
    hover = [[_hover_text(words, q, k, weight) for k, weight in zip(keys, row, strict=True)] for q, row in rows]
    colours = 0.0, style.max_abs(shown), style.SEQUENTIAL
    style.add_cells(figure, shown, hover, colours, "weight", origin=(first_query, first_key), gap=int(cell > 8))
    figure.update_xaxes(title_text="key", **_labels(keys, words), tickangle=-90)
    figure.update_yaxes(title_text="query", **_labels(queries, words))
    return figure


def _hover_text(words: list[str], query: int, key: int, weight: float) -> str:
    pair = f"<b>{style.escape_markup(words[query])}</b> at {query} → <b>{style.escape_markup(words[key])}</b> at {key}"
    return f"{pair}<br>{'masked' if np.isnan(weight) else f'weight {style.number(weight)}'}"


def _labels(positions: list[int], words: list[str]) -> dict[str, Any]:
    """A tick with its token at every position, or at every second, third ... in a large tile."""
    at = positions[:: -(-len(positions) // LABELS)]
    return {"tickvals": at, "ticktext": [style.escape_markup(words[i]) for i in at]}


def _room(words: list[str]) -> int:
    """Width in pixels of the longest of these labels."""
    return 16 + int(style.CHARACTER * max(style.display_width(word) for word in words))
