"""Run records: how a number was made, carried by every result and stored with every table."""

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_origin

from interp.errors import counted

PACKAGES = ("interp-workbench", "torch", "transformers", "transformer-lens", "numpy", "pandas")
MIN_ACCURACY = 0.5
"""The share of right prompts below which a model is said not to do a task."""


@dataclass(frozen=True)
class Performance:
    """How well the unchanged model does a task, which every effect on the task rests on.

    ``n`` prompts, of which ``n_right`` are right (the most likely next token is an answer; each token of an answer of several, given those
    before it). On ``n_preferred`` the likeliest answer is above the likeliest distractor (None without distractors). ``outcome`` is the
    mean of ``metric``.
    """

    n: int
    n_right: int
    n_preferred: int | None
    metric: str
    outcome: float

    @property
    def accuracy(self) -> float:
        """Share of right prompts, 0 to 1."""
        return self.n_right / self.n

    @property
    def does_task(self) -> bool:
        """Whether at least ``MIN_ACCURACY`` of the prompts are right."""
        return self.accuracy >= MIN_ACCURACY

    def sentence(self, model: str, task: str) -> str:
        """How many prompts are right, and a warning where these are too few."""
        preferred = "" if self.n_preferred is None else f", and prefers the answer to the distractor on {self.n_preferred}"
        right = f"{model} is right on {self.n_right} of {self.n} prompts of {task}{preferred}; mean {self.metric} {self.outcome:.3g}."
        few = f" Fewer than {MIN_ACCURACY:.0%} are right: effects on this task say little of how it is done."
        return right + few * (not self.does_task)


@dataclass(frozen=True)
class RunRecord:
    """Everything needed to reproduce a number.

    ``model`` is the name it was loaded by, ``revision`` the resolved commit (empty for folders), ``weights_digest`` the digest of
    its weights, ``weights_form`` how they were stored (empty for plain ones), ``bos`` whether
    prompts begin with BOS (always, never; empty for encoders and in older records; a chat template, ``chat`` in ``arguments``, writes its
    own); ``task`` and ``arguments`` identify the experiment;
    ``interventions`` are labels; ``device`` and ``dtype`` where it ran. ``baseline`` holds the fields of the ``performance`` on the task
    (empty where no answer was read).
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
    weights_form: str = ""
    bos: str = ""
    baseline: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=lambda: dict(package_versions()))
    commit: str = field(default_factory=lambda: source_commit()[0])
    dirty: bool = field(default_factory=lambda: source_commit()[1])

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; ``RunRecord.from_json`` restores an equal record."""
        return {**asdict(self), "interventions": list(self.interventions)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunRecord":
        """The record that ``to_json`` wrote. Raises KeyError, TypeError for other values."""
        record = cls(**{**values, "interventions": tuple(values["interventions"])})
        for f in fields(cls):
            value = getattr(record, f.name)
            kind: Any = get_origin(f.type) or f.type
            if not isinstance(value, kind):
                raise TypeError(f"{f.name} of the record is a {type(value).__name__}")
        if not all(isinstance(label, str) for label in record.interventions):
            raise TypeError("an intervention of the record is not a text")
        return record

    @property
    def performance(self) -> Performance | None:
        """How well the unchanged model does the task; None where no answer was read. Raises TypeError for other values."""
        return Performance(**self.baseline) if self.baseline else None

    @property
    def performance_sentence(self) -> str:
        """On how many prompts the model is right; empty where no answer was read."""
        return self.performance.sentence(self.model, self.task) if self.performance else ""

    @property
    def clusters(self) -> list[str] | None:
        """The cluster of each prompt, in order; None where every prompt is independent of the others."""
        return self.arguments.get("clusters")

    @property
    def n_clusters(self) -> int | None:
        """The number of clusters of the prompts; None where every prompt is independent of the others."""
        return self.arguments.get("n_clusters")

    def caption(self) -> str:
        """One line for a figure: model, revision and form of the weights, task, numbers of prompts, clusters and tokens (if known),
        interventions, metric, seed."""
        revision, tokens = f"@{self.revision[:8]}" if self.revision else "", self.arguments.get("n_tokens")
        n = self.arguments.get("n_examples", self.arguments.get("n_prompts"))  # n_examples: after a selection of prompts
        clusters = f" in {self.n_clusters} clusters" if self.n_clusters else ""
        size = (f"n = {n}{clusters}" if n else "", f"{tokens:,} tokens" if isinstance(tokens, int) else "")
        model = (f"{self.model}{revision}", self.weights_form, self.task)
        parts = (*model, *size, *self.interventions, self.metric, f"seed {self.seed}")
        return " · ".join(part for part in parts if part)


def prompts_text(n: int, n_clusters: int | None) -> str:
    """What statistics rest on, in words: ``60 prompts``, or ``60 prompts in 12 clusters``."""
    return counted(n, "prompt") + (f" in {counted(n_clusters, 'cluster')}" if n_clusters else "")


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
