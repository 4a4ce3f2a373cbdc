"""Activation patching by layer and position: where what decides the answer is, on its way from the words to END.

The clean prompts are run with one site of one layer, at one place, as it was on the corrupted prompts (noising): ``effect =
metric(patched) - metric(clean)``, negative = what stands there is needed. ``task.swapped()`` turns it round (denoising): the corrupted
prompts are run with what the clean ones had there, and positive = it is enough. The two disagree where parts cover for each other or
need each other (arXiv 2404.15255). Heads at a place are patched by ``ablate_heads(ablation="patch", positions=...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from interp._short_repr import short_repr
from interp.circuits.edge_ablation import check_pairs
from interp.circuits.edge_scores import check_finite_and_gap
from interp.records import RunRecord
from interp.registry import check_name

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.engine.edges.residual_decomposition import ResidualDecomposition
    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

PATCH_SITES = {
    "resid": "the residual stream that enters a layer",
    "attn": "what attention of a layer writes",
    "mlp": "what the MLP of a layer writes",
}


@short_repr
@dataclass(frozen=True, eq=False)
class PatchGrid:
    """``values`` [n_layers n_positions n_examples]: the effect of patching ``site`` at each of ``positions``, in ``unit``; ``clean`` and
    ``corrupted`` [n_examples] are the outcome of the run that is patched and of the one that it is patched from."""

    site: str
    positions: tuple[str, ...]
    values: Float[np.ndarray, "n_layers n_positions n_examples"]
    clean: Float[np.ndarray, " n_examples"]
    corrupted: Float[np.ndarray, " n_examples"]
    unit: str
    record: RunRecord

    @property
    def effects(self) -> Float[np.ndarray, "n_layers n_positions"]:
        """Mean over examples."""
        return self.values.mean(2)

    @property
    def gap(self) -> float:
        """The whole swap: what patching everything does."""
        return float(self.corrupted.mean() - self.clean.mean())

    def to_dataframe(self, seed: int = 0) -> pd.DataFrame:
        """One row a cell: ``site layer position effect low high share_of_gap n metric unit``, with a 95% interval over examples."""
        import pandas as pd

        from interp.statistics import bootstrap_weights, mean_interval

        n_layers, n_positions, n = self.values.shape
        interval = mean_interval(self.values.reshape(-1, n), bootstrap_weights(n, seed))
        layers, places = np.indices((n_layers, n_positions)).reshape(2, -1)
        table = pd.DataFrame({"site": self.site, "layer": layers, "position": [self.positions[i] for i in places]})
        table["effect"], table["low"], table["high"] = interval.mean, interval.low, interval.high
        table["share_of_gap"], table["n"] = interval.mean / self.gap, n
        table["metric"], table["unit"] = self.record.metric, self.unit
        return table


def patch_grid(
    model: Model,
    task: Task,
    site: str = "resid",
    *,
    positions: str | Sequence[str | tuple[int, ...]] | None = None,
    metric: str | None = None,
    progress: Progress | None = None,
) -> PatchGrid:
    """The effect of patching ``site`` (``resid``, ``attn`` or ``mlp``) of every layer at each of ``positions``, example by example.

    A position is a mark, ``end`` or token indices; by default every token where all prompts are equally long, else every mark and ``end``.
    Raises LookupError for an unknown site, position or metric; ValueError for no position, a model without MLPs where they are asked
    for, and for what ``score_edges`` refuses.
    """
    import torch

    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_task
    from interp.engine.gradients.qk_fix import ResidualChange, resume_changes
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES
    from interp.models.model import record_of
    from interp.tasks.positions import position_mask

    check_name(site, PATCH_SITES, "site")
    outcome, graph = OUTCOMES.get(metric or task.metric), graph_of(model)
    if site == "mlp" and not graph.has_mlps:
        raise ValueError(f"{model.facts.name} has no MLPs to patch: take resid or attn.")
    check_outcome(task, outcome)
    check_pairs(task)
    places = _places(task) if positions is None else [positions] if isinstance(positions, str) else list(positions)
    if not places:
        raise ValueError("positions=[] leaves nothing to patch: name marks, end or token indices.")

    def added(decomposition: ResidualDecomposition, layer: int) -> Tensor:
        first = decomposition.before(layer)
        writers = {"resid": range(first), "attn": range(first, first + graph.n_heads), "mlp": [first + graph.n_heads]}[site]
        return decomposition.added([*writers]).sum(0)

    values, ends = np.zeros((graph.n_layers, len(places), len(task))), np.empty((2, len(task)))
    with model.lock, torch.inference_mode():
        for rows, decomposition, read in decompose_task(model, task, outcome, progress):
            masks = [
                position_mask(p, decomposition.clean.examples)[:, -decomposition.clean.n :].to(model.device) for p in places
            ]
            live = [i for i, mask in enumerate(masks) if mask.any()]  # not those before the first token that differs
            both = read(decomposition.ends)
            ends[:, rows] = both.cpu().double().numpy()
            for layer in range(graph.n_layers if live else 0):
                plus = added(decomposition, layer)
                for first in range(0, len(live), decomposition.runs_per_batch):
                    some = live[first : first + decomposition.runs_per_batch]
                    changes = [
                        ResidualChange(layer + (site == "mlp"), site == "attn", plus * masks[i][:, :, None]) for i in some
                    ]
                    found = read(resume_changes(decomposition, changes)) - both[:1]
                    values[layer][np.ix_(some, rows)] = found.cpu().double().numpy()
    check_finite_and_gap(model, outcome.name, ends, values)
    names = tuple(p if isinstance(p, str) else ",".join(map(str, p)) for p in places)
    arguments = {**task.provenance, "site": site, "positions": [*names], "ablation": "counterfactual"}
    record = record_of(model, task=task.name, arguments=arguments, interventions=(f"patched {site}",), metric=outcome.name)
    return PatchGrid(site, names, values, ends[0], ends[1], outcome.unit, record)


def _places(task: Task) -> list[str | tuple[int, ...]]:
    """Every token where prompts are equally long, else every mark and the end."""
    lengths = task.by_length()
    return [*task.marks, "end"] if len(lengths) > 1 else [(i,) for i in range(min(lengths))]
