"""The parts that edge scores and circuits are computed in: stored one by one, counted for progress, and their cost estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.graph import Graph
from interp.models.model import Model, ModelFacts
from interp.tasks.task import Task

if TYPE_CHECKING:
    from interp.ablation.ablate_heads import CostEstimate

EDGES_PER_PART = 512
PATCHED_EDGES_PER_PART = 64


@dataclass(frozen=True)
class Parts:
    """``n`` items of one batch of prompts with ``n_tokens`` tokens, of which ``at_once`` make a part."""

    n_tokens: int
    n: int
    at_once: int

    @property
    def count(self) -> int:
        return -(-self.n // self.at_once)


def scoring_work(model: Model, task: Task, method: str, steps: int, ablation: str, seed: int) -> list[Parts]:
    """The scores of all edges, by batch: edges (``exact``), layers and the logits (``eap-ig-outputs``), or runs that gradients are
    averaged over."""
    from interp.engine.edges.edge_attribution import runs_with_gradients
    from interp.engine.edges.edge_patching import graph_of

    graph, work = graph_of(model), _tokens_by_batch(model, task, ablation, seed)
    if method == "exact":
        return [Parts(n_tokens, len(graph.edges), EDGES_PER_PART) for n_tokens in work]
    if method == "eap-ig-outputs":
        return [Parts(n_tokens, graph.n_layers + 1, 1) for n_tokens in work]
    n_runs = n_gradient_runs(method, graph, steps)
    return [Parts(n_tokens, n_runs, runs_with_gradients(model, n_tokens)) for n_tokens in work]


def patching_work(model: Model, task: Task, n: int, ablation: str, seed: int) -> list[Parts]:
    """The exact scores of the ``n`` edges with the largest estimates, by batch."""
    from interp.engine.edges.edge_patching import graph_of

    n_edges = min(n, len(graph_of(model).edges))
    return [Parts(n_tokens, n_edges, PATCHED_EDGES_PER_PART) for n_tokens in _tokens_by_batch(model, task, ablation, seed)]


def n_gradient_runs(method: str, graph: Graph, steps: int) -> int:
    """Number of runs whose gradients are averaged: the two ends of a line, or ``steps`` on each line."""
    n_groups = 1 + graph.n_layers * (1 + graph.has_mlps)  # embedding, heads and MLP of each layer
    lines = n_groups if method.startswith("eap-ig-activations") else 1
    return {"eap": 1, "eap-clean-corrupted": 2}.get(method, lines * steps)


def circuit_work(model: Model, task: Task, n_circuits: int, ablation: str, seed: int) -> list[Parts]:
    """The outcomes of several circuits, by batch."""
    from interp.engine.edges.edge_patching import sets_at_once

    return [
        Parts(n_tokens, n_circuits, sets_at_once(model, n_tokens)) for n_tokens in _tokens_by_batch(model, task, ablation, seed)
    ]


def bisection_work(model: Model, task: Task, n_edges: int, n_draws: int, ablation: str, seed: int) -> list[Parts]:
    """The most circuits that bisection over the sizes up to ``n_edges`` runs, one after another, and random ones, by batch."""
    draws = circuit_work(model, task, n_draws, ablation, seed) if n_draws else []
    return [Parts(n_tokens, n_edges.bit_length() + 1, 1) for n_tokens in _tokens_by_batch(model, task, ablation, seed)] + draws


def _tokens_by_batch(model: Model, task: Task, ablation: str, seed: int) -> list[int]:
    """The number of tokens that are decomposed in each batch of the task. With the ablations zero and mean that is all of them."""
    from interp.circuits.edge_replacement import resample_corrupted_prompts
    from interp.engine.edges.residual_decomposition import decomposed_batches, decomposed_tokens

    if ablation == "resample":
        task = resample_corrupted_prompts(task, seed)
    batches = [[task.examples[i] for i in example_ids] for example_ids in decomposed_batches(model, task)]
    whole = ablation in ("zero", "mean")
    return [len(batch) * len(batch[0].clean) if whole else decomposed_tokens(batch) for batch in batches]


def estimate_circuit_cost(
    model: Model,
    scored: list[Parts],
    patched: list[Parts],
    tested: list[Parts],
    method: str,
    graph: Graph,
    steps: int,
    seconds_per_token_layer: float,
    n_tokens_held: int = 0,
) -> CostEstimate:
    """Parts, bytes and seconds of scoring all edges, of patching some and of running circuits, from the time of a plain pass;
    ``n_tokens_held`` are those whose streams are held at once, where that is more than one batch.

    Multiplications are counted: a run with gradients takes three passes and a projection, forth and back, for each head's inputs; a
    circuit one pass with an input for each head, which is a sum over all earlier outputs.
    """
    from interp.ablation.ablate_heads import CostEstimate
    from interp.engine.sweep.work_units import gradient_memory

    facts = model.facts
    block, projections, sums = _products(facts, graph)
    layers, half = facts.n_layers, facts.n_layers / 2
    gradient_run, circuit = layers * (3 * block + 3 * projections), layers * (block + projections + sums)
    per_item = {"exact": half * block, "eap-ig-outputs": (1 + 3 * facts.n_heads) * steps * half * 3 * block}
    costs = ((scored, per_item.get(method, gradient_run)), (patched, per_item["exact"]), (tested, circuit))
    every = [*scored, *patched, *tested]
    work = sum(p.n_tokens * p.n * cost for parts, cost in costs for p in parts)
    n_tokens = max(n_tokens_held, *(p.n_tokens for p in every))
    outputs = 3 * len(graph.writers) * n_tokens * facts.d_model * model.dtype.itemsize
    return CostEstimate(sum(p.count for p in every), outputs + gradient_memory(model), seconds_per_token_layer * work / block)


def _products(facts: ModelFacts, graph: Graph) -> tuple[int, int, int]:
    """Multiplications per token and layer: in a block, in the projections of heads with an input each, in the sums over all earlier
    outputs that these inputs are."""
    width = facts.n_heads * facts.d_head
    block = facts.d_model * (2 * width + 2 * facts.n_kv_heads * facts.d_head + 3 * facts.d_mlp)
    return block, 3 * facts.d_model * width, (3 * facts.n_heads + 1) * len(graph.writers) // 2 * facts.d_model
