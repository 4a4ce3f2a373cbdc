"""How a fact is recalled (arXiv 2403.19521): heads that carry the subject to END, and what the last layer suppresses.

Direct effects at END of replacing contributions by their means (``residual_contributions``); negative = promotes the token.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.clean_and_corrupted_runs import measurement_record
from interp.circuits.direct_effects import residual_contributions
from interp.engine.attention.attention_rows import AttentionRows
from interp.engine.attention.last_query_rows_and_prefix_cache import read_last_queries
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.work_units import batches
from interp.heads import Head
from interp.interventions import scale
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import Model
from interp.statistics import mean_interval, resample_prompts
from interp.tasks.position_names import position_mask
from interp.tasks.task import Task
from interp.tasks.token_batch import as_batch

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def subject_heads(model: Model, task: Task, mark: str = "subject") -> pd.DataFrame:
    """Heads that move the subject to END: one row per head, strongest on the subject first.

    Columns: ``layer head label``; ``attention`` (mean attention weight from END to the tokens of the mark, 0 to 1), ``subject``
    and ``answer`` (mean effects on the logits of the subject's last token and of the answer), ``correlation`` over prompts
    between attention and ``-subject`` (NaN if either is constant), ``ablation``. A mover head attends to the mark and has a
    negative ``subject``; with ``answer`` negative too, its values encode part of it. Raises LookupError for a missing mark.
    """
    if mark not in task.marks:
        raise LookupError(f"No mark is called {mark!r} in all prompts of {task.name!r}. There are: {', '.join(task.marks)}.")
    attention = _attention_to(model, task, mark).reshape(-1, len(task))
    written = residual_contributions(model, task)
    subject, answer = (written.effects(np.array(tokens)) for tokens in (subjects(task, mark), [e.answers[0] for e in task]))
    rows = []
    for node, on_subject, on_answer in zip(written.writers, subject, answer, strict=True):
        if node.kind == "head":
            weight = attention[len(rows)]
            constant = min(np.ptp(weight), np.ptp(on_subject)) <= 1e-9
            r = np.nan if constant else float(np.corrcoef(weight, -on_subject)[0, 1])
            label = str(Head(node.layer, node.head))
            rows.append((node.layer, node.head, label, weight.mean(), on_subject.mean(), on_answer.mean(), r))
    columns = ["layer", "head", "label", "attention", "subject", "answer", "correlation"]
    table = pd.DataFrame(rows, columns=columns).sort_values("subject", kind="stable", ignore_index=True)
    return table.assign(ablation="mean")


def subjects(task: Task, mark: str = "subject") -> list[int]:
    """The last token of the subject of every prompt."""
    return [example.clean[example.marks[mark][1] - 1] for example in task]


def _attention_to(model: Model, task: Task, mark: str) -> Float[np.ndarray, "n_layers n_heads n_examples"]:
    """Attention weight from END to the tokens of a mark."""
    weights = np.empty((model.facts.n_layers, model.facts.n_heads, len(task)))
    for example_ids in batches(task):
        examples = [task.examples[i] for i in example_ids]
        marked = position_mask(mark, examples).to(model.device)
        weights[:, :, example_ids] = _weight_on(model, as_batch(model, examples).tokens, marked).cpu().numpy()
    return weights


def _weight_on(
    model: Model, tokens: Int[Tensor, "batch pos"], marked: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "n_layers n_heads batch"]:
    weights = torch.zeros(model.facts.n_layers, model.facts.n_heads, len(tokens), device=model.device)

    def read(block: AttentionRows) -> None:
        weights[block.layer.index, block.heads] = (block.pattern[:, :, -1] * marked[:, None, block.keys]).sum(-1).T

    read_last_queries(model, tokens, 1, read)
    return weights


def suppression(model: Model, task: Task, seed: int = 0) -> pd.DataFrame:
    """What each component of the last layer does to the answer's logit: one row per component, and ``all`` for their sum.

    Columns: ``component effect ci_low ci_high share ablation``; the effect of ablating it, in logits, with a 95% interval over
    prompts or their clusters, and the share of resamples in which it is positive. Positive = the component suppresses the answer;
    the layer does where ``share`` of ``all`` is at least .95.
    """
    resamples = resample_prompts(len(task), seed, task.clusters)
    written, top = residual_contributions(model, task), model.facts.n_layers - 1
    in_layer = [i for i, node in enumerate(written.writers) if node.layer == top]
    effects = written.effects(np.array([e.answers[0] for e in task]))[in_layer]
    effects = np.concatenate([effects, effects.sum(0, keepdims=True)])
    interval = mean_interval(effects, resamples)
    names = [*(str(written.writers[i]) for i in in_layer), "all"]
    table = pd.DataFrame({"component": names, "effect": interval.mean, "ci_low": interval.low, "ci_high": interval.high})
    return table.assign(share=(effects @ resamples.weights.T > 0).mean(1), ablation="mean")


def head_scaling_curve(
    model: Model, task: Task, control_task: Task, heads: Sequence[Head] | None = None, scales: Sequence[float] = SCALES
) -> pd.DataFrame:
    """Accuracy with outputs of ``heads`` (by default the last layer's) at END times each of ``scales``, and the cost elsewhere.

    One row per scale: ``scale accuracy ci_low ci_high answer_logprob`` on the task, ``control_kl`` in nats to the intact model
    on ``control_task``, and ``intervention heads``. A gain in accuracy beside a large ``control_kl`` means a damaged model.
    """
    resamples = resample_prompts(len(task), 0, task.clusters)
    heads = heads or [head for head in model.facts.heads() if head.layer == model.facts.n_layers - 1]
    variants = [(scale(heads, factor, "end"),) for factor in scales]

    def outcomes(of: Task, name: str) -> np.ndarray:
        return sweep(model, of, variants, OUTCOMES.get(name), record=measurement_record(model, of, "scale", name)).values

    correct = mean_interval(outcomes(task, "accuracy"), resamples)
    table = pd.DataFrame({"scale": list(scales), "accuracy": correct.mean, "ci_low": correct.low, "ci_high": correct.high})
    table["answer_logprob"] = outcomes(task, "answer_logprob").mean(1)
    table["control_kl"] = outcomes(control_task, "kl").mean(1)
    return table.assign(intervention=[scaled.label for [scaled] in variants], heads=" ".join(map(str, heads)))
