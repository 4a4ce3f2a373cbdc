"""Direct logit attribution: what heads, MLPs and the embedding contribute to the logit of the answer over the distractor.

The logit difference is read from the residual stream at END, which is the sum of the contributions; with the final norm's scale
frozen at its value in the run, it is a sum over contributions as well. Positive = the component promotes the answer. Only
direct effects count: a component that acts through others (S-inhibition heads, the first half of induction) has 0 here, and a
large value shows that a component writes the answer, not that the model fails without it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp._short_repr import short_repr
from interp.circuits.clean_and_corrupted_runs import measurement_record, to_numpy
from interp.circuits.direct_effects import ResidualContributions, residual_contributions
from interp.engine.attention.attention_interface import upcast
from interp.engine.forward.run import quiet_inference
from interp.engine.gradients.answer_direction import answer_direction
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.outcome import check_outcome
from interp.engine.sweep.work_units import batches
from interp.graph import Node
from interp.heads import Head, HeadScores
from interp.interventions import Intervention
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.models.value_and_output_weights import output_rows
from interp.records import RunRecord
from interp.statistics import mean_interval, resample_prompts
from interp.tasks.position_names import position_mask
from interp.tasks.task import Task

METRIC = "logit_diff"
SIGN = "positive = promotes the answer"


@short_repr
@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """``values`` [n_writers n_examples]: the contribution of each of ``writers`` to the logit difference, in logits; together
    with ``biases`` [n_examples], which belong to no component, they add up to it."""

    writers: tuple[Node, ...]
    values: Float[np.ndarray, "n_writers n_examples"]
    biases: Float[np.ndarray, " n_examples"]
    record: RunRecord

    @property
    def heads(self) -> HeadScores:
        """Mean over examples, one number per head, in logits."""
        rows = [i for i, node in enumerate(self.writers) if node.kind == "head"]
        by_layer = self.values[rows].mean(1).reshape(self.writers[rows[-1]].layer + 1, -1)
        return HeadScores(f"direct logit attribution ({SIGN})", by_layer, "logits", (None, None), self.record)

    def top(self, k: int) -> list[Node]:
        """The ``k`` components with the largest absolute mean contributions, in order."""
        order = np.argsort(-np.abs(self.values.mean(1)), kind="stable")[: max(0, k)]
        return [self.writers[i] for i in order]

    def to_dataframe(self, seed: int = 0) -> pd.DataFrame:
        """One row per component, the largest first: ``component layer head logits ci_low ci_high sign_consistency n``; mean
        over examples with a 95% interval (over ``n_clusters`` where they are in clusters). ``layer`` and ``head`` are -1 where there
        is none."""
        values = np.concatenate([self.values, self.biases[None]])
        resamples = resample_prompts(values.shape[1], seed, self.record.clusters)
        interval = mean_interval(values, resamples)
        table = pd.DataFrame({"component": [*map(str, self.writers), "biases"]})
        table["layer"], table["head"] = [*(w.layer for w in self.writers), -1], [*(w.head for w in self.writers), -1]
        table["logits"], table["ci_low"], table["ci_high"] = interval.mean, interval.low, interval.high
        same_sign = np.sign(values) == np.sign(interval.mean)[:, None]
        table = table.assign(sign_consistency=same_sign.mean(1), **resamples.sizes)
        return table.iloc[np.argsort(-np.abs(interval.mean), kind="stable")].reset_index(drop=True)

    def plot(self, **options: Any) -> Any:
        """Layer x head map of the heads' contributions (a plotly figure); options as in ``interp.figures.head_map``."""
        return self.heads.plot(**options)


def direct_logit_attribution(model: Model, task: Task) -> LogitAttribution:
    """The contribution of every component of the model to the logit difference of the clean prompts, in logits.

    Raises ValueError for a task without distractors, an encoder, and a model whose logits are not a sum over its components.
    """
    written, direction, constant = _direction(model, task)
    with torch.inference_mode():
        contributions = upcast(written.contributions)
        values = (contributions * direction).sum(-1)
        rest = ((upcast(written.final_residual) - contributions.sum(0)) * direction).sum(-1) + constant
    record = measurement_record(model, task, "", METRIC)
    return LogitAttribution(written.writers, to_numpy(values), to_numpy(rest), record)


def direct_logit_attribution_from(model: Model, task: Task, keys: str | tuple[int, ...]) -> HeadScores:
    """The share of every head's direct logit attribution read at ``keys`` (a mark, ``end`` or positions), mean over examples.

    A head's output at END is a sum over the keys it attends to: values for keys that share no position add up to its
    attribution. Raises LookupError for an unknown mark and what ``direct_logit_attribution`` raises.
    """
    _, direction, _ = _direction(model, task)
    assert model.layout is not None
    values, heads = np.empty((len(task), model.facts.n_layers, model.facts.n_heads)), tuple(model.facts.heads())
    for example_ids in batches(task):
        examples = [task.examples[i] for i in example_ids]
        marked = torch.zeros(len(task), len(examples[0].clean), dtype=torch.bool)
        marked[example_ids] = position_mask(keys, examples)
        only = Intervention("pattern", heads, lambda x, place, m=marked: x * place.where(m)[:, None], "only")
        with model.lock, quiet_inference():
            clean = clean_pass(model, examples, example_ids, len(examples[0].clean) - 1, [(only, head) for head in heads])
            for layer, head in heads:
                w_o = output_rows(model.layout.outputs[layer], head, model.facts.d_head)
                output = upcast(clean.ablated_z[only, Head(layer, head)][:, -1] @ w_o)
                values[example_ids, layer, head] = to_numpy((output * direction[example_ids]).sum(-1))
    record = measurement_record(model, task, "", METRIC, keys=keys)
    return HeadScores(f"direct logit attribution from {keys} ({SIGN})", values.mean(0), "logits", (None, None), record)


def _direction(model: Model, task: Task) -> tuple[ResidualContributions, Tensor, Tensor]:
    """The contributions, and the direction and constant by which the logit difference is read from them."""
    outcome = OUTCOMES.get(METRIC)
    check_outcome(task, outcome)
    written = residual_contributions(model, task)
    with model.lock, torch.inference_mode():
        return written, *answer_direction(model, task.examples, outcome, written.final_residual)
