"""Two processes and one run directory: one works and the other is refused, also while the first is stopped, and no unit is done twice."""

import os
import signal
import time

import numpy as np
import pytest

from interp.errors import ArtefactInvalid
from interp.store import open_run, start_run, write_ablation
from tests.support.sweep_results import planted, sweep_result

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SPEC = {"model": "toy", "task": "ioi"}
N_UNITS = 1000
REFUSED = 7


@pytest.fixture
def start(tmp_path):
    """Starts a process that computes the units of the run in ``run`` and notes each in ``notes``; exit code 7 if it is refused."""
    children = []

    def begin(stop_after=None):
        child = os.fork()
        if child == 0:
            os._exit(attempt(tmp_path, stop_after))
        children.append(child)
        return child

    yield begin
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended and was waited for


def attempt(folder, stop_after=None):
    try:
        with start_run(folder / "run", SPEC) as writer, (folder / "notes").open("a", buffering=1) as notes:
            for i in range(0 if writer.finished else N_UNITS):
                if i == stop_after:
                    os.kill(os.getpid(), signal.SIGSTOP)
                if writer.ledger.get(f"unit {i}") is None:
                    writer.ledger.put(f"unit {i}", np.full(2, i))
                    notes.write(f"{i}\n")
            if not writer.finished:
                write_ablation(writer, sweep_result(planted()))
        return 0
    except ArtefactInvalid as error:
        return REFUSED if "Another process is writing" in str(error) else 1


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def units_done(folder):
    return [int(line) for line in (folder / "notes").read_text().split()]


@pytest.mark.slow
def test_of_two_processes_that_start_together_one_is_refused_and_each_unit_is_done_once(tmp_path, start):
    codes = sorted(exit_code(child) for child in [start(), start()])
    assert codes == [0, REFUSED]
    assert sorted(units_done(tmp_path)) == [*range(N_UNITS)]
    assert open_run(tmp_path / "run").status == "finished"


@pytest.mark.slow
def test_a_stopped_process_keeps_its_run_and_a_killed_one_gives_it_up(tmp_path, start):
    first = start(stop_after=300)
    assert os.WIFSTOPPED(os.waitpid(first, os.WUNTRACED)[1])
    assert exit_code(start()) == REFUSED
    time.sleep(1)
    assert exit_code(start()) == REFUSED  # no lease runs out
    os.kill(first, signal.SIGKILL)
    assert exit_code(first) == -signal.SIGKILL
    assert exit_code(start()) == 0
    assert units_done(tmp_path) == [*range(N_UNITS)]


@pytest.mark.slow
def test_a_process_that_goes_on_finishes_its_run(tmp_path, start):
    first = start(stop_after=300)
    assert os.WIFSTOPPED(os.waitpid(first, os.WUNTRACED)[1])
    assert exit_code(start()) == REFUSED
    os.kill(first, signal.SIGCONT)
    assert exit_code(first) == 0
    assert units_done(tmp_path) == [*range(N_UNITS)]
