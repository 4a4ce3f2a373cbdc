"""How a number was made: the record that rides on every result and is saved beside every table."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("interp-workbench", "torch", "transformers", "transformer-lens", "numpy", "pandas")


@dataclass(frozen=True)
class RunRecord:
    """Everything needed to make the same number again.

    ``model`` is the name it was loaded by, ``revision`` the resolved commit (empty for folders), ``weights_digest`` the digest of
    its weights; ``task`` and ``arguments`` say what was asked; ``interventions`` are labels; ``device`` and ``dtype`` where it ran.
    """

    model: str
    revision: str = ""
    weights_digest: str = ""
    task: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    interventions: tuple[str, ...] = ()
    metric: str = ""
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    packages: dict[str, str] = field(default_factory=lambda: dict(package_versions()))
    commit: str = field(default_factory=lambda: source_commit()[0])
    dirty: bool = field(default_factory=lambda: source_commit()[1])

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; ``RunRecord.from_json`` reads it back equal."""
        return {**asdict(self), "interventions": list(self.interventions)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunRecord:
        return cls(**{**values, "interventions": tuple(values["interventions"])})

    def caption(self) -> str:
        """One line for a figure: model and revision, task, how many prompts and tokens (where the arguments say it), interventions,
        metric, seed."""
        revision, tokens = f"@{self.revision[:8]}" if self.revision else "", self.arguments.get("n_tokens")
        n = self.arguments.get("n_examples", self.arguments.get("n_prompts"))  # fewer than were made, where some were selected
        size = (f"n = {n}" if n else "", f"{tokens:,} tokens" if tokens else "")
        parts = (f"{self.model}{revision}", self.task, *size, *self.interventions, self.metric, f"seed {self.seed}")
        return " · ".join(part for part in parts if part)


def digest(value: Any) -> str:
    """SHA-256 (first 16 hex digits) of a JSON value; the order of dictionary keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """Installed versions of the packages that decide the numbers."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return tuple(found)


@cache
def source_commit() -> tuple[str, bool]:
    """Commit of the source tree this package runs from, and whether it has local changes; ("", False) for an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "", False

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return "", False
