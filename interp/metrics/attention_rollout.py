"""Attention rollout, the share of each input token in a later token if heads only mixed tokens and blocks did nothing else.

In each layer the weights of the chosen heads are averaged, a share of each token bypasses attention (the residual stream),
and the layers are multiplied. Row t of the product is a distribution over the tokens of the text. It is computed from the top
layer down as one vector, ``r <- residual * r + (1 - residual) * r A_l``, so memory grows with the length of the text only.

In a causal model mass drifts to early tokens with every layer, whatever the heads do: compare with ``uniform_maps``. Values and
MLPs are ignored, so rollout is no evidence of what the model uses. Abnar and Zuidema 2020, arXiv 2005.00928.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.qk_cache import AttentionCache
from interp.heads import Head, TokenScores

RolloutStep = Callable[[Tensor], Tensor]
"""A layer's attention applied to weights of queries, ``r A``: [batch n query] -> [batch n key]."""


def rollout(
    maps: Sequence[RolloutStep], start: Float[Tensor, "batch n key"], residual: float = 0.5
) -> Float[Tensor, "batch n key"]:
    """The weights ``start`` of queries above the last layer, propagated down through ``maps`` (lowest first), [batch n key].
    ``residual`` is the share that bypasses attention. Raises ValueError for other shares and rows that do not sum to 1."""
    if not 0 <= residual <= 1:
        raise ValueError(f"residual={residual:g} is not a share: use 0 to 1.")
    weights = start
    for layer, through in reversed(list(enumerate(maps))):
        mixed = through(weights)
        lost = float((mixed.sum(-1) - weights.sum(-1)).abs().max())
        if lost > 1e-3:
            sums = f"Attention rows of layer {layer} do not sum to 1 (off by {lost:.2g})"
            raise ValueError(f"{sums}: rollout needs complete rows.")
        weights = residual * weights + (1 - residual) * mixed
    return weights


def pattern_maps(
    patterns: Sequence[Float[Tensor, "batch head query key"]], heads: Sequence[Head] | None = None
) -> list[RolloutStep]:
    """One map per layer from full patterns, averaged over ``heads`` (default all); layers without any of them are skipped.
    Raises LookupError for a head that does not exist."""
    chosen = _by_layer(heads, [pattern.shape[1] for pattern in patterns])
    return [partial(_apply_pattern, pattern, some) for pattern, some in zip(patterns, chosen, strict=True)]


def cached_maps(cache: AttentionCache, heads: Sequence[Head] | None = None) -> list[RolloutStep]:
    """As ``pattern_maps``, from cached queries and keys, one block of rows at a time."""
    chosen = _by_layer(heads, [call.q.shape[1] for call in cache.calls])
    return [partial(_cached, cache, layer, some) for layer, some in enumerate(chosen)]


def uniform_maps(cache: AttentionCache) -> list[RolloutStep]:
    """Maps with uniform attention over visible keys, for the same windows and texts: the baseline of rollout."""
    return [partial(_uniform, cache, layer) for layer in range(len(cache.calls))]


def token_rollout(
    cache: AttentionCache, query: int = -1, *, heads: Sequence[Head] | None = None, residual: float = 0.5, uniform: bool = False
) -> TokenScores:
    """The share of each token in the token ``query`` of each text, [batch pos], 0 to 1 and summing to 1; NaN for padding.
    ``query`` counts the text's own tokens, from the end if negative. ``uniform`` gives the baseline of uniform attention.
    Raises LookupError for a head, IndexError for a token that does not exist."""
    token_mask = cache.prompts.token_mask
    start = torch.zeros(token_mask.shape)
    for text, own in enumerate(token_mask):
        positions = own.nonzero()[:, 0]
        if not -len(positions) <= query < len(positions):
            raise IndexError(f"Token {query} does not exist: text {text} has {len(positions)} tokens.")
        start[text, positions[query]] = 1
    maps = uniform_maps(cache) if uniform else cached_maps(cache, heads)
    values = rollout(maps, start[:, None], residual)[:, 0].masked_fill(~token_mask, torch.nan)
    named = "all" if heads is None else [*map(str, heads)]
    arguments = {"query": query, "residual": residual, "uniform": uniform, "heads": named}
    record = replace(cache.record, arguments={**cache.record.arguments, **arguments}, metric="rollout")
    name = "rollout of uniform attention" if uniform else "rollout"
    return TokenScores(name, values.double().numpy(), cache.words, "share", (0.0, 1.0), record, nan_reason="padding")


def _by_layer(heads: Sequence[Head] | None, n_heads: list[int]) -> list[list[int]]:
    """The chosen heads of each layer. Raises LookupError for a head that does not exist, ValueError for no heads."""
    if heads is None:
        return [[*range(n)] for n in n_heads]
    if not heads:
        empty = "rollout averages the patterns of at least one head, and heads is empty"
        raise ValueError(f"{empty}: name heads, or omit them for all.")
    for head in heads:
        if not (0 <= head.layer < len(n_heads) and 0 <= head.head < n_heads[head.layer]):
            there = f"layers 0-{len(n_heads) - 1} and heads 0-{n_heads[0] - 1}"
            raise LookupError(f"Head {head} does not exist: there are {there}.")
    return [sorted({head.head for head in heads if head.layer == layer}) for layer in range(len(n_heads))]


def _apply_pattern(pattern: Tensor, heads: list[int], weights: Tensor) -> Tensor:
    return weights @ pattern[:, heads].mean(1) if heads else weights


def _cached(cache: AttentionCache, layer: int, heads: list[int], weights: Tensor) -> Tensor:
    return _streamed(cache, layer, lambda rows: rows.pattern[:, heads].mean(1), weights) if heads else weights


def _uniform(cache: AttentionCache, layer: int, weights: Tensor) -> Tensor:
    return _streamed(cache, layer, lambda rows: rows.visible[:, 0] / rows.n_visible[..., None].clamp(min=1), weights)


def _streamed(cache: AttentionCache, layer: int, mean: Callable[[AttentionRows], Tensor], weights: Tensor) -> Tensor:
    """``weights`` [batch n query] times the rows that ``mean`` computes for each block, [batch or 1, query, key]."""
    mixed = weights.new_zeros(weights.shape)

    def read(rows: AttentionRows) -> None:
        mixed[..., rows.keys] += weights[..., rows.queries] @ mean(rows)

    cache.read(layer, read, all_heads=True)
    return mixed
