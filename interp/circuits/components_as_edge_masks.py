"""Components of a circuit, as completeness and minimality remove them: edges, or heads and MLPs with all edges leaving them."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from interp.circuits.circuit import Circuit
from interp.circuits.clean_and_corrupted_runs import measurement_record
from interp.graph import Edge, Graph, Node
from interp.models.model import Model
from interp.records import RunRecord, digest
from interp.tasks.task import Task

Component = Node | Edge


def components_of(circuit: Circuit, granularity: str) -> list[Component]:
    """The circuit's edges, or its heads and MLPs, in order. Raises ValueError for another granularity and if there are none."""
    if granularity not in ("nodes", "edges"):
        raise ValueError(f"granularity={granularity!r}: the components of a circuit are 'nodes' or 'edges'.")
    edges = [edge for edge in circuit.graph.edges if edge in circuit.edges]
    nodes = [node for node in circuit.nodes if node.kind in ("head", "mlp")]
    components: list[Component] = [*edges] if granularity == "edges" else [*nodes]
    if not components:
        raise ValueError(f"The circuit has {len(edges)} edges and no {granularity} to remove: use a larger circuit.")
    return components


def edge_masks_of(graph: Graph, sets: Sequence[Collection[Component]]) -> Bool[np.ndarray, "n_sets n_edges"]:
    """The edges of each set: those named, and those leaving a named node. Raises LookupError for what the graph lacks."""
    places: dict[Component, list[int]] = {edge: [i] for i, edge in enumerate(graph.edges)}
    for i, edge in enumerate(graph.edges):
        places.setdefault(edge.writer, []).append(i)
    masks = np.zeros((len(sets), len(graph.edges)), dtype=bool)
    for mask, components in zip(masks, sets, strict=True):
        for part in components:
            if part not in places:
                raise LookupError(f"There is no component {part} in a graph of {graph}: give edges, or nodes that edges leave.")
            mask[places[part]] = True
    return masks


def removal_record(
    model: Model, task: Task, circuit: Circuit, metric: str | None, ablation: str, seed: int, **arguments: Any
) -> RunRecord:
    """The record of a measurement on a circuit, which names the circuit by the digest of its edges."""
    own = {"n_edges": len(circuit), "edges_digest": digest(sorted(map(str, circuit.edges))), "ablation": ablation}
    return measurement_record(model, task, f"corrupted edge ({ablation})", metric, seed, **own, **arguments)
