"""How alike heads are, two by two, and which of them belong together.

``output_similarity`` compares what heads of all layers write to the residual stream, ``pattern_similarity`` where heads of one layer
look. Heads that look alike may write different things, and heads that write alike may look elsewhere. Neither says that one head can
stand in for another: that is a question for an ablation of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from interp._short_repr import short_repr
from interp.heads import Head, HeadScores
from interp.models.memory import check_budget

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import Model
    from interp.records import RunRecord

BLOCK = 1 << 24  # numbers held at once
APART = 1e6  # distance of heads that were not compared: more than any mean over a cluster can make up for


@short_repr
@dataclass(frozen=True, eq=False)
class HeadPairScores:
    """One number for every two heads: ``values`` [n_layers n_heads n_layers n_heads], symmetric, NaN where two were not compared.

    ``unit``, ``bounds`` and ``record`` as in ``HeadScores``.
    """

    name: str
    values: np.ndarray
    unit: str
    bounds: tuple[float | None, float | None]
    record: RunRecord

    def __getitem__(self, pair: tuple[Head, Head]) -> float:
        one, other = pair
        return float(self.values[*one, *other])

    def to_dataframe(self) -> pd.DataFrame:
        """Long table of all pairs that were compared, each once: layer, head, label, layer2, head2, label2, metric, value, unit."""
        import pandas as pd

        heads = [Head(*at) for at in np.ndindex(self.values.shape[:2])]
        found = [
            (*a, str(a), *b, str(b), self.name, self[a, b], self.unit)
            for a, b in combinations(heads, 2)
            if not np.isnan(self[a, b])
        ]
        columns = ["layer", "head", "label", "layer2", "head2", "label2", "metric", "value", "unit"]
        return pd.DataFrame(found, columns=columns)


def pattern_similarity(observation: Observation) -> HeadPairScores:
    """Similarity of the patterns of every two heads of one layer, in 0..1: ``head_similarity`` of an observation, averaged over its texts.

    Heads of different layers are not compared. Raises LookupError when it was not observed.
    """
    table = observation["head_similarity"].double().nanmean(1).cpu().numpy()
    values = np.full((*table.shape[:2], *table.shape[:2]), np.nan)
    for layer, found in enumerate(table):
        values[layer, :, layer] = found
    measure = observation.metrics["head_similarity"]
    return HeadPairScores(measure.label, values, measure.unit, measure.bounds, observation.record)


def output_similarity(model: Model, prompts: Any, measure: str = "cka") -> HeadPairScores:
    """Similarity of what every two heads of the model write (z W_O) at the positions of ``prompts`` (a task or texts, as in ``observe``).

    ``cka``: linear centred kernel alignment, with the unbiased estimator of Song et al. 2012, which is 0 in the mean for unrelated
    heads however few the positions are: 1 when the outputs are the same up to rotation, scale and a constant, so that heads that write the
    same to other directions are alike. Needs 4 positions. ``cosine``: the mean over positions of the cosine of the two outputs: 1 for
    the same direction everywhere, -1 where one takes back what the other writes. NaN for a head that never writes (anything else).
    Raises ValueError for another measure or too few positions, MemoryBudgetExceeded for more than the memory holds. arXiv 1905.00414 (CKA).
    """
    import torch

    from interp.engine.sweep.z_cache import cache_z
    from interp.models.model import record_of
    from interp.models.weights import output_weights
    from interp.tasks.as_task import as_task

    if measure not in MEASURES:
        raise ValueError(f"output_similarity has no measure {measure!r}. There are: {', '.join(MEASURES)}.")
    task, facts = as_task(model, prompts), model.facts
    n_positions = sum(len(example.clean) for example in task)
    if measure == "cka" and n_positions < 4:
        raise ValueError(f"cka needs 4 positions, and the prompts have {n_positions}: give longer texts.")
    what = f"Comparing what {len(facts.heads())} heads write at {n_positions:,} positions"
    check_budget(3 * 4 * len(facts.heads()) * facts.d_head * n_positions, what=what)  # z, and two copies on the way
    bank = cache_z(model, task)
    with torch.inference_mode():
        z = [bank.layer(layer).float() for layer in range(facts.n_layers)]
        w_o = [output_weights(model, layer).float().cpu() for layer in range(facts.n_layers)]
        found = MEASURES[measure](z, w_o).clamp(-1, 1).double().numpy()
    values = (found + found.T).reshape(facts.n_layers, facts.n_heads, facts.n_layers, facts.n_heads) / 2
    record = record_of(
        model, task=task.name, arguments={"n_examples": len(task), "measure": measure}, metric="output_similarity"
    )
    return HeadPairScores(f"output_similarity({measure})", values, "similarity", (-1.0, 1.0), record)


def cluster_heads(pairs: HeadPairScores, min_similarity: float = 0.5) -> HeadScores:
    """The cluster of each head, numbered from 0, larger clusters first: average linkage on 1 - similarity.

    Two clusters are joined as long as the mean similarity between their heads is ``min_similarity``; heads that were not compared are never
    joined. Raises ValueError for ``min_similarity`` outside (-1, 1].
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if not -1 < min_similarity <= 1:
        raise ValueError(
            f"min_similarity={min_similarity:g} is not a similarity that could tell heads apart: take one above -1, up to 1."
        )
    shape = pairs.values.shape[:2]
    similarity = pairs.values.reshape(int(np.prod(shape)), -1)
    distance = np.where(np.isnan(similarity), APART, np.clip(1 - similarity, 0, None))[np.triu_indices(len(similarity), 1)]
    joined = (
        np.zeros(1, int) if len(similarity) == 1 else fcluster(linkage(distance, "average"), 1 - min_similarity, "distance")
    )
    _, first, member, size = np.unique(joined, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size))
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return HeadScores(f"cluster by {pairs.name}", rank[member].reshape(shape), "cluster", (0.0, None), pairs.record)


def _cka(z: list[Tensor], w_o: list[Tensor]) -> Tensor:
    """Debiased linear CKA of z W_O for every two heads of every two layers, [n_layers*n_heads n_layers*n_heads]."""
    import torch

    # z R^T, with W_O^T = Q R, has the products of z W_O between positions, and is as narrow as z.
    outputs = [torch.einsum("phd,hkd->phk", x, torch.linalg.qr(w.mT).R) for x, w in zip(z, w_o, strict=True)]
    outputs = [x - x.mean(0) for x in outputs]
    n = len(outputs[0])
    cross = torch.cat([torch.cat([_squared_products(x, y) for y in outputs], 1) for x in outputs])
    own = torch.cat(
        [x.square().sum(-1) for x in outputs], 1
    )  # diagonals of the kernels, [pos head]: the estimator leaves them out
    total = own.sum(0)
    alike = cross - own.T @ own * n / (n - 2) + total[:, None] * total / ((n - 1) * (n - 2))
    scale = alike.diagonal().sqrt()
    return alike / (scale[:, None] * scale)


def _squared_products(x: Tensor, y: Tensor) -> Tensor:
    """|x_i^T y_j|^2 (Frobenius) of heads i and j of two layers, [n_heads n_heads]."""
    products = x.flatten(1).T @ y.flatten(1)
    return products.unflatten(0, x.shape[1:]).unflatten(2, y.shape[1:]).square().sum((1, 3))


def _cosine(z: list[Tensor], w_o: list[Tensor]) -> Tensor:
    """Mean over positions of the cosine of z W_O of every two heads, [n_layers*n_heads n_layers*n_heads]."""
    import torch

    n_heads, d_model = len(z) * z[0].shape[1], w_o[0].shape[-1]
    total, count = torch.zeros(n_heads, n_heads), torch.zeros(n_heads, n_heads)
    for part in zip(*(x.split(max(1, BLOCK // (n_heads * d_model))) for x in z), strict=True):
        written = torch.cat([torch.einsum("phd,hdm->hpm", x, w) for x, w in zip(part, w_o, strict=True)])
        length = written.norm(dim=-1)
        directions = torch.nn.functional.normalize(written, dim=-1, eps=1e-30).flatten(1)
        total += directions @ directions.T
        count += (length > 0).float() @ (length > 0).float().T
    return total / count


MEASURES = {"cka": _cka, "cosine": _cosine}
