"""Attention of last positions that share the first ones' keys and values, against ordinary attention of whole rows."""

import pytest
import torch

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.sweep.resume_from_layer import attend_after

N_PROMPTS, N_VARIANTS, N_HEADS, N_KV, D_HEAD, LENGTH = 3, 4, 6, 2, 5, 11


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("before", [1, 5, 6, 10])  # up to half of the positions are copied for every variant, more are not
@pytest.mark.parametrize("hidden", [0, 1])  # a key that one prompt alone does not see: a mask for each prompt
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("n_queries", [1, LENGTH])  # the last block has fewer queries than keys
def test_shared_beginnings_give_what_whole_rows_give(before, hidden, softcap, with_sinks, n_queries):
    draw = torch.Generator().manual_seed(before)
    rows, n = N_VARIANTS * N_PROMPTS, LENGTH - before
    k_before, v_before = (torch.randn(N_PROMPTS, N_KV, before, D_HEAD, generator=draw) for _ in range(2))
    k, v = (torch.randn(rows, N_KV, n, D_HEAD, generator=draw) for _ in range(2))
    q = 3 * torch.randn(rows, N_HEADS, n, D_HEAD, generator=draw)
    visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()[-n:].repeat(N_PROMPTS if hidden else 1, 1, 1, 1)
    if hidden:
        visible[1, ..., 0] = False
    q, visible = q[:, :, -n_queries:], visible[:, :, -n_queries:]
    sinks = torch.randn(N_HEADS, generator=draw) if with_sinks else None
    found = attend_after(AttentionInputs(q, k, v, None, 0.4, softcap, sinks=sinks), k_before, v_before, visible)
    keys, values = (
        torch.cat([old.repeat(N_VARIANTS, 1, 1, 1), new], 2).repeat_interleave(N_HEADS // N_KV, 1)
        for old, new in ((k_before, k), (v_before, v))
    )
    scores = q @ keys.mT * 0.4
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    seen = visible.repeat(N_VARIANTS if hidden else 1, 1, 1, 1)
    weights = scores.masked_fill(~seen, -torch.inf).exp()
    beside = 0 if sinks is None else sinks.exp()[:, None, None]
    whole = weights / (weights.sum(-1, keepdim=True) + beside) @ values
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
