"""The run directory of an experiment: whether it holds the run already, what happens to an earlier one, how an interrupted one resumes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ArtefactInvalid, counted

if TYPE_CHECKING:
    from interp.store import RunWriter, StoredRun

Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunFolder:
    """A folder for the run of one identity. ``notify`` receives one sentence about each thing that happens to the folder."""

    path: Path
    identity: dict[str, Any]
    notify: Notify

    def finished(self) -> "StoredRun | None":
        """The finished run in this folder, None where it is still to be computed. Raises ArtefactInvalid when it holds something else."""
        from interp.store import finished_run

        run = finished_run(self.path, self.identity)
        if run is not None:
            self._notify_finished()
        return run

    def holds_run(self) -> bool:
        """Whether there is an earlier run to move aside. Raises ArtefactInvalid when the folder holds anything else."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if not (self.path / "run.json").is_file():
            raise ArtefactInvalid(f"{self.path} is not a run directory, and --fresh moves nothing else: choose another --out.")
        return True

    def move_aside(self) -> Path | None:
        """Renames an earlier run to FOLDER.1, FOLDER.2 ... and returns its new path. Raises ArtefactInvalid when the folder holds anything
        else."""
        if not self.holds_run():
            return None
        number = 1
        while (free := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.notify(f"The earlier run was moved to {self.path.rename(free)}.")
        return free

    @contextmanager
    def resume(self, memory: int | None, command: str) -> "Iterator[RunWriter]":
        """A writer that continues the run in this folder, with the memory budget that it was started with.

        A KeyboardInterrupt inside the block says how many units are stored, and that ``command`` resumes the run.
        """
        from interp.store import start_run

        with start_run(self.path, self.identity, memory=memory) as writer:
            if writer.finished:
                self._notify_finished()
            elif done := writer.ledger.count():
                self.notify(f"Resuming {self.path}, of which {counted(done, 'unit')} had been computed.")
            budget = writer.details["memory"]
            if not writer.finished and memory not in (None, budget):
                stored = "the default memory budget" if budget is None else f"a memory budget of {budget:,} bytes"
                self.notify(f"This run was started with {stored}, which it keeps: --fresh starts again with the new one.")
            try:
                yield writer
            except KeyboardInterrupt:
                stored = f"Interrupted, with {counted(writer.ledger.count(), 'unit')} stored in {self.path}"
                raise KeyboardInterrupt(f"{stored}. The same command resumes the run: {command}") from None

    def _notify_finished(self) -> None:
        self.notify(f"{self.path} already holds this run, finished; nothing was computed. --fresh computes it again.")
