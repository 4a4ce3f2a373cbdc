"""The largest weights of every attention row, a compact form for drawing patterns.

Each row keeps its 8 largest weights of at least 0.005, Neuronpedia's choice for HeadVis. Weights that are not kept are
smaller, not 0: compute scores from the rows (``observe_attention``), not from here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp._short_repr import short_repr
from interp.engine.attention.attention_rows import BLOCK, AttentionRows
from interp.engine.attention.qk_cache import AttentionCache
from interp.models.memory import check_budget

KEYS_PER_ROW = 8
MIN_WEIGHT = 0.005


@short_repr
@dataclass(frozen=True, eq=False)
class SparsePattern:
    """The largest weights of one head on one text; cell ``q * len(tokens) + k`` holds the weight from query ``q`` to key ``k``.
    ``cells`` are distinct. ``peak`` is the largest weight outside the first row and column, where sinks are, or 0."""

    tokens: tuple[str, ...]
    cells: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    peak: float

    def tile(
        self, queries: slice = slice(None), keys: slice = slice(None), *, memory: int | None = None
    ) -> Float[np.ndarray, "some_queries some_keys"]:
        """The weights of some queries and keys, [query key], 0 where none was kept. Raises IndexError for an empty tile,
        MemoryBudgetExceeded beyond ``memory`` (bytes; default: available memory)."""
        length = len(self.tokens)
        place, size = np.full((2, length), -1), [len(range(length)[part]) for part in (queries, keys)]
        for own, part, n in zip(place, (queries, keys), size, strict=True):
            own[part] = np.arange(n)
        if 0 in size:
            raise IndexError(f"This tile of a text of {length} tokens is empty.")
        check_budget(4 * size[0] * size[1], memory, f"A tile of {size[0]} x {size[1]} weights")
        dense = np.zeros(size, np.float32)
        query, key = place[0][self.cells // length], place[1][self.cells % length]
        inside = (query >= 0) & (key >= 0)
        dense[query[inside], key[inside]] = self.weights[inside]
        return dense


def sparse_patterns(attention: AttentionCache, layer: int, *, block: int = BLOCK) -> list[list[SparsePattern]]:
    """The largest weights of every head of a layer on every text, ``[head][example]``, cells in order. Positions count from the
    first token of each text, without padding; full patterns are never formed."""
    prompts, call = attention.prompts, attention.calls[layer]
    shape = (*call.q.shape[:3], KEYS_PER_ROW)
    weights, columns = torch.zeros(shape), torch.zeros(shape, dtype=torch.int32)

    def read(rows: AttentionRows) -> None:
        top = rows.pattern.topk(min(KEYS_PER_ROW, rows.pattern.shape[-1]), sorted=False)
        place = (slice(None), rows.heads, rows.queries, slice(top.values.shape[-1]))
        weights[place], columns[place] = top.values, (top.indices + rows.keys.start).int()

    attention.read(layer, read, block=block)
    texts = [np.flatnonzero(token_mask) for token_mask in prompts.token_mask.cpu().numpy()]
    tokens = [words[own[0] : own[-1] + 1] for words, own in zip(attention.words, texts, strict=True)]

    def sparse(head: int, text: int) -> SparsePattern:
        own = texts[text]
        return _sparse(tokens[text], weights[text, head, own].numpy(), columns[text, head, own].numpy() - own[0])

    return [[sparse(head, text) for text in range(len(texts))] for head in range(shape[1])]


def _sparse(tokens: tuple[str, ...], weights: np.ndarray, keys: np.ndarray) -> SparsePattern:
    """The largest weights of a pattern from those of its rows and their keys, [query some]."""
    queries = np.arange(len(tokens), dtype=np.int64)[:, None]
    peak = weights.max(initial=0.0, where=(queries > 0) & (keys > 0))
    kept = weights >= MIN_WEIGHT
    cells = (queries * len(tokens) + keys)[kept]
    order = np.argsort(cells)
    return SparsePattern(tokens, cells[order], weights[kept][order], float(peak))
