"""Estimates from what readers write, against exact effects, gradients at readers, and planted models."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from interp.engine.edges.edge_attribution import edge_gradients
from interp.engine.edges.edge_ig_reader_outputs import edge_changes
from interp.engine.edges.edge_patching import graph_of, patch_single_edges
from interp.engine.edges.residual_decomposition import ResidualDecomposition, decompose_residual
from interp.engine.sweep.readout import Readout
from interp.graph import QKV, Edge, Graph, Node
from interp.models.model import Model
from interp.models.planted import plant
from interp.tasks.task import Example
from tests.engine.edges.test_edge_attribution import LOGIT_DIFF, at_rest
from tests.engine.edges.test_edge_patching import N_PROMPTS, edge_of, examples
from tests.support.tiny_models import tiny

NAMES = ["gpt2", "llama", "mistral", "phi"]


@contextmanager
def opened(model: Model, prompts: list[Example]) -> Iterator[tuple[ResidualDecomposition, Graph, Readout]]:
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        yield decomposition, graph_of(model), Readout(model, prompts, LOGIT_DIFF, decomposition.clean.logits)


def exact(decomposition: ResidualDecomposition, edges: list[Edge] | tuple[Edge, ...], read: Readout) -> torch.Tensor:
    return read(patch_single_edges(decomposition, edges)) - read(decomposition.clean.final_residual[None])


def shown(decomposition: ResidualDecomposition, graph: Graph, edge: Edge) -> torch.Tensor:
    """What the reader of an edge, a head or an MLP, writes when the edge is corrupted."""
    layer, head = edge.reader.layer, edge.reader.head
    x, plus = decomposition.clean.residual[layer], decomposition.output_difference(graph.writer_index[edge.writer])
    if edge.reader.kind == "mlp":
        attention = decomposition.clean.attn_out[layer]
        return decomposition.block(layer, x + plus, attention) - x - plus - attention
    was, now = decomposition.qkv(layer, x), decomposition.qkv(layer, x + plus)
    mixed = [getattr(now if part == edge.qkv else was, part) for part in QKV]
    return decomposition.head_outputs(layer, decomposition.attend(layer, *mixed, like=was))[:, :, head]


@pytest.mark.parametrize("name", NAMES)
def test_an_edge_that_moves_its_reader_as_the_path_does_has_its_exact_effect(name):
    with opened(tiny(name), examples()) as (decomposition, graph, read):
        corrupted = decomposition.corrupted
        for text in (
            "input->a0.h1<v>",
            "a0.h2->a1.h3<q>",
            "a0.h4->a1.h0<k>",
            "a1.h2->a2.h1<v>",
            "input->m0",
            "m0->m1",
            "m1->m2",
        ):
            edge = Edge.parse(text)
            decomposition.corrupted = corrupted.clone()
            decomposition.corrupted[graph.writer_index[edge.reader]] = shown(decomposition, graph, edge)
            effect = exact(decomposition, [edge], read)[0]
            found = edge_changes(decomposition, graph, read, 60)[graph.edges.index(edge)]
            torch.testing.assert_close(found, effect, rtol=2e-3, atol=1e-5)
            assert float(effect.abs().max()) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_small_changes_have_the_effect_that_the_gradient_says(name):
    with opened(tiny(name), examples()) as (decomposition, graph, read):
        slope, step = edge_gradients(decomposition, graph, read, at_rest(graph)), 1e-2
        difference, sides = decomposition.corrupted - decomposition.outputs, []
        for sign in (1, -1):
            decomposition.corrupted = decomposition.outputs + sign * step * difference
            sides.append(edge_changes(decomposition, graph, read, 2))
    found = (sides[0] - sides[1]) / (2 * step)
    assert found.shape == (len(graph.edges), N_PROMPTS)
    assert float((found - slope).abs().max()) <= 5e-3 * float(slope.abs().max())


def test_edges_into_the_logits_are_exact():
    with opened(tiny("llama"), examples()) as (decomposition, graph, read):
        last = [i for i, edge in enumerate(graph.edges) if edge.reader == Node("logits")]
        found = edge_changes(decomposition, graph, read, 1)[last]
        torch.testing.assert_close(found, exact(decomposition, [graph.edges[i] for i in last], read))


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_readers_and_writers_that_share_a_pass_are_told_apart(name, monkeypatch):
    with opened(tiny(name), examples()) as (decomposition, graph, read):
        together = edge_changes(decomposition, graph, read, 3)
        for size in (1, 2, 7):
            monkeypatch.setattr(ResidualDecomposition, "runs_per_batch", size)
            torch.testing.assert_close(edge_changes(decomposition, graph, read, 3), together)


@pytest.mark.parametrize(("sharpness", "n_active", "apart"), [(6.0, 12, 0.02), (30.0, 9, 0.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_active_edges_are_found_even_where_gradients_vanish(seed, sharpness, n_active, apart):
    planted = plant("mini_ioi", seed=seed, sharpness=sharpness)
    with opened(planted.model, [Example(*p) for p in planted.prompts("ioi", 8)]) as (decomposition, graph, read):
        effect, found = exact(decomposition, graph.edges, read).mean(1), edge_changes(decomposition, graph, read, 10).mean(1)
    active = {edge_of(*edge) for edge in planted.ground_truth_effects("ioi").active_edges}
    assert len(active) == n_active
    assert {graph.edges[i] for i in found.abs().argsort(descending=True)[:n_active]} == active
    assert all((found.sign() == effect.sign())[[graph.edges.index(edge) for edge in active]])
    assert float(((found - effect).abs() / effect.abs().max()).max()) < apart
