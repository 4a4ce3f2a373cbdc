"""A sweep killed at any moment goes on where it stopped and ends in the same bytes."""

import os
import random
import signal
import threading
import time
from functools import partial

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


class Noted:
    """A ledger that notes each unit that is begun at the end of a file, and kills the process some time after the ``last`` of them."""

    def __init__(self, ledger, notes, last=None, delay=0.0):
        self.ledger, self.notes, self.last, self.delay = ledger, notes, last, delay

    def get(self, key):
        values = self.ledger.get(key)
        if values is None:
            with self.notes.open("a") as file:
                file.write(f"{key}\n")
            if self.last is not None:
                self.last -= 1
                if self.last == 0:
                    threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return values

    def put(self, key, values):
        self.ledger.put(key, values)


def run_in_child(attempt) -> int:
    """The exit code of a forked child that makes the attempt."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_sweep_of_400_units_killed_at_50_random_moments_ends_in_the_same_bytes(tmp_path):
    model, task = tiny("llama"), random_task(12, 11)
    began = time.monotonic()
    sweep_into(tmp_path / "whole", model, task)
    unit = (time.monotonic() - began) / 414
    chance, notes = random.Random(0), tmp_path / "notes"
    for _ in range(50):
        last, delay = chance.randint(1, 14), chance.uniform(0, 2 * unit)
        noted = partial(Noted, notes=notes, last=last, delay=delay)
        killed = run_in_child(partial(sweep_into, tmp_path / "run", model, task, noted))
        assert killed == -signal.SIGKILL
    sweep_into(tmp_path / "run", model, task, lambda own: Noted(own, notes))
    keys = notes.read_text().split()
    assert len(set(keys)) == 414
    assert len(keys) - len(set(keys)) <= 50  # a kill costs at most the unit that was under way
    assert tables(tmp_path / "run") == tables(tmp_path / "whole")
    assert open_run(tmp_path / "run").status == "finished"


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
