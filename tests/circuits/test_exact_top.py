"""Estimates of all edges, of which the largest are patched exactly."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

from interp.circuits import (
    EdgeScores,
    circuit_outcomes,
    faithfulness_curve,
    score_edges,
    split_work_and_estimate_cost,
    stability,
)
from interp.circuits.split_work_and_estimate_cost import patching_work, scoring_work
from interp.engine.edges import edge_patching
from interp.engine.edges.edge_patching import graph_of
from interp.engine.sweep import work_units
from interp.graph import Graph
from interp.models import load_model
from interp.records import RunRecord
from interp.tasks import make_task
from tests.circuits.test_planted_circuits import CASES, SOFT, planted, task_of
from tests.circuits.test_split_work_and_estimate_cost import Ledger
from tests.engine.edges.test_edge_patching import edge_of

N_TOP = 60


@cache
def mini():
    model = load_model("interp-mini")
    return model, make_task("ioi", model, n_prompts=5, seed=3)


@cache
def refined(n: int = N_TOP) -> EdgeScores:
    return score_edges(*mini(), method="eap-ig", steps=3, exact_top=n)


@cache
def exact() -> EdgeScores:
    return score_edges(*mini(), method="exact")


@pytest.mark.parametrize("case", [case for case in CASES if case.family in ("mini_ioi", "double_s_inhibition")], ids=str)
def test_patched_edges_of_a_planted_model_have_the_effects_of_its_recipe(case):
    source = planted(case.family, 0, SOFT)
    found = source.ground_truth_effects(case.kind, 6)
    effects = {edge_of(*edge): effect for edge, effect in found.edges.items()}
    truth = np.array([effects.get(edge, 0.0) for edge in graph_of(source.model).edges])
    scores = score_edges(source.model, task_of(case.kind, found.prompts), method="eap-ig", exact_top=40)
    patched = ~np.isnan(scores.effects)
    assert patched.sum() == 40 and np.abs(truth[patched]).max() > 1
    np.testing.assert_allclose(scores.values.mean(1)[patched], truth[patched], rtol=0, atol=1e-9)
    assert np.abs(scores.estimate.effects[patched] - truth[patched]).max() > 0.1  # the estimate alone is another number


def test_the_edges_patched_are_those_of_the_largest_estimates_with_their_exact_effects():
    scores, estimate = refined(), score_edges(*mini(), method="eap-ig", steps=3)
    chosen = np.argsort(-np.abs(estimate.effects), kind="stable")[:N_TOP]
    assert {*np.flatnonzero(~np.isnan(scores.effects))} == {*chosen}
    np.testing.assert_allclose(scores.values[chosen], exact().values[chosen], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(scores.estimate.values, estimate.values)
    assert np.abs(scores.values[chosen] - estimate.values[chosen]).max() > 0.1
    assert (scores.method, scores.record.arguments["exact_top"], scores.record.arguments["steps"]) == ("eap-ig", N_TOP, 3)
    assert "exact_top" not in scores.estimate.record.arguments


def test_all_edges_patched_are_the_exact_scores_in_their_order():
    whole = refined(10_000)
    np.testing.assert_allclose(whole.values, exact().values, rtol=0, atol=2e-5)
    clear = np.abs(exact().effects) > 0.01  # others may change places by rounding
    assert [i for i in whole.ranking if clear[i]] == [i for i in exact().ranking if clear[i]]


def test_the_agreement_is_that_of_the_edges_patched():
    scores, agreement = refined(), refined().agreement
    chosen = np.flatnonzero(~np.isnan(scores.effects))
    estimated, true = scores.estimate.effects[chosen], exact().effects[chosen]
    assert agreement["n"] == N_TOP and agreement["k"] == N_TOP // 2
    assert agreement["spearman"] == pytest.approx(spearmanr(estimated, true).statistic, abs=1e-3)
    first = [{*sorted(range(N_TOP), key=lambda i, side=side: -abs(side[i]))[: N_TOP // 2]} for side in (estimated, true)]
    assert agreement["top_overlap"] == pytest.approx(len(first[0] & first[1]) / (N_TOP // 2))
    assert agreement["same_sign"] == pytest.approx(np.mean([a * b > 0 for a, b in zip(estimated, true, strict=True) if b]))
    assert exact().agreement is None


def made(estimates: list[float], exact_top: int, effects: list[float]) -> EdgeScores:
    """Scores of the first edges of a small graph, the first ``exact_top`` of them patched; all others are estimated as 0."""
    graph, ends = Graph(1, 2), np.zeros(1)
    padded = np.zeros((len(graph.edges), 1))
    padded[: len(estimates), 0] = estimates
    known = ("eap", graph), (ends + 1, ends, "logits", RunRecord("m"))
    values = np.full_like(padded, np.nan)
    values[:exact_top, 0] = effects
    return EdgeScores(*known[0], values, *known[1], EdgeScores(*known[0], padded, *known[1]))


def test_edges_only_estimated_rank_below_those_patched_and_edges_without_effect_come_last():
    scores = made([9.0, -8, 7, 6, -5, 0.5], 4, [0.1, 0.0, -3, 2])
    assert scores.ranking[:6].tolist() == [2, 3, 0, 4, 5, 1]
    assert {*scores.ranking.tolist()} == {*range(len(scores.graph.edges))}
    assert scores.n_nonzero == 5
    assert scores.top(99) == [scores.graph.edges[i] for i in (2, 3, 0, 4, 5)]
    assert scores.to_dataframe()["estimate"].iloc[:4].tolist() == [7, 6, 9, -5]
    assert np.isnan(scores.to_dataframe()["effect"].iloc[3])


def test_circuits_and_their_faithfulness_follow_the_ranking():
    model, task = mini()
    scores, k = refined(20), 47
    order = [*np.flatnonzero(~np.isnan(scores.effects))]
    order.sort(key=lambda i: -abs(exact().effects[i]))
    order += [i for i in np.argsort(-np.abs(scores.estimate.effects), kind="stable") if i not in order]
    mask = np.zeros((3, len(scores.graph.edges)), dtype=bool)
    mask[0, order[:k]] = mask[2] = True
    circuit, none, every = circuit_outcomes(model, task, mask).mean(1)
    curve = faithfulness_curve(model, task, scores, shares=[(k + 0.5) / 479], n_draws=0)
    assert curve.table["faithfulness"].item() == pytest.approx((circuit - none) / (every - none), abs=1e-5)
    assert scores.circuit(k).edges <= {scores.graph.edges[i] for i in order[:k]}
    assert any(edge not in scores.circuit(k).scores for edge in scores.circuit(k).edges)


@pytest.fixture
def small_parts(monkeypatch):
    """Little memory, so that there are several parts of several batches."""
    monkeypatch.setitem(work_units.GRADIENT_MEMORY, "cpu", 8 << 20)
    monkeypatch.setattr(split_work_and_estimate_cost, "PATCHED_EDGES_PER_PART", 25)


@pytest.mark.parametrize("limit", [1, 7])
def test_interrupted_patching_is_resumed_with_the_same_numbers(limit, small_parts):
    model, task = mini()
    how = {"method": "eap-ig", "steps": 3, "exact_top": N_TOP}
    whole = score_edges(model, task, **how)
    works = (
        scoring_work(model, task, "eap-ig", 3, "counterfactual", 0),
        patching_work(model, task, N_TOP, "counterfactual", 0),
    )
    n_estimates, n_patches = (sum(parts.count for parts in work) for work in works)
    assert n_patches == 3 * len(works[1]) and 1 < n_estimates < 7 < n_estimates + n_patches
    ledger, told = Ledger(limit=limit), []
    with pytest.raises(KeyboardInterrupt):
        score_edges(model, task, **how, ledger=ledger)
    assert len(ledger) == limit
    ledger.limit = n_estimates + n_patches
    resumed = score_edges(model, task, **how, ledger=ledger, progress=lambda *now: told.append(now))
    assert told == [(i + 1, ledger.limit) for i in range(ledger.limit)]
    assert len(ledger) == ledger.limit
    np.testing.assert_array_equal(resumed.values, whole.values)


def test_a_part_of_other_edges_is_not_taken():
    model, task = mini()
    ledger = Ledger()
    for n in (20, 21):
        found = score_edges(model, task, method="eap", exact_top=n, ledger=ledger)
        np.testing.assert_array_equal(found.values, score_edges(model, task, method="eap", exact_top=n).values)


def test_no_more_changed_runs_enter_a_layer_at_once_than_fit(monkeypatch):
    """The edges from all writers into one head: one run for each writer."""
    model, task = mini()
    sizes, known = [], edge_patching.z_changes
    monkeypatch.setitem(work_units.TOKENS_AT_ONCE, "cpu", 100)
    monkeypatch.setattr(edge_patching, "z_changes", lambda *given: (sizes.append(len(given[2])), known(*given))[1])
    found = score_edges(model, task, method="eap-ig", steps=3, exact_top=300)
    limit = max(100 // parts.n_tokens for parts in patching_work(model, task, 300, "counterfactual", 0))
    assert max(sizes) <= max(1, limit) < 16
    np.testing.assert_allclose(found.effects, refined(300).effects, rtol=0, atol=2e-5)


def test_stability_is_that_of_the_edges_patched():
    scores = refined()
    found = stability(scores, N_TOP)
    assert {*found.table["edge"]} <= {str(scores.graph.edges[i]) for i in np.flatnonzero(~np.isnan(scores.effects))}
    with pytest.raises(ValueError, match="k=61 is above the 60 edges that were patched"):
        stability(scores, N_TOP + 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "exact", "exact_top": 5}, "exact estimates nothing, so exact_top=5 has no edges to choose"),
        ({"exact_top": -1}, "exact_top=-1 must be a number of edges"),
    ],
)
def test_a_number_of_edges_that_says_nothing_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        score_edges(*mini(), **options)
