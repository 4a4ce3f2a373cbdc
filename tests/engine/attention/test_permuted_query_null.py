"""Heads with the queries of strangers: the same as changing the weights that make queries."""

import pytest
import torch

from interp.engine.attention import permuted_query_null
from interp.engine.attention.attention_observer import observe
from interp.engine.attention.permuted_query_null import QueryNull, observe_query_null
from interp.metrics.attention import attention_metrics
from interp.models import wrap_model
from tests.support.tiny_models import tiny, tiny_hf, tiny_tokens

NAMES = ["prev_token_score", "self_attention_score"]


def disguise_weights(hf, name, layer, drawn):
    """Makes the query weights of a layer those of strangers, with words that share nothing with the engine's."""
    n_heads, width = (5, 8) if name == "gpt2" else (6, 8)
    with torch.no_grad():
        if name == "gpt2":
            c_attn = hf.transformer.h[layer].attn.c_attn
            w_q, b_q = c_attn.weight[:, :40].clone(), c_attn.bias[:40].clone()
        else:
            w_q, b_q = hf.model.layers[layer].self_attn.q_proj.weight.T.clone(), torch.zeros(n_heads * width)
        new_w, new_b = torch.zeros_like(w_q), torch.zeros_like(b_q)
        for head in range(n_heads):
            own = slice(head * width, (head + 1) * width)
            from_head = (head - drawn.shift) % n_heads
            other = slice(from_head * width, (from_head + 1) * width)
            for i, (place, sign) in enumerate(zip(drawn.order.tolist(), drawn.signs.tolist(), strict=True)):
                new_w[place, own] = drawn.query_signs[head] * sign * w_q[i, other]
            new_b[own] = drawn.query_signs[head] * b_q[other]
        if name == "gpt2":
            c_attn.weight[:, :40], c_attn.bias[:40] = new_w, new_b
        else:
            hf.model.layers[layer].self_attn.q_proj.weight.copy_(new_w.T)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_stranger_is_a_head_whose_query_weights_were_exchanged(name, layer):
    tokens, metrics = tiny_tokens(2, 11).tolist(), attention_metrics(NAMES)
    seen, null_scores = observe_query_null(tiny(name), tokens, metrics, 1, seed=4)
    random = torch.Generator().manual_seed(4)
    sizes = (40, 5, 5) if name == "gpt2" else (60, 6, 2)
    drawn = [QueryNull.draw(*sizes, random) for _ in range(3)][layer]
    hf = tiny_hf(name)
    disguise_weights(hf, name, layer, drawn)
    want = observe(wrap_model(hf, None, name="disguised"), tokens, metrics)
    clean = observe(tiny(name), tokens, metrics)
    for metric in NAMES:
        assert null_scores[metric].shape == (1, 3, sizes[1])
        assert null_scores[metric][0, layer].tolist() == pytest.approx(want.heads(metric).values[layer].tolist(), abs=1e-5)
        assert torch.equal(seen[metric].nan_to_num(), clean[metric].nan_to_num()), "the heads themselves are read as ever"
        assert abs(null_scores[metric][0, layer].numpy() - clean.heads(metric).values[layer]).max() > 1e-3


def test_strangers_come_from_another_group_and_are_drawn_by_seed():
    random = torch.Generator().manual_seed(0)
    drawn = [QueryNull.draw(12, 6, 3, random) for _ in range(40)]
    assert {d.shift for d in drawn} == {2, 4}
    assert all(sorted(d.order.tolist()) == list(range(12)) and set(d.signs.tolist()) == {-1, 1} for d in drawn)
    assert QueryNull.draw(12, 6, 1, random).shift % 6 == 0, "where all heads share their keys, none comes from elsewhere"
    tokens, metrics = tiny_tokens(2, 9).tolist(), attention_metrics(NAMES[:1])
    one, again, other = (observe_query_null(tiny("phi"), tokens, metrics, 2, seed=s)[1][NAMES[0]] for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one[0], one[1])


def test_every_architecture_hands_over_its_queries(model):
    told = []
    tokens, metrics = tiny_tokens(3, 10).tolist(), attention_metrics(NAMES)
    seen, null_scores = observe_query_null(model, tokens, metrics, 2, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
    for name in NAMES:
        assert ((null_scores[name] >= 0) & (null_scores[name] <= 1)).all()
        assert torch.equal(seen[name].nan_to_num(), observe(model, tokens, metrics)[name].nan_to_num())
    assert not model.hf._forward_pre_hooks and not any(m._forward_pre_hooks for m in model.hf.modules())


def test_nothing_stays_behind_when_a_pass_fails(gpt2, monkeypatch):
    monkeypatch.setattr(permuted_query_null.QueryNull, "queries", lambda self, q: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        observe_query_null(gpt2, tiny_tokens(1, 5).tolist(), attention_metrics(NAMES), 1)
    assert not any(m._forward_pre_hooks for m in gpt2.hf.modules())
