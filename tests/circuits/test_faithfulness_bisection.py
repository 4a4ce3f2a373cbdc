"""The size at which a circuit reaches a faithfulness, by bisection: against the circuits of all sizes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from interp.circuits import bisect_faithfulness, circuit_outcomes, faithfulness_bisection, score_edges
from interp.circuits.split_work_and_estimate_cost import bisection_work
from interp.engine.sweep import work_units
from interp.models import load_model
from interp.tasks import make_task
from tests.circuits.test_faithfulness import mini as planted_mini
from tests.circuits.test_faithfulness import task_of, traced
from tests.circuits.test_split_work_and_estimate_cost import Ledger

N_EDGES = 479


@cache
def mini():
    model = load_model("interp-mini")
    tasks = (make_task("ioi", model, n_prompts=4, seed=seed) for seed in (0, 1))
    found, tested = tasks
    return model, tested, score_edges(model, found, method="eap-ig", steps=3)


@cache
def every_size() -> np.ndarray:
    """The faithfulness of circuits of 0, 1, 2 ... edges on the test prompts."""
    model, task, scores = mini()
    order = np.argsort(-np.abs(scores.effects), kind="stable")
    masks = np.zeros((N_EDGES + 1, N_EDGES), dtype=bool)
    for n in range(N_EDGES + 1):
        masks[n, order[:n]] = True
    outcomes = circuit_outcomes(model, task, masks).mean(1)
    return (outcomes - outcomes[0]) / (outcomes[-1] - outcomes[0])


@pytest.mark.parametrize("level", [0.3, 0.85, 0.95])
def test_the_size_found_reaches_the_level_and_one_edge_fewer_does_not(level):
    model, task, scores = mini()
    curve = bisect_faithfulness(model, task, scores, level, n_draws=3, seed=2)
    size, tried = curve.size_at(level), curve.table.query("kind == 'circuit'").set_index("n_edges")["faithfulness"]
    assert every_size()[size] >= level > every_size()[size - 1]
    assert size - 1 in tried.index and len(tried) <= np.log2(N_EDGES) + 2
    np.testing.assert_allclose(tried, every_size()[tried.index], rtol=0, atol=1e-4)
    assert all((value >= level) == (n >= size) for n, value in tried.items())
    random = curve.table.query("kind == 'random'")
    assert random["n_edges"].tolist() == [size] * 3 and random["draw"].tolist() == [0, 1, 2]
    assert random["faithfulness"].max() < level


@pytest.mark.parametrize("level", [0.3, 0.85])
def test_the_size_of_a_planted_circuit_is_that_of_its_exact_trace(level):
    source, _ = planted_mini(None)
    task = task_of(source)
    scores = score_edges(source.model, task, method="exact")
    size = bisect_faithfulness(source.model, task, scores, level, n_draws=1).size_at(level)
    corrupted, fewer, found, every = (traced(source, task, frozenset(scores.top(n))) for n in (0, size - 1, size, 99))
    assert (found - corrupted) / (every - corrupted) >= level > (fewer - corrupted) / (every - corrupted)


def test_where_all_edges_with_an_effect_recover_too_little_no_size_is_named():
    model, task, scores = mini()
    few = np.where(np.arange(N_EDGES)[:, None] < 20, scores.values, 0)
    curve = bisect_faithfulness(model, task, replace(scores, values=few), 0.85, n_draws=1)
    assert curve.size_at(0.85) is None
    assert curve.table["n_edges"].tolist() == [np.count_nonzero(few.mean(1))] * 2


def dented(n_edges: int, dip: tuple[int, int]):
    """``run_circuits`` of a model whose faithfulness grows with the size, but for a dip."""

    def run(measurement, edge_masks, *_):
        gap, sizes = measurement.clean - measurement.corrupted, edge_masks.sum(1)
        share = np.where((sizes >= dip[0]) & (sizes < dip[1]), 0.1, sizes / n_edges)
        return measurement.corrupted + share[:, None] * gap

    return run


def test_where_faithfulness_falls_in_between_what_is_promised_still_holds(monkeypatch):
    """0.5 is reached from 240 edges on; it is lost again from 300 to 400."""
    model, task, scores = mini()
    monkeypatch.setattr(faithfulness_bisection, "run_circuits", dented(N_EDGES, (300, 400)))
    curve = bisect_faithfulness(model, task, scores, 0.5, n_draws=0)
    tried = curve.table.set_index("n_edges")["faithfulness"]
    size = curve.size_at(0.5)
    assert size in (240, 400) and tried[size] >= 0.5 > tried[size - 1]
    assert (tried[tried.index >= size] >= 0.5).all() and (tried[tried.index < size] < 0.5).all()


def test_interrupted_bisection_is_resumed_with_the_same_numbers(monkeypatch):
    monkeypatch.setitem(work_units.GRADIENT_MEMORY, "cpu", 8 << 20)
    model, task, scores = mini()
    whole, ledger, told = bisect_faithfulness(model, task, scores, n_draws=2), Ledger(limit=5), []
    with pytest.raises(KeyboardInterrupt):
        bisect_faithfulness(model, task, scores, n_draws=2, ledger=ledger)
    ledger.limit = 10**6
    again = bisect_faithfulness(model, task, scores, n_draws=2, ledger=ledger, progress=lambda *now: told.append(now))
    assert again.table.equals(whole.table)
    most = sum(parts.count for parts in bisection_work(model, task, N_EDGES, 2, "counterfactual", 0))
    assert told[:-1] == [(i + 1, most) for i in range(len(ledger))] and told[-1] == (most, most) and 5 < len(ledger) <= most


def test_what_has_no_answer_is_refused_in_a_sentence():
    model, task, scores = mini()
    for level in (0.0, 1.0, 85.0):
        with pytest.raises(ValueError, match=f"level={level:g} is no share of the behaviour to reach"):
            bisect_faithfulness(model, task, scores, level)
    with pytest.raises(ValueError, match="acdc does not rank the edges"):
        bisect_faithfulness(model, task, replace(scores, method="acdc"))
