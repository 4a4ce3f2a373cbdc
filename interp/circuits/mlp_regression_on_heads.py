"""An output as a weighted sum of contributions: what an MLP makes of the heads before it (after arXiv 2403.19521).

Ridge regression over all coordinates together, with one coefficient per contribution and one intercept per coordinate. A
coefficient can scale a contribution but not rotate it: where ``r2_held_out`` is below .5 the sum does not describe the output.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import ridge_regression

from interp._short_repr import short_repr
from interp.circuits.clean_and_corrupted_runs import to_numpy
from interp.circuits.direct_effects import residual_contributions
from interp.circuits.factual_recall_and_suppression import subjects
from interp.engine.edges.edge_patching import graph_of
from interp.graph import Edge, Node
from interp.heads import Head
from interp.models.model import Model
from interp.statistics import expanded_levels
from interp.tasks.task import Task

RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties, relative to the mean square of a regressor summed over all prompts."""
MIN_TOPICS = 5


@short_repr
@dataclass(frozen=True, eq=False)
class RidgeDecomposition:
    """``output = sum of coefficients * contributions + intercept`` at every prompt.

    ``coefficients`` [n_parts] (above 0 amplify, below 0 erase) have 95% intervals ``ci_low ci_high`` by bootstrap over topics.
    ``r2`` is the explained share of the variance around the mean output on the fitted prompts, ``r2_held_out`` on left-out
    topics, and ``p_value`` how often contributions of other prompts explain as much. ``intercept`` [d_model] is independent of
    the topic. ``condition`` is the condition number of the contributions' Gram matrix: above 1e3, single coefficients mean little.
    """

    coefficients: Float[np.ndarray, " n_parts"]
    ci_low: Float[np.ndarray, " n_parts"]
    ci_high: Float[np.ndarray, " n_parts"]
    intercept: Float[np.ndarray, " d_model"]
    r2: float
    r2_held_out: float
    p_value: float
    ridge: float
    condition: float

    def to_dataframe(self) -> pd.DataFrame:
        """One row per contribution, in order: ``coefficient ci_low ci_high``."""
        return pd.DataFrame({"coefficient": self.coefficients, "ci_low": self.ci_low, "ci_high": self.ci_high})


def ridge_decompose(
    contributions: Float[np.ndarray, "n_parts n_examples d_model"],
    output: Float[np.ndarray, "n_examples d_model"],
    topics: Sequence[Hashable],
    *,
    n_resamples: int = 500,
    n_shuffles: int = 99,
    seed: int = 0,
) -> RidgeDecomposition:
    """``output`` as a weighted sum of ``contributions`` and a constant, with the best of ``RIDGES`` for left-out topics.

    ``topics`` names the topic of each example. Raises ValueError for fewer than 5 topics and for a constant output.
    """
    labels = np.unique([str(topic) for topic in topics], return_inverse=True)[1]
    n_topics, rng = int(labels.max()) + 1, np.random.default_rng(seed)
    if n_topics < MIN_TOPICS:
        raise ValueError(f"{n_topics} topics are too few for cross-validation: give prompts about at least {MIN_TOPICS}.")
    spread = np.square(output - output.mean(0)).sum()
    if not spread > 1e-12 * np.square(output).sum():
        raise ValueError("The output is the same for every prompt: there is nothing to decompose.")
    of_topic = np.eye(n_topics)[labels]
    scores = [_held_out_r2(contributions, output, of_topic, ridge) for ridge in RIDGES]
    ridge, best = RIDGES[int(np.argmax(scores))], max(scores)
    coefficients, intercept, _ = _fit(contributions, output, np.ones(len(output)), ridge)
    draws = rng.multinomial(n_topics, np.full(n_topics, 1 / n_topics), size=n_resamples)
    resampled = [_fit(contributions, output, of_topic @ counts, ridge)[0] for counts in draws]
    low, high = np.quantile(resampled, expanded_levels(n_topics), axis=0)
    orders = (rng.permutation(len(output)) for _ in range(n_shuffles))
    null = [_held_out_r2(contributions[:, order], output, of_topic, ridge) for order in orders]
    residual = np.square(output - np.tensordot(coefficients, contributions, 1) - intercept).sum()
    centred = contributions - contributions.mean(1, keepdims=True)
    condition = float(np.linalg.cond(np.einsum("pnd,qnd->pq", centred, centred)))
    p_value = (1 + sum(score >= best for score in null)) / (1 + n_shuffles)
    r2 = float(1 - residual / spread)
    return RidgeDecomposition(coefficients, low, high, intercept, r2, best, p_value, ridge, condition)


def _held_out_r2(
    contributions: Float[np.ndarray, "n_parts n_examples d_model"],
    output: Float[np.ndarray, "n_examples d_model"],
    of_topic: Float[np.ndarray, "n_examples n_topics"],
    ridge: float,
) -> float:
    """Share of the variance explained on topics that are left out of the fit one at a time."""
    residual = total = 0.0
    for member in of_topic.T:
        coefficients, intercept, mean = _fit(contributions, output, 1 - member, ridge)
        own = member > 0
        residual += np.square(output[own] - np.tensordot(coefficients, contributions[:, own], 1) - intercept).sum()
        total += np.square(output[own] - mean).sum()
    return float(1 - residual / total)


def _fit(
    contributions: Float[np.ndarray, "n_parts n_examples d_model"],
    output: Float[np.ndarray, "n_examples d_model"],
    weights: Float[np.ndarray, " n_examples"],
    ridge: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, intercept and mean output of the weighted prompts."""
    share = weights / weights.sum()
    middle, mean = np.einsum("n,pnd->pd", share, contributions), share @ output
    x, y = np.sqrt(share)[:, None] * (contributions - middle[:, None]), np.sqrt(share)[:, None] * (output - mean)
    x, y = x.reshape(len(contributions), -1), y.ravel()
    penalty = ridge * float(np.square(x).sum()) / len(contributions)
    coefficients = np.asarray(ridge_regression(x.T, y, penalty, solver="svd"))
    return coefficients, mean - coefficients @ middle, mean


def decompose_mlp(
    model: Model, task: Task, layer: int, heads: Sequence[Head], mark: str = "subject", *, seed: int = 0
) -> RidgeDecomposition:
    """A layer's MLP output at END as a weighted sum of the outputs of ``heads`` up to this layer; a topic is a subject.

    Raises as ``ridge_decompose``, ValueError for prompts in clusters, and LookupError for heads that the MLP does not read and a model
    without that MLP.
    """
    task.check_independent("decompose_mlp, which resamples subjects and permutes prompts,")
    graph, mlp = graph_of(model), Node("mlp", layer)
    for head in heads:
        graph.check(Edge(Node.of(Head(*head)), mlp))
    written = residual_contributions(model, task)
    inputs = np.stack([to_numpy(written[Node.of(Head(*head))]) for head in heads])
    return ridge_decompose(inputs, to_numpy(written[mlp]), subjects(task, mark), seed=seed)
