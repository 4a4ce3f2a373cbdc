"""Minimality of a circuit: whether each of its components is needed (arXiv 2211.00593).

``effect = (m(circuit without the component) - m(circuit)) / gap``; negative = the component helps. The gap is the model's
outcome minus that of its corrupted run. Deviations from the paper, which removes heads at positions: components are edges, or
heads and MLPs with all edges that leave them, and removed means corrupted; intervals, the gap as unit and controls are ours.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from interp._short_repr import short_repr
from interp.circuits.circuit import Circuit, check_graph
from interp.circuits.components_as_edge_masks import Component, components_of, edge_masks_of, removal_record
from interp.circuits.faithfulness import circuit_outcomes, share_of
from interp.circuits.table_and_plot_mixins import TableResult
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model
from interp.records import RunRecord
from interp.statistics import resample_prompts
from interp.tasks.task import Task

LEVEL = 0.01
"""The paper's criterion: a component is needed if it changes the outcome by 1%; here of the gap."""


@short_repr
@dataclass(frozen=True, eq=False)
class Minimality(TableResult):
    """``table``: ``component kind effect ci_low ci_high ablation``; one row per component with edges (``circuit``), and one per
    draw of edges outside the circuit that are added and removed again (``random``: edges between its nodes, as many as some
    component has). ``gap`` is in the unit of the outcome."""

    table: pd.DataFrame
    gap: float
    record: RunRecord

    def unnecessary(self, level: float = LEVEL) -> list[str]:
        """Components of the circuit whose absolute effect is below ``level``, in gaps."""
        own = self.table.query("kind == 'circuit'")
        return own["component"][own["effect"].abs() < level].tolist()


def minimality(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    granularity: str = "edges",
    excluded: Collection[Component] = (),
    n_draws: int = 20,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
) -> Minimality:
    """The effect of removing each component (``granularity``: ``nodes`` or ``edges``), beside ``n_draws`` random controls.

    Components that back each other up look unnecessary one by one: remove one of them in every run (``excluded``) to see
    whether the other is needed. Raises as ``completeness``, and ValueError when ``excluded`` leaves no component.
    """
    check_graph(model, circuit.graph, "The circuit is")
    graph, rng, resamples = circuit.graph, np.random.default_rng(seed), resample_prompts(len(task), seed, task.clusters)
    components = components_of(circuit, granularity)
    edges, removed, *own = edge_masks_of(graph, [circuit.edges, excluded, *([component] for component in components)])
    base = edges & ~removed
    pool = [(component, base & ~mask) for component, mask in zip(components, own, strict=True) if (base & mask).any()]
    if not pool:
        names = [*map(str, excluded)]
        raise ValueError(f"None of the circuit's {granularity} remains to be removed (excluded={names}): exclude fewer.")
    masks = [mask for _, mask in pool]
    controls = _random_controls(circuit, base, masks, n_draws, rng)
    all_masks = np.stack([np.ones_like(base), np.zeros_like(base), base, *masks, *(base | drawn for drawn in controls)])
    outcomes = circuit_outcomes(model, task, all_masks, metric, progress, ablation=ablation, seed=seed)
    clean, corrupted, whole = outcomes[:3]
    gap = clean - corrupted
    effects = [*(outcomes[3 : 3 + len(pool)] - whole), *(whole - outcomes[3 + len(pool) :])]
    names = [(str(component), "circuit") for component, _ in pool]
    names += [(" ".join(str(graph.edges[i]) for i in np.flatnonzero(drawn)), "random") for drawn in controls]
    rows = [(*name, *share_of(gap, effect, resamples)) for name, effect in zip(names, effects, strict=True)]
    table = pd.DataFrame(rows, columns=["component", "kind", "effect", "ci_low", "ci_high"]).assign(ablation=ablation)
    arguments = {"granularity": granularity, "n_draws": n_draws, "excluded": [*map(str, excluded)]}
    record = removal_record(model, task, circuit, metric, ablation, seed, **arguments)
    return Minimality(table, float(gap.mean()), record)


def _random_controls(
    circuit: Circuit,
    base: Bool[np.ndarray, " n_edges"],
    masks: list[Bool[np.ndarray, " n_edges"]],
    n_draws: int,
    rng: np.random.Generator,
) -> list[Bool[np.ndarray, " n_edges"]]:
    """Random edges outside the circuit, between its nodes, as many as a random component of it has; none if there are none."""
    nodes, edges = {*circuit.nodes}, circuit.graph.edges
    outside = np.flatnonzero([nodes.issuperset(edge[:2]) and edge not in circuit.edges for edge in edges])
    controls = []
    for _ in range(n_draws if len(outside) else 0):
        n = int((base & ~masks[rng.integers(len(masks))]).sum())
        drawn = np.zeros_like(base)
        drawn[rng.permutation(outside)[:n]] = True
        controls.append(drawn)
    return controls
