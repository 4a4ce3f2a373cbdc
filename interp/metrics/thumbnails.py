"""Thumbnails of every head's attention pattern, max-pooled over bins of positions.

The maximum, not the mean: a head with sharp attention must stay visible, and a mean over a bin of n keys turns 1 into 1/n. A
bin can therefore look darker than the pattern is on average, and the sum over a row of bins has no meaning.
"""

from functools import partial, reduce
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from interp.engine.attention.attention_rows import BLOCK, AttentionRows
from interp.engine.attention.qk_cache import AttentionCache
from interp.heads import Head

NARROW = 8
"""Rows of a part that are compared one by one."""


def thumbnails(
    cache: AttentionCache, size: int = 48, *, example: int = 0
) -> Float[np.ndarray, "n_layers n_heads query_bin key_bin"]:
    """The largest weight in each bin of positions for every head on one text, [n_layers n_heads side side], float32, 0 to 1.
    ``side`` is ``size``, or the number T of the text's own tokens if smaller, without pooling. Position i is in bin ``i * side
    // T``; padding is in none. Raises ValueError for a size below 1, LookupError for an example that does not exist."""
    alone, edges = _binned(cache, size, example)
    side = len(edges) - 1
    pooled = np.zeros((len(alone.calls), alone.calls[0].q.shape[1], side, side), np.float32)
    for layer, thumbs in enumerate(pooled):
        alone.read(layer, partial(_pool, thumbs, edges))
    return pooled


def overview(
    cache: AttentionCache,
    head: Head,
    size: int = 256,
    *,
    example: int = 0,
    scale: Float[np.ndarray, " key"] | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> Float[np.ndarray, "query_bin key_bin"]:
    """The largest weight in each bin of positions for one head, float32. ``scale``, one number per token of the text,
    multiplies the weights of that key first. ``window`` (first query, end, first key, end) is the part of the text that is
    divided, by default all of it. Bins and errors as in ``thumbnails``."""
    alone, _, length = _one_text(cache, size, example)
    q0, q1, k0, k1 = window or (0, length, 0, length)
    down, across = _edges(q0, q1 - q0, size), _edges(k0, k1 - k0, size)
    keys, step = slice(across[0], across[-1]), max(1, BLOCK // length)  # complete rows are computed first
    factor = 1 if scale is None else scale[k0:k1]
    pooled = np.zeros((len(down) - 1, len(across) - 1), np.float32)
    for start in range(down[0], down[-1], step):
        queries = slice(start, min(start + step, down[-1]))
        rows = alone.pattern(head, queries, keys).numpy() * factor
        (within, parts), (_, columns) = _within(down, queries), _within(across, keys)
        np.maximum(pooled[within], _largest(_largest(rows, parts), columns), out=pooled[within])
    return pooled


def _binned(cache: AttentionCache, size: int, example: int) -> tuple[AttentionCache, list[int]]:
    """The cache of one text, and the columns where its bins start, followed by the end of the last."""
    alone, first, length = _one_text(cache, size, example)
    return alone, _edges(first, length, size)


def _edges(first: int, length: int, size: int) -> list[int]:
    side = min(size, length)
    return [first - (-b * length // side) for b in range(side + 1)]


def _one_text(cache: AttentionCache, size: int, example: int) -> tuple[AttentionCache, int, int]:
    """The cache of one text, its first column, and its length."""
    if size < 1:
        raise ValueError(f"size={size} is too small: use at least 1 bin per side of a thumbnail.")
    alone = cache.one(example)
    return alone, int(alone.prompts.token_mask[0].int().argmax()), int(alone.prompts.token_mask.sum())


def _pool(thumbs: np.ndarray, edges: list[int], rows: AttentionRows) -> None:
    """Max-pools a block into ``thumbs`` [head side side]; bin b covers the columns from edge b to edge b + 1."""
    (down, queries), (across, keys) = _within(edges, rows.queries), _within(edges, rows.keys)
    if queries and keys:
        here = thumbs[rows.heads, down, across]
        np.maximum(here, _largest(_largest(rows.pattern[0].numpy(), queries), keys), out=here)


def _within(edges: list[int], columns: slice) -> tuple[slice, list[tuple[int, int]]]:
    """The bins that overlap ``columns``, and the range of each, counted within ``columns``."""
    cut = [min(max(edge, columns.start), columns.stop) - columns.start for edge in edges]
    some = [b for b, (start, stop) in enumerate(pairwise(cut)) if start < stop]
    return slice(some[0], some[-1] + 1) if some else slice(0, 0), [(cut[b], cut[b + 1]) for b in some]


def _largest(weights: np.ndarray, parts: list[tuple[int, int]]) -> np.ndarray:
    """The largest of each part of the rows, [... row column] -> [... column part]. In numpy, because torch's overhead exceeds
    the work; narrow parts all at once, row by row of each, because a call for each exceeds it too."""
    starts, stops = np.array(parts).T
    widest = int((stops - starts).max())
    if widest > NARROW:
        return np.stack([weights[..., start:stop, :].max(-2) for start, stop in parts], -1)
    rows = (weights.take(np.minimum(starts + i, stops - 1), -2) for i in range(widest))
    return np.ascontiguousarray(reduce(np.maximum, rows).swapaxes(-1, -2))
