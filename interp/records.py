"""Run records: how a number was made, carried by every result and stored with every table."""

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
    """Everything needed to reproduce a number.

    ``model`` is the name it was loaded by, ``revision`` the resolved commit (empty for folders), ``weights_digest`` the digest of
    its weights; ``task`` and ``arguments`` identify the experiment; ``interventions`` are labels; ``device`` and ``dtype`` where it ran.
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
        """The record as JSON values; ``RunRecord.from_json`` restores an equal record."""
        return {**asdict(self), "interventions": list(self.interventions)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunRecord":
        return cls(**{**values, "interventions": tuple(values["interventions"])})

    def caption(self) -> str:
        """One line for a figure: model and revision, task, numbers of prompts and tokens (if known), interventions, metric, seed."""
        revision, tokens = f"@{self.revision[:8]}" if self.revision else "", self.arguments.get("n_tokens")
        n = self.arguments.get("n_examples", self.arguments.get("n_prompts"))  # n_examples: after a selection of prompts
        size = (f"n = {n}" if n else "", f"{tokens:,} tokens" if tokens else "")
        parts = (f"{self.model}{revision}", self.task, *size, *self.interventions, self.metric, f"seed {self.seed}")
        return " · ".join(part for part in parts if part)


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON value, independent of the order of dictionary keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """Installed versions of the packages on which the numbers depend."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append((name, version(name)))
        except PackageNotFoundError:
            versions.append((name, "not installed"))
    return tuple(versions)


@cache
def source_commit() -> tuple[str, bool]:
    """Commit of the source tree that this package runs from, and whether it has local changes; ("", False) for an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "", False

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return "", False
