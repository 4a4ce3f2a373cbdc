"""Activation patching by layer and position: where information that decides the answer is carried, from the prompt to END.

The clean prompts are run with one site of one layer and position set to its value on the corrupted prompts (noising): ``effect
= metric(patched) - metric(clean)``; negative = the activation is needed. ``task.swapped()`` patches in the other direction
(denoising): the corrupted prompts are run with clean activations, and positive = the activation is sufficient. The two disagree
where components back each other up or depend on each other (arXiv 2404.15255). To patch single heads at a position:
``ablate_heads(ablation="patch", positions=...)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp._short_repr import short_repr
from interp.circuits.clean_and_corrupted_runs import MeasuredBatch, measuring, to_numpy
from interp.circuits.table_and_plot_mixins import PlottedResult
from interp.engine.edges.residual_decomposition import ResidualDecomposition
from interp.engine.gradients.corrupted_qkvz_effects import ResidualChange, resume_changes
from interp.engine.sweep.outcome import check_single_tokens
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model
from interp.records import RunRecord
from interp.registry import check_name
from interp.statistics import mean_interval, resample_prompts
from interp.tasks.task import Task

PATCH_SITES = {
    "resid": "the residual stream entering a layer",
    "attn": "the attention output of a layer",
    "mlp": "the MLP output of a layer",
}
Position = str | tuple[int, ...]


@short_repr
@dataclass(frozen=True, eq=False)
class PatchGrid(PlottedResult):
    """``values`` [n_layers n_positions n_examples]: the effect of patching ``site`` at each of ``positions``, in ``unit``;
    ``clean`` and ``corrupted`` [n_examples] are the outcomes of the patched prompts and of the prompts that are patched from.
    """

    figure = "patch_map"

    site: str
    positions: tuple[str, ...]
    values: Float[np.ndarray, "n_layers n_positions n_examples"]
    clean: Float[np.ndarray, " n_examples"]
    corrupted: Float[np.ndarray, " n_examples"]
    unit: str
    record: RunRecord

    @property
    def effects(self) -> Float[np.ndarray, "n_layers n_positions"]:
        """Mean over examples, in ``unit``."""
        return self.values.mean(2)

    @property
    def gap(self) -> float:
        """Corrupted minus clean outcome: the effect of patching everything, in ``unit``."""
        return float(self.corrupted.mean() - self.clean.mean())

    def top(self, k: int) -> list[tuple[int, str]]:
        """The ``k`` cells (layer, position) with the largest absolute effects, in order."""
        order = np.argsort(-np.abs(self.effects), axis=None, kind="stable")[: max(0, k)]
        return [(int(i) // len(self.positions), self.positions[int(i) % len(self.positions)]) for i in order]

    def to_dataframe(self, seed: int = 0) -> pd.DataFrame:
        """One row per cell: ``site layer position effect ci_low ci_high share_of_gap n metric unit``; 95% intervals, over
        ``n_clusters`` where the examples are in clusters."""
        n_layers, n_positions, n = self.values.shape
        resamples = resample_prompts(n, seed, self.record.clusters)
        interval = mean_interval(self.values.reshape(-1, n), resamples)
        layers, columns = np.indices((n_layers, n_positions)).reshape(2, -1)
        table = pd.DataFrame({"site": self.site, "layer": layers, "position": [self.positions[i] for i in columns]})
        table["effect"], table["ci_low"], table["ci_high"] = interval.mean, interval.low, interval.high
        return table.assign(share_of_gap=interval.mean / self.gap, **resamples.sizes, metric=self.record.metric, unit=self.unit)


def patch_grid(
    model: Model,
    task: Task,
    site: str = "resid",
    *,
    positions: str | Sequence[Position] | None = None,
    metric: str | None = None,
    progress: Progress | None = None,
) -> PatchGrid:
    """Effects of patching ``site`` (``resid``, ``attn`` or ``mlp``) of every layer at each of ``positions``, per example.

    A position is a mark, ``end`` or token indices; by default every token if all prompts are equally long, else every mark and
    ``end``. Raises LookupError for an unknown site, position or metric; ValueError for an empty list of positions, for ``mlp``
    in a model without MLPs, and for what ``score_edges`` refuses.
    """
    check_single_tokens(task.examples, "Patches of positions")
    check_name(site, PATCH_SITES, "site")
    places = _places(task) if positions is None else [positions] if isinstance(positions, str) else list(positions)
    if not places:
        raise ValueError("positions=[] leaves nothing to patch: name marks, end or token indices.")
    with measuring(model, task, metric) as measurement:
        graph = measurement.graph
        if site == "mlp" and not graph.has_mlps:
            raise ValueError(f"{model.facts.name} has no MLPs to patch: use resid or attn.")
        values = measurement.zeros(graph.n_layers, len(places), len(task))
        for batch in measurement.batches(progress):
            masks = [batch.mask(place)[..., None] for place in places]
            active = [i for i, mask in enumerate(masks) if mask.any()]  # not those before the first token that differs
            for layer in range(graph.n_layers if active else 0):
                change = _site_change(batch.decomposition, site, layer, graph.n_heads)
                for first in range(0, len(active), batch.decomposition.runs_per_batch):
                    cells = active[first : first + batch.decomposition.runs_per_batch]
                    effects = _patch_effects(batch, site, layer, [change * masks[i] for i in cells])
                    values[layer][np.ix_(cells, batch.example_ids)] = effects
    names = tuple(p if isinstance(p, str) else ",".join(map(str, p)) for p in places)
    record = measurement.record(f"patched {site}", site=site, positions=[*names])
    return PatchGrid(site, names, values, measurement.clean, measurement.corrupted, measurement.outcome.unit, record)


def _places(task: Task) -> list[Position]:
    lengths = task.by_length()
    return [*task.marks, "end"] if len(lengths) > 1 else [(i,) for i in range(min(lengths))]


def _site_change(decomposition: ResidualDecomposition, site: str, layer: int, n_heads: int) -> Float[Tensor, "batch n d_model"]:
    """Corrupted minus clean value of a site."""
    first = decomposition.n_writers_before(layer)
    writers = {"resid": range(first), "attn": range(first, first + n_heads), "mlp": [first + n_heads]}[site]
    return decomposition.output_difference([*writers]).sum(0)


def _patch_effects(batch: MeasuredBatch, site: str, layer: int, changes: Sequence[Tensor]) -> Float[np.ndarray, "n batch"]:
    """The effect of each change of a site of a layer, all in one pass."""
    patches = [ResidualChange(layer + (site == "mlp"), site == "attn", change) for change in changes]
    return to_numpy(batch.read(resume_changes(batch.decomposition, patches)) - batch.clean)
