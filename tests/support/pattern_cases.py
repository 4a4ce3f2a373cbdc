"""Attention patterns written by hand, read by metrics exactly as the engine reads a model's.

A call of attention whose keys are one-hot has the scores of its queries: with queries ``ln pattern`` the engine's own blocks,
softmax, sums and tables give the metrics the wanted pattern, whatever its blocks, padding, groups and windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from interp.engine.attention.attention_metric import AttentionMetric
    from interp.engine.attention.attention_observer import Observation

NOTHING = -1e30


def given(
    pattern: Tensor,
    *metrics: str | AttentionMetric,
    block: int = 1 << 18,
    tokens: Tensor | None = None,
    token_mask: Tensor | None = None,
    marks: tuple[dict[str, tuple[int, int]], ...] = (),
    causal: bool = True,
    window: int | None = None,
    grid: tuple[int, int, int] | None = None,
    n_kv_heads: int | None = None,
    values: Tensor | None = None,
    w_o: Tensor | None = None,
) -> Observation:
    """What the metrics read from ``pattern`` [batch head query key], or [n_layers batch head query key], in blocks of ``block`` weights.

    ``token_mask`` [batch pos] is False for padding, whose columns no row sees; ``window`` is the number of keys a causal row sees.
    ``values`` [n_layers batch kv_head key d_head] and ``w_o`` [n_layers head d_head d_model] are what heads move; without ``w_o``
    the output projection is not known. Heads share values when ``n_kv_heads`` is smaller than their number (then the heads of a
    group are in one block).
    """
    from interp.engine.attention.attention_interface import AttentionInputs
    from interp.engine.attention.attention_observer import AttentionObserver
    from interp.metrics.attention import attention_metrics
    from interp.tasks.token_batch import TokenBatch

    pattern = pattern[None] if pattern.dim() == 4 else pattern
    n_layers, batch, n_heads, length, _ = pattern.shape
    tokens = torch.arange(length).expand(batch, -1) if tokens is None else tokens
    token_mask = torch.ones(batch, length, dtype=torch.bool) if token_mask is None else token_mask
    seen = visible_keys(token_mask, causal, window)
    _check(pattern, seen, token_mask)
    mask = None if bool(token_mask.all()) and window is None else seen
    kv = n_kv_heads or n_heads
    values = torch.ones(n_layers, batch, kv, length, 1) if values is None else values
    chosen = [m for name in metrics for m in (attention_metrics([name]) if isinstance(name, str) else [name])]
    model = _stand_in(n_layers, n_heads, kv, values.shape[-1], w_o)
    observer = AttentionObserver(model, chosen, TokenBatch(tokens, token_mask, marks, grid), (), block)
    keys = torch.eye(length).expand(batch, kv, -1, -1)
    for layer, attention in enumerate(model.hf):
        queries = pattern[layer].float().log().clamp(min=NOTHING)
        observer.hook(attention, AttentionInputs(queries, keys, values[layer], mask, 1.0, None, causal))
    return observer.result()


def visible_keys(token_mask: Tensor, causal: bool = True, window: int | None = None) -> Tensor:
    """Which keys each query sees, [batch 1 query key]; ``token_mask`` [batch pos] as in ``given``."""
    place = torch.arange(token_mask.shape[1])
    back = place[:, None] - place
    seen = (back >= 0) | (not causal)
    if window is not None:
        seen = seen & (back < window)
    return (seen & token_mask[:, None])[:, None]


def random_pattern(
    n_layers: int,
    n_heads: int,
    token_mask: Tensor,
    causal: bool = True,
    window: int | None = None,
    *,
    peak: float = 2.0,
    seed: int = 0,
) -> Tensor:
    """A random pattern, [n_layers batch head query key]; ``peak`` is the standard deviation of its scores. Padded rows are 0."""
    batch, length = token_mask.shape
    scores = torch.randn(n_layers, batch, n_heads, length, length, generator=torch.Generator().manual_seed(seed)) * peak
    pattern = scores.masked_fill(~visible_keys(token_mask, causal, window), -torch.inf).softmax(-1)
    return pattern.masked_fill(~token_mask[:, None, :, None], 0.0)


def unpadded(batch: int, length: int) -> Tensor:
    """``token_mask`` of texts of one length."""
    return torch.ones(batch, length, dtype=torch.bool)


def padded(lengths: list[int], left: bool = False) -> Tensor:
    """``token_mask`` of texts of these lengths, padded to the longest on the right or left."""
    token_mask = torch.tensor([[i < n for i in range(max(lengths))] for n in lengths])
    return token_mask.flip(-1) if left else token_mask


def golden_heads(length: int = 8) -> Tensor:
    """The four golden heads, [1 4 query key]: previous token, uniform, sink on token 0, self."""
    one = torch.eye(length)
    previous = torch.cat([one[:1], one[:-1]])
    uniform = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
    sink = one[:1].expand(length, -1)
    return torch.stack([previous, uniform, sink, one])[None]


def _check(pattern: Tensor, seen: Tensor, token_mask: Tensor) -> None:
    sums = pattern.sum(-1).transpose(2, 3)[:, token_mask]
    assert torch.allclose(sums, torch.ones(()), atol=1e-5), "rows of a pattern sum to 1"
    assert not (pattern * ~seen * token_mask[:, None, :, None]).any(), "a row looks at a key that it does not see"


def _stand_in(n_layers: int, n_heads: int, n_kv_heads: int, d_head: int, w_o: Tensor | None) -> Any:
    from interp.models.model import Layout, Model, ModelFacts

    attentions = nn.ModuleList(nn.Linear(1, 1) for _ in range(n_layers))
    d_model = 1 if w_o is None else w_o.shape[-1]
    facts = ModelFacts(
        "given", "GivenRows", n_layers, n_heads, n_kv_heads, d_model, d_head, 1, 1, None, "none", (None,) * n_layers,
        False, True, False, None, 0, "float32", "", "",
    )  # fmt: skip
    if w_o is None:
        return Model(facts, None, attentions, None)
    outputs = []
    for weight in w_o:
        outputs.append(nn.Linear(n_heads * d_head, d_model, bias=False))
        outputs[-1].weight.data = weight.reshape(-1, d_model).T.contiguous()
    return Model(facts, None, attentions, Layout((), tuple(attentions), tuple(outputs), nn.Identity(), nn.Identity()))


CASES = {
    "causal": (unpadded(2, 7), True, None),
    "windowed": (unpadded(2, 7), True, 3),
    "bidirectional": (unpadded(2, 7), False, None),
    "padded on the right": (padded([7, 4, 5]), True, None),
    "padded on the left": (padded([7, 4, 5], left=True), True, None),
    "bidirectional and padded": (padded([6, 3]), False, None),
}
"""Padding, causality and window of texts: what every metric must get right, as arguments of ``random_pattern`` and ``given``."""
