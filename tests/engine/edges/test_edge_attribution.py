"""Gradients at readers, against finite differences, TransformerLens, the exact effects, and planted models."""

from collections import defaultdict

import pytest
import torch

from interp.engine.edges.edge_attribution import edge_gradients, moved_in_turn
from interp.engine.edges.edge_patching import graph_of, patch_edge_sets, patch_single_edges
from interp.engine.edges.residual_decomposition import ResidualDecomposition, decompose_residual
from interp.engine.sweep.readout import Readout
from interp.graph import Edge, Node
from interp.metrics.outcomes import OUTCOMES
from interp.models.planted import plant
from interp.tasks.task import Example
from tests.engine.edges.test_edge_patching import N_PROMPTS, edge_of, examples
from tests.support.tiny_models import tiny

LOGIT_DIFF = OUTCOMES.get("logit_diff")


def at_rest(graph) -> torch.Tensor:
    """The clean run, in which no writer is moved."""
    return torch.zeros(1, len(graph.writers))


def estimates(model, prompts: list[Example], steps: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact effects of all edges on the logit difference and their estimates: from the clean gradient or, with ``steps``, from the mean
    gradient between the corrupted and the clean embedding; [n_edges batch] each."""
    graph = graph_of(model)
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        read = Readout(model, prompts, LOGIT_DIFF, decomposition.clean.logits)
        exact = read(patch_single_edges(decomposition, graph.edges)) - read(decomposition.clean.final_residual[None])
        shares = [(k + 0.5) / steps for k in range(steps)] or [0.0]
        return exact, edge_gradients(decomposition, graph, read, moved_in_turn(graph, [[Node("input")]], shares))


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "qwen3", "gpt_neox", "phi"]
)  # not OPT, whose ReLU has no slope to compare at its kinks
def test_the_estimate_of_an_edge_is_the_slope_of_its_exact_effect(name):
    model, graph, step = tiny(name), graph_of(tiny(name)), 1e-2
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, decomposition.clean.logits)
        found = edge_gradients(decomposition, graph, read, at_rest(graph))
        corrupted, sides = decomposition.corrupted, []
        for sign in (1, -1):
            decomposition.corrupted = decomposition.outputs + sign * step * (corrupted - decomposition.outputs)
            sides.append(read(patch_single_edges(decomposition, graph.edges)))
    slope = (sides[0] - sides[1]) / (2 * step)
    assert found.shape == (len(graph.edges), N_PROMPTS)
    assert float((found - slope).abs().max()) <= 5e-3 * float(slope.abs().max())


def test_in_double_precision_the_slope_agrees_to_six_digits():
    planted = plant("mini_ioi", seed=4, sharpness=6.0)
    model, graph, step = planted.model, graph_of(planted.model), 1e-5
    assert model.hf is not None
    model.hf.double()
    prompts = [Example(*p) for p in planted.prompts("ioi", 4)]
    chosen = [i for i, e in enumerate(graph.edges) if e in {edge_of(*edge) for edge in planted.structural_edges}]
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        read = Readout(model, prompts, LOGIT_DIFF, decomposition.clean.logits)
        found = edge_gradients(decomposition, graph, read, at_rest(graph))[chosen]
        corrupted, sides = decomposition.corrupted, []
        for sign in (1, -1):
            decomposition.corrupted = decomposition.outputs + sign * step * (corrupted - decomposition.outputs)
            sides.append(read(patch_single_edges(decomposition, [graph.edges[i] for i in chosen])))
    slope = (sides[0] - sides[1]) / (2 * step)
    assert float((found - slope).abs().max()) <= 1e-6 * float(slope.abs().max())


def test_the_estimates_are_those_of_transformerlens():
    from transformer_lens.tools import analysis

    model, prompts = tiny("gpt2"), examples()[:1]
    _, ours = estimates(model, prompts)
    clean, corrupted = (torch.tensor([side]) for side in (prompts[0].clean, prompts[0].corrupted))
    answer, distractor = prompts[0].answers[0], prompts[0].distractors[0]
    needed = [p.requires_grad for p in model.bridge.parameters()]
    try:
        for p in model.bridge.parameters():
            p.requires_grad_(True)
        theirs = analysis.attribution_patch(
            model.bridge,
            corrupted,  # it begins at its second argument and shows readers what the first would write
            clean,
            lambda logits: logits[0, -1, answer] - logits[0, -1, distractor],
            analysis.EdgeAttributionConfig(granularity="edge"),
        )
    finally:
        for p, was in zip(model.bridge.parameters(), needed, strict=True):
            p.requires_grad_(was)
    total: dict[Edge, float] = defaultdict(float)  # theirs are by position
    for (writer, reader), score in theirs.edge_scores.items():
        total[Edge(node_of(writer), node_of(reader), reader.kind[0] if reader.head is not None else "")] += float(score)
    assert set(total) == set(graph_of(model).edges)
    apart = max(abs(float(score) - total[edge]) for edge, score in zip(graph_of(model).edges, ours[:, 0], strict=True))
    assert apart <= 1e-5 * max(map(abs, total.values()))


def node_of(node) -> Node:
    """A node of TransformerLens's edge attribution."""
    if node.kind in ("embed", "logits"):
        return Node({"embed": "input"}.get(node.kind, node.kind))
    return Node("mlp", node.layer) if node.head is None else Node("head", node.layer, node.head)


@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_soft_heads_let_gradients_find_the_active_edges(seed, steps):
    planted = plant("mini_ioi", seed=seed, sharpness=6.0)
    exact, estimate = (
        x.mean(1).abs() for x in estimates(planted.model, [Example(*p) for p in planted.prompts("ioi", 8)], steps)
    )
    active = planted.ground_truth_effects("ioi").active_edges
    edges = graph_of(planted.model).edges
    assert len(active) == 12
    for scores in (exact, estimate):
        assert {edges[i] for i in scores.argsort(descending=True)[:12]} == {edge_of(*edge) for edge in active}


def test_sharp_heads_leave_a_gradient_of_nothing_where_an_edge_decides():
    planted = plant("mini_ioi", seed=0, sharpness=30.0)
    exact, estimate = (x.mean(1).abs() for x in estimates(planted.model, [Example(*p) for p in planted.prompts("ioi", 8)]))
    edges = graph_of(planted.model).edges
    into_heads = torch.tensor([edge.reader.kind == "head" for edge in edges])
    assert float(exact[into_heads].max()) > 13
    assert float(estimate[into_heads].max()) < 1e-6 * float(estimate.max())


@pytest.mark.parametrize("name", ["gpt2", "mistral", "phi"])
@pytest.mark.parametrize("kind", ["head", "mlp"])
def test_a_replaced_output_cuts_the_gradient_behind_it_and_nothing_else(name, kind):
    model, graph, layer = tiny(name), graph_of(tiny(name)), 1
    group = [writer for writer in graph.writers if writer[:2] == (kind, layer)]
    moved = moved_in_turn(graph, [group], [0.3])
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, decomposition.clean.logits)
        added = edge_gradients(decomposition, graph, read, moved)
        replaced = edge_gradients(decomposition, graph, read, moved, moved > 0)
    inside = torch.tensor([edge.reader in group for edge in graph.edges])
    before = torch.tensor([edge.reader.kind != "logits" and edge.reader.layer < layer for edge in graph.edges])
    after = torch.tensor([edge.reader.kind == "logits" or edge.reader.layer > layer for edge in graph.edges])
    assert torch.equal(replaced[inside], torch.zeros_like(replaced[inside]))
    assert float(added[inside].abs().max()) > 1e-4
    torch.testing.assert_close(replaced[after], added[after])
    assert float((replaced[before] - added[before]).abs().max()) > 1e-5


def groups_of(graph) -> list[list[Node]]:
    """The embedding, then each layer's heads and each MLP."""
    layers = range(graph.n_layers)
    inside = [[w for w in graph.writers if w[:2] == (kind, layer)] for layer in layers for kind in ("head", "mlp")]
    return [[Node("input")], *inside]


@pytest.mark.parametrize("name", ["llama", "mistral", "phi"])
def test_runs_that_share_a_pass_count_as_much_as_runs_alone(name, monkeypatch):
    model, graph = tiny(name), graph_of(tiny(name))
    shares = torch.cat([at_rest(graph), moved_in_turn(graph, groups_of(graph)[:3], [0.2, 0.9])])
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, decomposition.clean.logits)
        alone = torch.stack([edge_gradients(decomposition, graph, read, row[None]) for row in shares])
        together = edge_gradients(decomposition, graph, read, shares)
        monkeypatch.setattr(ResidualDecomposition, "runs_per_batch", 3)
        in_parts = edge_gradients(decomposition, graph, read, shares)
    assert len(alone) == 7
    torch.testing.assert_close(together, alone.mean(0))
    torch.testing.assert_close(in_parts, together)
    assert not torch.allclose(alone[0], alone[-1])


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi"])
def test_gradients_on_the_way_add_up_to_what_moving_a_writer_does(name):
    """All edges out of writers that move together: their sum, each from the runs in which these writers move, is the whole effect."""
    model, graph, steps = tiny(name), graph_of(tiny(name)), 100
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, decomposition.clean.logits)
        for group in groups_of(graph):
            moved = moved_in_turn(graph, [group], [(k + 0.5) / steps for k in range(steps)])
            out_of = torch.tensor([edge.writer in group for edge in graph.edges])
            summed = edge_gradients(decomposition, graph, read, moved)[out_of].sum(0)
            changed = (
                read(patch_edge_sets(decomposition, graph, out_of[None]))[0] - read(decomposition.clean.final_residual[None])[0]
            )
            torch.testing.assert_close(summed, changed, rtol=1e-3, atol=2e-4)
            assert float(changed.abs().max()) > 1e-3
