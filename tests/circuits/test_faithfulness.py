"""Completeness, minimality and stability, on planted circuits whose answer is known."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from interp.circuits import (
    Circuit,
    Edge,
    EdgeScores,
    Node,
    circuit_outcomes,
    completeness,
    minimality,
    score_edges,
    stability,
)
from interp.engine.edges.edge_patching import graph_of
from interp.graph import Graph
from interp.models import plant
from interp.models.planted import PlantedModel
from interp.records import RunRecord
from interp.tasks import Example, Task
from tests.engine.edges.test_edge_patching import edge_of

SMALL = {"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7}
HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])


def task_of(source: PlantedModel, n: int = 4) -> Task:
    return Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", n)), "logit_diff")


@cache
def backup(family: str, n_kv_heads: int | None) -> PlantedModel:
    return plant(family, seed=2, n_kv_heads=n_kv_heads, **SMALL)


def node_of(source: PlantedModel, role: str) -> Node:
    [head] = source.heads(role)
    return Node.of(head)


def circuits_of(source: PlantedModel) -> tuple[Circuit, Circuit]:
    """All structural edges; and the same without the backup head."""
    whole = Circuit(graph_of(source.model), frozenset(edge_of(*e) for e in source.structural_edges))
    head = node_of(source, "backup_name_mover")
    return whole, replace(whole, edges=frozenset(e for e in whole.edges if head not in e[:2]))


def traced(source: PlantedModel, task: Task, kept: frozenset[Edge]) -> float:
    """The mean logit difference with all structural edges but the kept ones corrupted, by the exact trace."""
    gone = [e for e in source.structural_edges if edge_of(*e) not in kept]
    other = source.trace([e.corrupted for e in task])
    logits = source.trace([e.clean for e in task], corrupted_edges=gone, corrupted=other).logits[:, -1]
    return float(np.mean([row[e.answers[0]] - row[e.distractors[0]] for row, e in zip(logits, task, strict=True)]))


@HOSTS
@pytest.mark.parametrize("family", ["backup", "dormant_backup"])
def test_a_circuit_without_the_backup_is_faithful_and_not_complete(family, n_kv_heads):
    source = backup(family, n_kv_heads)
    task, (whole, naive), mover = task_of(source), circuits_of(source), node_of(source, "name_mover")
    asked = {"groups": {"mover": [mover]}, "n_draws": 6, "n_greedy_runs": 2, "n_greedy_steps": 2, "n_candidates": 5}
    found = {len(c): completeness(source.model, task, c, **asked) for c in (whole, naive)}
    complete, lacking = (found[len(c)].table.set_index("kind") for c in (whole, naive))
    assert found[len(whole)].max_difference < 1e-4
    assert abs(lacking.loc["none", "difference"]) < 0.01  # faithful
    assert lacking.loc["group", "difference"] < -0.99
    assert complete.loc["group", "model"] == pytest.approx(lacking.loc["group", "model"], abs=1e-4)
    first = lacking.loc["greedy"].iloc[:2]  # every candidate was tried
    assert (first["difference"].abs() >= abs(lacking.loc["group", "difference"]) - 1e-6).all()
    for table, circuit in ((complete, whole), (lacking, naive)):
        for row in table.itertuples():
            gone = {Node.parse(name) for name in row.removed.split()}
            assert len(gone) == row.n_removed
            here, everywhere = (frozenset(e for e in c.edges if e.writer not in gone) for c in (circuit, whole))
            assert row.circuit == pytest.approx(traced(source, task, here), abs=1e-3)
            assert row.model == pytest.approx(traced(source, task, everywhere), abs=1e-3)
            assert row.difference == pytest.approx((row.circuit - row.model) / found[len(circuit)].gap)
            assert row.ci_low <= row.difference + 1e-9 and row.difference <= row.ci_high + 1e-9


@HOSTS
def test_a_backup_is_needed_once_the_head_it_stands_for_is_gone(n_kv_heads):
    source = backup("dormant_backup", n_kv_heads)
    (whole, _), mover, spare = circuits_of(source), node_of(source, "name_mover"), node_of(source, "backup_name_mover")
    alone = minimality(source.model, task_of(source), whole, granularity="nodes", n_draws=2)
    behind = minimality(source.model, task_of(source), whole, granularity="nodes", n_draws=2, excluded=[mover])
    assert alone.unnecessary() == [str(mover), str(spare)]
    assert behind.unnecessary() == []
    assert behind.table.set_index("component").loc[str(spare), "effect"] == pytest.approx(-0.9933, abs=1e-3)
    assert behind.record.arguments["excluded"] == [str(mover)]


@cache
def mini(n_kv_heads: int | None) -> tuple[PlantedModel, Circuit]:
    """The active edges of mini-IOI."""
    source = plant("mini_ioi", seed=3, n_kv_heads=n_kv_heads)
    return source, Circuit(
        graph_of(source.model), frozenset(edge_of(*e) for e in source.ground_truth_effects("ioi").active_edges)
    )


@HOSTS
def test_every_active_edge_of_a_planted_circuit_is_needed_and_junk_is_not(n_kv_heads):
    source, circuit = mini(n_kv_heads)
    task, rng = task_of(source, 5), np.random.default_rng(0)
    found = minimality(source.model, task, circuit, n_draws=12)
    assert len(circuit) == 9 and found.unnecessary() == []
    members = found.table.query("kind == 'circuit'")
    for row in members.itertuples():
        change = traced(source, task, circuit.edges - {Edge.parse(row.component)}) - traced(source, task, circuit.edges)
        assert row.effect == pytest.approx(change / 7, abs=1e-4)
    control = found.table.query("kind == 'random'")
    assert len(control) == 12 and control["effect"].abs().max() < 1e-5
    inside = {*circuit.nodes}
    assert all(
        inside.issuperset(Edge.parse(part)[:2]) and Edge.parse(part) not in circuit.edges for part in control["component"]
    )

    others = [e for e in circuit.graph.edges if e not in circuit.edges]
    junk = {others[i] for i in rng.choice(len(others), 6, replace=False)} | {edge_of("input", "logits")}
    fuller = minimality(source.model, task, replace(circuit, edges=circuit.edges | junk), n_draws=3)
    assert {*fuller.unnecessary()} == {*map(str, junk)}


def test_parts_that_are_gone_already_are_not_taken_out_again():
    source, circuit = mini(None)
    [mover] = source.heads("name_mover")
    found = minimality(source.model, task_of(source, 5), circuit, excluded=[Node.of(mover)], n_draws=9).table
    left = [str(e) for e in circuit.graph.edges if e in circuit.edges and e.writer != Node.of(mover)]
    assert found.query("kind == 'circuit'")["component"].tolist() == left and len(left) < len(circuit)
    assert found.query("kind == 'random'")["component"].str.count("->").tolist() == [1] * 9
    with pytest.raises(ValueError, match=r"None of the circuit's nodes remains to be removed \(excluded=.*: exclude fewer"):
        minimality(source.model, task_of(source), circuit, granularity="nodes", excluded=circuit.edges)


def test_the_steps_of_a_search_end_with_the_parts_and_there_may_be_no_search():
    source, circuit = mini(None)
    small, told = replace(circuit, edges=frozenset([*circuit.edges][:2])), []
    asked = {"granularity": "edges", "n_draws": 0, "n_candidates": 1, "n_greedy_steps": 3}
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    found = completeness(source.model, task_of(source), small, n_greedy_runs=1, progress=progress, **asked)
    assert told == [(1, 2), (2, 2)] and found.table["n_removed"].tolist() == [0, 1, 2]
    assert completeness(source.model, task_of(source), small, n_greedy_runs=0, **asked).table["kind"].tolist() == ["none"]


def test_the_record_tells_circuits_of_one_size_apart():
    source, circuit = mini(None)
    edges = [*circuit.edges]
    records = [
        minimality(source.model, task_of(source), replace(circuit, edges=frozenset(chosen)), n_draws=0).record
        for chosen in (edges[:3], edges[2::-1], edges[1:4])
    ]
    digests = [record.arguments["edges_digest"] for record in records]
    assert digests[0] == digests[1] != digests[2]


def test_all_structural_edges_are_complete_and_the_active_ones_alone_are_not():
    """Eight edges carry nothing as long as no other is taken out."""
    source, active = mini(None)
    whole = replace(active, edges=frozenset(edge_of(*e) for e in source.structural_edges))
    task, asked = (
        task_of(source, 3),
        {"granularity": "edges", "n_draws": 5, "n_greedy_runs": 1, "n_greedy_steps": 1, "n_candidates": 99, "seed": 4},
    )
    found, lacking = (completeness(source.model, task, c, **asked) for c in (whole, active))
    assert found.max_difference < 1e-4
    assert abs(lacking.table["difference"].iloc[0]) < 1e-4
    key = edge_of("input", f"{source.heads('name_mover')[0]}.k")
    assert lacking.table["removed"].iloc[-1] == str(key)
    expected = (traced(source, task, active.edges - {key}) - traced(source, task, whole.edges - {key})) / 7
    assert lacking.table["difference"].iloc[-1] == pytest.approx(expected, abs=1e-4)
    assert lacking.max_difference > 0.5

    table = found.table
    assert table["kind"].tolist() == ["none", *["random"] * 5, "greedy"]
    drawn = [set(row.split()) for row in table.query("kind == 'random'")["removed"]]
    assert all(d <= set(map(str, whole.edges)) for d in drawn) and len(set(map(frozenset, drawn))) == 5
    kept = np.array([str(e) not in drawn[0] for e in whole.graph.edges])
    assert table["model"].iloc[1] == pytest.approx(circuit_outcomes(source.model, task, kept[None]).mean(), abs=1e-4)
    assert set(table["ablation"]) == {"counterfactual"} and found.record.arguments["ablation"] == "counterfactual"
    assert completeness(source.model, task, whole, **asked).table.equals(table)


def test_a_random_circuit_is_as_incomplete_as_it_is_unfaithful():
    source, circuit = mini(None)
    others = [e for e in circuit.graph.edges if e not in circuit.edges and e.writer.kind == "head"]
    chosen = frozenset(others[i] for i in np.random.default_rng(1).choice(len(others), 9, replace=False))
    found = completeness(
        source.model, task_of(source), replace(circuit, edges=chosen), n_draws=3, n_greedy_runs=1, n_greedy_steps=1
    )
    assert found.table["difference"].iloc[0] == pytest.approx(-1, abs=1e-3)


def made(values: np.ndarray, method: str = "exact") -> EdgeScores:
    """Scores of the first edges of a small graph; all others are 0."""
    graph = Graph(1, 2)
    padded = np.zeros((len(graph.edges), values.shape[1]))
    padded[: len(values)] = values
    ends = np.zeros(values.shape[1])
    return EdgeScores(method, graph, padded, ends + 1, ends, "logits", RunRecord("m", arguments={"ablation": "mean"}))


def test_edges_that_lead_on_every_prompt_are_always_chosen():
    found = stability(made(np.array([[3.0, 4, 5, 6], [2, 1, 2, 1], [0.5, 0.2, 0.1, 0.3]])), 2)
    assert (found.jaccard, found.jaccard_with_full, found.stable) == (1, 1, True)
    assert found.table["frequency"].tolist() == [1, 1] and found.table["in_full_circuit"].all()


def test_an_edge_of_one_prompt_is_chosen_when_that_prompt_is_drawn():
    """Two edges, the second carried by one prompt of five: it leads when that prompt is drawn at all, 1 - .8^5 of the time."""
    n, resamples = 5, 4000
    found = stability(made(np.array([[1.0] * n, [100.0, 0, 0, 0, 0]])), 1, n_resamples=resamples)
    share = 1 - 0.8**n
    frequency = dict(zip(found.table["edge"], found.table["frequency"], strict=True))
    assert sum(frequency.values()) == pytest.approx(1)
    assert found.table["frequency"].iloc[0] == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / resamples))
    first = found.table["frequency"].iloc[0]
    pairs = (first * resamples * (first * resamples - 1) + (1 - first) * resamples * ((1 - first) * resamples - 1)) / (
        resamples * (resamples - 1)
    )
    assert found.jaccard == pytest.approx(pairs) and found.jaccard_with_full == pytest.approx(first)


def test_the_mean_overlap_is_that_of_sets_of_chosen_edges():
    rng = np.random.default_rng(3)
    scores = made(rng.normal(size=(6, 7)))
    found = stability(scores, 3, seed=8)
    weights = np.random.default_rng([8, 1]).multinomial(7, np.full(7, 1 / 7), size=100) / 7
    chosen = [{*replace(scores, values=scores.values * w * 7).top(3)} for w in weights]
    expected = np.mean([len(a & b) / len(a | b) for a, b in combinations(chosen, 2)])
    assert found.jaccard == pytest.approx(expected)
    assert found.jaccard_with_full == pytest.approx(
        np.mean([len(a & {*scores.top(3)}) / len(a | {*scores.top(3)}) for a in chosen])
    )
    assert not found.stable
    assert found.table.set_index("edge")["frequency"].to_dict() == pytest.approx(
        {str(e): np.mean([e in c for c in chosen]) for e in {e for c in chosen for e in c}}
    )


def test_a_planted_circuit_is_the_same_on_resampled_prompts():
    source, circuit = mini(None)
    found = stability(score_edges(source.model, task_of(source, 6), method="exact"), 9)
    assert found.jaccard == found.jaccard_with_full == 1
    assert {*found.table["edge"]} == {*map(str, circuit.edges)}
    assert set(found.table["ablation"]) == {"counterfactual"}


def test_bad_input_is_refused_in_a_sentence():
    source, circuit = mini(None)
    task, empty = task_of(source), replace(circuit, edges=frozenset())
    for function in (completeness, minimality):
        with pytest.raises(ValueError, match="The circuit has 0 edges and no nodes to remove: use a larger circuit"):
            function(source.model, task, empty, granularity="nodes")
        with pytest.raises(ValueError, match="granularity='heads': the components of a circuit are 'nodes' or 'edges'"):
            function(source.model, task, circuit, granularity="heads")
        with pytest.raises(
            ValueError, match="The circuit is of 1 layers x 2 heads, and planted:mini_ioi,seed=3 has 4 layers x 6 heads"
        ):
            function(source.model, task, Circuit(Graph(1, 2), frozenset()))
    with pytest.raises(LookupError, match=r"There is no component a9\.h0 in a graph of 4 layers x 6 heads"):
        minimality(source.model, task, circuit, excluded=[Node.parse("a9.h0")])
    with pytest.raises(
        ValueError,
        match="n_draws=-1, n_greedy_runs=5, n_greedy_steps=5, n_candidates=5: each must be at least 0, and n_candidates at least 1",
    ):
        completeness(source.model, task, circuit, n_draws=-1)
    with pytest.raises(ValueError, match="edge_masks has 5 columns, and the graph of planted:mini_ioi,seed=3 has"):
        circuit_outcomes(source.model, task, np.ones((1, 5), bool))
    with pytest.raises(ValueError, match="n_resamples=99 is too few"):
        stability(made(np.ones((2, 3))), 1, n_resamples=99)
    with pytest.raises(ValueError, match="k=0 is not a circuit size"):
        stability(made(np.ones((2, 3))), 0)
    with pytest.raises(ValueError, match="acdc decides edge by edge"):
        stability(made(np.ones((2, 3)), "acdc"), 1)
    with pytest.raises(ValueError, match="at least 2 prompts"):
        stability(made(np.ones((2, 1))), 1)
