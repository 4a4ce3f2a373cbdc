"""A circuit: edges of a model's graph with the scores that selected them, saved in the JSON form of MIB and EAP-IG."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from interp._short_repr import short_repr
from interp.circuits.table_and_plot_mixins import PlottedResult
from interp.errors import ArtefactInvalid, first_line
from interp.files import user_path, write_atomically
from interp.graph import Edge, Graph, Node
from interp.heads import Head
from interp.models.model import Model

LOGITS, INPUT = Node("logits"), Node("input")
MAX_HEADS = 1 << 16


@short_repr
@dataclass(frozen=True, eq=False)
class Circuit(PlottedResult):
    """``edges`` of ``graph``; ``scores`` of all scored edges, in ``unit``; ``model`` is the name of the model, ``metadata``
    (JSON values) holds the method and the record of the scores.

    Raises LookupError for an edge that the graph does not have.
    """

    figure = "circuit_graph"

    graph: Graph
    edges: frozenset[Edge]
    scores: dict[Edge, float] = field(default_factory=dict)
    unit: str = ""
    model: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.graph.edges)
        for edge in {*self.edges, *self.scores} - known:
            self.graph.check(edge)
            raise LookupError(f"There is no edge {edge} in this graph.")

    def __len__(self) -> int:
        return len(self.edges)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Nodes at either end of an edge, in the order of computation."""
        present = {node for edge in self.edges for node in edge[:2]}
        return tuple(node for node in (*self.graph.writers, LOGITS) if node in present)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Heads among the nodes, in order."""
        return tuple(Head(node.layer, node.head) for node in self.nodes if node.kind == "head")

    @property
    def ablation(self) -> str:
        """The edge ablation of the scores, from ``metadata``; empty if unknown."""
        return self.metadata.get("record", {}).get("arguments", {}).get("ablation", "")

    def pruned(self) -> Circuit:
        """The circuit without edges on no path from embedding to logits: they change nothing when all others are corrupted.

        Under the ablations ``zero`` and ``mean`` a node without inputs still has an output of its own: there only edges on no
        path to the logits are pruned.
        """
        fed = {*self.graph.writers} if self.ablation in ("zero", "mean") else {INPUT}
        for edge in self._ordered(self.edges):
            if edge.writer in fed:
                fed.add(edge.reader)
        is_read = {LOGITS}
        for edge in reversed(self._ordered(self.edges)):
            if edge.reader in is_read:
                is_read.add(edge.writer)
        return replace(self, edges=frozenset(e for e in self.edges if e.writer in fed and e.reader in is_read))

    def top(self, k: int) -> list[Edge]:
        """The ``k`` edges of the circuit with the largest |score|, in order; edges without a score come last."""
        return sorted(self._ordered(self.edges), key=lambda edge: -abs(self.scores.get(edge, 0.0)))[: max(0, k)]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per edge that has a score or is in the circuit: ``edge writer reader qkv score unit in_circuit``."""
        listed = self._ordered({*self.edges, *self.scores})
        table = edge_table(listed).assign(score=[self.scores.get(e, float("nan")) for e in listed], unit=self.unit)
        return table.assign(in_circuit=[e in self.edges for e in listed])

    def to_json(self) -> dict[str, Any]:
        """``cfg`` (sizes), ``nodes`` and ``edges`` with ``score`` and ``in_graph``, as in MIB and EAP-IG; ``metadata`` is ours."""
        present = set(self.nodes)
        cfg = {name: getattr(self.graph, name) for name in ("n_layers", "n_heads", "parallel_attn_mlp", "has_mlps")}
        return {
            "cfg": {**cfg, "model_name": self.model},
            "nodes": {str(node): {"in_graph": node in present} for node in (*self.graph.writers, LOGITS)},
            "edges": {str(edge): {"score": self.scores.get(edge), "in_graph": edge in self.edges} for edge in self.graph.edges},
            "metadata": {**self.metadata, "unit": self.unit},
        }

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the circuit to a JSON file, atomically, and returns the path; ``load_circuit`` reads it back."""
        path = user_path(path)
        write_atomically(path, json.dumps(self.to_json(), allow_nan=False, indent=1).encode())
        return path

    def _ordered(self, edges: Collection[Edge]) -> list[Edge]:
        """In the order of the graph: edges into a node before edges out of it."""
        return [edge for edge in self.graph.edges if edge in edges]


def edge_table(edges: Collection[Edge]) -> pd.DataFrame:
    """One row per edge: ``edge writer reader qkv``, as text."""
    rows = [(str(edge), *map(str, edge)) for edge in edges]
    return pd.DataFrame(rows, columns=["edge", "writer", "reader", "qkv"])


def load_circuit(path: str | os.PathLike, model: Model | None = None) -> Circuit:
    """The circuit of a file in the JSON form of MIB and EAP-IG, written here or elsewhere.

    Raises ArtefactInvalid for a file that cannot be read and for unknown nodes, ValueError when the graph of ``model`` differs
    from the circuit's, or its weights from those that the file names.
    """
    try:
        content = json.loads(user_path(path).read_text(encoding="utf-8"))
        cfg = content["cfg"]
        names: dict[str, dict[str, Any]] = content["edges"]
        has_mlps = cfg.get("has_mlps", any(Edge.parse(name).writer.kind == "mlp" for name in names))
        graph = Graph(*_sizes(cfg), bool(has_mlps), bool(cfg.get("parallel_attn_mlp", False)))
        edges = {graph.check(Edge.parse(name)): facts for name, facts in names.items()}
        inside = frozenset(e for e, facts in edges.items() if facts.get("in_graph", True))
        scores = {e: _score(e, facts["score"]) for e, facts in edges.items() if facts.get("score") is not None}
        metadata = dict(content.get("metadata", {}))
        circuit = Circuit(graph, inside, scores, metadata.pop("unit", ""), cfg.get("model_name", ""), metadata)
        weights, _ = metadata.get("record", {}).get("weights_digest"), circuit.ablation
    except OSError as error:
        raise ArtefactInvalid(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtefactInvalid(
            f"{path} is not a circuit file ({first_line(error)}): it needs cfg (n_layers, n_heads) and edges by name."
        ) from None
    if model is not None:
        check_graph(model, graph, f"{path} is a circuit")
        if weights and model.facts.weights_digest and weights != model.facts.weights_digest:
            raise ValueError(
                f"{path} is a circuit of {circuit.model or 'another model'}, and {model.facts.name} has other weights: load the "
                f"model it was found in, or read the file without `model` to use its edges regardless."
            )
    return circuit


def _sizes(cfg: Mapping[str, Any]) -> tuple[int, int]:
    """Layers and heads. Raises ValueError for more than any model has, whose graph would fill the memory."""
    n_layers, n_heads = int(cfg["n_layers"]), int(cfg["n_heads"])
    if not 0 < n_layers * max(1, n_heads) <= MAX_HEADS:
        raise ValueError(f"no model has {n_layers:,} layers of {n_heads:,} heads")
    return n_layers, n_heads


def _score(edge: Edge, value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"the score of {edge} is {value!r}, not a finite number")
    return float(value)


def check_graph(model: Model, graph: Graph, subject: str) -> None:
    """Raises ValueError, opening with ``subject``, for a graph that is not the model's."""
    from interp.engine.edges.edge_patching import graph_of

    if graph != graph_of(model):
        raise ValueError(f"{subject} of {graph}, and {model.facts.name} has {graph_of(model)}: load the model it was found in.")
