"""An outcome: one number per example, computed from the logits that predict the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import ExtensionError, shape_or_type
from interp.tasks.task import Example, Task

if TYPE_CHECKING:  # reading a stored run needs the meaning of an outcome, and no torch
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

OVER_TOKENS = {"sum": "sum", "product": "prod"}
"""How the values at the tokens of an answer are combined, and the name of the reduction in torch."""

SLACK = 1e-4  # by which rounding may leave the bounds of an outcome


@dataclass(frozen=True)
class Answers:
    """Answer and distractor tokens of a batch, padded with token 0 and a False mask. Where the answers have ``n_tokens`` > 1 tokens, each
    of them is a row of its own, [batch*n_tokens 1]."""

    answers: Int[Tensor, "batch n_answers"]
    answer_mask: Bool[Tensor, "batch n_answers"]
    distractors: Int[Tensor, "batch n_distractors"]
    distractor_mask: Bool[Tensor, "batch n_distractors"]
    n_tokens: int = 1

    @classmethod
    def of(cls, examples: Sequence[Example], device: torch.device | str = "cpu") -> Answers:
        """Those of examples whose answers have equally many tokens."""
        n_tokens = examples[0].n_answer_tokens
        if n_tokens > 1:
            targets = [(token,) for example in examples for token in example.answer_tokens]
            return cls(*_pad(targets, device), *_pad([()] * len(targets), device), n_tokens=n_tokens)
        return cls(*_pad([e.answers for e in examples], device), *_pad([e.distractors for e in examples], device))

    def repeat(self, times: int) -> Answers:
        """The same answers for ``times`` variants of the batch, variants outermost."""
        parts = (self.answers, self.answer_mask, self.distractors, self.distractor_mask)
        return Answers(*(part.repeat(times, 1) for part in parts), n_tokens=self.n_tokens)


@dataclass(frozen=True)
class Outcome:
    """A named function of the answer logits.

    ``function(logits[batch d_vocab], answers, clean_logits[batch d_vocab]) -> [batch]`` in float32. An outcome that is a
    weighted sum of answer and distractor logits gives those weights in ``weights(answers) -> (answer weights, distractor
    weights)``; only these columns of the unembedding are then computed. ``relative_to_clean`` outcomes measure a change from
    the clean run. ``differentiable`` is False for step functions and for those with their minimum at the clean run. ``over_tokens`` says
    how the values at the tokens of an answer of several make its outcome: ``sum``, ``product``, or None where it has none.
    """

    name: str
    unit: str
    bounds: tuple[float | None, float | None]
    function: Callable[[Tensor, Answers, Tensor], Tensor]
    weights: Callable[[Answers], tuple[Tensor, Tensor]] | None = None
    needs_distractors: bool = False
    relative_to_clean: bool = False
    higher_is_better: bool = True
    differentiable: bool = True
    over_tokens: str | None = None

    def of_logits(
        self,
        logits: Float[Tensor, "batch *n_tokens d_vocab"],
        answers: Answers,
        clean: Float[Tensor, "batch *n_tokens d_vocab"],
    ) -> Float[Tensor, " batch"]:
        """The outcome of every example from its answer logits, of all tokens of its answer together."""
        found = self._checked(self.function(logits.flatten(0, -2), answers, clean.flatten(0, -2)), answers)
        if answers.n_tokens == 1:
            return found
        return getattr(found.unflatten(0, (-1, answers.n_tokens)), OVER_TOKENS[str(self.over_tokens)])(-1)

    def as_function(self, examples: Sequence[Example], device: torch.device | str) -> Callable[[Tensor], Tensor]:
        """The outcome of these examples as a function of the logits [batch pos d_vocab] of their prompts, to be differentiated."""
        from interp.engine.attention.attention_interface import upcast
        from interp.engine.forward.run import at_answer

        answers = Answers.of(examples, device)

        def function(logits: Tensor) -> Tensor:
            found = upcast(at_answer(logits, answers.n_tokens))
            return self.of_logits(found, answers, found.detach())

        return function

    def _checked(self, values: Tensor, answers: Answers) -> Tensor:
        """The values; raises ExtensionError unless there is one number for each row of the answers."""
        wanted = answers.answers.shape[:1]
        if getattr(values, "shape", None) != wanted:
            returns = f"must return one number for each example, [batch] {tuple(wanted)}, not {shape_or_type(values)}"
            raise ExtensionError(f"Metric {self.name!r} {returns}.")
        return values

    @property
    def sign_meaning(self) -> str:
        """How to read the sign of an effect, ``outcome(ablated) - outcome(clean)``."""
        if self.relative_to_clean:
            return "larger = the head mattered more"
        return f"{'negative' if self.higher_is_better else 'positive'} = the head helped"

    def check_bounds(self, values: Tensor | np.ndarray, example_ids: Sequence[int]) -> None:
        """Raises ValueError when one of the values [... n_examples] lies outside ``bounds`` by more than rounding."""
        for side, sign, bound in zip(("lower", "upper"), (-1, 1), self.bounds, strict=True):
            outside = [] if bound is None else (sign * (values - bound) > SLACK * max(1.0, abs(bound))).reshape(-1).tolist()
            if any(outside):
                value, example = float(values.reshape(-1)[outside.index(True)]), outside.index(True) % len(example_ids)
                raise ValueError(
                    f"Metric {self.name!r} is {value:.6g} on example {example_ids[example]}, and its declared {side} bound is {bound:g}: "
                    f"correct its function or its bounds."
                )


def check_outcome(task: Task, outcome: Outcome) -> None:
    """Raises ValueError when the outcome needs distractors and an example has none, or when it is that of one token and an answer has
    several."""
    longest = max(example.n_answer_tokens for example in task)
    if longest > 1 and outcome.over_tokens is None:
        raise ValueError(
            f"Metric {outcome.name!r} reads one token, and an answer of task {task.name!r} has {longest}: use answer_logprob, prob_mass or "
            f"accuracy."
        )
    without = [i for i, example in enumerate(task) if not example.distractors]
    if outcome.needs_distractors and without:
        raise ValueError(
            f"Metric {outcome.name!r} compares answers with distractors, and example {without[0]} of task {task.name!r} has none: "
            f"add distractors or use answer_logprob."
        )


def check_gradient(outcome: Outcome) -> None:
    """Raises ValueError for an outcome that is not differentiable at the clean run."""
    if not outcome.differentiable:
        raise ValueError(f"Metric {outcome.name!r} has no gradient at the clean run: use logit_diff, or the exact estimator.")


def check_single_tokens(examples: Sequence[Example], what: str) -> None:
    """Raises ValueError, in the name of ``what``, for answers of several tokens."""
    if (longest := max(example.n_answer_tokens for example in examples)) > 1:
        raise ValueError(
            f"{what} read the last position alone, and an answer has {longest} tokens: use answers of one token, or "
            f"score edges or ablate heads instead."
        )


def _pad(rows: Sequence[tuple[int, ...]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    import torch

    width = max(1, *map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return ids, torch.tensor([[i < len(row) for i in range(width)] for row in rows], device=device)
