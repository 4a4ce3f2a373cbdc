"""A circuit: some edges of a model's graph, with the scores they were chosen by; and its file, in the form that MIB and EAP-IG read."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp._short_repr import short_repr
from interp.errors import ArtefactInvalid
from interp.files import write_atomically
from interp.graph import Edge, Graph, Node
from interp.heads import Head

if TYPE_CHECKING:
    import pandas as pd

    from interp.models.model import Model

LOGITS, INPUT = Node("logits"), Node("input")


@short_repr
@dataclass(frozen=True, eq=False)
class Circuit:
    """``edges`` of ``graph``; ``scores`` of all edges that have one, in ``unit``; ``model`` is the name of what it was found in, ``about``
    says how (JSON values).

    Raises LookupError for an edge that the graph does not have.
    """

    graph: Graph
    edges: frozenset[Edge]
    scores: dict[Edge, float] = field(default_factory=dict)
    unit: str = ""
    model: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.graph.edges)
        for edge in {*self.edges, *self.scores} - known:
            self.graph.check(edge)
            raise LookupError(f"There is no edge {edge} in this graph.")

    def __len__(self) -> int:
        return len(self.edges)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Nodes at an end of some edge, in the order in which they compute."""
        there = {node for edge in self.edges for node in edge[:2]}
        return tuple(node for node in (*self.graph.writers, LOGITS) if node in there)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Heads among the nodes, in order."""
        return tuple(Head(node.layer, node.head) for node in self.nodes if node.kind == "head")

    @property
    def ablation(self) -> str:
        """What a corrupted edge shows, as ``about`` says; empty where it does not."""
        return self.about.get("record", {}).get("arguments", {}).get("ablation", "")

    def pruned(self) -> Circuit:
        """Without the edges that change nothing when all others are corrupted: those on no way from the embedding to the logits.

        Under the ablations ``zero`` and ``mean`` a node that nothing feeds still writes something of its own: there only edges on no way to
        the logits are left out.
        """
        fed = {*self.graph.writers} if self.ablation in ("zero", "mean") else {INPUT}
        for edge in self._ordered(self.edges):
            if edge.writer in fed:
                fed.add(edge.reader)
        heard = {LOGITS}
        for edge in reversed(self._ordered(self.edges)):
            if edge.reader in heard:
                heard.add(edge.writer)
        return replace(self, edges=frozenset(e for e in self.edges if e.writer in fed and e.reader in heard))

    def to_dataframe(self) -> pd.DataFrame:
        """One row an edge of the graph that has a score or is in the circuit: ``edge writer reader qkv score unit in_circuit``."""
        import pandas as pd

        shown = self._ordered({*self.edges, *self.scores})
        return pd.DataFrame(
            {
                "edge": map(str, shown),
                "writer": [str(e.writer) for e in shown],
                "reader": [str(e.reader) for e in shown],
                "qkv": [e.qkv for e in shown],
                "score": [self.scores.get(e, float("nan")) for e in shown],
                "unit": self.unit,
                "in_circuit": [e in self.edges for e in shown],
            }
        )

    def to_json(self) -> dict[str, Any]:
        """``cfg`` (sizes), ``nodes`` and ``edges`` with ``score`` and ``in_graph``, as MIB and EAP-IG write them; ``about`` is ours."""
        there = set(self.nodes)
        cfg = {
            "n_layers": self.graph.n_layers,
            "n_heads": self.graph.n_heads,
            "parallel_attn_mlp": self.graph.parallel_attn_mlp,
        }
        return {
            "cfg": {**cfg, "has_mlps": self.graph.has_mlps, "model_name": self.model},
            "nodes": {str(node): {"in_graph": node in there} for node in (*self.graph.writers, LOGITS)},
            "edges": {str(edge): {"score": self.scores.get(edge), "in_graph": edge in self.edges} for edge in self.graph.edges},
            "about": {**self.about, "unit": self.unit},
        }

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the circuit to a JSON file, atomically; ``load_circuit`` reads it back."""
        write_atomically(Path(path), json.dumps(self.to_json(), allow_nan=False, indent=1).encode())
        return Path(path)

    def _ordered(self, edges: Collection[Edge]) -> list[Edge]:
        """In the order of the graph, so that what feeds a node comes before what the node feeds."""
        return [edge for edge in self.graph.edges if edge in edges]


def load_circuit(path: str | os.PathLike, model: Model | None = None) -> Circuit:
    """A circuit from a file, ours or another's in the same form.

    Raises ArtefactInvalid for what cannot be read and for unknown nodes, ValueError where ``model`` has another graph than the circuit, or
    other weights than those that the file names.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        cfg = content["cfg"]
        names: dict[str, dict[str, Any]] = content["edges"]
        has_mlps = cfg.get("has_mlps", any(Edge.parse(name).writer.kind == "mlp" for name in names))
        graph = Graph(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(has_mlps), bool(cfg.get("parallel_attn_mlp", False)))
        edges = {graph.check(Edge.parse(name)): facts for name, facts in names.items()}
        kept = frozenset(e for e, facts in edges.items() if facts.get("in_graph", True))
        scores = {e: _score(e, facts["score"]) for e, facts in edges.items() if facts.get("score") is not None}
        about = dict(content.get("about", {}))
        found = Circuit(graph, kept, scores, about.pop("unit", ""), cfg.get("model_name", ""), about)
        weights, _ = about.get("record", {}).get("weights"), found.ablation
    except OSError as error:
        raise ArtefactInvalid(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtefactInvalid(
            f"{path} is no circuit file ({str(error).rstrip('.')}): it needs cfg (n_layers, n_heads) and edges by name."
        ) from None
    if model is not None:
        check_graph(model, graph, f"{path} is a circuit")
        if weights and model.facts.weights_digest and weights != model.facts.weights_digest:
            raise ValueError(
                f"{path} is a circuit of {found.model or 'another model'}, and {model.facts.name} has other weights: load the model it was "
                f"found in, or read the file without a model to take its edges all the same."
            )
    return found


def _score(edge: Edge, value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"the score of {edge} is {value!r} and no finite number")
    return float(value)


def check_graph(model: Model, graph: Graph, what: str) -> None:
    """Raises ValueError, beginning with ``what``, for a graph that is not the model's."""
    from interp.engine.edges.edge_patching import graph_of

    if graph != graph_of(model):
        raise ValueError(f"{what} of {graph}, and {model.facts.name} has {graph_of(model)}: load the model it was found in.")
