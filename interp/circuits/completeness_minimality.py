"""Whether a circuit holds all that the model uses, and nothing else: parts are taken out of it (after arXiv 2211.00593).

*Completeness*: with the same parts taken out, the circuit should do what the model does. ``difference = (m(circuit without them) - m(model
without them)) / gap``, where the gap is what the model does beyond its corrupted run; 0 = alike. A circuit without the backup of one of
its heads is faithful and not complete: with that head gone the model goes on, and the circuit does not.
*Minimality*: every part should be needed. ``effect = (m(circuit without the part) - m(circuit)) / gap``; negative = the part helps.

The paper takes out heads at positions. Here parts are edges, or heads and MLPs with all edges that leave them, and taken out is corrupted.
Parts are drawn with even chances each, or greedily, several runs, in each step the candidate that makes the two differ most: numbers of
runs, steps and candidates are ours, and so are intervals, the gap as unit, and the random edges beside the parts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from interp._short_repr import short_repr
from interp.circuits.circuit import Circuit, check_graph
from interp.circuits.faithfulness import circuit_outcomes, share_of
from interp.graph import Edge, Graph, Node
from interp.records import RunRecord, digest

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.sweep.sweep import Progress
    from interp.models.model import Model
    from interp.tasks.task import Task

Component = Node | Edge
LEVEL = 0.01
"""The paper's criterion of minimality: a part is needed that changes the outcome by a hundredth of it; here of the gap."""


@short_repr
@dataclass(frozen=True, eq=False)
class Completeness:
    """``table``: one row a set of parts taken out, ``kind name n_removed removed circuit model difference low high ablation``. ``kind`` is
    ``none`` (nothing taken out: the circuit's lack of faithfulness), ``group``, ``random`` or ``greedy`` (every step of every run; chosen
    and measured on the same prompts); intervals are over prompts. ``gap`` is in the unit of the outcome."""

    table: pd.DataFrame
    gap: float
    record: RunRecord

    @property
    def largest(self) -> float:
        """The largest difference by size: 0 = complete as far as was tried."""
        return float(np.abs(self.table["difference"].to_numpy()).max())


@short_repr
@dataclass(frozen=True, eq=False)
class Minimality:
    """``table``: ``part kind effect low high ablation``, one row a part with edges (``member``), and one a draw of edges from outside that
    is put in and taken out again (``random``; edges between nodes of the circuit, as many as some part has). ``gap`` is in
    the unit of the outcome."""

    table: pd.DataFrame
    gap: float
    record: RunRecord

    def unnecessary(self, level: float = LEVEL) -> list[str]:
        """Parts of the circuit whose effect is smaller than ``level``, by size."""
        members = self.table.query("kind == 'member'")
        return members["part"][members["effect"].abs() < level].tolist()


def completeness(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    parts: str = "nodes",
    groups: Mapping[str, Collection[Component]] | None = None,
    draws: int = 20,
    runs: int = 5,
    steps: int = 5,
    candidates: int = 5,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
) -> Completeness:
    """How differently circuit and model do without the same parts: without each of ``groups`` (by name), of ``draws`` random sets of the
    circuit's ``parts``, and of sets found by ``runs`` greedy runs of at most ``steps`` steps with so many random ``candidates``.

    Raises LookupError for groups of unknown parts, ValueError for a circuit of another model's graph or without parts, and what
    ``circuit_outcomes`` raises.
    """
    import pandas as pd

    from interp.statistics import bootstrap_weights

    check_graph(model, circuit.graph, "This is a circuit")
    if min(draws, runs, steps) < 0 or candidates < 1:
        raise ValueError(
            f"draws={draws}, runs={runs}, steps={steps} and candidates={candidates}: take at least 0, and at least 1 candidate."
        )
    graph, pool, rng = circuit.graph, _parts(circuit, parts), np.random.default_rng(seed)
    [kept], weights = _masks(graph, [circuit.edges]), bootstrap_weights(len(task), seed)
    chances = rng.random((draws, len(pool))) < 0.5
    chosen: list[tuple[str, str, list[Component]]] = [
        ("none", "", []),
        *(("group", n, [*g]) for n, g in (groups or {}).items()),
    ]
    chosen += [("random", str(i), [p for p, there in zip(pool, row, strict=True) if there]) for i, row in enumerate(chances)]

    def measure(sets: Sequence[Collection[Component]], *more: Bool[np.ndarray, " n_edges"]) -> tuple[np.ndarray, np.ndarray]:
        """The outcome of circuit and of model without each set, [n_sets n_examples]."""
        gone = np.stack([*_masks(graph, sets), *more])
        found = circuit_outcomes(model, task, np.concatenate([kept & ~gone, ~gone]), metric, ablation=ablation, seed=seed)
        return found[: len(gone)], found[len(gone) :]

    alone, whole = measure([removed for *_, removed in chosen], np.ones_like(kept))
    gap = whole[0] - alone[-1]
    rows = [(*said, a, w) for said, a, w in zip(chosen, alone, whole, strict=False)]
    taken: list[list[Component]] = [[] for _ in range(runs)]
    n_steps = min(steps, len(pool)) if runs else 0
    for step in range(n_steps):
        tried: list[tuple[int, list[Component]]] = []
        for run, gone in enumerate(taken):
            left = [part for part in pool if part not in gone]
            tried += [(run, [*gone, left[i]]) for i in rng.permutation(len(left))[:candidates]]
        alone, whole = measure([removed for _, removed in tried])
        apart = np.abs((alone - whole).mean(1))
        for run in range(runs):
            best = max((i for i, (of, _) in enumerate(tried) if of == run), key=lambda i: apart[i])
            taken[run] = tried[best][1]
            rows.append(("greedy", str(run), taken[run], alone[best], whole[best]))
        if progress:
            progress(step + 1, n_steps)
    table = pd.DataFrame(
        [
            (kind, name, len(gone), " ".join(map(str, gone)), a.mean(), w.mean(), *share_of(gap, a - w, weights))
            for kind, name, gone, a, w in rows
        ],
        columns=["kind", "name", "n_removed", "removed", "circuit", "model", "difference", "low", "high"],
    )
    said = {"parts": parts, "draws": draws, "runs": runs, "steps": steps, "candidates": candidates}
    return Completeness(
        table.assign(ablation=ablation), float(gap.mean()), _record(model, task, circuit, metric, ablation, seed, said)
    )


def minimality(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    parts: str = "edges",
    without: Collection[Component] = (),
    draws: int = 20,
    metric: str | None = None,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
) -> Minimality:
    """What taking each of the circuit's ``parts`` out of it changes, beside ``draws`` random ones.

    Parts that stand in for each other are needless one by one: take one of them out in every run (``without``), and the other is needed.
    Raises as ``completeness``, and ValueError where ``without`` leaves no part.
    """
    import pandas as pd

    from interp.statistics import bootstrap_weights

    check_graph(model, circuit.graph, "This is a circuit")
    graph, rng, weights = circuit.graph, np.random.default_rng(seed), bootstrap_weights(len(task), seed)
    known = _parts(circuit, parts)
    edges, gone, *own = _masks(graph, [circuit.edges, without, *([part] for part in known)])
    base = edges & ~gone
    pool, members = [], []
    for part, mask in zip(known, own, strict=True):
        if (base & mask).any():
            pool.append(part)
            members.append(base & ~mask)
    if not pool:
        raise ValueError(
            f"None of the circuit's {parts} is left to be taken out (without={[*map(str, without)]}): leave less out."
        )
    inside = {*circuit.nodes}
    strangers = np.flatnonzero([inside.issuperset(edge[:2]) and edge not in circuit.edges for edge in graph.edges])
    controls = []
    for _ in range(draws if len(strangers) else 0):
        n = int((base & ~members[rng.integers(len(pool))]).sum())
        drawn = np.zeros_like(base)
        drawn[rng.permutation(strangers)[:n]] = True
        controls.append(drawn)
    kept = np.stack([np.ones_like(base), np.zeros_like(base), base, *members, *(base | drawn for drawn in controls)])
    found = circuit_outcomes(model, task, kept, metric, progress, ablation=ablation, seed=seed)
    everything, nothing, whole = found[:3]
    gap = everything - nothing
    effects = [*(found[3 : 3 + len(pool)] - whole), *(whole - found[3 + len(pool) :])]
    names = [("member", str(part)) for part in pool]
    names += [("random", " ".join(str(graph.edges[i]) for i in np.flatnonzero(drawn))) for drawn in controls]
    rows = [(name, kind, *share_of(gap, effect, weights)) for (kind, name), effect in zip(names, effects, strict=True)]
    table = pd.DataFrame(rows, columns=["part", "kind", "effect", "low", "high"]).assign(ablation=ablation)
    said = {"parts": parts, "draws": draws, "without": [*map(str, without)]}
    return Minimality(table, float(gap.mean()), _record(model, task, circuit, metric, ablation, seed, said))


def _parts(circuit: Circuit, parts: str) -> list[Component]:
    """The circuit's edges, or its heads and MLPs, in order."""
    if parts not in ("nodes", "edges"):
        raise ValueError(f"parts={parts!r}: a circuit's parts are 'nodes' or 'edges'.")
    edges = [edge for edge in circuit.graph.edges if edge in circuit.edges]
    found: list[Component] = [*edges] if parts == "edges" else [node for node in circuit.nodes if node.kind in ("head", "mlp")]
    if not found:
        raise ValueError(f"The circuit has {len(edges)} edges and no {parts} that could be taken out: take a larger circuit.")
    return found


def _masks(graph: Graph, sets: Sequence[Collection[Component]]) -> Bool[np.ndarray, "n_sets n_edges"]:
    """The edges that are among the parts of each set or leave one of them. Raises LookupError for what the graph does not have."""
    places: dict[Component, list[int]] = {edge: [i] for i, edge in enumerate(graph.edges)}
    for i, edge in enumerate(graph.edges):
        places.setdefault(edge.writer, []).append(i)
    masks = np.zeros((len(sets), len(graph.edges)), dtype=bool)
    for mask, parts in zip(masks, sets, strict=True):
        for part in parts:
            if part not in places:
                raise LookupError(
                    f"There is no part {part} in a graph of {graph}: give its edges, or the nodes that they leave."
                )
            mask[places[part]] = True
    return masks


def _record(
    model: Model, task: Task, circuit: Circuit, metric: str | None, ablation: str, seed: int, said: dict[str, Any]
) -> RunRecord:
    from interp.models.model import record_of

    arguments = {**task.provenance, "n_edges": len(circuit), "edges_digest": digest(sorted(map(str, circuit.edges)))}
    arguments |= {"ablation": ablation, **said}
    label = f"corrupted edge ({ablation})"
    return record_of(
        model, task=task.name, arguments=arguments, interventions=(label,), metric=metric or task.metric, seed=seed
    )
