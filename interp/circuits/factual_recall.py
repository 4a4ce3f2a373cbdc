"""How a fact is recalled (arXiv 2403.19521): heads that carry the subject to END, what MLPs make of it, and what the last layer holds back.

All is read at END. The logit of a token is meant minus the mean logit, so that it does not change when all logits do. ``effect =
logit(without a part) - logit``: the part is replaced by its mean over the prompts in the residual stream that the logits are read from, so
that effects are direct: what it does through later layers is not counted. Negative = the part wrote the token. Tables call it ``mean``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from interp._short_repr import short_repr
from interp.graph import Node
from interp.heads import Head

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.engine.attention.attention_rows import AttentionRows
    from interp.models.model import Model
    from interp.tasks.task import Task

GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean square of a regressor, summed over all prompts."""


@short_repr
@dataclass(frozen=True, eq=False)
class ResidualContributions:
    """``parts`` [n_writers n_examples d_model]: what every writer of ``writers`` wrote at END; ``last`` is the stream after all of them.

    ``logits(residual) -> [n_examples d_vocab]`` are those of a residual at END, minus their mean.
    """

    writers: tuple[Node, ...]
    parts: Float[Tensor, "n_writers n_examples d_model"]
    last: Float[Tensor, "n_examples d_model"]
    logits: Callable[[Tensor], Tensor]

    def __getitem__(self, node: Node) -> Float[Tensor, "n_examples d_model"]:
        return self.parts[self.writers.index(node)]

    def effects(self, tokens: Int[np.ndarray, " n_examples"]) -> Float[np.ndarray, "n_writers n_examples"]:
        """``effect`` of every writer on the logit of each example's token."""
        import torch

        ids = torch.from_numpy(tokens).to(self.last.device)[:, None]
        with torch.inference_mode():
            read = [self.logits(self.last - part + part.mean(0)).gather(1, ids)[:, 0] for part in self.parts]
            return (torch.stack(read) - self.logits(self.last).gather(1, ids)[:, 0]).cpu().double().numpy()


def residual_contributions(model: Model, task: Task) -> ResidualContributions:
    """What every writer of the model's graph wrote at END of the clean prompts. Raises ValueError where it has none (``score_edges``)."""
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_residual
    from interp.engine.sweep.readout import Readout
    from interp.engine.sweep.work_units import batches
    from interp.metrics.outcomes import OUTCOMES

    graph, order, parts, last = graph_of(model), [], [], []
    with model.lock, torch.no_grad():
        for rows in batches(task):
            decomposition = decompose_residual(model, [task.examples[r] for r in rows])
            order += rows
            parts.append(decomposition.outputs[:, :, -1])
            last.append(decomposition.clean.last)
            read = Readout(model, decomposition.clean.examples, OUTCOMES.get("answer_logprob"), decomposition.clean.logits)
    back = torch.tensor(order).argsort()

    def logits(residual: Tensor) -> Tensor:
        found = read.logits(residual)
        return found - found.mean(-1, keepdim=True)

    return ResidualContributions(graph.writers, torch.cat(parts, 1)[:, back], torch.cat(last)[back], logits)


def subject_heads(model: Model, task: Task, mark: str = "subject") -> pd.DataFrame:
    """Heads that move the subject: one row a head, strongest on the subject first.

    Columns: ``layer head label``; ``attention`` (mean weight, END on all tokens of the mark), ``subject`` and ``answer`` (mean effect on
    the logit of the subject's last token and of the answer, in logits), ``correlation`` over prompts of the attention with what is written
    for the subject (NaN where either is the same everywhere), ``ablation``. A mover has a large attention and a negative ``subject``; where
    ``answer`` is negative as well, its values already hold something of the answer. Raises LookupError where the mark is missing.
    """
    import pandas as pd

    if mark not in task.marks:
        raise LookupError(f"No mark is called {mark!r} in all prompts of {task.name!r}. There are: {', '.join(task.marks)}.")
    attention = _attention_to(model, task, mark).reshape(-1, len(task))
    written = residual_contributions(model, task)
    subject, answer = (written.effects(np.array(tokens)) for tokens in (subjects(task, mark), [e.answers[0] for e in task]))
    rows = []
    for node, on_subject, on_answer in zip(written.writers, subject, answer, strict=True):
        if node.kind == "head":
            weight = attention[len(rows)]
            still = min(np.ptp(weight), np.ptp(on_subject)) <= 1e-9
            r = np.nan if still else float(np.corrcoef(weight, -on_subject)[0, 1])
            label = str(Head(node.layer, node.head))
            rows.append((node.layer, node.head, label, weight.mean(), on_subject.mean(), on_answer.mean(), r))
    columns = ["layer", "head", "label", "attention", "subject", "answer", "correlation"]
    table = pd.DataFrame(rows, columns=columns).sort_values("subject", kind="stable", ignore_index=True)
    return table.assign(ablation="mean")


def subjects(task: Task, mark: str = "subject") -> list[int]:
    """The last token of the subject of every prompt."""
    return [example.clean[example.marks[mark][1] - 1] for example in task]


def _attention_to(model: Model, task: Task, mark: str) -> Float[np.ndarray, "n_layers n_heads n_examples"]:
    """Weight of END on the tokens of a mark."""
    import torch

    from interp.engine.sweep.work_units import batches
    from interp.tasks.token_batch import as_batch

    found = np.empty((model.facts.n_layers, model.facts.n_heads, len(task)))
    for rows in batches(task):
        tokens = as_batch(model, [task.examples[row] for row in rows]).tokens
        marked = torch.zeros(tokens.shape, device=model.device)
        for i, row in enumerate(rows):
            marked[i, slice(*task.examples[row].marks[mark])] = 1
        found[:, :, rows] = _weight_on(model, tokens, marked).cpu().numpy()
    return found


def _weight_on(
    model: Model, tokens: Int[Tensor, "batch pos"], marked: Float[Tensor, "batch pos"]
) -> Float[Tensor, "n_layers n_heads batch"]:
    """Weight of END on marked tokens, read while the rows of END pass by."""
    from interp.engine.attention.last_query_rows import read_last_queries

    table = marked.new_zeros(model.facts.n_layers, model.facts.n_heads, len(tokens))

    def read(block: AttentionRows) -> None:
        table[block.layer.index, block.heads] = (block.pattern[:, :, -1] * marked[:, None, block.keys]).sum(-1).T

    read_last_queries(model, tokens, 1, read)
    return table


@short_repr
@dataclass(frozen=True, eq=False)
class RidgeDecomposition:
    """``output = sum of coefficients * parts + intercept`` at every prompt, by ridge regression over all coordinates together.

    ``coefficients`` [n_parts] (above 0 amplify, below erase) have 95% intervals ``low high`` by bootstrap over topics. ``r2`` is the share
    of the variance around the mean output that is explained on the prompts of the fit, ``r2_held_out`` on topics left out, and
    ``p_value`` how often the parts of other prompts explain as much. ``intercept`` [d_model] is what is added whatever the topic.
    ``condition`` is that of the parts' products: above 1e3, coefficients of single parts mean little. One number a part cannot
    rotate it: where ``r2_held_out`` is below .5, this is no description.
    """

    coefficients: Float[np.ndarray, " n_parts"]
    low: Float[np.ndarray, " n_parts"]
    high: Float[np.ndarray, " n_parts"]
    intercept: Float[np.ndarray, " d_model"]
    r2: float
    r2_held_out: float
    p_value: float
    ridge: float
    condition: float


def decompose(
    parts: Float[np.ndarray, "n_parts n_examples d_model"],
    output: Float[np.ndarray, "n_examples d_model"],
    topics: Sequence[Hashable],
    *,
    resamples: int = 500,
    shuffles: int = 99,
    seed: int = 0,
) -> RidgeDecomposition:
    """``output`` as a weighted sum of ``parts`` and a constant; the ridge is the one of ``RIDGES`` that predicts left-out topics best.

    Raises ValueError for fewer than 5 topics and for an output that is the same everywhere.
    """
    from interp.statistics import expanded_levels

    numbers = np.unique([str(topic) for topic in topics], return_inverse=True)[1]
    n_topics, rng = int(numbers.max()) + 1, np.random.default_rng(seed)
    if n_topics < 5:
        raise ValueError(f"{n_topics} topics are too few to leave one out and to draw from: give prompts about at least 5.")
    spread = np.square(output - output.mean(0)).sum()
    if not spread > 1e-12 * np.square(output).sum():
        raise ValueError("The output is the same for every prompt: there is nothing to decompose.")
    inside = np.eye(n_topics)[numbers]

    def held_out(parts: np.ndarray, ridge: float) -> float:
        lost = around = 0.0
        for own in inside.T:
            alpha, intercept, mean = _fit(parts, output, 1 - own, ridge)
            here = own > 0
            lost += np.square(output[here] - np.tensordot(alpha, parts[:, here], 1) - intercept).sum()
            around += np.square(output[here] - mean).sum()
        return float(1 - lost / around)

    scores = [held_out(parts, ridge) for ridge in RIDGES]
    ridge, best = RIDGES[int(np.argmax(scores))], max(scores)
    alpha, intercept, _ = _fit(parts, output, np.ones(len(output)), ridge)
    drawn = rng.multinomial(n_topics, np.full(n_topics, 1 / n_topics), size=resamples)
    levels = expanded_levels(n_topics)
    low, high = np.quantile([_fit(parts, output, inside @ times, ridge)[0] for times in drawn], levels, axis=0)
    others = [held_out(parts[:, rng.permutation(len(output))], ridge) for _ in range(shuffles)]
    centred = parts - parts.mean(1, keepdims=True)
    lost = np.square(output - np.tensordot(alpha, parts, 1) - intercept).sum()
    return RidgeDecomposition(
        alpha, low, high, intercept, float(1 - lost / spread), best, (1 + sum(o >= best for o in others)) / (1 + shuffles), ridge,
        float(np.linalg.cond(np.einsum("pnd,qnd->pq", centred, centred))),
    )  # fmt: skip


def _fit(
    parts: Float[np.ndarray, "n_parts n_examples d_model"],
    output: Float[np.ndarray, "n_examples d_model"],
    weights: Float[np.ndarray, " n_examples"],
    ridge: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, intercept and mean output of the weighted prompts."""
    share = weights / weights.sum()
    middle, mean = np.einsum("n,pnd->pd", share, parts), share @ output
    x, y = np.sqrt(share)[:, None] * (parts - middle[:, None]), np.sqrt(share)[:, None] * (output - mean)
    x, y = x.reshape(len(parts), -1), y.ravel()
    products = x @ x.T
    alpha = np.linalg.lstsq(products + ridge * products.trace() / len(parts) * np.eye(len(parts)), x @ y, rcond=None)[0]
    return alpha, mean - alpha @ middle, mean


def decompose_mlp(
    model: Model, task: Task, layer: int, heads: Sequence[Head], mark: str = "subject", *, seed: int = 0
) -> RidgeDecomposition:
    """What the MLP of a layer writes at END, as a sum of what ``heads`` of this and earlier layers wrote; a topic is a subject.

    Raises ValueError for heads that come after the MLP or are read beside it, and what ``decompose`` refuses; LookupError for a model
    without MLPs or without that layer.
    """
    from interp.engine.edges.edge_patching import graph_of
    from interp.graph import Edge

    graph, mlp = graph_of(model), Node("mlp", layer)
    for head in heads:
        graph.check(Edge(Node.of(Head(*head)), mlp))
    written = residual_contributions(model, task)
    parts = np.stack([written[Node.of(Head(*head))].cpu().double().numpy() for head in heads])
    return decompose(parts, written[mlp].cpu().double().numpy(), subjects(task, mark), seed=seed)


def suppression(model: Model, task: Task, seed: int = 0) -> pd.DataFrame:
    """What each part of the last layer does to the answer's logit: one row a part, and one for ``all`` of them added up.

    Columns: ``part effect low high share ablation``; the effect of taking it out, with a 95% interval over prompts, and the share of
    resamples in which it is positive. Positive = the part held the answer back; the layer does where ``share`` of ``all`` is at least .95.
    """
    import pandas as pd

    from interp.statistics import bootstrap_weights, mean_interval

    weights = bootstrap_weights(len(task), seed)
    written, top = residual_contributions(model, task), model.facts.n_layers - 1
    here = [i for i, node in enumerate(written.writers) if node.layer == top]
    effects = written.effects(np.array([e.answers[0] for e in task]))[here]
    effects = np.concatenate([effects, effects.sum(0, keepdims=True)])
    interval = mean_interval(effects, weights)
    return pd.DataFrame(
        {
            "part": [*(str(written.writers[i]) for i in here), "all"],
            "effect": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "share": (effects @ weights.T > 0).mean(1),
            "ablation": "mean",
        }
    )


def damping(
    model: Model, task: Task, neutral: Task, heads: Sequence[Head] | None = None, gammas: Sequence[float] = GAMMAS
) -> pd.DataFrame:
    """Accuracy when ``heads`` (by default all of the last layer) write ``gamma`` times what they wrote at END, and what it costs elsewhere.

    One row a gamma: ``gamma accuracy low high answer_logprob`` on the task, ``neutral_kl`` in nats to the unchanged model on other prompts,
    and ``intervention heads``. A gain beside a large ``neutral_kl`` is a damaged model.
    """
    import pandas as pd

    from interp.engine.sweep.sweep import sweep
    from interp.interventions import scale
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of
    from interp.statistics import bootstrap_weights, mean_interval

    weights = bootstrap_weights(len(task), 0)
    heads = heads or [head for head in model.facts.heads() if head.layer == model.facts.n_layers - 1]
    variants = [(scale(heads, gamma, "end"),) for gamma in gammas]

    def measured(of: Task, name: str) -> np.ndarray:
        return sweep(model, of, variants, OUTCOMES.get(name), record=record_of(model, task=of.name)).values

    correct = mean_interval(measured(task, "accuracy"), weights)
    table = pd.DataFrame({"gamma": list(gammas), "accuracy": correct.mean, "low": correct.low, "high": correct.high})
    table["answer_logprob"] = measured(task, "answer_logprob").mean(1)
    table["neutral_kl"] = measured(neutral, "kl").mean(1)
    return table.assign(intervention=[scaled.label for [scaled] in variants], heads=" ".join(map(str, heads)))
