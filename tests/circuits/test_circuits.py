"""Circuits: scores against planted edges, faithfulness against its ends, files against what other tools write."""

import json
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from interp.circuits import (
    Circuit,
    EdgeScores,
    auroc,
    circuit_outcomes,
    completeness,
    faithfulness_curve,
    load_circuit,
    minimality,
    score_edges,
)
from interp.circuits.edge_replacement import EDGE_ABLATIONS
from interp.circuits.faithfulness import MIB_EDGE_SHARES, FaithfulnessCurve, share_of
from interp.errors import ArtefactInvalid
from interp.graph import Edge, Graph, Node
from interp.heads import Head
from interp.models.planted import PlantedModel, plant
from interp.records import RunRecord
from interp.statistics import mean_interval, resample_prompts
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import edge_of
from tests.support.tiny_models import tiny

METHODS = ("exact", "eap", "eap-ig")


@cache
def planted(sharpness: float, seed: int = 3) -> PlantedModel:
    return plant("mini_ioi", seed=seed, sharpness=sharpness)


def task_of(source: PlantedModel, n: int = 6, seed: int = 0) -> Task:
    return Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", n, seed)), "logit_diff")


@cache
def scored(sharpness: float, method: str, seed: int = 3) -> EdgeScores:
    return score_edges(planted(sharpness, seed).model, task_of(planted(sharpness, seed)), method=method)


def true_edges(source: PlantedModel, edges) -> np.ndarray:
    known = {edge_of(*edge) for edge in edges}
    return np.array([edge in known for edge in scored(30.0, "exact").graph.edges])


def test_exact_scores_tell_active_edges_from_all_others_and_cannot_tell_structural_ones():
    source, scores = planted(30.0), scored(30.0, "exact")
    active, structural = (
        true_edges(source, e) for e in (source.ground_truth_effects("ioi").active_edges, source.structural_edges)
    )
    assert (active.sum(), structural.sum()) == (9, 17)
    assert auroc(scores.effects, active) == 1.0
    assert auroc(scores.effects, structural) < 0.8  # eight of the seventeen carry nothing under this counterfactual


@pytest.mark.parametrize("method", METHODS)
def test_soft_heads_are_scored_alike_by_every_method(method):
    source = planted(6.0)
    assert auroc(scored(6.0, method).effects, true_edges(source, source.ground_truth_effects("ioi").active_edges)) == 1.0


def test_sharp_heads_leave_two_edges_above_the_floor_of_a_gradient():
    scores = scored(30.0, "eap")
    assert {str(edge.reader) for edge in scores.top(100)} == {"logits"}
    assert scores.n_nonzero == 2
    active = true_edges(planted(30.0), planted(30.0).ground_truth_effects("ioi").active_edges)
    assert auroc(scores.values.mean(1), active) > auroc(scores.effects, active)  # what rounding would have claimed


def test_the_ends_are_the_outcomes_of_both_runs():
    source, scores = planted(30.0), scored(30.0, "exact")
    truth = source.ground_truth_effects("ioi", n_prompts=6)
    assert scores.clean.mean() == pytest.approx(truth.clean, abs=1e-4)
    assert scores.corrupted.mean() == pytest.approx(truth.corrupted, abs=1e-4)


@pytest.mark.parametrize(("sharpness", "logit_difference"), [(30.0, 6.999998), (6.0, 6.420038)])
def test_the_planted_circuit_alone_does_everything_and_its_complement_nothing(sharpness, logit_difference):
    source = planted(sharpness)
    kept = true_edges(source, source.structural_edges)
    alone, complement = circuit_outcomes(source.model, task_of(source), np.stack([kept, ~kept])).mean(1)
    assert alone == pytest.approx(logit_difference, abs=1e-4)
    assert complement == pytest.approx(0, abs=1e-4)


def test_faithfulness_is_one_with_every_edge_and_that_of_the_planted_circuit_with_its_own():
    source, scores = planted(30.0), scored(30.0, "exact")
    n_edges = len(scores.graph.edges)
    shares = (1.5 / n_edges, 9.5 / n_edges, 17.5 / n_edges, 1.0)
    curve = faithfulness_curve(source.model, task_of(source, 5, seed=1), scores, shares=shares, n_draws=3)
    found = curve.table.query("kind == 'circuit'")
    assert found["n_edges"].tolist() == [1, 9, 17, n_edges]
    assert found["faithfulness"].iloc[-1] == pytest.approx(1, abs=1e-5)
    assert curve.table.query("kind == 'random' and share < 1")["faithfulness"].abs().max() < 0.2
    assert set(curve.table["ablation"]) == {"counterfactual"}
    assert (found["ci_low"] <= found["faithfulness"] + 1e-9).all() and (found["faithfulness"] <= found["ci_high"] + 1e-9).all()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("ablation", EDGE_ABLATIONS)
def test_what_is_kept_of_the_largest_edges_does_all_that_they_do(name, ablation):
    """What nothing feeds writes what it is replaced by, or under ``zero`` and ``mean`` something of its own."""
    model, rng = tiny(name), np.random.default_rng(2)
    rows = rng.integers(3, 60, (5, 2, 7)).tolist()
    task = Task("pairs", tuple(Example(tuple(a), tuple(b), (5 + i,), (11,)) for i, (a, b) in enumerate(rows)), "logit_diff")
    scores = score_edges(model, task, method="exact", ablation=ablation)
    edges, k = scores.graph.edges, 60
    found = scores.circuit(k)
    curve = faithfulness_curve(model, task, scores, shares=((k + 0.5) / len(edges),), n_draws=0)
    kept = np.array([[edge in found.edges for edge in edges]])
    alone = circuit_outcomes(model, task, kept, ablation=ablation).mean()
    assert alone == pytest.approx(curve.table["outcome"].item(), abs=1e-4)
    unfed = replace(found, metadata={}).pruned()  # what counterfactual alone allows
    assert len(unfed) < k and (len(unfed) < len(found)) == (ablation in ("zero", "mean"))


def test_the_interval_of_a_share_is_that_of_a_mean_where_the_gap_is_the_same_everywhere():
    part, resamples = np.random.default_rng(0).normal(size=(1, 6)), resample_prompts(6, 3)
    interval = mean_interval(part, resamples)
    expected = (interval.mean.item() / 4, interval.low.item() / 4, interval.high.item() / 4)
    assert share_of(np.full(6, 4.0), part[0], resamples) == pytest.approx(expected)


def curve_of(shares, values, n_edges=1000) -> FaithfulnessCurve:
    import pandas as pd

    table = pd.DataFrame(
        {"share": shares, "n_edges": [int(s * n_edges) for s in shares], "kind": "circuit", "faithfulness": values}
    )
    return FaithfulnessCurve(table, 1.0, 0.0, RunRecord("m"))


def test_the_integrals_have_the_weights_of_mib():
    weights = [curve_of(MIB_EDGE_SHARES, np.eye(len(MIB_EDGE_SHARES))[i]).cpr for i in range(len(MIB_EDGE_SHARES))]
    np.testing.assert_allclose(weights, [0.0005, 0.002, 0.004, 0.0075, 0.02, 0.04, 0.075, 0.2, 0.4, 0.25], atol=1e-12)
    assert curve_of(MIB_EDGE_SHARES, np.ones(len(MIB_EDGE_SHARES))).cpr == pytest.approx(0.999)
    assert curve_of(MIB_EDGE_SHARES, np.ones(len(MIB_EDGE_SHARES))).cmd == 0
    assert curve_of(MIB_EDGE_SHARES, np.array([*[0] * 9, 1])).cmd == pytest.approx(0.749)


def test_the_integrals_do_not_ask_in_which_order_sizes_were_given():
    one, other = curve_of([0.1, 0.4, 1.0], [0.2, 0.9, 1.0]), curve_of([0.4, 1.0, 0.1], [0.9, 1.0, 0.2])
    assert (one.cpr, one.cmd, one.log_area) == (other.cpr, other.cmd, other.log_area)
    assert one.cpr == pytest.approx(0.3 * 0.55 + 0.6 * 0.95)


def test_in_the_log_area_every_doubling_of_the_circuit_counts_the_same():
    shares = [0.01, 0.02, 0.04, 0.08, 0.64]  # three steps of one doubling, and one of three
    weights = [curve_of(shares, np.eye(5)[i]).log_area for i in range(5)]
    np.testing.assert_allclose(weights, np.array([0.5, 1, 1, 2, 1.5]) / 6)
    assert curve_of(MIB_EDGE_SHARES, np.ones(len(MIB_EDGE_SHARES))).log_area == pytest.approx(1)
    assert np.isnan(curve_of([0.3], [0.9]).log_area)


def test_the_size_that_is_enough_is_the_last_from_which_all_larger_are():
    assert curve_of([0.01, 0.1, 0.2, 1.0], [0.9, 0.5, 0.86, 1.0]).size_at(0.85) == 200
    assert curve_of([0.01, 0.1], [0.1, 0.5]).size_at(0.85) is None


def test_the_area_counts_ties_half():
    assert auroc(np.array([3.0, 0.0, 0.0, -5.0]), np.array([True, True, False, True])) == pytest.approx((2 + 0.5) / 3)
    with pytest.raises(ValueError, match="0 of 3 edges are true"):
        auroc(np.ones(3), np.zeros(3, bool))


def test_a_circuit_is_read_back_from_its_file(tmp_path):
    circuit = scored(30.0, "exact").circuit(12)
    again = load_circuit(circuit.save(tmp_path / "ioi.json"), planted(30.0).model)
    assert (again.edges, again.unit, again.model) == (circuit.edges, circuit.unit, circuit.model)
    assert again.scores == pytest.approx(circuit.scores)
    assert again.metadata == circuit.metadata
    table = again.to_dataframe()
    assert table["in_circuit"].sum() == len(circuit) == len(again)


def test_a_circuit_keeps_the_planted_heads_and_what_leads_from_end_to_end():
    source = planted(30.0)
    circuit = scored(30.0, "exact").circuit(9)
    ends = {end.partition(".")[0] for edge in source.ground_truth_effects("ioi").active_edges for end in edge}
    named = {Head.parse(end) for end in ends - {"input", "logits"}}
    assert {*circuit.heads} == named
    assert circuit.nodes[0] == Node("input") and circuit.nodes[-1] == Node("logits")
    loose = Edge(Node("input"), Node.of(Head(0, 0)), "q")
    assert loose not in replace(circuit, edges=circuit.edges | {loose}).pruned().edges


def test_a_file_of_another_tool_is_read(tmp_path):
    edges = {"input->a0.h0<q>": {"score": 0.5, "in_graph": True}, "a0.h0->logits": {"score": -1.5, "in_graph": False}}
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False}, "nodes": {}, "edges": edges}))
    found = load_circuit(path)
    assert found.edges == {Edge.parse("input->a0.h0<q>")}
    assert found.scores[Edge.parse("a0.h0->logits")] == -1.5
    assert not found.graph.has_mlps


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"cfg": {"n_layers": 2}, "edges": {}}', '{"cfg": {"n_layers": 1, "n_heads": 1}, "edges": {"m9->logits": {}}}',
     '{"cfg": {"n_layers": 1, "n_heads": 1}, "edges": {"a0.h0->a0.h0<q>": {}}}', '{"cfg": {"n_layers": "x", "n_heads": 1}, "edges": {}}',
     '{"cfg": {"n_layers": 1, "n_heads": 1}, "edges": {"input->logits": 3}}',
     '{"cfg": {"n_layers": 1, "n_heads": 1}, "edges": {"input->logits": {"score": NaN}}}',
     '{"cfg": {"n_layers": 1, "n_heads": 1}, "edges": {"input->logits": {"score": "1"}}}',
     *(f'{{"cfg": {{"n_layers": 1, "n_heads": 1}}, "edges": {{}}, "metadata": {metadata}}}'
       for metadata in ('{"record": null}', '{"record": "x"}', '{"record": {"arguments": []}}', '"x"'))],
)  # fmt: skip
def test_what_is_no_circuit_file_is_refused(content, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ArtefactInvalid, match=r"bad\.json is not a circuit file"):
        load_circuit(path)
    with pytest.raises(ArtefactInvalid, match="cannot be read"):
        load_circuit(tmp_path / "absent.json")


def test_a_circuit_of_another_model_is_refused(tmp_path):
    path = scored(30.0, "exact").circuit(9).save(tmp_path / "c.json")
    with pytest.raises(ValueError, match="is a circuit of 4 layers x 6 heads, and tiny-gpt2 has 3 layers x 5 heads"):
        load_circuit(path, tiny("gpt2"))
    with pytest.raises(
        ValueError, match=r"c\.json is a circuit of planted:mini_ioi,seed=3, and planted:mini_ioi,seed=4 has other weights"
    ):
        load_circuit(path, planted(30.0, seed=4).model)


def test_an_edge_that_the_graph_does_not_have_is_refused():
    with pytest.raises(LookupError, match=r"There is no node m0: the graph has 1 layers of 2 heads, without MLPs"):
        Circuit(Graph(1, 2, has_mlps=False), frozenset({Edge.parse("input->m0")}))


def example(clean: tuple[int, ...], corrupted: tuple[int, ...]) -> Example:
    return Example(clean, corrupted, (5,), (7,))


def test_bad_input_is_refused_in_a_sentence():
    model = tiny("gpt2")
    pairs = Task("pairs", (example((3, 4, 6), (3, 8, 6)), example((9, 4, 6), (9, 8, 6))), "logit_diff")
    with pytest.raises(LookupError, match=r"No method is called 'ACDC'\. There are: exact, eap"):
        score_edges(model, pairs, method="ACDC")
    with pytest.raises(ValueError, match="steps=0 is too few"):
        score_edges(model, pairs, steps=0)
    with pytest.raises(ValueError, match="has no corrupted prompts"):
        score_edges(model, Task("same", (example((3, 4), (3, 4)),), "logit_diff"))
    with pytest.raises(ValueError, match="has no gradient"):
        score_edges(model, pairs, metric="kl")
    with pytest.raises(ValueError, match=r"same logit_diff .* no effect to attribute to edges"):
        both = Task("both", (example((3, 4, 6), (3, 8, 6)), example((3, 8, 6), (3, 4, 6))), "logit_diff")
        score_edges(model, both, method="exact")
    scores = score_edges(model, pairs, method="eap")
    with pytest.raises(ValueError, match="are not shares of the edges"):
        faithfulness_curve(model, pairs, scores, shares=(0.5, 2.0))
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"The top {k} edges form no circuit: .* Use more edges"):
            scores.circuit(k)
    with pytest.raises(ValueError, match="The scores are of 3 layers x 5 heads, and tiny-llama has 3 layers x 6 heads"):
        faithfulness_curve(tiny("llama"), pairs, scores)


def test_one_prompt_is_refused_before_anything_is_computed(monkeypatch):
    model, pair = tiny("gpt2"), example((3, 4, 6), (3, 8, 6))
    scores = score_edges(model, Task("two", (pair, example((9, 4, 6), (9, 8, 6))), "logit_diff"), method="eap")
    for home in ("faithfulness", "minimality", "completeness"):
        monkeypatch.delattr(sys.modules[f"interp.circuits.{home}"], "circuit_outcomes")
    task, circuit = Task("one", (pair,), "logit_diff"), scores.circuit(99)
    for ask in (faithfulness_curve, minimality, completeness):
        with pytest.raises(ValueError, match="needs at least 2 prompts, got 1"):
            ask(model, task, scores if ask is faithfulness_curve else circuit)


def test_other_prompts_without_a_gap_are_refused_in_a_sentence():
    model, pair = tiny("gpt2"), ((3, 4, 6), (3, 8, 6))
    scores = score_edges(model, Task("one", (example(*pair), example((9, 4, 6), (9, 8, 6))), "logit_diff"), method="eap")
    for examples, said in (
        ((example(*pair), example(*pair[::-1])), r"run have the same logit_diff .* no effect to attribute to edges"),
        ((example(pair[0], pair[0]),) * 2, "has no corrupted prompts"),
    ):
        other = Task("other", examples, "logit_diff")
        with pytest.raises(ValueError, match=said):
            faithfulness_curve(model, other, scores)
        with pytest.raises(ValueError, match=said):
            circuit_outcomes(model, other, np.ones((1, len(scores.graph.edges)), bool))


def test_prompts_of_two_lengths_and_models_without_edges_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"example 0: the clean prompt has 3 tokens, the corrupted one 2\. They must be equal"):
        Task("uneven", (example((3, 4, 6), (3, 8)),), "logit_diff")
    pairs = Task("pairs", (example((3, 4, 6), (3, 8, 6)),), "logit_diff")
    for method in METHODS:
        with pytest.raises(ValueError, match="tiny-gemma2 has no edges: in a Gemma2ForCausalLM model"):
            score_edges(tiny("gemma2"), pairs, method=method)
    with pytest.raises(ValueError, match="tiny-gemma2 has no edges: in a Gemma2ForCausalLM model"):
        circuit_outcomes(tiny("gemma2"), pairs, np.ones((1, len(Graph(3, 6).edges)), bool))
