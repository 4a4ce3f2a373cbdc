"""Whether a model does a task: what to know before any effect on the task is read.

``gap`` is the mean outcome of the clean prompts minus that of the corrupted ones; effects of patching and circuits are shares of it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp._short_repr import short_repr, table_html
from interp.engine.sweep.sweep import outcome_and_performance
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model, record_of
from interp.records import Performance, RunRecord
from interp.statistics import mean_interval, resample_prompts
from interp.tasks import TASKS
from interp.tasks.task import Task
from interp.tasks.vocabulary_report import TaskVocabulary, task_vocabulary


@short_repr
@dataclass(frozen=True, eq=False)
class TaskCheck:
    """The prompts of a task and what the unchanged model makes of them.

    ``performance`` counts the right prompts. ``clean`` and ``corrupted`` [n_prompts] are the outcomes of both sides in ``unit``
    (``corrupted`` is None where no prompt has a corrupted version that differs), ``ci_low`` and ``ci_high`` the 95% interval of
    ``gap`` over prompts, or over clusters. ``lengths``, ``n_answer_tokens`` and ``n_changed`` [n_prompts] are tokens of each prompt
    and of its answer, and positions at which clean and corrupted differ. ``vocabulary`` says how many words of a built-in task
    are single tokens of the tokenizer; None for own prompts.
    """

    performance: Performance
    unit: str
    clean: np.ndarray
    corrupted: np.ndarray | None
    ci_low: float
    ci_high: float
    lengths: np.ndarray
    n_answer_tokens: np.ndarray
    n_changed: np.ndarray
    n_distinct: int
    vocabulary: TaskVocabulary | None
    record: RunRecord

    @property
    def gap(self) -> float:
        """Mean clean minus mean corrupted outcome, in ``unit``; NaN without corrupted prompts."""
        return float("nan") if self.corrupted is None else float((self.clean - self.corrupted).mean())

    @property
    def does_task(self) -> bool:
        """Whether at least half of the prompts are right (``interp.records.MIN_ACCURACY``)."""
        return self.performance.does_task

    @property
    def verdict(self) -> str:
        """On how many prompts the model is right, and a warning where these are too few."""
        return self.performance.sentence(self.record.model, self.record.task)

    def lines(self) -> list[str]:
        """The check as sentences, the verdict first."""
        return [self.verdict, *([self.vocabulary.sentence()] if self.vocabulary else ()), self._alignment(), self._gap()]

    def to_dataframe(self) -> pd.DataFrame:
        """One row: task and model, the counts, ``accuracy``, ``pairwise`` (share preferred to the distractor; NaN without one), mean
        outcomes, ``gap`` with its 95% interval, and ``does_task``."""
        done, missing = self.performance, float("nan")
        counts = {"n_prompts": done.n, "n_distinct": self.n_distinct, "n_right": done.n_right, "accuracy": done.accuracy}
        counts["pairwise"] = missing if done.n_preferred is None else done.n_preferred / done.n
        outcomes = {"metric": done.metric, "unit": self.unit, "clean": float(self.clean.mean())}
        outcomes["corrupted"] = missing if self.corrupted is None else float(self.corrupted.mean())
        outcomes |= {"gap": self.gap, "ci_low": self.ci_low, "ci_high": self.ci_high, "does_task": self.does_task}
        words = {"n_words": self.vocabulary.n_words, "n_single": self.vocabulary.n_single} if self.vocabulary else {}
        return pd.DataFrame([{"task": self.record.task, "model": self.record.model, **counts, **outcomes, **words}])

    def to_json(self) -> dict[str, Any]:
        """The row of ``to_dataframe`` (None for NaN), the verdict and the record, as JSON values."""
        row = {
            str(name): None if value != value else value for name, value in self.to_dataframe().to_dict("records")[0].items()
        }
        return {**row, "verdict": self.verdict, "record": self.record.to_json()}

    def _repr_html_(self) -> str:
        return table_html(" ".join(self.lines()), self.to_dataframe())

    def _alignment(self) -> str:
        distinct = f"{self.n_distinct} distinct prompts of {_range(self.lengths)} tokens"
        if self.n_answer_tokens.max() > 1:
            distinct += f", answers of {_range(self.n_answer_tokens)}"
        if self.corrupted is None:
            return f"{distinct}, none with a corrupted version that differs: what compares the two is refused."
        plural = "" if self.n_changed.max() == 1 else "s"
        return f"{distinct}; clean and corrupted are equally long and differ at {_range(self.n_changed)} position{plural}."

    def _gap(self) -> str:
        means = f"Mean {self.performance.metric} {self.clean.mean():.3g} {self.unit} on clean prompts"
        if self.corrupted is None:
            return f"{means}."
        interval = f"95% interval {self.ci_low:.3g} to {self.ci_high:.3g}"
        nothing = " The interval includes 0: there may be no effect to attribute." * (self.ci_low <= 0 <= self.ci_high)
        return f"{means}, {self.corrupted.mean():.3g} on corrupted ones: gap {self.gap:.3g} ({interval}).{nothing}"


def check_task(model: Model, task: Task, metric: str | None = None, *, seed: int = 0) -> TaskCheck:
    """How many prompts of the task the model gets right, how clean and corrupted prompts align, and the gap of ``metric`` (default: the
    task's) between them; ``seed`` is that of the bootstrap. Raises LookupError for an unknown metric, and ValueError for an encoder, a
    metric that needs distractors which the task lacks, and fewer than two prompts or clusters."""
    outcome = OUTCOMES.get(metric or task.metric)
    resamples = resample_prompts(len(task), seed, task.clusters)
    clean, performance = outcome_and_performance(model, task, outcome)
    corrupted = outcome_and_performance(model, task.swapped(), outcome)[0] if task.has_corrupted else None
    gap = (clean - (np.nan if corrupted is None else corrupted))[None]
    interval = mean_interval(gap, resamples)
    return TaskCheck(
        performance,
        outcome.unit,
        clean,
        corrupted,
        float(interval.low[0]),
        float(interval.high[0]),
        np.array([len(e.prompt) for e in task]),
        np.array([e.n_answer_tokens for e in task]),
        np.array([sum(a != b for a, b in zip(e.clean, e.corrupted, strict=True)) for e in task]),
        len({e.prompt for e in task}),
        task_vocabulary(model, task) if task.name in TASKS.names() else None,
        record_of(
            model,
            task=task.name,
            arguments=task.provenance,
            metric=outcome.name,
            seed=seed,
            baseline=asdict(performance),
        ),
    )


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
