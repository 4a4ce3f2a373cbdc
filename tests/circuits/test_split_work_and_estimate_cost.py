"""Edge scores and circuits in parts: interrupted after some, resumed from a ledger, counted beforehand."""

import json

import numpy as np
import pytest

from interp.circuits import circuit_outcomes, score_edges, split_work_and_estimate_cost
from interp.circuits.edge_method_and_ablation_names import EDGE_METHODS
from interp.circuits.edge_scores import _interpolation_points
from interp.circuits.split_work_and_estimate_cost import circuit_work, n_gradient_runs, scoring_work
from interp.engine.sweep import work_units
from interp.experiments.circuit import CircuitSpec
from interp.graph import Graph
from interp.models import load_model
from interp.store import FileLedger, load_circuit_run
from interp.tasks import make_task
from tests.cli.test_cli import interp

N_PROMPTS = 5


class Ledger(dict):
    """Parts in memory; it is interrupted before it stores more than ``limit``."""

    def __init__(self, limit: int = 10**6) -> None:
        super().__init__()
        self.limit = limit

    def put(self, key: str, values: np.ndarray) -> None:
        if len(self) == self.limit:
            raise KeyboardInterrupt
        assert key not in self
        self[key] = values


@pytest.fixture
def small_parts(monkeypatch):
    """Little memory, so that there are several parts of several batches."""
    monkeypatch.setitem(work_units.GRADIENT_MEMORY, "cpu", 8 << 20)
    monkeypatch.setattr(split_work_and_estimate_cost, "EDGES_PER_PART", 130)


@pytest.fixture(scope="module")
def model_and_task():
    model = load_model("interp-mini")
    return model, make_task("ioi", model, n_prompts=N_PROMPTS, seed=3)


@pytest.mark.parametrize("method", EDGE_METHODS)
def test_interrupted_scores_are_resumed_with_the_same_numbers(method, model_and_task, small_parts):
    model, task = model_and_task
    whole = score_edges(model, task, method=method, steps=3)
    n_parts = sum(parts.count for parts in scoring_work(model, task, method, 3, "counterfactual", 0))
    assert n_parts >= 2
    ledger, told = Ledger(limit=1), []
    with pytest.raises(KeyboardInterrupt):
        score_edges(model, task, method=method, steps=3, ledger=ledger)
    ledger.limit = n_parts
    resumed = score_edges(
        model, task, method=method, steps=3, ledger=ledger, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(i + 1, n_parts) for i in range(n_parts)]
    assert len(ledger) == n_parts
    np.testing.assert_array_equal(resumed.values, whole.values)


@pytest.mark.parametrize("method", sorted({*EDGE_METHODS} - {"exact"}))
def test_parts_do_not_change_scores(method, model_and_task, monkeypatch):
    model, task = model_and_task
    whole = score_edges(model, task, method=method, steps=3).values
    monkeypatch.setitem(work_units.GRADIENT_MEMORY, "cpu", 8 << 20)
    np.testing.assert_allclose(
        score_edges(model, task, method=method, steps=3).values, whole, atol=2e-5 * float(np.abs(whole).max())
    )


def test_a_stored_part_of_another_method_task_or_seed_is_not_taken(model_and_task):
    model, _ = model_and_task
    ledger = Ledger()
    for method, steps, seed in (("eap-ig", 2, 3), ("eap-ig", 4, 3), ("eap-ig-activations", 2, 3), ("eap-ig", 2, 4)):
        other = make_task("ioi", model, n_prompts=N_PROMPTS, seed=seed)
        own = score_edges(model, other, method=method, steps=steps, ledger=ledger)
        np.testing.assert_array_equal(own.values, score_edges(model, other, method=method, steps=steps).values)


def test_interrupted_circuits_are_resumed_with_the_same_outcomes(model_and_task, small_parts):
    model, task = model_and_task
    masks = np.random.default_rng(0).random((9, 479)) < 0.6
    whole = circuit_outcomes(model, task, masks)
    n_parts = sum(parts.count for parts in circuit_work(model, task, len(masks), "counterfactual", 0))
    ledger = Ledger(limit=3)
    with pytest.raises(KeyboardInterrupt):
        circuit_outcomes(model, task, masks, ledger=ledger)
    ledger.limit = n_parts
    np.testing.assert_array_equal(circuit_outcomes(model, task, masks, ledger=ledger), whole)
    assert len(ledger) == n_parts > 3


@pytest.mark.parametrize("has_mlps", [True, False])
@pytest.mark.parametrize("method", sorted({*EDGE_METHODS} - {"exact", "eap-ig-outputs"}))
def test_runs_are_counted_without_making_them(method, has_mlps):
    graph = Graph(3, 5, has_mlps)
    assert n_gradient_runs(method, graph, 7) == len(_interpolation_points(method, graph, 7, "midpoint")[0])


@pytest.mark.parametrize("exact_top", [0, 70])
def test_a_plan_counts_the_parts_that_are_stored(exact_top, model_and_task, tmp_path, monkeypatch):
    model, _ = model_and_task
    spec, stored, told = CircuitSpec(task="ioi", n_prompts=4, n_draws=2, steps=2, exact_top=exact_top), [], []
    put = FileLedger.put
    monkeypatch.setattr(FileLedger, "put", lambda self, key, values: (stored.append(key), put(self, key, values)))
    planned = spec.plan(model)
    spec.run(tmp_path / "run", model=model, progress=lambda done, total: told.append((done, total)))
    assert planned.n_units == len(stored) == len({*stored})
    assert told == [(i + 1, planned.n_units) for i in range(planned.n_units)]


def test_an_interrupted_command_is_resumed_where_it_stopped(tmp_path, monkeypatch):
    words = ("circuit", "--task", "ioi", "--n-prompts", 4, "--n-draws", 2, "--steps", 2, "--out")
    assert interp(*words, tmp_path / "whole").exit_code == 0
    put, calls = FileLedger.put, []

    def interrupted(self, key, values):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(key)
        put(self, key, values)

    monkeypatch.setattr(FileLedger, "put", interrupted)
    answer = interp(*words, tmp_path / "parts")
    assert answer.exit_code == 130
    assert "with 1 unit stored in" in answer.stderr and "The same command resumes the run: interp circuit" in answer.stderr
    monkeypatch.setattr(FileLedger, "put", lambda self, key, values: (calls.append(key), put(self, key, values)))
    answer = interp(*words, tmp_path / "parts")
    assert answer.exit_code == 0 and "of which 1 unit had been computed" in answer.stderr
    assert len(calls) == len({*calls}) > 1
    for (found, curve), (right, other) in [[load_circuit_run(tmp_path / name) for name in ("parts", "whole")]]:
        assert found.scores == right.scores and found.edges == right.edges
        assert curve.table.equals(other.table)
    assert not (tmp_path / "parts" / "units").exists()


def test_what_shows_only_in_the_numbers_is_refused_and_leaves_nothing(tmp_path):
    answer = interp("circuit", "--task", "ioi", "--n-prompts", 4, "--threshold", 1000, "--out", tmp_path / "run", "--json")
    assert answer.exit_code == 2
    assert "leaves no edge" in json.loads(answer.stdout)["error"]
    assert not [*tmp_path.iterdir()]


def test_a_fresh_run_that_is_refused_late_gives_the_earlier_one_back(tmp_path, monkeypatch):
    words = ("circuit", "--task", "ioi", "--n-prompts", 4, "--method", "eap", "--threshold", 0.5, "--n-draws", 1)
    assert interp(*words, "--out", tmp_path / "run").exit_code == 0
    before = (tmp_path / "run" / "edges.parquet").read_bytes()
    monkeypatch.setattr("interp.circuits.edge_scores.NOISE_FLOOR", 2.0)  # as if other code found no effect
    answer = interp(*words, "--fresh", "--out", tmp_path / "run")
    assert answer.exit_code == 2 and "leaves no edge" in answer.stderr and "is in" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "edges.parquet").read_bytes() == before


def test_a_disk_that_fails_does_not_cost_what_is_stored(tmp_path, monkeypatch):
    put, calls = FileLedger.put, []

    def failing(self, key, values):
        if calls:
            raise PermissionError(13, "Permission denied", str(self.folder))
        calls.append(key)
        put(self, key, values)

    monkeypatch.setattr(FileLedger, "put", failing)
    words = ("circuit", "--task", "ioi", "--n-prompts", 4, "--n-draws", 1, "--steps", 2, "--out", tmp_path / "run")
    answer = interp(*words)
    assert answer.exit_code != 0 and "cannot be used: permission denied" in answer.stderr
    assert len([*(tmp_path / "run" / "units").iterdir()]) == 1
