"""Heads that look alike or write alike are found, and how much they move is the length of what they write."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from interp.heads import Head
from interp.metrics import cluster_heads, observe_attention, output_similarity, pattern_similarity
from interp.metrics.attention import attention_metrics
from interp.metrics.head_clusters_by_patterns_and_outputs import HeadPairScores
from interp.models import load_hooked_transformer, wrap_model
from interp.models.model import Model
from interp.models.value_and_output_weights import output_weights
from interp.records import RunRecord
from tests.support.pattern_cases import CASES, given, golden_heads, random_pattern, unpadded
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import TINY, tiny, tiny_hf, tiny_images, tiny_tokens

MEASURES = ("cosine", "jensen_shannon")


def similarity_by_hand(pattern, token_mask, causal, measure):
    """Row by row and pair by pair in float64, [n_layers batch head head]."""
    layers, batch, heads = pattern.shape[:3]
    found = np.zeros((layers, batch, heads, heads))
    for layer, text, one, other in np.ndindex(found.shape):
        places = np.flatnonzero(token_mask[text].numpy())
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
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(3, 5, token_mask, causal, window)
    expected = similarity_by_hand(pattern, token_mask, causal, measure)
    for block in (1, 70, 150, 10**6):
        seen = given(
            pattern, f"head_similarity:measure={measure}", block=block, token_mask=token_mask, causal=causal, window=window
        )
        torch.testing.assert_close(seen["head_similarity"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("measure", MEASURES)
def test_similarity_of_the_golden_heads_by_hand(measure):
    """Two heads that look at different keys are 0; the uniform head has cosine 1/sqrt(t+1) with a head that looks at one key."""
    table = given(golden_heads(5), f"head_similarity:measure={measure}")["head_similarity"][0, 0]
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
    assert "a layer of one head" in one_head.nan_reason


def test_an_unknown_measure_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"measure=hellinger is unknown\. There are: cosine, jensen_shannon"):
        given(golden_heads(), "head_similarity:measure=hellinger")


@pytest.mark.parametrize("block", [1, 90, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_value_weighted_norm_equals_the_norms_of_the_written_parts(case, block):
    token_mask, causal, window = CASES[case]
    pattern, batch, length = random_pattern(2, 6, token_mask, causal, window), *token_mask.shape
    values, w_o = torch.randn(2, batch, 3, length, 4), torch.randn(2, 6, 4, 11)
    options = {"block": block, "token_mask": token_mask, "causal": causal, "window": window, "n_kv_heads": 3}
    shared = values.repeat_interleave(2, 2)
    parts = torch.einsum("lbhqk,lbhkd,lhdm->lbhqkm", pattern, shared, w_o)
    alone = torch.einsum("lbhqk,lbhkd->lbhqkd", pattern, shared)
    for summed, norm in ((False, lambda x: x.norm(dim=-1).sum(-1)), (True, lambda x: x.sum(-2).norm(dim=-1))):
        name = f"value_weighted_norm:summed={str(summed).lower()}"
        known = given(pattern, name, values=values, w_o=w_o, **options)["value_weighted_norm"]
        unknown = given(pattern, name, values=values, **options)["value_weighted_norm"]
        for found, whole in ((known, norm(parts)), (unknown, norm(alone))):
            expected = whole.masked_fill(~token_mask[:, None], torch.nan)
            assert ((found - expected).abs() / (1 + expected.abs())).nan_to_num().max() < 1e-5
            assert found.isnan().equal(expected.isnan())


def test_a_head_that_moves_nothing_from_its_sink_has_norm_0_whatever_its_weights():
    values = torch.ones(1, 1, 4, 6, 2)
    values[:, :, :, 0] = 0
    norms = given(golden_heads(6), "value_weighted_norm", values=values)["value_weighted_norm"][0, 0]
    assert norms[2].eq(0).all()  # the sink head
    torch.testing.assert_close(norms[1], 2**0.5 * torch.arange(6) / torch.arange(1, 7))  # uniform: t of t+1 keys count


@pytest.mark.parametrize("name", TINY)
def test_norm_of_what_a_model_head_writes_equals_that_of_its_z_through_the_output_weights(name):
    model, tokens = tiny(name), tiny_tokens(2, 9)
    summed, parts = (
        m.set(summed=s) for s, m in zip((True, False), attention_metrics(["value_weighted_norm"] * 2), strict=True)
    )
    _, cache = model.bridge.run_with_cache(tokens)
    z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"] for layer in range(model.facts.n_layers)])
    written = torch.einsum("lbphd,lhdm->lbhpm", z, model.bridge.W_O).norm(dim=-1)
    found = observe_attention(model, tokens, [summed], block=100)["value_weighted_norm"]
    torch.testing.assert_close(found, written, atol=1e-5 * float(1 + written.max()), rtol=1e-5)
    assert (observe_attention(model, tokens, [parts])["value_weighted_norm"] >= found - 1e-4).all()


def written(model, texts):
    """What each head writes at every position of all texts, through the bridge in float64, [n_layers pos head d_model]."""
    parts = []
    for tokens in texts:
        _, cache = model.bridge.run_with_cache(torch.tensor([tokens], device=model.device))
        z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"][0] for layer in range(model.facts.n_layers)])
        w_o = torch.stack([model.bridge.blocks[layer].attn.W_O for layer in range(model.facts.n_layers)])
        parts.append(torch.einsum("lphd,lhdm->lphm", z.double(), w_o.double()))
    return torch.cat(parts, 1)


def unbiased_cka(x, y):
    """From the two kernels, with Song et al.'s unbiased estimator as it is written there."""
    n, one = len(x), torch.ones(len(x), dtype=torch.double)

    def hsic(k, m):
        k, m = (a - a.diag().diag() for a in (k, m))
        total = (k @ m).trace() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
        return total / (n * (n - 3))

    kernels = [a @ a.T for a in (x, y)]
    return hsic(*kernels) / (hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])) ** 0.5


def mean_cosine(x, y):
    return torch.nn.functional.cosine_similarity(x, y, dim=-1).mean()


@pytest.mark.parametrize("measure", ["cka", "cosine"])
@pytest.mark.parametrize("name", TINY)
def test_output_similarity_equals_the_definition_on_what_heads_write(name, measure):
    model, task = tiny(name), random_task()
    found = output_similarity(model, task, measure)
    outputs = written(model, [e.clean for e in task])
    define = {"cka": unbiased_cka, "cosine": mean_cosine}[measure]
    heads = model.facts.heads()
    for one, other in [(a, b) for a in heads[::5] for b in heads[::3]]:
        expected = define(outputs[one.layer][:, one.head], outputs[other.layer][:, other.head])
        assert found[one, other] == pytest.approx(float(expected), abs=2e-5)


def test_texts_of_different_lengths_are_compared_over_all_their_positions(llama):
    texts = [tiny_tokens(1, n, seed=n)[0].tolist() for n in (5, 9, 13)]
    found, outputs = output_similarity(llama, texts, "cosine"), written(llama, texts)
    assert found[Head(0, 1), Head(2, 4)] == pytest.approx(float(mean_cosine(outputs[0][:, 1], outputs[2][:, 4])), abs=1e-5)


@pytest.mark.parametrize("measure", ["cka", "cosine"])
def test_a_model_without_a_known_layout_gives_the_same_similarity(llama, measure):
    blind = Model(llama.facts, llama.tokenizer, llama.hf, None, llama.bridge)
    found, plain = (output_similarity(m, random_task(), measure).values for m in (blind, llama))
    np.testing.assert_allclose(found, plain, atol=1e-5)


def with_copies(name="llama"):
    """A model whose heads L1H1 = L1H3 (same key/value head, query and output), L1H4 writes as L1H5 in another basis, and L2H0 nothing."""
    hf = tiny_hf(name)
    turn = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(3))).Q
    with torch.no_grad():
        layer = hf.model.layers[1].self_attn
        q, o = layer.q_proj.weight.view(6, 8, 60), layer.o_proj.weight.view(60, 6, 8)
        q[0], o[:, 0] = q[2], o[:, 2]
        q[4], o[:, 4] = q[5], turn @ o[:, 5] * 3
        hf.model.layers[2].self_attn.o_proj.weight.view(60, 6, 8)[:, 0] = 0
    return wrap_model(hf, name="copies")


def test_planted_copies_are_found_by_both_measures_and_turned_ones_by_cka_alone():
    model, task = with_copies(), random_task(9, 5)
    cka, cosine = (output_similarity(model, task, measure) for measure in ("cka", "cosine"))
    copies, turned = (Head(1, 0), Head(1, 2)), (Head(1, 4), Head(1, 5))
    for found in (cka, cosine):
        assert found[copies] == pytest.approx(1, abs=1e-4)
        assert found[copies] == found[copies[::-1]]
        assert all(found[head, head] == pytest.approx(1, abs=1e-4) for head in model.facts.heads() if head != Head(2, 0))
    assert cka[turned] == pytest.approx(1, abs=1e-4) and cosine[turned] < 0.5
    rest = [cka[a, b] for a in model.facts.heads() for b in model.facts.heads() if a < b and (a, b) not in (copies, turned)]
    assert np.nanmax(rest) < 0.98
    silent = [(cka[Head(2, 0), h], cosine[Head(2, 0), h]) for h in model.facts.heads()]
    assert np.isnan(silent).all()
    clusters = cluster_heads(cka, min_similarity=0.98)
    together = [{h for h in model.facts.heads() if clusters[h] == n} for n in range(2)]
    assert together == [set(copies), set(turned)]
    assert len(np.unique(clusters.values)) == 16  # the other 14 heads are alone, the silent one too


def test_cka_of_unrelated_heads_is_0_in_the_mean_at_few_positions(llama, monkeypatch):
    """Plain linear CKA of independent 8-dimensional outputs at 11 positions is 0.41 in the mean."""
    from interp.engine.sweep import z_cache

    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(40):
        z = {0: torch.randn(3, 11, 6, 8, generator=draw)}
        monkeypatch.setattr(z_cache, "cache_z", lambda model, task, z=z: z_cache.ZCache(z))
        values = output_similarity(llama, random_task(1, 0), "cka").values
        found.append(values[0, :, 1].mean())  # heads of the lowest layer against those of the next
    assert abs(np.mean(found)) < 4 * np.std(found) / 40**0.5 and np.std(found) < 0.2


def test_permuting_heads_of_a_model_permutes_their_similarity_and_clusters():
    order = [3, 4, 5, 0, 1, 2]  # whole groups, so that key/value heads move along
    plain, moved = with_copies(), with_copies()
    layer = moved.hf.model.layers[1].self_attn
    with torch.no_grad():
        for projection, heads, by in ((layer.q_proj, 6, order), (layer.k_proj, 2, [1, 0]), (layer.v_proj, 2, [1, 0])):
            projection.weight.copy_(projection.weight.view(heads, 8, 60)[by].reshape(-1, 60))
        layer.o_proj.weight.copy_(layer.o_proj.weight.view(60, 6, 8)[:, order].reshape(60, -1))
    before, after = (output_similarity(m, random_task(9, 5)) for m in (plain, moved))
    np.testing.assert_allclose(after.values[1][:, 1], before.values[1][order][:, 1][:, order], atol=1e-4)
    clusters = [cluster_heads(p, min_similarity=0.98).values[1] for p in (before, after)]
    groups = [{frozenset(np.flatnonzero(c == n).tolist()) for n in c} for c in clusters]
    assert groups[1] == {frozenset(order.index(h) for h in group) for group in groups[0]}
    assert {frozenset({0, 2}), frozenset({4, 5})} < groups[0]


def pairs_of(table, n_layers=1):
    table = np.asarray(table, float)
    values = table.reshape(n_layers, -1, n_layers, len(table) // n_layers)
    return HeadPairScores("given", values, "similarity", (-1.0, 1.0), RunRecord("m", "", ""))


def test_clusters_by_hand():
    """0-1 at 0.9 join first; 2 is 0.7 to 0 and 0.5 to 1, in the mean 0.6; 3-4 at 0.8; the rest is 0."""
    table = np.eye(6)
    for a, b, value in ((0, 1, 0.9), (0, 2, 0.7), (1, 2, 0.5), (3, 4, 0.8)):
        table[a, b] = table[b, a] = value
    labels = {at: cluster_heads(pairs_of(table), min_similarity=at).values[0].tolist() for at in (0.95, 0.85, 0.65, 0.55, 0.0)}
    assert labels == {
        0.95: [0, 1, 2, 3, 4, 5],
        0.85: [0, 0, 1, 2, 3, 4],
        0.65: [0, 0, 2, 1, 1, 3],
        0.55: [0, 0, 0, 1, 1, 2],
        0.0: [0, 0, 0, 0, 0, 0],
    }


def test_heads_that_were_not_compared_are_never_joined():
    table = np.full((4, 4), np.nan)
    table[:2, :2] = table[2:, 2:] = 1
    assert cluster_heads(pairs_of(table, 2), min_similarity=-0.99).values.tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match=r"min_similarity=-1 is outside .-1, 1.: use"):
        cluster_heads(pairs_of(table, 2), min_similarity=-1.0)
    assert cluster_heads(pairs_of([[1.0]])).values.tolist() == [[0]]


def test_pattern_similarity_of_an_observation_compares_heads_of_one_layer():
    pattern = random_pattern(2, 4, unpadded(3, 7))
    pattern[1, :, 3] = pattern[1, :, 0]
    observed = given(pattern, "head_similarity")
    pairs = pattern_similarity(observed)
    assert np.isnan(pairs.values[0, :, 1]).all() and pairs[Head(1, 0), Head(1, 3)] == pytest.approx(1)
    assert pairs[Head(0, 1), Head(0, 2)] == pytest.approx(float(observed["head_similarity"][0, :, 1, 2].mean()))
    table = pairs.to_dataframe()
    assert len(table) == 12 and table["value"].idxmax() == 8 and set(table["unit"]) == {"similarity"}
    assert table.loc[8, ["label", "label2", "layer", "head2"]].tolist() == ["L1H0", "L1H3", 1, 3]
    assert cluster_heads(pairs, min_similarity=0.99).values.tolist() == [[1, 2, 3, 4], [0, 5, 6, 0]]


def test_what_cannot_be_compared_is_refused(llama):
    with pytest.raises(ValueError, match=r"measure='js' is unknown\. There are: cka, cosine"):
        output_similarity(llama, random_task(), "js")
    with pytest.raises(ValueError, match="needs at least 4 positions, and the prompts have 3"):
        output_similarity(llama, [5, 6, 7])
    with pytest.raises(ValueError, match="Images have no tokens"):
        output_similarity(tiny("vit"), tiny_images())


def test_more_than_the_memory_holds_is_refused_before_anything_is_run(llama, monkeypatch):
    from interp.engine.sweep.z_cache import cache_z
    from interp.errors import MemoryBudgetExceeded

    z = 4 * 3 * 6 * 8 * 73  # 3 layers, 6 heads, d_head 8, 5 prompts of 11 tokens and 2 of 9, float32
    task = random_task(5, 2)
    for enough, work in ((z, lambda: cache_z(llama, task)), (3 * z, lambda: output_similarity(llama, task))):
        monkeypatch.setattr("interp.models.memory.available_memory", lambda enough=enough: enough - 1)
        with pytest.raises(MemoryBudgetExceeded, match="at 73 positions needs about"):
            work()
        monkeypatch.setattr("interp.models.memory.available_memory", lambda enough=enough: enough)
        work()


def test_heads_of_an_encoder_are_compared_by_what_they_write():
    bert, tokens = tiny("bert"), tiny_tokens(3, 9)
    found, outputs = output_similarity(bert, tokens), written(bert, tokens.tolist())
    assert found[Head(0, 1), Head(2, 4)] == pytest.approx(float(unbiased_cka(outputs[0][:, 1], outputs[2][:, 4])), abs=2e-5)


def test_output_weights_of_a_toy_are_those_of_its_file(tmp_path):
    from tests.models.test_hooked_transformer import BASE, save, toy_weights

    toy = load_hooked_transformer(save(tmp_path, BASE))
    torch.testing.assert_close(output_weights(toy, 1), toy_weights(BASE)["blocks.1.attn.W_O"])
