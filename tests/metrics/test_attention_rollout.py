"""Rollout as vectors taken down the layers equals the product of whole maps, from any source of rows."""

import numpy as np
import pytest
import torch

from interp.engine import capture_attention
from interp.heads import Head
from interp.metrics.attention_rollout import cached_maps, pattern_maps, rollout, token_rollout, uniform_maps
from tests.support.pattern_cases import golden_heads, random_pattern, unpadded
from tests.support.tiny_models import TINY, tiny, tiny_tokens

PREV, UNIFORM, SINK, SELF = (head[None, None] for head in golden_heads()[0])


def row(query, length=8):
    return torch.eye(length)[None, [query]]


def by_products(maps, residual=0.5):
    """R_0 = A_0, R_l = A_l R_(l-1) with A = the mean map and the residual, rows normalised, in float64; [batch query key]."""
    product = torch.eye(maps[0].shape[-1], dtype=torch.double)
    for layer in maps:
        both = residual * torch.eye(layer.shape[-1], dtype=torch.double) + (1 - residual) * layer.double()
        product = both / both.sum(-1, keepdim=True) @ product
    return product


def patterns_of(model, tokens):
    _, cache = model.bridge.run_with_cache(tokens)
    return [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(model.facts.n_layers)]


def test_golden_vectors():
    assert rollout(pattern_maps([PREV, PREV]), row(7))[0, 0].tolist() == [0, 0, 0, 0, 0, 0.25, 0.5, 0.25]
    assert rollout(pattern_maps([SINK, PREV]), row(7))[0, 0].tolist() == [0.5, 0, 0, 0, 0, 0, 0.25, 0.25]
    assert rollout(pattern_maps([PREV, SINK]), row(7))[0, 0].tolist() == [0.5, 0, 0, 0, 0, 0, 0.25, 0.25]
    assert rollout(pattern_maps([SELF] * 5), row(3)).equal(row(3))


def test_residual_share_by_hand():
    assert rollout(pattern_maps([PREV]), row(4), residual=0.9)[0, 0, 3:5].tolist() == pytest.approx([0.1, 0.9])
    assert rollout(pattern_maps([PREV, PREV]), row(4), residual=0.0).equal(row(2))
    assert rollout(pattern_maps([SINK, UNIFORM]), row(4), residual=1.0).equal(row(4))


def test_order_of_layers_matters():
    """Row 7: the upper layer looks at all 8, half of it stays; the lower moves by one."""
    down, up = (rollout(pattern_maps(maps), row(7))[0, 0] for maps in ([PREV, UNIFORM], [UNIFORM, PREV]))
    torch.testing.assert_close(down, torch.tensor([1.5, 1, 1, 1, 1, 1, 5, 4.5]) / 16)
    torch.testing.assert_close(up, torch.tensor([15.0, 15, 15, 15, 15, 15, 71, 63]) / 224)


@pytest.mark.parametrize("residual", [0.0, 0.3, 0.5, 1.0])
def test_vectors_equal_the_product_of_whole_maps(residual):
    patterns = list(random_pattern(4, 3, unpadded(2, 9)))
    found = rollout(pattern_maps(patterns), torch.eye(9).expand(2, -1, -1), residual)
    torch.testing.assert_close(found, by_products([p.mean(1) for p in patterns], residual).float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 9))


def test_heads_are_averaged_as_a_group_and_layers_without_one_move_nothing():
    patterns = list(random_pattern(3, 5, unpadded(2, 7)))
    found = rollout(pattern_maps(patterns, [Head(0, 1), Head(2, 0), Head(2, 4)]), torch.eye(7).expand(2, -1, -1))
    maps = [patterns[0][:, 1], torch.eye(7).expand(2, -1, -1), patterns[2][:, [0, 4]].mean(1)]
    torch.testing.assert_close(found, by_products(maps).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_cached_queries_and_keys_give_the_rollout_of_the_full_patterns(name):
    model, tokens = tiny(name), tiny_tokens(2, 11)
    cache, heads = capture_attention(model, tokens), [Head(0, 3), Head(1, 0), Head(1, 4), Head(2, 2)]
    patterns, start = patterns_of(model, tokens), torch.eye(11).expand(2, -1, -1)
    for chosen in (None, heads):
        streamed, whole = rollout(cached_maps(cache, chosen), start), rollout(pattern_maps(patterns, chosen), start)
        torch.testing.assert_close(streamed, whole, atol=1e-5, rtol=0)
    visible = [(p > 0).any(0).any(0).float() for p in patterns]
    uniform = by_products([v / v.sum(-1, keepdim=True) for v in visible]).float()
    torch.testing.assert_close(rollout(uniform_maps(cache), start), uniform.expand(2, -1, -1), atol=1e-6, rtol=0)


def test_shares_of_the_tokens_of_padded_texts_are_those_of_each_text_alone(llama):
    texts = [tiny_tokens(1, n, seed=n)[0].tolist() for n in (6, 9, 13)]
    tokens = torch.tensor([[0] * (13 - len(t)) + t for t in texts])
    token_mask = torch.tensor([[i >= 13 - len(t) for i in range(13)] for t in texts])
    left, right = (
        capture_attention(llama, *args, **kw) for args, kw in (((tokens,), {"token_mask": token_mask}), ((texts,), {}))
    )
    for query, uniform in ((-1, False), (3, False), (-2, True)):
        both = [token_rollout(cache, query, uniform=uniform).values for cache in (left, right)]
        for i, text in enumerate(texts):
            alone = token_rollout(capture_attention(llama, [text]), query, uniform=uniform).values[0]
            np.testing.assert_allclose(both[0][i][13 - len(text) :], alone, atol=1e-5)
            np.testing.assert_allclose(both[1][i][: len(text)], alone, atol=1e-5)
            assert alone.sum() == pytest.approx(1, abs=1e-5)
            assert np.isnan(both[0][i]).sum() == np.isnan(both[1][i]).sum() == 13 - len(text)


def test_tokens_after_the_query_have_no_share(llama):
    found = token_rollout(capture_attention(llama, tiny_tokens(2, 9)), 4, heads=[Head(1, 2)])
    assert (found.values[:, 5:] == 0).all() and (found.values[:, :5] > 0).all()
    assert found.record.arguments["heads"] == ["L1H2"] and found.record.arguments["residual"] == 0.5


def test_mass_of_uniform_causal_maps_drifts_to_the_first_token():
    """Which is why a rollout is read against it: with depth every causal model seems to look at its first tokens."""
    shares = [float(rollout(pattern_maps([UNIFORM] * depth), row(7))[0, 0, 0]) for depth in (1, 2, 4, 8)]
    assert shares[0] == 1 / 16 and sorted(shares) == shares and shares[-1] > 0.5


def test_what_cannot_be_rolled_out_is_refused(llama):
    with pytest.raises(ValueError, match=r"Attention rows of layer 1 do not sum to 1 \(off by 0.5\)"):
        rollout(pattern_maps([PREV, PREV / 2, PREV]), row(7), residual=0.0)
    with pytest.raises(ValueError, match=r"residual=1\.5 is not a share"):
        rollout(pattern_maps([PREV]), row(7), residual=1.5)
    with pytest.raises(LookupError, match="Head L0H1 does not exist: there are layers 0-1 and heads 0-0"):
        pattern_maps([PREV, PREV], [Head(0, 1)])
    with pytest.raises(ValueError, match="heads is empty"):
        pattern_maps([PREV], [])
    cache = capture_attention(llama, tiny_tokens(2, 9))
    with pytest.raises(LookupError, match="Head L3H0 does not exist: there are layers 0-2 and heads 0-5"):
        cached_maps(cache, [Head(3, 0)])
    with pytest.raises(IndexError, match="Token 9 does not exist: text 0 has 9 tokens"):
        token_rollout(cache, 9)
