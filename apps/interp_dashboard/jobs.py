"""Commands of ``interp`` in processes of their own: planned, started, watched, cancelled and resumed.

A job is ``interp ablate ... --out RUNS/NAME``, or another command that fills a run directory, without a terminal. What is known of it
lies in ``RUNS/.jobs/NAME``: ``job.json`` and the two streams of the process. The process holds a lock on its ``stdout`` for as long as
it lives, so that any server can tell a job that runs from one that ended, also after a restart and when the process number was given
to another. Needs POSIX locks.

One folder holds one job. How far a sweep is, the units in its run directory tell; it goes on where it stopped. Other commands tell it by
their progress bar.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import interp
from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE
from interp.errors import ArtefactInvalid
from interp.files import write_atomically

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate
    from interp.models.model import Model
    from interp.store import StoredRun
    from interp.tasks.task import Task

JOBS, PROMPTS = ".jobs", ".prompts"
JOB, STDOUT, STDERR = "job.json", "stdout", "stderr"
UNITS = "units"
INTERRUPTED = 130
BAR, LAST = re.compile(rb"(\d+)/(\d+) \["), 4096
"""What a progress bar says, and so many bytes from the end of a stream it is looked for."""
TRIES, PAUSE = 5, 0.02  # a look at the lock holds it for an instant
GRACE = 10.0
# A server that a script started in the background ignores interrupts, and so would its children.
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from interp.cli import main; main()"


@dataclass(frozen=True)
class AblationRequest:
    """What is asked: a task, or a file of prompts instead (JSON Lines), and how its heads are taken out; the words are those of
    ``ablate_heads``."""

    task: str | None = None
    prompts: str | None = None
    ablation: str = "mean"
    estimator: str = "exact"
    positions: str = "all"
    metric: str | None = None
    n_prompts: int = 64
    seed: int = 0
    top_share: float = 0.2

    def question(self, model: Model) -> Task:
        """The prompts in the model's tokens. Raises ValueError, LookupError or FileNotFoundError for what is not there."""
        from interp.cli.exit_codes import UsageError
        from interp.cli.prompts import load_task

        try:
            return load_task(model, self.task, Path(self.prompts) if self.prompts else None, self.n_prompts, self.seed)
        except UsageError as error:
            raise ValueError(str(error)) from None

    def options(self, question: Task) -> dict[str, Any]:
        """The arguments of ``ablate_heads``."""
        asked = {"ablation": self.ablation, "estimator": self.estimator, "positions": self.positions}
        asked |= {"metric": self.metric or question.metric, "pairs": False}
        return {**asked, "seed": self.seed, "top_share": self.top_share, "heads": None}

    def words(self, model: str, device: str, dtype: str, offline: bool = False) -> list[str]:
        """The command line: the words after ``interp``."""
        given: dict[str, Any] = {"model": model, "task": self.task, "prompts": self.prompts}
        given |= {"ablation": self.ablation, "estimator": None if self.estimator == "exact" else self.estimator}
        given |= {"positions": self.positions, "metric": self.metric, "seed": self.seed}
        given |= {"n-prompts": self.n_prompts} if self.task else {}
        given |= {"top-share": self.top_share} if self.estimator == "adaptive" else {}
        given |= {"device": None if device == DEFAULT_DEVICE else device, "dtype": None if dtype == DEFAULT_DTYPE else dtype}
        options = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
        return ["ablate", *options, *(["--offline"] if offline else [])]


@dataclass(frozen=True)
class AblationJobPlan:
    """A sweep that can be started: what it is (``spec``, as its run will hold it), where it will be stored, what it costs.

    ``cost.bytes`` are those above the loaded model, ``bytes`` those of the whole process. ``total`` are the units that will be stored;
    None where a sweep has none (attribution).
    """

    sweep: AblationRequest
    words: tuple[str, ...]
    spec: dict[str, Any]
    folder: Path
    cost: CostEstimate
    bytes: int
    total: int | None

    def check_memory(self) -> None:
        """Raises MemoryBudgetExceeded when its process would not fit beside all that is loaded now."""
        from interp.models.memory import available_memory, check_budget

        check_budget(self.bytes, available_memory(self.spec["device"]), f"A second {self.spec['model']} with this sweep")

    def run(self) -> StoredRun | None:
        """The finished run, None where it is still to be made. Raises ArtefactInvalid when its folder holds something else."""
        from interp.store import finished_run

        return finished_run(self.folder, self.spec)


@dataclass(frozen=True)
class Job:
    """A started command on ``model``, a ``sweep`` or another. ``words`` come after ``interp``; ``before`` units were done when it started,
    of ``total`` (None: unknown); ``seconds`` is the estimate; ``started`` in seconds since 1970. ``query`` is the address that shows it."""

    folder: Path
    model: str
    sweep: AblationRequest | None
    words: tuple[str, ...]
    total: int | None = None
    seconds: float = 0.0
    before: int = 0
    pid: int = 0
    started: float = 0.0
    cancelled: bool = False
    query: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        """The command."""
        return self.words[0]

    @property
    def job_dir(self) -> Path:
        """Where its own files lie."""
        return self.folder.parent / JOBS / self.name


@dataclass(frozen=True)
class JobStatus:
    """How a job stands. ``state`` is ``loading`` (no unit can be done yet), ``running``, ``finished``, ``failed``, ``cancelled`` or
    ``removed`` (it was finished, and its run directory is gone).

    ``done`` of ``total`` units are stored; ``rate`` is in units a second, ``eta`` in seconds (both None where nothing says them).
    ``seconds`` is how long the process has been at work, or was. ``error`` is the sentence it ended with.
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
        """Share of the work that is done, 0 to 1."""
        return self.done / self.total if self.total else None


def plan(model: Model, sweep: AblationRequest, root: Path, *, offline: bool = False) -> AblationJobPlan:
    """The sweep as it would be started in a folder of ``root``; nothing is started or stored.

    Raises LookupError and ValueError for what cannot be measured, and MemoryBudgetExceeded for what would not fit the memory.
    """
    from interp.ablation.ablate_heads import estimate_cost
    from interp.cli.commands.ablate import folder_name, spec_of
    from interp.models.memory import ITEM_BYTES

    question = sweep.question(model)
    options = sweep.options(question)
    cost = estimate_cost(model, question, **options)
    facts = model.facts
    spec = spec_of(model, question, options)
    words = tuple(sweep.words(facts.name, str(model.device), facts.dtype, offline))
    needed = facts.n_parameters * ITEM_BYTES[facts.dtype] + cost.bytes
    total = _total(model, question, options, cost)
    return AblationJobPlan(sweep, words, spec, root.resolve() / folder_name(spec), cost, needed, total)


def start(planned: AblationJobPlan) -> Job:
    """The job, at work; one that was interrupted in this folder goes on.

    Raises ValueError when the run is finished or another job works on it, ArtefactInvalid when its folder holds something else, and
    MemoryBudgetExceeded when it would not fit the memory beside all that is loaded now.
    """
    if planned.run() is not None:
        raise ValueError(f"{planned.folder.name} is measured already: open it.")
    planned.check_memory()
    about = (planned.folder, planned.spec["model"], planned.sweep, planned.words)
    return _spawn(Job(*about, planned.total, planned.cost.seconds))


def begin(folder: Path, model: str, words: Sequence[str], query: Mapping[str, str]) -> Job:
    """A command that is no sweep, at work on the run directory ``folder``; ``query`` is the address of the page that asks for it.

    Raises ValueError when another job works on it.
    """
    return _spawn(Job(folder, model, None, tuple(words), query=dict(query)))


def resume(job: Job) -> Job:
    """The same job at work again, from where it stopped. Raises ValueError when it is still at work."""
    return _spawn(job)


def cancel(job: Job, grace: float = GRACE) -> None:
    """Asks the job to stop; what it stored stays, and it can be resumed. One that does not stop within ``grace`` seconds is ended.

    Returns at once; ``status`` tells when it has stopped. Nothing happens to a job that is not at work.
    """
    if not _alive(job):
        return
    _write(replace(job, cancelled=True))
    threading.Thread(target=_stop, args=(job, grace), daemon=True).start()


def forget(job: Job) -> None:
    """Removes what is known of a job; its run directory stays. Raises ValueError while it is at work."""
    if _alive(job):
        raise ValueError(f"{job.name} is at work: cancel it first.")
    shutil.rmtree(job.job_dir, ignore_errors=True)


def status(job: Job) -> JobStatus:
    """How the job stands now, read from its files alone."""
    alive = _alive(job)
    done, total, begun, finished = _progress(job)
    if not alive:
        state, error = _end(job, finished)
        return JobStatus(state, done, total, max(0.0, _changed(job.job_dir / STDOUT) - job.started), error=error)
    now = time.time()
    if begun is None:
        return JobStatus("loading", done, total, now - job.started)
    rate = (done - job.before) / (now - begun) if done > job.before and now > begun and not finished else None
    eta = (total - done) / rate if rate and total else None
    return JobStatus("running", done, total, now - job.started, rate, eta)


def jobs(root: Path) -> list[Job]:
    """All jobs whose runs lie in ``root``, the last started first; those without a readable ``job.json`` are left out."""
    found = [job for job_dir in (root.resolve() / JOBS).glob("*") if (job := find(root, job_dir.name))]
    return sorted(found, key=lambda job: -job.started)


def find(root: Path, name: str) -> Job | None:
    """The job of the run directory ``name`` in ``root``, None where there is none."""
    if Path(name).name != name or name == "..":
        return None
    try:
        about = json.loads((root.resolve() / JOBS / name / JOB).read_bytes())
        sweep = None if about["sweep"] is None else AblationRequest(**about["sweep"])
        read = {"folder": root.resolve() / name, "sweep": sweep, "words": tuple(about["words"])}
        return Job(**{**about, **read})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_uploaded_prompts(root: Path, name: str, content: bytes) -> Path:
    """The file in which prompts that somebody uploaded are kept, named after them and their content."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:60].strip("_") or "prompts"
    path = root.resolve() / PROMPTS / sha256(content).hexdigest()[:12] / f"{stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _total(model: Model, question: Task, options: dict[str, Any], cost: CostEstimate) -> int | None:
    """Units that the sweep will store. Their number depends on how many heads are measured, not on which."""
    from interp.ablation.ablate_heads import estimate_cost

    if options["estimator"] == "attribution":
        return None
    if options["estimator"] != "adaptive":
        return cost.n_units
    heads = model.facts.heads()
    chosen = heads[: max(1, round(options["top_share"] * len(heads)))]
    return estimate_cost(model, question, **{**options, "estimator": "exact", "heads": chosen}).n_units


def _spawn(job: Job) -> Job:
    """Starts the process of the job, which inherits the lock."""
    job.job_dir.mkdir(parents=True, exist_ok=True)
    # The same interp as this one, wherever it was imported from.
    path = os.pathsep.join([str(Path(interp.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _locked(job.job_dir / STDOUT) as stdout, (job.job_dir / STDERR).open("wb") as stderr:
        stdout.truncate(0)
        started = replace(job, before=_count(job), started=time.time(), cancelled=False)
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                COMMAND,
                *job.words,
                "--out",
                str(job.folder),
                "--json",
                "--quiet" if job.sweep else "--progress",
            ],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie is left
        started = replace(started, pid=process.pid)
        _write(started)
    return started


def _write(job: Job) -> None:
    about = {name: value for name, value in asdict(job).items() if name != "folder"}
    write_atomically(job.job_dir / JOB, (json.dumps(about, indent=2, allow_nan=False) + "\n").encode())


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
                    raise ValueError(f"{name} is being measured by a job started before: wait for it or cancel it.") from None
                time.sleep(PAUSE)
        yield file


def _alive(job: Job) -> bool:
    """Whether the process of the job lives: it holds the lock on its stdout."""
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
    """Interrupts the process, and ends it when that does not help."""
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
    """Units that are done, their number, when the process began to measure (None: it has not yet), and whether the run is finished."""
    from interp.store import open_run

    done, total = (
        (_count(job), job.total) if job.sweep else _bar(job)
    )  # before the manifest: a finished run has no units any more
    try:
        finished = open_run(job.folder).status == "finished"
    except ArtefactInvalid:
        finished = False
    if finished and total:
        done = total
    if job.sweep is None:
        return done, total, None if total is None else job.started, finished
    begun = _changed(job.folder / "run.json")
    return done, total, begun if begun > job.started else None, finished


def _bar(job: Job) -> tuple[int, int | None]:
    """Units that are done and their number, as the progress bar on the process's stderr said them last."""
    try:
        with (job.job_dir / STDERR).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST))
            told = BAR.findall(file.read())
    except OSError:
        told = []
    return (int(told[-1][0]), int(told[-1][1])) if told else (0, None)


def _count(job: Job) -> int:
    """Units in the run directory, of other code as well, which a resumed run computes again."""
    done = sum(1 for file in (job.folder / UNITS).glob("*.safetensors") if not file.name.startswith("."))
    return done if job.total is None else min(done, job.total)


def _end(job: Job, finished: bool) -> tuple[str, str]:
    """State and last sentence of a job whose process is gone."""
    if finished:
        return "finished", ""
    try:
        told = json.loads((job.job_dir / STDOUT).read_bytes())
        if told.get("status") == "finished":
            return "removed", ""
        code, error = told["exit_code"], told["error"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        code, error = None, "Its process ended without a word: it was killed, or the machine went down. What it stored is kept."
    return ("cancelled" if job.cancelled or code == INTERRUPTED else "failed"), error


def _changed(path: Path) -> float:
    """When the file was last written, 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
