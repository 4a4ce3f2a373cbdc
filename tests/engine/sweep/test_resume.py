"""A sweep killed at any moment goes on where it stopped and ends in the same bytes."""

import os
import random
import signal
import time

import numpy as np
import pytest

from interp.ablation.ablate_heads import ablate_heads
from interp.store import open_run, start_run, write_ablation
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny

SPEC = {"model": "tiny-llama", "task": "random", "ablation": "mean"}


def sweep_into(folder, model, task, counted=None) -> None:
    """One whole attempt at the run in ``folder``: resumes what is there."""
    with start_run(folder, SPEC) as writer:
        if writer.finished:
            return
        ledger = counted(writer.ledger) if counted else writer.ledger
        write_ablation(writer, ablate_heads(model, task, ablation="mean", memory=150_000, ledger=ledger))


def tables(folder) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("heads.parquet", "examples.parquet")]


def killed_after(seconds: float, folder, model, task) -> bool:
    """Runs an attempt in a forked child and kills it with SIGKILL; whether it was still running then."""
    child = os.fork()
    if child == 0:
        try:
            sweep_into(folder, model, task)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_sweep_killed_at_twenty_random_moments_ends_in_the_same_bytes(tmp_path):
    model, task = tiny("llama"), random_task(6, 5)
    began = time.monotonic()
    sweep_into(tmp_path / "whole", model, task)
    whole = time.monotonic() - began
    chance, kills, attempt = random.Random(0), 0, 0
    while kills < 20:
        folder = tmp_path / f"run{attempt}"
        for _ in range(5):
            kills += killed_after(chance.uniform(0, whole / 2), folder, model, task)
        sweep_into(folder, model, task)
        assert tables(folder) == tables(tmp_path / "whole")
        attempt += 1
    assert open_run(tmp_path / "run0").status == "finished"


def test_resuming_computes_only_the_units_that_are_missing(tmp_path):
    model, task = tiny("llama"), random_task(6, 5)

    class Counting:
        """Counts what is computed, and fails after a number of units."""

        computed, limit = 0, 7

        def __init__(self, ledger):
            self.ledger = ledger

        def get(self, key):
            return self.ledger.get(key)

        def put(self, key, values):
            if Counting.computed == Counting.limit:
                raise KeyboardInterrupt
            Counting.computed += 1
            self.ledger.put(key, values)

    with pytest.raises(KeyboardInterrupt):
        sweep_into(tmp_path / "run", model, task, Counting)
    assert Counting.computed == 7
    Counting.limit = None
    sweep_into(tmp_path / "run", model, task, Counting)
    resumed = Counting.computed
    Counting.computed = 0
    sweep_into(tmp_path / "whole", model, task, Counting)
    assert resumed == Counting.computed > 20
    assert tables(tmp_path / "run") == tables(tmp_path / "whole")


def test_a_stored_run_holds_the_numbers_of_the_sweep(tmp_path):
    model, task = tiny("llama"), random_task(6, 5)
    sweep_into(tmp_path / "run", model, task)
    run = open_run(tmp_path / "run")
    result = ablate_heads(model, task, ablation="mean")
    np.testing.assert_allclose(run.heads()["effect"], result.effects.mean(1), rtol=0, atol=1e-5)
    assert run.record.task == "random" and run.record.arguments["n_examples"] == 11 and run.record.interventions == ("mean",)
