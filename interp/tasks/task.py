"""The one form of a question whose answer is known.

A task file writes ``Prompt``s (text); ``make_task`` turns them into ``Example``s (token ids) with the model's own tokenizer.
Clean and corrupted prompts of one example always have the same number of tokens; different examples may differ in length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from interp._short_repr import short_repr
from interp.records import digest, prompts_text

Span = tuple[int, int]
END = "end"
"""The mark of the positions that predict an answer of several tokens; without it that is the last position."""


@dataclass(frozen=True)
class Prompt:
    """One question as text. ``clean`` ends right before the answer; ``corrupted`` is its counterfactual; ``answers`` and
    ``distractors`` are single words that could come next. ``marks`` name places of the clean text as half-open character spans
    (needle, subject, S1 ...). Prompts that are alike (one template, one name) share a ``cluster``."""

    clean: str
    corrupted: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    marks: dict[str, Span] = field(default_factory=dict)
    cluster: str | None = None


@dataclass(frozen=True)
class Example:
    """One question as token ids. ``answers`` and ``distractors`` are sets in the order given: words that are the same token count
    once. ``marks`` are half-open token spans; the answer is predicted by the last position. Examples of one ``cluster`` are one
    observation for intervals and tests; without clusters each is independent of the others.

    An answer of several tokens is teacher-forced: both prompts end in all of its tokens but the last one, which is the only one of
    ``answers``, there are no distractors, and the mark ``end`` spans the positions that predict its tokens.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answers: tuple[int, ...]
    distractors: tuple[int, ...]
    marks: dict[str, Span] = field(default_factory=dict)
    cluster: str | None = None

    def __post_init__(self) -> None:
        for name in ("answers", "distractors"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))

    @property
    def n_answer_tokens(self) -> int:
        """Number of tokens of the answer."""
        start, end = self.marks.get(END, (0, 1))
        return end - start

    @property
    def prompt(self) -> tuple[int, ...]:
        """The clean prompt without tokens of the answer."""
        return self.clean[: len(self.clean) - self.n_answer_tokens + 1]

    @property
    def answer_tokens(self) -> tuple[int, ...]:
        """The tokens of an answer of several; otherwise the first of ``answers``."""
        return (*self.clean[len(self.prompt) :], self.answers[0])

    def swapped(self) -> Example:
        """The same question with the corrupted prompt in the place of the clean one, and the other way round."""
        return replace(self, clean=self.corrupted, corrupted=self.clean)


@short_repr
@dataclass(frozen=True)
class Task:
    """A named set of examples with the metric that judges them. ``metric`` is the name of an outcome (``logit_diff``,
    ``prob_diff`` ...); ``arguments`` are what the task was made with, seed included, and with the model's tokenizer they
    determine the examples."""

    name: str
    examples: tuple[Example, ...]
    metric: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError(f"Task {self.name!r} has no examples: give at least one prompt.")
        if n_without := len(self) - len(self.clusters or self):
            raise ValueError(
                f"{n_without} of the {len(self)} examples of task {self.name!r} have no cluster: give it to all or to none."
            )
        for i, example in enumerate(self.examples):
            here, n_clean, n_corrupted = f"Task {self.name!r}, example {i}", len(example.clean), len(example.corrupted)
            if n_clean != n_corrupted:
                lengths = f"the clean prompt has {n_clean} tokens, the corrupted one {n_corrupted}"
                raise ValueError(f"{here}: {lengths}. They must be equal, position by position: change a word of one of them.")
            if not example.clean or not example.answers:
                raise ValueError(f"{here}: the prompt or its answer is empty.")
            if set(example.answers) & set(example.distractors):
                raise ValueError(f"{here}: one token is both an answer and a distractor.")
            for mark, (start, end) in example.marks.items():
                if not 0 <= start < end <= n_clean:
                    raise ValueError(f"{here}: mark {mark!r} is {start}:{end}, outside the prompt.")
            if END in example.marks:
                _check_forced(example, here)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @property
    def marks(self) -> list[str]:
        """Names of the marks that every example has."""
        return sorted(set.intersection(*(set(e.marks) - {END} for e in self.examples)))

    @property
    def clusters(self) -> list[str] | None:
        """The cluster of each example; None where every example is independent of the others."""
        return [e.cluster for e in self.examples if e.cluster is not None] or None

    @property
    def n_clusters(self) -> int | None:
        """The number of clusters; None where every example is independent of the others."""
        return len({*self.clusters}) if self.clusters else None

    @property
    def size_text(self) -> str:
        """``60 prompts``, or ``60 prompts in 12 clusters``."""
        return prompts_text(len(self), self.n_clusters)

    @property
    def has_corrupted(self) -> bool:
        """Whether the corrupted prompts differ from the clean ones; without that nothing can be patched from them."""
        return any(e.clean != e.corrupted for e in self.examples)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the record of a measurement says of its prompts: how they were made, how many, in which clusters (if any), and
        their fingerprint."""
        clusters = {"n_clusters": self.n_clusters, "clusters": self.clusters} if self.clusters else {}
        return {**self.arguments, "n_examples": len(self), **clusters, "task_digest": self.digest()}

    def by_length(self) -> dict[int, list[int]]:
        """Indices of the examples of each prompt length, lengths ascending."""
        groups: dict[int, list[int]] = {}
        for i, example in enumerate(self.examples):
            groups.setdefault(len(example.clean), []).append(i)
        return dict(sorted(groups.items()))

    def select(self, indices: Sequence[int]) -> Task:
        """The same task with only these examples, in this order."""
        return Task(self.name, tuple(self.examples[i] for i in indices), self.metric, self.arguments)

    def halves(self, seed: int = 0) -> tuple[Task, Task]:
        """Two tasks of half the examples each, in an order drawn with the seed; of an odd number the first has one more. What
        is found on one half is tested on the other: no cluster is in both, each goes, the largest first, to the half with fewer
        examples. Raises ValueError for a single cluster."""
        order, middle = Random(seed).sample(range(len(self)), len(self)), (len(self) + 1) // 2
        clusters = self.clusters
        if clusters is None:
            return self.select(order[:middle]), self.select(order[middle:])
        if self.n_clusters == 1:
            raise ValueError(f"All examples of task {self.name!r} are of one cluster, which is not split: add others.")
        members: dict[str, list[int]] = {}
        for i in order:
            members.setdefault(clusters[i], []).append(i)
        halves: tuple[list[int], list[int]] = ([], [])
        for cluster in sorted(members.values(), key=len, reverse=True):
            min(halves, key=len).extend(cluster)
        return self.select(halves[0]), self.select(halves[1])

    def check_independent(self, what: str) -> None:
        """Raises ValueError for clusters, in the name of ``what``, which cannot respect them."""
        if self.clusters is not None:
            raise ValueError(
                f"{what} takes every prompt for independent, and those of task {self.name!r} are in {self.n_clusters} clusters: give "
                f"prompts without clusters, such as one of each."
            )

    def swapped(self) -> Task:
        """The same questions from the other side: the corrupted prompts are run, and patched with the clean ones (denoising).
        Answers stay those of the clean prompts; effects are then positive where a part restores them."""
        arguments = {**self.arguments, "swapped": not self.arguments.get("swapped", False)}
        return replace(self, examples=tuple(e.swapped() for e in self.examples), arguments=arguments)

    def digest(self) -> str:
        """Fingerprint of the token ids, answers, marks and clusters (if any): equal exactly when every example is equal."""
        rows = [[e.clean, e.corrupted, e.answers, e.distractors, sorted(e.marks.items())] for e in self.examples]
        return digest([self.name, rows, self.clusters] if self.clusters else [self.name, rows])


def _check_forced(example: Example, here: str) -> None:
    """Raises ValueError unless the mark ``end`` belongs to one answer of several tokens at the end of both prompts."""
    n_forced = example.n_answer_tokens - 1
    same = example.clean[len(example.clean) - n_forced :] == example.corrupted[len(example.clean) - n_forced :]
    if example.marks[END][1] != len(example.clean) or not same:
        raise ValueError(
            f"{here}: the mark 'end' must end with the prompt, and both prompts with the same tokens of the answer."
        )
    if len(example.answers) > 1 or example.distractors:
        raise ValueError(f"{here}: an answer of several tokens must be the only one, without distractors.")
