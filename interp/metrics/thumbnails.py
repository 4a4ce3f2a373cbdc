"""Small pictures of every head's pattern: bins of positions instead of positions, each with its largest weight.

The largest and not the mean: a head that looks at one token hard must be seen, and a mean over a bin of n keys makes 1 into 1/n. A bin
can therefore look darker than a row of the pattern is on the whole; the sum over a row of bins means nothing.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from interp.engine.attention.attention_rows import BLOCK

if TYPE_CHECKING:
    from interp.engine.attention.attention_rows import AttentionRows
    from interp.engine.attention.qk_cache import AttentionCache
    from interp.heads import Head


def thumbnails(
    cache: AttentionCache, size: int = 48, *, example: int = 0
) -> Float[np.ndarray, "n_layers n_heads query_bin key_bin"]:
    """The largest weight in each bin of positions, of every head on one text, [n_layers n_heads side side] in float32 and 0..1.

    ``side`` is ``size``, or the number T of the text's own tokens where that is smaller: then nothing is pooled. Position i is in bin
    ``i * side // T``; padding is in none. Rows are made a block at a time, and no pattern is kept. Raises ValueError for a size below
    1, LookupError for an example that is not there.
    """
    alone, edges = _binned(cache, size, example)
    side = len(edges) - 1
    found = np.zeros((len(alone.calls), alone.calls[0].q.shape[1], side, side), np.float32)
    for layer, thumbs in enumerate(found):
        alone.read(layer, partial(_pool, thumbs, edges))
    return found


def overview(
    cache: AttentionCache,
    head: Head,
    size: int = 256,
    *,
    example: int = 0,
    scale: Float[np.ndarray, " key"] | None = None,
) -> Float[np.ndarray, "query_bin key_bin"]:
    """One head's thumbnail, larger: the largest weight in each bin of positions, [side side] in float32.

    With ``scale``, one number for each of the text's own tokens, of weight times the number of the key. Bins and errors are those of
    ``thumbnails``.
    """
    alone, edges = _binned(cache, size, example)
    found = np.zeros((len(edges) - 1, len(edges) - 1), np.float32)
    step = max(1, BLOCK // (edges[-1] - edges[0]))
    for start in range(edges[0], edges[-1], step):
        queries = slice(start, min(start + step, edges[-1]))
        rows = alone.pattern(head, queries, slice(edges[0], edges[-1])).numpy()
        rows = rows if scale is None else rows * scale
        (down, parts), (_, keys) = _within(edges, queries), _within(edges, slice(edges[0], edges[-1]))
        np.maximum(found[down], _largest(_largest(rows, parts), keys), out=found[down])
    return found


def _binned(cache: AttentionCache, size: int, example: int) -> tuple[AttentionCache, list[int]]:
    """The cache of one text, and the first column of each of its bins, with the end of the last."""
    if size < 1:
        raise ValueError(f"size={size} is the number of bins along a side of a thumbnail: take 1 or more.")
    alone = cache.one(example)
    first, length = int(alone.prompts.token_mask[0].int().argmax()), int(alone.prompts.token_mask.sum())
    side = min(size, length)
    return alone, [first - (-b * length // side) for b in range(side + 1)]


def _pool(thumbs: np.ndarray, edges: list[int], rows: AttentionRows) -> None:
    """Raises the bins of ``thumbs`` [head side side] to the weights of a block; bin b has the columns from edge b to edge b + 1."""
    (down, queries), (across, keys) = _within(edges, rows.queries), _within(edges, rows.keys)
    if queries and keys:
        here = thumbs[rows.heads, down, across]
        np.maximum(here, _largest(_largest(rows.pattern[0].numpy(), queries), keys), out=here)


def _within(edges: list[int], columns: slice) -> tuple[slice, list[tuple[int, int]]]:
    """The bins that have some of these columns, and from where to where each has them, counted within ``columns``."""
    cut = [min(max(edge, columns.start), columns.stop) - columns.start for edge in edges]
    some = [b for b, (start, stop) in enumerate(pairwise(cut)) if start < stop]
    return slice(some[0], some[-1] + 1) if some else slice(0, 0), [(cut[b], cut[b + 1]) for b in some]


def _largest(weights: np.ndarray, parts: list[tuple[int, int]]) -> np.ndarray:
    """The largest of each part of the rows, [... row column] -> [... column part].

    By numpy, since torch takes longer to begin than to do this.
    """
    return np.stack([weights[..., start:stop, :].max(-2) for start, stop in parts], -1)
