"""Completeness of a circuit: whether it responds like the model when both lose the same components (arXiv 2211.00593).

``difference = (m(circuit without K) - m(model without K)) / gap`` for sets K of components; 0 = alike. The gap is the model's
outcome minus that of its corrupted run. A circuit that lacks the backup of one of its heads is faithful but not complete:
without that head the model still works, and the circuit does not.

Deviations from the paper, which removes heads at positions: components are edges, or heads and MLPs with all edges that leave
them, and removed means corrupted. Sets are drawn with even chances per component, or chosen greedily in several runs, at each
step the candidate that separates the two most. Numbers of runs, steps and candidates, intervals and the gap as unit are ours.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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

Removal = tuple[str, str, Sequence[Component]]
"""Kind, name and components of a set that is removed."""
Measure = Callable[..., tuple[np.ndarray, np.ndarray]]


@short_repr
@dataclass(frozen=True, eq=False)
class Completeness(TableResult):
    """``table``: one row per removed set, ``kind name n_removed removed circuit model difference ci_low ci_high ablation``.
    ``kind`` is ``none`` (nothing removed: the circuit's lack of faithfulness), ``group``, ``random`` or ``greedy`` (every step
    of every run; chosen and measured on the same prompts); intervals are over prompts or their clusters. ``gap`` is in the
    unit of the outcome.
    """

    table: pd.DataFrame
    gap: float
    record: RunRecord

    @property
    def max_difference(self) -> float:
        """The largest absolute difference, in gaps: 0 = complete as far as was tried."""
        return float(np.abs(self.table["difference"].to_numpy()).max())


def completeness(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    granularity: str = "nodes",
    groups: Mapping[str, Collection[Component]] | None = None,
    n_draws: int = 20,
    n_greedy_runs: int = 5,
    n_greedy_steps: int = 5,
    n_candidates: int = 5,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
) -> Completeness:
    """Differences between circuit and model without each of ``groups`` (by name), of ``n_draws`` random sets of the circuit's
    components (``granularity``: ``nodes`` or ``edges``), and of sets found by greedy search.

    Each of ``n_greedy_runs`` takes at most ``n_greedy_steps`` steps with ``n_candidates`` random candidates each. Raises
    LookupError for groups of unknown components, ValueError for a circuit of another model's graph or without components, and
    what ``circuit_outcomes`` raises.
    """
    check_graph(model, circuit.graph, "The circuit is")
    sizes = {"n_draws": n_draws, "n_greedy_runs": n_greedy_runs, "n_greedy_steps": n_greedy_steps, "n_candidates": n_candidates}
    if min(n_draws, n_greedy_runs, n_greedy_steps) < 0 or n_candidates < 1:
        received = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{received}: each must be at least 0, and n_candidates at least 1.")
    pool, rng = components_of(circuit, granularity), np.random.default_rng(seed)
    [inside] = edge_masks_of(circuit.graph, [circuit.edges])
    resamples = resample_prompts(len(task), seed, task.clusters)
    draws = rng.random((n_draws, len(pool))) < 0.5
    sets: list[Removal] = [("none", "", []), *(("group", name, [*group]) for name, group in (groups or {}).items())]
    sets += [("random", str(i), [c for c, drawn in zip(pool, row, strict=True) if drawn]) for i, row in enumerate(draws)]

    def measure(removals: Sequence[Collection[Component]]) -> tuple[np.ndarray, np.ndarray]:
        """The outcome of circuit and of model without each set, [n_sets n_examples] each."""
        removed = edge_masks_of(circuit.graph, removals)
        both = np.concatenate([inside & ~removed, ~removed])
        outcomes = circuit_outcomes(model, task, both, metric, ablation=ablation, seed=seed)
        return outcomes[: len(removed)], outcomes[len(removed) :]

    of_circuit, of_model = measure([*(removed for *_, removed in sets), circuit.graph.edges])
    gap = of_model[0] - of_circuit[-1]
    rows = [*zip(sets, of_circuit, of_model, strict=False)]
    n_steps = min(n_greedy_steps, len(pool)) if n_greedy_runs else 0
    for step, found in enumerate(_greedy_search(pool, n_greedy_runs, n_steps, n_candidates, measure, rng)):
        rows += found
        if progress:
            progress(step + 1, n_steps)
    table = pd.DataFrame(
        [
            (kind, name, len(removed), " ".join(map(str, removed)), a.mean(), b.mean(), *share_of(gap, a - b, resamples))
            for (kind, name, removed), a, b in rows
        ],
        columns=["kind", "name", "n_removed", "removed", "circuit", "model", "difference", "ci_low", "ci_high"],
    )
    record = removal_record(model, task, circuit, metric, ablation, seed, granularity=granularity, **sizes)
    return Completeness(table.assign(ablation=ablation), float(gap.mean()), record)


def _greedy_search(
    pool: Sequence[Component], n_runs: int, n_steps: int, n_candidates: int, measure: Measure, rng: np.random.Generator
) -> Iterator[list[tuple[Removal, np.ndarray, np.ndarray]]]:
    """Per step, each run's set enlarged by the candidate that separates circuit and model most, and the outcomes of both."""
    removed: list[list[Component]] = [[] for _ in range(n_runs)]
    for _ in range(n_steps):
        tried: list[tuple[int, list[Component]]] = []
        for run, own in enumerate(removed):
            rest = [component for component in pool if component not in own]
            tried += [(run, [*own, rest[i]]) for i in rng.permutation(len(rest))[:n_candidates]]
        of_circuit, of_model = measure([components for _, components in tried])
        distance = np.abs((of_circuit - of_model).mean(1))
        rows = []
        for run in range(n_runs):
            best = max((i for i, (own, _) in enumerate(tried) if own == run), key=lambda i: distance[i])
            removed[run] = tried[best][1]
            rows.append((("greedy", str(run), removed[run]), of_circuit[best], of_model[best]))
        yield rows
