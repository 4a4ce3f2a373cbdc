"""Runs that the dashboard starts in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from interp.errors import ArtefactInvalid, MemoryBudgetExceeded
from interp.experiments import AblationSpec, DetectionSpec
from interp_dashboard import jobs
from interp_dashboard.job_plan import plan_job

MODEL = "interp-mini"
SHORT = AblationSpec(task="induction", ablation="zero", n_prompts=7, seed=3)
LONG = AblationSpec(task="induction", ablation="mean", n_prompts=120, seed=1)
PATIENCE = 120


@cache
def mini():
    from interp.models import load_model

    return load_model(MODEL)


def plan(spec, root):
    return plan_job(spec, mini(), root)


def wait(job, until, patience=PATIENCE):
    """The statuses of a job up to the first that ``until`` accepts."""
    seen, limit = [], time.monotonic() + patience
    while time.monotonic() < limit:
        seen.append(jobs.status(job))
        if until(seen[-1]):
            return seen
        time.sleep(0.05)
    raise AssertionError(f"{job.name} is still {seen[-1]}: {(job.job_dir / jobs.STDERR).read_text()}")


def ended(status):
    return not status.active


def tables(folder):
    return [(folder / name).read_bytes() for name in ("heads.parquet", "examples.parquet")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short sweep that ran to its end: the plan, the job and its last status."""
    planned = plan(SHORT, tmp_path_factory.mktemp("runs"))
    job = planned.start()
    return planned, job, wait(job, ended)[-1]


def test_a_finished_job_holds_the_numbers_of_the_sweep_made_here(finished):
    from interp.ablation.ablate_heads import ablate_heads
    from interp.tasks import make_task

    planned, job, status = finished
    assert (status.state, status.done, status.error) == ("finished", planned.total, "")
    run = planned.run()
    result = ablate_heads(mini(), make_task("induction", mini(), n_prompts=7, seed=3), ablation="zero")
    found = run.heads().sort_values(["layer", "head"])["effect"].to_numpy()
    np.testing.assert_allclose(found, result.effects.mean(1), rtol=0, atol=1e-5)
    assert run.path == job.folder and run.record.seed == 3 and run.manifest["status"] == "finished"


def test_a_finished_sweep_is_not_started_again(finished):
    planned, job, _ = finished
    before = tables(job.folder)
    with pytest.raises(ValueError, match="measured already"):
        planned.start()
    assert tables(job.folder) == before and jobs.find(job.folder.parent, job.name) == job


def test_the_words_of_a_job_are_the_command_that_measures_the_same(finished):
    from typer.testing import CliRunner

    from interp.cli.app import app

    planned, job, _ = finished
    answer = CliRunner().invoke(app, [*job.spec.to_argv(), "--out", str(job.folder), "--json"])
    assert answer.exit_code == 0, answer.stderr
    assert "nothing was computed" in answer.stderr and json.loads(answer.stdout)["path"] == str(planned.folder)


@pytest.mark.slow
def test_a_cancelled_job_is_resumed_to_the_same_bytes(tmp_path):
    planned = plan(LONG, tmp_path / "stopped")
    job = planned.start()
    seen = wait(job, lambda s: s.done >= 3)
    os.kill(job.pid, signal.SIGSTOP)  # so that it cannot end before it is cancelled, however fast the machine
    assert seen[0].state == "loading" and seen[-1].state == "running" and seen[-1].total == planned.total
    with pytest.raises(ValueError, match="wait for it or cancel it"):
        jobs.start(job)
    del job
    (job,) = jobs.jobs(tmp_path / "stopped")  # what a server that knows nothing of it finds
    jobs.cancel(job)
    os.kill(job.pid, signal.SIGCONT)
    last = wait(job, ended)[-1]
    assert last.state == "cancelled" and 3 <= last.done < planned.total and planned.run() is None
    again = jobs.start(job)
    assert again.n_done_at_start == last.done and not again.cancelled
    counts = [s.done for s in wait(again, ended)]
    assert jobs.status(again).state == "finished" and counts == sorted(counts) and counts[-1] == planned.total
    whole = plan(LONG, tmp_path / "whole")
    wait(whole.start(), ended)
    assert tables(planned.folder) == tables(whole.folder)


def test_rate_and_time_left_follow_from_units_and_clock(tmp_path, monkeypatch):
    from interp.store import start_run

    job = jobs.Job(tmp_path / "run", MODEL, SHORT, total=20, seconds=1.0, n_done_at_start=4, started=1000.0)
    job.job_dir.mkdir(parents=True)
    with start_run(job.folder, {"kind": "test"}) as writer, jobs._locked(job.job_dir / jobs.STDOUT):
        for i in range(10):
            writer.ledger.put(f"unit {i}", np.zeros(2))
        os.utime(job.folder / "run.json", (1030.0, 1030.0))
        monkeypatch.setattr(jobs.time, "time", lambda: 1042.0)
        assert jobs.status(job) == jobs.JobStatus("running", 10, 20, 42.0, rate=0.5, eta=20.0)
        assert jobs.status(job).share == 0.5
        os.utime(job.folder / "run.json", (990.0, 990.0))  # of the attempt before
        assert jobs.status(job) == jobs.JobStatus("loading", 10, 20, 42.0)


def test_a_failing_job_says_the_sentence_of_its_command(tmp_path):
    job = jobs.start(jobs.Job(tmp_path / "run", "nowhere", AblationSpec(model="./nowhere", task="ioi"), 3, 1.0))
    last = wait(job, ended)[-1]
    assert last.state == "failed" and "There is no folder './nowhere'" in last.error
    assert not job.folder.exists()


def test_a_job_whose_run_was_deleted_has_not_failed_and_can_be_forgotten(finished, tmp_path):
    from shutil import copytree

    job = replace(finished[1], folder=tmp_path / finished[1].name)
    copytree(finished[1].job_dir, job.job_dir)
    assert jobs.find(tmp_path, job.name) == job and jobs.status(job).state == "removed"
    with jobs._locked(job.job_dir / jobs.STDOUT), pytest.raises(ValueError, match="cancel it first"):
        jobs.forget(job)
    jobs.forget(job)
    assert jobs.jobs(tmp_path) == [] and jobs.status(finished[1]).state == "finished"


def test_a_killed_job_is_told_from_a_running_one_even_when_its_number_is_reused(tmp_path):
    job = jobs.start(jobs.Job(tmp_path / "run", MODEL, AblationSpec(task="induction"), 3, 1.0))
    assert jobs.status(job).active
    os.kill(job.pid, signal.SIGKILL)
    last = wait(job, ended)[-1]
    assert last.state == "failed" and "ended without a message" in last.error
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mistaken = replace(job, pid=other.pid)
        jobs._write(mistaken)
        assert jobs.status(mistaken) == last
        jobs.cancel(mistaken)
        assert other.poll() is None and jobs.find(tmp_path, "run") == mistaken
    finally:
        other.communicate(b"\n")
    assert other.returncode == 0


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ({"task": "iou"}, LookupError, "No task is called 'iou'"),
        ({"ablation": "zeros"}, LookupError, "No ablation is called 'zeros'"),
        ({"metric": "logit"}, LookupError, "logit"),
        ({"positions": "subject"}, LookupError, "No position is called 'subject'"),
        ({"n_prompts": 1}, ValueError, "at least 2"),
        ({"estimator": "adaptive", "top_share": 0.0}, ValueError, "top_share"),
        ({"task": None, "prompts": "none.jsonl"}, FileNotFoundError, "none.jsonl"),
    ],
)
def test_what_cannot_be_measured_starts_nothing(tmp_path, wrong, kind, sentence):
    with pytest.raises(kind, match=sentence):
        plan(replace(SHORT, **wrong), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_does_not_fit_the_memory_is_refused_before_it_is_started(tmp_path, monkeypatch):
    from interp.models import memory

    planned = plan(SHORT, tmp_path)
    assert planned.bytes == planned.cost.bytes + 4 * mini().facts.n_parameters
    monkeypatch.setattr(memory, "available_memory", lambda device: planned.bytes - 1)
    with pytest.raises(MemoryBudgetExceeded, match="A second interp-mini"):
        planned.start()
    assert jobs.jobs(tmp_path) == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    planned = plan(SHORT, tmp_path)
    planned.folder.mkdir()
    (planned.folder / "thesis.txt").write_text("mine")
    with pytest.raises(ArtefactInvalid, match=r"thesis\.txt"):
        planned.start()
    assert jobs.jobs(tmp_path) == [] and (planned.folder / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("estimator", "share"), [("exact", 1.0), ("adaptive", 0.3)])
def test_the_total_is_the_number_of_units_that_are_stored(tmp_path, estimator, share):
    from interp.ablation.ablate_heads import ablate_heads
    from interp.store import FileLedger

    spec = replace(LONG, ablation="zero" if estimator == "exact" else "mean", estimator=estimator, top_share=share)
    task = spec.load_task(mini())
    ledger = FileLedger(tmp_path / "units", {})
    options = {name: getattr(spec, name) for name in ("ablation", "estimator", "positions", "seed", "top_share")}
    ablate_heads(mini(), task, **options, ledger=ledger)
    assert plan(spec, tmp_path).total == ledger.count() > 1
    assert plan(replace(spec, estimator="attribution"), tmp_path).total is None


def test_a_job_of_any_kind_is_read_back_from_its_file(tmp_path):
    for spec in (
        replace(SHORT, heads=("L0H1", "L2H3")),
        DetectionSpec(role="retrieval", options={"n_prompts": 3, "null": "a=b"}),
    ):
        job = jobs.Job(tmp_path / spec.command, MODEL, spec, seconds=1.0, query={"seed": "3"})
        job.job_dir.mkdir(parents=True)
        jobs._write(job)
        assert jobs.find(tmp_path, spec.command) == job


def test_only_plain_names_are_looked_up(tmp_path):
    for name in ("..", "../x", "/etc", "", ".", "a\0b", "a/b"):
        assert jobs.find(tmp_path, name) is None
    (tmp_path / jobs.JOBS / "broken").mkdir(parents=True)
    (tmp_path / jobs.JOBS / "broken" / jobs.JOB).write_text('{"spec": 3}')
    assert jobs.jobs(tmp_path) == []


def test_uploaded_prompts_are_kept_under_a_harmless_name(tmp_path):
    kept = jobs.save_uploaded_prompts(tmp_path, "../../my $prompts.jsonl", b"{}")
    assert kept.name == "my_prompts.jsonl" and kept.is_relative_to(tmp_path.resolve()) and kept.read_bytes() == b"{}"
    assert jobs.save_uploaded_prompts(tmp_path, "my $prompts.jsonl", b"[]").parent != kept.parent
    assert jobs.save_uploaded_prompts(tmp_path, "....", b"{}").name == "prompts.jsonl"
