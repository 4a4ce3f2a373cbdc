"""Attention rollout: where the information at a token comes from, if heads moved everything alike and blocks did nothing else.

In each layer the weights of some heads are averaged, a share of each token is let through unmoved (the residual stream), and the layers
are multiplied. Row t of the product is a distribution over the tokens of the text. It is made from the top layer down as one vector,
``r <- residual * r + (1 - residual) * r A_l``, so that its memory grows with the length of the text, whatever knows the rows A_l.

In a causal model mass drifts to early tokens with every layer, whatever the heads do: compare with ``uniform_maps``. It knows neither
values nor MLPs, so it is a summary of patterns and no evidence of what the model uses. Abnar and Zuidema 2020, arXiv 2005.00928.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from interp.heads import Head, TokenScores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from interp.engine.attention.attention_rows import AttentionRows
    from interp.engine.attention.qk_cache import AttentionCache

RolloutStep = Callable[["Tensor"], "Tensor"]
"""A layer's rows as what they do to weights of queries: [batch n query] -> [batch n key], ``r A``."""


def rollout(
    maps: Sequence[RolloutStep], start: Float[Tensor, "batch n key"], residual: float = 0.5
) -> Float[Tensor, "batch n key"]:
    """The weights of queries ``start`` above the last layer, taken down through all ``maps`` (lowest layer first), [batch n key].

    ``residual`` is the share that stays at its token, 0.5 in the paper. Raises ValueError for another share than 0 to 1, and for rows
    that do not sum to 1.
    """
    if not 0 <= residual <= 1:
        raise ValueError(f"residual={residual:g} is the share of a token that stays where it is: take 0 to 1.")
    weights = start
    for layer, through in reversed(list(enumerate(maps))):
        moved = through(weights)
        lost = float((moved.sum(-1) - weights.sum(-1)).abs().max())
        if lost > 1e-3:
            raise ValueError(
                f"Rows of layer {layer} do not sum to 1 (off by {lost:.2g}), and rollout follows shares: give whole rows."
            )
        weights = residual * weights + (1 - residual) * moved
    return weights


def pattern_maps(
    patterns: Sequence[Float[Tensor, "batch head query key"]], heads: Sequence[Head] | None = None
) -> list[RolloutStep]:
    """Maps of whole patterns, one for each layer, averaged over ``heads`` (default all); layers without any of them move nothing.

    Raises LookupError for a head that is not there.
    """
    chosen = _by_layer(heads, [pattern.shape[1] for pattern in patterns])
    return [partial(_apply_pattern, pattern, some) for pattern, some in zip(patterns, chosen, strict=True)]


def cached_maps(cache: AttentionCache, heads: Sequence[Head] | None = None) -> list[RolloutStep]:
    """As ``pattern_maps``, of patterns that are made from cached queries and keys a block of rows at a time and never kept."""
    chosen = _by_layer(heads, [call.q.shape[1] for call in cache.calls])
    return [partial(_cached, cache, layer, some) for layer, some in enumerate(chosen)]


def uniform_maps(cache: AttentionCache) -> list[RolloutStep]:
    """Maps of a model of the same windows and texts whose heads look at all keys they see alike: what rollout shows of nothing."""
    return [partial(_uniform, cache, layer) for layer in range(len(cache.calls))]


def token_rollout(
    cache: AttentionCache, query: int = -1, *, heads: Sequence[Head] | None = None, residual: float = 0.5, uniform: bool = False
) -> TokenScores:
    """The share of each token in what is at the token ``query`` of each text, [batch pos], in 0..1 and 1 in sum; NaN for padding.

    ``query`` is counted in the text's own tokens, from its end where negative. ``uniform``: the same for heads that look at all keys
    alike, to compare with. Raises LookupError for a head, IndexError for a token that is not there.
    """
    import torch

    token_mask = cache.prompts.token_mask
    start = torch.zeros(token_mask.shape)
    for text, own in enumerate(token_mask):
        places = own.nonzero()[:, 0]
        if not -len(places) <= query < len(places):
            raise IndexError(f"Text {text} has {len(places)} tokens, and no token {query}.")
        start[text, places[query]] = 1
    maps = uniform_maps(cache) if uniform else cached_maps(cache, heads)
    values = rollout(maps, start[:, None], residual)[:, 0].masked_fill(~token_mask, torch.nan)
    made = {"query": query, "residual": residual, "uniform": uniform, "heads": "all" if heads is None else [*map(str, heads)]}
    record = replace(cache.record, arguments={**cache.record.arguments, **made}, metric="rollout")
    name = "rollout of uniform attention" if uniform else "rollout"
    return TokenScores(
        name, values.double().numpy(), cache.words, "share", (0.0, 1.0), record, nan_reason="padding is no token"
    )


def _by_layer(heads: Sequence[Head] | None, n_heads: list[int]) -> list[list[int]]:
    """The chosen heads of each layer. Raises LookupError for one that is not there, ValueError where none is chosen."""
    if heads is None:
        return [[*range(n)] for n in n_heads]
    if not heads:
        raise ValueError(
            "rollout averages the patterns of some heads, and none is chosen: name heads, or leave them out for all."
        )
    for head in heads:
        if not (0 <= head.layer < len(n_heads) and 0 <= head.head < n_heads[head.layer]):
            raise LookupError(
                f"Head {head} does not exist: there are layers 0-{len(n_heads) - 1} and heads 0-{n_heads[0] - 1}."
            )
    return [sorted({head.head for head in heads if head.layer == layer}) for layer in range(len(n_heads))]


def _apply_pattern(pattern: Tensor, heads: list[int], weights: Tensor) -> Tensor:
    return weights @ pattern[:, heads].mean(1) if heads else weights


def _cached(cache: AttentionCache, layer: int, heads: list[int], weights: Tensor) -> Tensor:
    return _streamed(cache, layer, lambda rows: rows.pattern[:, heads].mean(1), weights) if heads else weights


def _uniform(cache: AttentionCache, layer: int, weights: Tensor) -> Tensor:
    return _streamed(cache, layer, lambda rows: rows.visible[:, 0] / rows.n_visible[..., None].clamp(min=1), weights)


def _streamed(cache: AttentionCache, layer: int, mean: Callable[[AttentionRows], Tensor], weights: Tensor) -> Tensor:
    """``weights`` [batch n query] times the rows that ``mean`` makes of each block, [batch or 1, query, key]."""
    moved = weights.new_zeros(weights.shape)

    def read(rows: AttentionRows) -> None:
        moved[..., rows.keys] += weights[..., rows.queries] @ mean(rows)

    cache.read(layer, read, all_heads=True)
    return moved
