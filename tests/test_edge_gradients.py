"""Gradients at readers, against finite differences, TransformerLens, the exact effects, and planted models."""

from collections import defaultdict

import pytest
import torch
from test_edges import N_PROMPTS, edge_of, examples
from tiny_models import tiny

from interp.engine.edge_gradients import edge_gradients
from interp.engine.edges import graph_of, single_edges
from interp.engine.readout import Readout
from interp.engine.stream import open_stream
from interp.graph import Edge, Node
from interp.metrics.outcomes import OUTCOMES
from interp.models.planted import plant
from interp.tasks.task import Example

LOGIT_DIFF = OUTCOMES.get("logit_diff")


def estimates(model, prompts: list[Example], steps: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact effects of all edges on the logit difference and their estimates: from the clean gradient or, with ``steps``, from the mean
    gradient between the corrupted and the clean embedding; [n_edges batch] each."""
    graph = graph_of(model)
    with model.lock, torch.no_grad():
        stream = open_stream(model, prompts)
        read = Readout(model, prompts, LOGIT_DIFF, stream.clean.logits)
        clean, corrupted = stream.outputs[0], stream.corrupted[0]
        inputs = [corrupted + (k + 0.5) / steps * (clean - corrupted) for k in range(steps)] or [clean]
        exact = read(single_edges(stream, graph.edges)) - read(stream.clean.last[None])
        return exact, edge_gradients(stream, graph, read, inputs)


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "qwen3", "gpt_neox", "phi"]
)  # not OPT, whose ReLU has no slope to compare at its kinks
def test_the_estimate_of_an_edge_is_the_slope_of_its_exact_effect(name):
    model, graph, step = tiny(name), graph_of(tiny(name)), 1e-2
    with model.lock, torch.no_grad():
        stream = open_stream(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, stream.clean.logits)
        found = edge_gradients(stream, graph, read, [stream.outputs[0]])
        corrupted, sides = stream.corrupted, []
        for sign in (1, -1):
            stream.corrupted = stream.outputs + sign * step * (corrupted - stream.outputs)
            sides.append(read(single_edges(stream, graph.edges)))
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
        stream = open_stream(model, prompts)
        read = Readout(model, prompts, LOGIT_DIFF, stream.clean.logits)
        found = edge_gradients(stream, graph, read, [stream.outputs[0]])[chosen]
        corrupted, sides = stream.corrupted, []
        for sign in (1, -1):
            stream.corrupted = stream.outputs + sign * step * (corrupted - stream.outputs)
            sides.append(read(single_edges(stream, [graph.edges[i] for i in chosen])))
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
    active = planted.counterfactual("ioi").active_edges
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


def test_passes_from_several_inputs_count_alike():
    model, graph = tiny("mistral"), graph_of(tiny("mistral"))
    with model.lock, torch.no_grad():
        stream = open_stream(model, examples())
        read = Readout(model, examples(), LOGIT_DIFF, stream.clean.logits)
        ends = [edge_gradients(stream, graph, read, [x]) for x in (stream.outputs[0], stream.corrupted[0])]
        both = edge_gradients(stream, graph, read, [stream.outputs[0], stream.corrupted[0]])
    torch.testing.assert_close(both, (ends[0] + ends[1]) / 2)
    assert not torch.allclose(*ends)
