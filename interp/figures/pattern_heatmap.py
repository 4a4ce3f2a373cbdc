"""A tile of one head's attention pattern: queries down, keys across, labelled with their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
    end_query: int | None = None,
    end_key: int | None = None,
    causal: bool = True,
    gamma: float = 1.0,
    top: float | None = None,
    label: str = "weight",
    title: str | None = None,
    note: str = "",
) -> Figure:
    """Heat map of the weights [query key] of one head on one text; row 0 is the query at ``first_query`` of ``tokens``, column 0 the key at
    ``first_key``.

    Every position has its own row and column, also where tokens repeat. Given ``end_query`` and ``end_key`` (excluded), more positions than
    rows or columns share them: row ``i * rows // queries`` holds the largest weights of the bin of query i, as in ``tile_data``.
    ``causal``: keys after their query are grey. A weight w has the colour at ``(w / top) ** gamma`` of the scale; ``top`` is the largest
    weight by default. ``label`` names the weights. ``record`` gives the caption, or is it; ``note`` is added to it. Raises
    ValueError for a tile outside the text or of more than 256 rows or columns.
    """
    n_rows, n_columns = weights.shape
    queries = _bins(first_query, first_query + n_rows if end_query is None else end_query, n_rows)
    keys = _bins(first_key, first_key + n_columns if end_key is None else end_key, n_columns)
    if not 0 < n_rows <= MAX_SIDE or not 0 < n_columns <= MAX_SIDE:
        raise ValueError(
            f"A pattern heat map holds 1 to {MAX_SIDE} queries and keys, not {n_rows} x {n_columns}: choose a smaller tile."
        )
    if max(queries[-1].stop, keys[-1].stop) > len(tokens):
        raise ValueError(
            f"The tile of queries {first_query}-{queries[-1].stop - 1} and keys {first_key}-{keys[-1].stop - 1} is outside the text of "
            f"{len(tokens)} tokens."
        )
    if not all((*queries, *keys)):
        found = f"queries {first_query}-{queries[-1].stop - 1} and keys {first_key}-{keys[-1].stop - 1}"
        raise ValueError(
            f"A tile of {n_rows} x {n_columns} weights does not fit {found}: it has more rows or columns than they have tokens."
        )
    words = [style.token(token) for token in tokens]
    masked = np.array([[causal and key.start > query.stop - 1 for key in keys] for query in queries])
    shown = np.where(masked, np.nan, weights)
    cell = int(np.clip(620 / max(n_rows, n_columns), 3, 28))
    longest = max(len(part) for part in (*queries, *keys))
    caption = [
        f"{head} · {record if isinstance(record, str) else record.caption()}",
        " · ".join([*_notes(gamma, longest, bool(masked.any())), *filter(None, [note])]),
    ]
    margins = {
        "left": _room([words[part.start] for part in queries]) + 24,
        "bottom": _room([words[part.start] for part in keys]) + 34,
    }
    size = max(cell * n_columns, 240), max(cell * n_rows, 60)
    figure = style.canvas(size, title or f"Attention of {head}", caption, **margins)
    rows = zip(queries, shown.tolist(), strict=True)
    hover = [[_hover_text(words, q, k, weight, label) for k, weight in zip(keys, row, strict=True)] for q, row in rows]
    colours = 0.0, style.max_abs(shown) if top is None else top, style.SEQUENTIAL
    style.add_cells(figure, shown, hover, colours, label, origin=(first_query, first_key), gap=int(cell > 8), gamma=gamma)
    figure.update_xaxes(title_text="key", **_labels(keys, words), tickangle=-90)
    figure.update_yaxes(title_text="query", **_labels(queries, words))
    return figure


def _bins(start: int, end: int, n: int) -> list[range]:
    """``n`` ranges of positions from ``start`` to ``end``: position p is in range ``(p - start) * n // (end - start)``."""
    edges = [start - (-i * (end - start) // max(n, 1)) for i in range(n + 1)]
    return [range(*pair) for pair in pairwise(edges)]


def _notes(gamma: float, longest: int, masked: bool) -> list[str]:
    """What the caption says of colours and cells."""
    return [
        *([f"colour: γ = {gamma:g}"] if gamma != 1 else []),
        *([f"cells: largest of up to {longest} × {longest} tokens"] if longest > 1 else []),
        *(["grey: masked (keys after the query)"] if masked else []),
    ]


def _hover_text(words: list[str], query: range, key: range, weight: float, label: str) -> str:
    query_name, key_name = (
        f"<b>{style.escape_markup(words[part.start])}</b> at {part.start}" + (f"-{part.stop - 1}" if len(part) > 1 else "")
        for part in (query, key)
    )
    return f"{query_name} → {key_name}<br>{'masked' if np.isnan(weight) else f'{label} {style.number(weight)}'}"


def _labels(parts: list[range], words: list[str]) -> dict[str, Any]:
    """A tick with its token at every row or column, or at every second, third ... in a large tile."""
    at = range(0, len(parts), -(-len(parts) // LABELS))
    texts = [style.escape_markup(words[parts[i].start]) for i in at]
    return {"tickvals": [parts[0].start + i for i in at], "ticktext": texts}


def _room(words: list[str]) -> int:
    """Width in pixels of the longest of these labels."""
    return 16 + int(style.CHARACTER * max(style.display_width(word) for word in words))
