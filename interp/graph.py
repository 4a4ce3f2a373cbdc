"""The computational graph of a model: nodes that write to the residual stream, nodes that read it, and the edges between them.

Writers are the embeddings (token and position together), every head and every MLP; readers are the query, key and value inputs of every
head, every MLP, and the logits. An edge connects a writer with every later reader. A reader's input, before its norm, is the sum of all
earlier writers and of biases, which belong to no edge. Keys and values of grouped-query heads count once per query head, as if every
head had its own copy. By this convention GPT-2 small has 32,491 edges; others give other numbers.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from interp.heads import Head

QKV = ("q", "k", "v")


class Node(NamedTuple):
    """``input``, a head (``a5.h1``), an MLP (``m5``) or ``logits``; ``layer`` and ``head`` are -1 where they do not apply."""

    kind: str
    layer: int = -1
    head: int = -1

    def __str__(self) -> str:
        return {"head": f"a{self.layer}.h{self.head}", "mlp": f"m{self.layer}"}.get(self.kind, self.kind)

    @classmethod
    def parse(cls, text: str) -> "Node":
        """The node written as in circuit files, such as ``a5.h1``. Raises ValueError for anything else."""
        if text in ("input", "logits"):
            return cls(text)
        if found := re.fullmatch(r"a(\d+)\.h(\d+)", text):
            return cls("head", int(found[1]), int(found[2]))
        if found := re.fullmatch(r"m(\d+)", text):
            return cls("mlp", int(found[1]))
        raise ValueError(f"{text!r} is not a node: write input, a5.h1 (layer 5, head 1), m5 or logits.")

    @classmethod
    def of(cls, head: Head) -> "Node":
        """The node of a head."""
        return cls("head", *head)


class Edge(NamedTuple):
    """What ``writer`` writes, as ``reader`` reads it; ``qkv`` is ``q``, ``k`` or ``v`` for a head, and empty for MLPs and logits."""

    writer: Node
    reader: Node
    qkv: str = ""

    def __str__(self) -> str:
        return f"{self.writer}->{self.reader}" + (f"<{self.qkv}>" if self.qkv else "")

    @classmethod
    def parse(cls, text: str) -> "Edge":
        """The edge written as ``a0.h1->a5.h3<q>``. Raises ValueError for anything else."""
        found = re.fullmatch(r"(.+?)->(.+?)(?:<([qkv])>)?", text)
        if not found:
            raise ValueError(f"{text!r} is not an edge: write a0.h1->a5.h3<q>, input->m0 or m2->logits.")
        edge = cls(Node.parse(found[1]), Node.parse(found[2]), found[3] or "")
        if bool(edge.qkv) != (edge.reader.kind == "head"):
            raise ValueError(
                f"{text!r} is not an edge: write <q>, <k> or <v> behind a head that reads, and behind nothing else."
            )
        return edge


@dataclass(frozen=True)
class Graph:
    """The graph of a model of these sizes; in ``parallel_attn_mlp`` blocks attention and MLP read the same input."""

    n_layers: int
    n_heads: int
    has_mlps: bool = True
    parallel_attn_mlp: bool = False

    def __str__(self) -> str:
        details = ("" if self.has_mlps else ", without MLPs") + (", in parallel blocks" if self.parallel_attn_mlp else "")
        return f"{self.n_layers} layers x {self.n_heads} heads{details}"

    @cached_property
    def writers(self) -> tuple[Node, ...]:
        """All nodes that write, in the order of the forward pass."""
        nodes = [Node("input")]
        for layer in range(self.n_layers):
            nodes += [*(Node("head", layer, head) for head in range(self.n_heads)), *[Node("mlp", layer)] * self.has_mlps]
        return tuple(nodes)

    @cached_property
    def writer_index(self) -> dict[Node, int]:
        """The index of each writer in ``writers``."""
        return {writer: i for i, writer in enumerate(self.writers)}

    @cached_property
    def readers(self) -> tuple[tuple[Node, str], ...]:
        """All reading nodes with their input (``q``, ``k`` or ``v`` for heads, else empty), in the order of the forward pass."""
        inputs = ((node, qkv) for node in self.writers[1:] for qkv in (QKV if node.kind == "head" else ("",)))
        return (*inputs, (Node("logits"), ""))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, sorted by reader and then by writer."""
        return tuple(Edge(w, r, qkv) for r, qkv in self.readers for w in self.writers if self.connected(w, r))

    @cached_property
    def edges_into(self) -> dict[tuple[Node, str], range]:
        """The indices in ``edges`` of all edges into each reader, in the order of their writers: all up to the last one before it."""
        counts = Counter((edge.reader, edge.qkv) for edge in self.edges)
        ends = accumulate(counts[reader] for reader in self.readers)
        return {reader: range(end - counts[reader], end) for reader, end in zip(self.readers, ends, strict=True)}

    def connected(self, writer: Node, reader: Node) -> bool:
        """Whether there is an edge from the writer to the reader."""
        if writer.kind == "input" or reader.kind == "logits":
            return writer.kind != "logits" and reader.kind != "input"
        into_own_mlp = (writer.kind, reader.kind) == ("head", "mlp") and not self.parallel_attn_mlp
        return writer.layer < reader.layer or (into_own_mlp and writer.layer == reader.layer)

    def check(self, edge: Edge) -> Edge:
        """The edge itself. Raises LookupError if the graph does not have it."""
        for node in edge[:2]:
            if node not in (*self.writers, Node("logits")):
                mlps = "" if self.has_mlps else ", without MLPs"
                sizes = f"{self.n_layers} layers of {self.n_heads} heads{mlps}"
                raise LookupError(f"There is no node {node}: the graph has {sizes}.")
        if not self.connected(edge.writer, edge.reader):
            raise LookupError(f"There is no edge {edge}: {edge.reader} does not come after {edge.writer}.")
        return edge
