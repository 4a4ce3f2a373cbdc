"""Pairwise similarity of heads, and clusters of similar heads.

``output_similarity`` compares what heads of all layers write to the residual stream, ``pattern_similarity`` the attention
patterns of heads in one layer. Neither shows that one head can replace another; ablating both does.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp._short_repr import short_repr
from interp.engine.attention.attention_observer import Observation
from interp.engine.sweep import z_cache
from interp.heads import Head, HeadScores
from interp.models.memory import check_budget
from interp.models.model import Model, record_of
from interp.models.value_and_output_weights import output_weights
from interp.records import RunRecord
from interp.tasks.texts_as_task import as_task

BLOCK = 1 << 24  # numbers in memory at once
APART = 1e6  # distance of heads that were not compared; no mean over a cluster offsets it


@short_repr
@dataclass(frozen=True, eq=False)
class HeadPairScores:
    """One number per pair of heads: ``values`` [n_layers n_heads n_layers n_heads], symmetric, NaN for pairs not compared.
    ``unit``, ``bounds`` and ``record`` as in ``HeadScores``."""

    name: str
    values: np.ndarray
    unit: str
    bounds: tuple[float | None, float | None]
    record: RunRecord

    def __getitem__(self, pair: tuple[Head, Head]) -> float:
        one, other = pair
        return float(self.values[*one, *other])

    def to_dataframe(self) -> pd.DataFrame:
        """One row per compared pair, each once: ``layer head label layer2 head2 label2 metric value unit``."""
        heads = [Head(*at) for at in np.ndindex(self.values.shape[:2])]
        pairs = [(a, b) for a, b in combinations(heads, 2) if not np.isnan(self[a, b])]
        rows = [(*a, str(a), *b, str(b), self.name, self[a, b], self.unit) for a, b in pairs]
        columns = ["layer", "head", "label", "layer2", "head2", "label2", "metric", "value", "unit"]
        return pd.DataFrame(rows, columns=columns)


def pattern_similarity(observation: Observation) -> HeadPairScores:
    """Similarity of the attention patterns of heads in one layer, 0 to 1: the mean of ``head_similarity`` over all texts.
    Raises LookupError if ``head_similarity`` was not observed."""
    table = observation["head_similarity"].double().nanmean(1).cpu().numpy()
    values = np.full((*table.shape[:2], *table.shape[:2]), np.nan)
    for layer, similarity in enumerate(table):
        values[layer, :, layer] = similarity
    metric = observation.metrics["head_similarity"]
    return HeadPairScores(metric.label, values, metric.unit, metric.bounds, observation.record)


def output_similarity(model: Model, prompts: Any, measure: str = "cka") -> HeadPairScores:
    """Similarity of what all pairs of heads write (z W_O) at the positions of ``prompts`` (a task or texts, as in ``observe``).

    ``cka``: linear centred kernel alignment with the unbiased estimator of Song et al. 2012, whose mean is 0 for unrelated
    heads at any number of positions; 1 for outputs equal up to rotation, scale and a constant, so heads that write the same
    in other directions are similar. Needs 4 positions. ``cosine``: mean over positions of the cosine of the two outputs; 1
    for the same direction everywhere, -1 for opposite ones. NaN for a head that never writes (anything else). Raises
    ValueError for an unknown measure or too few positions, and MemoryBudgetExceeded. arXiv 1905.00414 (CKA).
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is unknown. There are: {', '.join(MEASURES)}.")
    task, facts = as_task(model, prompts), model.facts
    n_positions = sum(len(example.clean) for example in task)
    if measure == "cka" and n_positions < 4:
        raise ValueError(f"cka needs at least 4 positions, and the prompts have {n_positions}: use longer texts.")
    what = f"Comparing the outputs of {len(facts.heads())} heads at {n_positions:,} positions"
    check_budget(3 * 4 * len(facts.heads()) * facts.d_head * n_positions, what=what)  # z and two copies
    cache = z_cache.cache_z(model, task)
    with torch.inference_mode():
        z = [cache.layer(layer).float() for layer in range(facts.n_layers)]
        w_o = [output_weights(model, layer).float().cpu() for layer in range(facts.n_layers)]
        similarity = MEASURES[measure](z, w_o).clamp(-1, 1).double().numpy()
    values = (similarity + similarity.T).reshape(facts.n_layers, facts.n_heads, facts.n_layers, facts.n_heads) / 2
    arguments = {"n_examples": len(task), "measure": measure}
    record = record_of(model, task=task.name, arguments=arguments, metric="output_similarity")
    return HeadPairScores(f"output_similarity({measure})", values, "similarity", (-1.0, 1.0), record)


def cluster_heads(pairs: HeadPairScores, min_similarity: float = 0.5) -> HeadScores:
    """The cluster of each head, numbered from 0 by decreasing size: average linkage on 1 - similarity. Clusters are merged
    while the mean similarity between their heads is at least ``min_similarity``; heads that were not compared are never merged.
    Raises ValueError for ``min_similarity`` outside (-1, 1]."""
    from sklearn.cluster import AgglomerativeClustering

    if not -1 < min_similarity <= 1:
        raise ValueError(f"min_similarity={min_similarity:g} is outside (-1, 1]: use a value above -1, up to 1.")
    shape = pairs.values.shape[:2]
    similarity = pairs.values.reshape(int(np.prod(shape)), -1)
    distance = np.where(np.isnan(similarity), APART, np.clip(1 - similarity, 0, None))
    threshold = np.nextafter(1 - min_similarity, np.inf)  # the library merges below its threshold, not at it
    limit: dict[str, Any] = {"n_clusters": None, "distance_threshold": threshold}
    clustering = AgglomerativeClustering(metric="precomputed", linkage="average", **limit)
    joined = clustering.fit_predict(distance) if len(distance) > 1 else np.zeros(1, int)
    _, first, member, size = np.unique(joined, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size))
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return HeadScores(f"cluster by {pairs.name}", rank[member].reshape(shape), "cluster", (0.0, None), pairs.record)


def _cka(z: list[Tensor], w_o: list[Tensor]) -> Tensor:
    """Debiased linear CKA of z W_O for all pairs of heads, [n_layers*n_heads n_layers*n_heads]."""
    # z R^T, with W_O^T = Q R, has the same inner products between positions as z W_O, and the width of z.
    outputs = [torch.einsum("phd,hkd->phk", x, torch.linalg.qr(w.mT).R) for x, w in zip(z, w_o, strict=True)]
    outputs = [x - x.mean(0) for x in outputs]
    n = len(outputs[0])
    cross = torch.cat([torch.cat([_squared_products(x, y) for y in outputs], 1) for x in outputs])
    # Diagonals of the kernels, [pos head], which the estimator leaves out.
    own = torch.cat([x.square().sum(-1) for x in outputs], 1)
    total = own.sum(0)
    hsic = cross - own.T @ own * n / (n - 2) + total[:, None] * total / ((n - 1) * (n - 2))
    scale = hsic.diagonal().sqrt()
    return hsic / (scale[:, None] * scale)


def _squared_products(x: Tensor, y: Tensor) -> Tensor:
    """|x_i^T y_j|^2 (Frobenius) of heads i and j of two layers, [n_heads n_heads]."""
    products = x.flatten(1).T @ y.flatten(1)
    return products.unflatten(0, x.shape[1:]).unflatten(2, y.shape[1:]).square().sum((1, 3))


def _cosine(z: list[Tensor], w_o: list[Tensor]) -> Tensor:
    """Mean over positions of the cosine of z W_O for all pairs of heads, [n_layers*n_heads n_layers*n_heads]."""
    n_heads, d_model = len(z) * z[0].shape[1], w_o[0].shape[-1]
    total, count = torch.zeros(n_heads, n_heads), torch.zeros(n_heads, n_heads)
    for part in zip(*(x.split(max(1, BLOCK // (n_heads * d_model))) for x in z), strict=True):
        outputs = torch.cat([torch.einsum("phd,hdm->hpm", x, w) for x, w in zip(part, w_o, strict=True)])
        length = outputs.norm(dim=-1)
        directions = torch.nn.functional.normalize(outputs, dim=-1, eps=1e-30).flatten(1)
        total += directions @ directions.T
        count += (length > 0).float() @ (length > 0).float().T
    return total / count


MEASURES = {"cka": _cka, "cosine": _cosine}
