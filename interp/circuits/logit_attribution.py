"""Direct logit attribution: what every head, every MLP and the embedding write toward the answer and against the distractor.

The logit difference is read from the residual stream at END, which is a sum of what these parts wrote; with the final norm's scale kept at
that of the run, it is a sum over parts, too. Positive = the part writes the answer. Only what is read without any further head or MLP is
counted: a part that works through others (S-inhibition, induction's first half) has 0 here, and a large number says that a part writes the
answer, not that the model would fail without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from interp._short_repr import short_repr
from interp.graph import Node
from interp.heads import Head, HeadScores
from interp.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.circuits.factual_recall import ResidualContributions
    from interp.models.model import Model
    from interp.tasks.task import Task

METRIC = "logit_diff"
SIGN = "positive = writes the answer"


@short_repr
@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """``values`` [n_writers n_examples]: what each of ``writers`` writes for the answer, in logits; with ``biases`` [n_examples], which
    belong to no part, their sum is the logit difference."""

    writers: tuple[Node, ...]
    values: Float[np.ndarray, "n_writers n_examples"]
    biases: Float[np.ndarray, " n_examples"]
    record: RunRecord

    @property
    def heads(self) -> HeadScores:
        """Mean over examples, one number per head."""
        rows = [i for i, node in enumerate(self.writers) if node.kind == "head"]
        by_layer = self.values[rows].mean(1).reshape(self.writers[rows[-1]].layer + 1, -1)
        return HeadScores(f"direct logits ({SIGN})", by_layer, "logits", (None, None), self.record)

    def to_dataframe(self, seed: int = 0) -> pd.DataFrame:
        """One row a part, the largest first: ``part layer head logits low high sign_consistency n``; mean over examples with a 95% interval.
        ``layer`` and ``head`` are -1 where there is none."""
        import pandas as pd

        from interp.statistics import bootstrap_weights, mean_interval

        values = np.concatenate([self.values, self.biases[None]])
        interval = mean_interval(values, bootstrap_weights(values.shape[1], seed))
        table = pd.DataFrame({"part": [*map(str, self.writers), "biases"]})
        table["layer"], table["head"] = [*(w.layer for w in self.writers), -1], [*(w.head for w in self.writers), -1]
        table["logits"], table["low"], table["high"] = interval.mean, interval.low, interval.high
        table["sign_consistency"] = (np.sign(values) == np.sign(interval.mean)[:, None]).mean(1)
        table["n"] = values.shape[1]
        return table.iloc[np.argsort(-np.abs(interval.mean), kind="stable")].reset_index(drop=True)


def direct_logits(model: Model, task: Task) -> LogitAttribution:
    """What every part of the model writes for the answers of the clean prompts and against their distractors.

    Raises ValueError for a task without distractors, an encoder, and a model whose logits are no sum of what its parts write.
    """
    import torch

    from interp.engine.attention.attention_interface import upcast
    from interp.models.model import record_of

    written, direction, constant = _direction(model, task)
    with torch.inference_mode():
        parts = upcast(written.parts)
        values = (parts * direction).sum(-1)
        rest = ((upcast(written.last) - parts.sum(0)) * direction).sum(-1) + constant
    record = record_of(model, task=task.name, arguments=task.provenance, metric=METRIC)
    return LogitAttribution(written.writers, values.cpu().double().numpy(), rest.cpu().double().numpy(), record)


def direct_logit_attribution_from(model: Model, task: Task, keys: str | tuple[int, ...]) -> HeadScores:
    """The part of every head's direct logits that comes from what it reads at ``keys`` (a mark, ``end`` or positions), mean over examples.

    A head's write at END is a sum over the keys that it looks at: parts from keys that share no position add up to its direct logits.
    Raises LookupError for an unknown mark and what ``direct_logits`` raises.
    """
    import torch

    from interp.engine.attention.attention_interface import upcast
    from interp.engine.forward.run import quiet_inference
    from interp.engine.sweep.clean_pass import clean_pass
    from interp.engine.sweep.work_units import batches
    from interp.interventions import Intervention
    from interp.models.model import record_of
    from interp.models.weights import output_rows
    from interp.tasks.positions import position_mask

    _, direction, _ = _direction(model, task)
    assert model.layout is not None
    found = np.empty((len(task), model.facts.n_layers, model.facts.n_heads))
    for rows in batches(task):
        examples = [task.examples[r] for r in rows]
        marked = torch.zeros(len(task), len(examples[0].clean), dtype=torch.bool)
        marked[rows] = position_mask(keys, examples)
        only = Intervention(
            "pattern", tuple(model.facts.heads()), lambda x, place, m=marked: x * place.where(m)[:, None], "only"
        )
        with model.lock, quiet_inference():
            clean = clean_pass(model, examples, rows, len(examples[0].clean) - 1, [only])
            for layer, head in model.facts.heads():
                w_o = output_rows(model.layout.outputs[layer], head, model.facts.d_head)
                wrote = upcast(clean.ablated_z[only, Head(layer, head)][:, -1] @ w_o)
                found[rows, layer, head] = (wrote * direction[rows]).sum(-1).cpu().double().numpy()
    record = record_of(model, task=task.name, arguments={**task.provenance, "keys": keys}, metric=METRIC)
    return HeadScores(f"direct logits from {keys} ({SIGN})", found.mean(0), "logits", (None, None), record)


def _direction(model: Model, task: Task) -> tuple[ResidualContributions, Tensor, Tensor]:
    """What every part wrote, and the direction and constant that it is read with."""
    import torch

    from interp.circuits.factual_recall import residual_contributions
    from interp.engine.gradients.answer_direction import answer_direction
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES

    outcome = OUTCOMES.get(METRIC)
    check_outcome(task, outcome)
    written = residual_contributions(model, task)
    with model.lock, torch.inference_mode():
        return written, *answer_direction(model, task.examples, outcome, written.last)
