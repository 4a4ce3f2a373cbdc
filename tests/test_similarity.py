"""Heads that look alike or write alike are found, and how much they move is the length of what they write."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from interp.heads import Head
from interp.metrics import observe_attention
from interp.metrics.attention import attention_metrics
from tests.given_rows import given, heads_of_the_spec, padded, random_pattern, unpadded
from tests.tiny_models import TINY, tiny, tiny_tokens

CASES = {
    "causal": (unpadded(2, 7), True, None),
    "windowed": (unpadded(2, 7), True, 3),
    "bidirectional": (unpadded(2, 7), False, None),
    "padded on the right": (padded([7, 4, 5]), True, None),
    "padded on the left": (padded([7, 4, 5], left=True), True, None),
    "bidirectional and padded": (padded([6, 3]), False, None),
}
MEASURES = ("cosine", "jensen_shannon")


def similarity_by_hand(pattern, real, causal, measure):
    """Row by row and pair by pair in float64, [n_layers batch head head]."""
    layers, batch, heads = pattern.shape[:3]
    found = np.zeros((layers, batch, heads, heads))
    for layer, text, one, other in np.ndindex(found.shape):
        places = np.flatnonzero(real[text].numpy())
        rows = places[1:] if causal else places if len(places) > 1 else []  # the first row of a causal text sees one key
        values = []
        for row in rows:
            p, q = pattern[layer, text, [one, other], row].double().numpy()
            cosine = p @ q / (np.linalg.norm(p) * np.linalg.norm(q))
            values.append(cosine if measure == "cosine" else 1 - jensenshannon(p, q, base=2))
        found[layer, text, one, other] = np.mean(values) if values else np.nan
    return torch.from_numpy(found).float()


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", CASES)
def test_pattern_similarity_equals_the_pairs_row_by_row_in_blocks_of_any_size(case, measure):
    real, causal, window = CASES[case]
    pattern = random_pattern(3, 5, real, causal, window)
    expected = similarity_by_hand(pattern, real, causal, measure)
    for block in (1, 70, 150, 10**6):
        seen = given(pattern, f"head_similarity:measure={measure}", block=block, real=real, causal=causal, window=window)
        torch.testing.assert_close(seen["head_similarity"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("measure", MEASURES)
def test_similarity_of_the_golden_heads_by_hand(measure):
    """Two heads that look at different keys are 0; the uniform head has cosine 1/sqrt(t+1) with a head that looks at one key."""
    table = given(heads_of_the_spec(5), f"head_similarity:measure={measure}")["head_similarity"][0, 0]
    assert table[0, 3] == 0 and table[2, 3] == 0  # previous token and self, sink and self
    assert table[0, 2] == pytest.approx(1 / 4)  # previous token and sink agree in row 1 of rows 1-4
    torch.testing.assert_close(table.diagonal(), torch.ones(4))
    torch.testing.assert_close(table, table.T)
    if measure == "cosine":
        assert table[1, 3] == pytest.approx(np.mean([n**-0.5 for n in (2, 3, 4, 5)]))


def test_the_two_measures_are_different_numbers():
    pattern = random_pattern(1, 4, unpadded(1, 9))
    cosine, js = (given(pattern, f"head_similarity:measure={m}")["head_similarity"][0, 0] for m in MEASURES)
    assert (cosine - js).abs().max() > 0.05


@pytest.mark.parametrize("measure", MEASURES)
def test_permuting_heads_permutes_their_similarity(measure):
    pattern, order = random_pattern(2, 5, unpadded(3, 8)), [3, 0, 4, 2, 1]
    name = f"head_similarity:measure={measure}"
    plain, moved = (given(p, name)["head_similarity"] for p in (pattern, pattern[:, :, order]))
    torch.testing.assert_close(moved, plain[:, :, order][..., order])


def test_the_number_of_a_head_is_its_mean_similarity_to_the_others_of_its_layer():
    seen = given(random_pattern(3, 5, unpadded(2, 7)), "head_similarity")
    table = seen["head_similarity"].mean(1)
    expected = [[np.mean([table[layer, h, g] for g in range(5) if g != h]) for h in range(5)] for layer in range(3)]
    np.testing.assert_allclose(seen.heads("head_similarity").values, expected, atol=1e-6)


def test_similarity_without_anything_to_compare_has_no_number():
    one_head = given(random_pattern(2, 1, unpadded(2, 7)), "head_similarity").heads("head_similarity")
    one_token = given(random_pattern(2, 3, unpadded(1, 1)), "head_similarity").heads("head_similarity")
    assert np.isnan(one_head.values).all() and np.isnan(one_token.values).all()
    assert "nothing to compare" in one_head.reason


def test_an_unknown_measure_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no measure='hellinger'. There are: cosine, jensen_shannon"):
        given(heads_of_the_spec(), "head_similarity:measure=hellinger")


@pytest.mark.parametrize("block", [1, 90, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_moved_norm_equals_the_norms_of_the_written_parts(case, block):
    real, causal, window = CASES[case]
    pattern, batch, length = random_pattern(2, 6, real, causal, window), *real.shape
    values, w_o = torch.randn(2, batch, 3, length, 4), torch.randn(2, 6, 4, 11)
    options = {"block": block, "real": real, "causal": causal, "window": window, "n_kv_heads": 3}
    shared = values.repeat_interleave(2, 2)
    parts = torch.einsum("lbhqk,lbhkd,lhdm->lbhqkm", pattern, shared, w_o)
    alone = torch.einsum("lbhqk,lbhkd->lbhqkd", pattern, shared)
    for summed, norm in ((False, lambda x: x.norm(dim=-1).sum(-1)), (True, lambda x: x.sum(-2).norm(dim=-1))):
        name = f"moved_norm:summed={str(summed).lower()}"
        known = given(pattern, name, values=values, w_o=w_o, **options)["moved_norm"]
        unknown = given(pattern, name, values=values, **options)["moved_norm"]
        for found, whole in ((known, norm(parts)), (unknown, norm(alone))):
            expected = whole.masked_fill(~real[:, None], torch.nan)
            assert ((found - expected).abs() / (1 + expected.abs())).nan_to_num().max() < 1e-5
            assert found.isnan().equal(expected.isnan())


def test_a_head_that_moves_nothing_from_its_sink_has_norm_0_whatever_its_weights():
    values = torch.ones(1, 1, 4, 6, 2)
    values[:, :, :, 0] = 0
    norms = given(heads_of_the_spec(6), "moved_norm", values=values)["moved_norm"][0, 0]
    assert norms[2].eq(0).all()  # the sink head
    torch.testing.assert_close(norms[1], 2**0.5 * torch.arange(6) / torch.arange(1, 7))  # uniform: t of t+1 keys count


@pytest.mark.parametrize("name", TINY)
def test_norm_of_what_a_model_head_writes_equals_that_of_its_z_through_the_output_weights(name):
    model, tokens = tiny(name), tiny_tokens(2, 9)
    summed, parts = (m.set(summed=s) for s, m in zip((True, False), attention_metrics(["moved_norm"] * 2), strict=True))
    _, cache = model.bridge.run_with_cache(tokens)
    z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"] for layer in range(model.facts.n_layers)])
    written = torch.einsum("lbphd,lhdm->lbhpm", z, model.bridge.W_O).norm(dim=-1)
    found = observe_attention(model, tokens, [summed], block=100)["moved_norm"]
    torch.testing.assert_close(found, written, atol=1e-5 * float(1 + written.max()), rtol=1e-5)
    assert (observe_attention(model, tokens, [parts])["moved_norm"] >= found - 1e-4).all()
