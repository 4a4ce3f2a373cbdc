"""Runs in processes of their own: started, watched, cancelled and resumed.

A job is the process ``interp ablate ... --out RUNS/NAME``, or another command that fills a run directory. Its own files lie in
``RUNS/.jobs/NAME``: ``job.json`` and the two streams of the process. The process holds a lock on its ``stdout`` while it lives, which
tells any server a running job from one that ended, also after a restart and when its process number was reused. Needs POSIX locks.

One folder holds one job. The progress of a run that is resumed from units is their number in its run directory; that of others is their
progress bar.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO

import interp
from interp.errors import ArtefactInvalid
from interp.experiments import AblationSpec, Spec, spec_from_json, spec_to_json
from interp.files import write_atomically
from interp.store import open_run

JOBS, PROMPTS = ".jobs", ".prompts"
JOB, STDOUT, STDERR = "job.json", "stdout", "stderr"
UNITS = "units"
INTERRUPTED = 130
BAR, LAST = re.compile(rb"(\d+)/(\d+) \["), 4096
"""The count of a progress bar, and how many bytes at the end of a stream are searched for it."""
TRIES, PAUSE = 5, 0.02  # reading the state of the lock holds it for an instant
GRACE = 10.0
# A server that a script started in the background ignores interrupts, and so would its children.
COMMAND = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_module('interp', run_name='__main__')"


@dataclass(frozen=True)
class Job:
    """A started run of ``spec`` on ``model``. ``n_done_at_start`` units were stored when the process started, of ``total`` (None: unknown);
    ``seconds`` is the estimate; ``started`` in seconds since 1970. ``query`` is the address of the page that started it."""

    folder: Path
    model: str
    spec: Spec
    total: int | None = None
    seconds: float = 0.0
    n_done_at_start: int = 0
    pid: int = 0
    started: float = 0.0
    cancelled: bool = False
    query: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def command(self) -> str:
        return self.spec.command

    @property
    def counts_units(self) -> bool:
        """Whether the units in its run directory tell its progress."""
        return self.total is not None or isinstance(self.spec, AblationSpec)

    @property
    def job_dir(self) -> Path:
        """The folder of its own files."""
        return self.folder.parent / JOBS / self.name


@dataclass(frozen=True)
class JobStatus:
    """The state of a job: ``loading`` (no unit can be done yet), ``running``, ``finished``, ``failed``, ``cancelled`` or ``removed`` (its
    run directory was deleted after it finished).

    ``done`` of ``total`` units are stored; ``rate`` is in units per second, ``eta`` in seconds (both None where unknown). ``seconds`` is
    the running time of the process. ``error`` is the sentence with which it ended.
    """

    state: str
    done: int
    total: int | None
    seconds: float
    rate: float | None = None
    eta: float | None = None
    error: str = ""

    @property
    def active(self) -> bool:
        return self.state in ("loading", "running")

    @property
    def share(self) -> float | None:
        """Share of the units that are done, 0 to 1."""
        return self.done / self.total if self.total else None


def start(job: Job) -> Job:
    """The job with a running process, which resumes the run in its folder. Raises ValueError while another process computes it."""
    job.job_dir.mkdir(parents=True, exist_ok=True)
    # The same interp as this one, wherever it was imported from.
    path = os.pathsep.join([str(Path(interp.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ["--out", str(job.folder), "--json", "--quiet" if job.counts_units else "--progress"]
    with _locked(job.job_dir / STDOUT) as stdout, (job.job_dir / STDERR).open("wb") as stderr:
        stdout.truncate(0)
        started = replace(job, n_done_at_start=_count(job), started=time.time(), cancelled=False)
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *job.spec.to_argv(), *options],
            stdin=subprocess.DEVNULL,
            stdout=stdout,  # whose lock the process inherits
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie is left
        started = replace(started, pid=process.pid)
        _write(started)
    return started


def cancel(job: Job, grace: float = GRACE) -> None:
    """Interrupts the job, which keeps what it stored and can be resumed, and terminates it when it does not stop within ``grace`` seconds.

    Returns at once; ``status`` tells when the job has stopped. Does nothing to a job that is not running.
    """
    if not _alive(job):
        return
    _write(replace(job, cancelled=True))
    threading.Thread(target=_stop, args=(job, grace), daemon=True).start()


def forget(job: Job) -> None:
    """Removes the files of a job and keeps its run directory. Raises ValueError while it is running."""
    if _alive(job):
        raise ValueError(f"{job.name} is running: cancel it first.")
    shutil.rmtree(job.job_dir, ignore_errors=True)


def status(job: Job) -> JobStatus:
    """The current state of the job, read from its files alone."""
    alive = _alive(job)
    done, total, begun, finished = _progress(job)
    if not alive:
        state, error = _end(job, finished)
        return JobStatus(state, done, total, max(0.0, _changed(job.job_dir / STDOUT) - job.started), error=error)
    now = time.time()
    if begun is None:
        return JobStatus("loading", done, total, now - job.started)
    rate = (done - job.n_done_at_start) / (now - begun) if done > job.n_done_at_start and now > begun and not finished else None
    eta = (total - done) / rate if rate and total else None
    return JobStatus("running", done, total, now - job.started, rate, eta)


def jobs(root: Path) -> list[Job]:
    """All jobs with run directories in ``root``, the last started first, without those whose ``job.json`` cannot be read."""
    readable = [job for job_dir in (root.resolve() / JOBS).glob("*") if (job := find(root, job_dir.name))]
    return sorted(readable, key=lambda job: -job.started)


def find(root: Path, name: str) -> Job | None:
    """The job of the run directory ``name`` in ``root``, None where there is none."""
    if Path(name).name != name or name == "..":
        return None
    try:
        values = json.loads((root.resolve() / JOBS / name / JOB).read_bytes())
        return Job(**{**values, "folder": root.resolve() / name, "spec": spec_from_json(values["spec"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_uploaded_prompts(root: Path, name: str, content: bytes) -> Path:
    """The file with uploaded prompts, named after their file and their content."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:60].strip("_") or "prompts"
    path = root.resolve() / PROMPTS / sha256(content).hexdigest()[:12] / f"{stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _write(job: Job) -> None:
    values = {name: value for name, value in asdict(job).items() if name != "folder"}
    values |= {"spec": spec_to_json(job.spec), "seconds": job.seconds if job.seconds == job.seconds else 0.0}
    write_atomically(job.job_dir / JOB, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The file, opened for writing and locked. Raises ValueError when a process holds it."""
    import fcntl

    with path.open("ab") as file:
        for attempt in range(TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == TRIES - 1:
                    name = path.parent.name
                    raise ValueError(f"{name} is being computed by an earlier job: wait for it or cancel it.") from None
                time.sleep(PAUSE)
        yield file


def _alive(job: Job) -> bool:
    """Whether the process of the job is alive: it holds the lock on its stdout."""
    import fcntl

    try:
        with (job.job_dir / STDOUT).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _stop(job: Job, grace: float) -> None:
    """Interrupts the process, and terminates it when that does not stop it."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        if not _alive(job):
            return
        try:
            os.kill(job.pid, sign)
        except ProcessLookupError:
            return
        until = time.monotonic() + grace
        while _alive(job) and time.monotonic() < until:
            time.sleep(0.1)


def _progress(job: Job) -> tuple[int, int | None, float | None, bool]:
    """Units that are done, their number, when the process began to compute (None: not yet), and whether the run is finished."""
    # Before the manifest: a finished run has no units.
    done, total = (_count(job), job.total) if job.counts_units else _bar(job)
    try:
        finished = open_run(job.folder).status == "finished"
    except ArtefactInvalid:
        finished = False
    if finished and total:
        done = total
    if not job.counts_units:
        return done, total, None if total is None else job.started, finished
    begun = _changed(job.folder / "run.json")
    return done, total, begun if begun > job.started else None, finished


def _bar(job: Job) -> tuple[int, int | None]:
    """Units that are done and their number, as last written by the progress bar on the stderr of the process."""
    try:
        with (job.job_dir / STDERR).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST))
            counts = BAR.findall(file.read())
    except OSError:
        counts = []
    return (int(counts[-1][0]), int(counts[-1][1])) if counts else (0, None)


def _count(job: Job) -> int:
    """Units in the run directory, including those of other code, which a resumed run computes again."""
    done = len(list((job.folder / UNITS).glob("[!.]*.safetensors")))
    return done if job.total is None else min(done, job.total)


def _end(job: Job, finished: bool) -> tuple[str, str]:
    """State and last sentence of a job whose process has ended."""
    if finished:
        return "finished", ""
    try:
        answer = json.loads((job.job_dir / STDOUT).read_bytes())
        if answer.get("status") == "finished":
            return "removed", ""
        code, error = answer["exit_code"], answer["error"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        code = None
        error = "Its process ended without a message: it was killed, or the machine went down. What it stored is kept."
    return ("cancelled" if job.cancelled or code == INTERRUPTED else "failed"), error


def _changed(path: Path) -> float:
    """When the file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
