"""Edges corrupted one at a time and in sets, against each other, the corrupted run, and the ground truth of planted models."""

from functools import cache

import pytest
import torch

from interp.engine.edges.edge_patching import graph_of, patch_edge_sets, patch_single_edges
from interp.engine.edges.residual_decomposition import ResidualDecomposition, decompose_residual, mean_outputs
from interp.engine.sweep import work_units
from interp.engine.sweep.readout import Readout
from interp.graph import Edge, Graph, Node
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.models import Model, wrap_model
from interp.models.planted import plant
from interp.tasks.task import Example, Task
from tests.support.tiny_models import TINY, tiny, tiny_hf

WITH_EDGES = [name for name in TINY if name != "gemma2"]
N_PROMPTS, LENGTH = 3, 9


def swapped(examples: list[Example]) -> list[Example]:
    return [Example(e.corrupted, e.clean, e.answers, e.distractors) for e in examples]


@cache
def examples() -> list[Example]:
    """Random prompts that differ from the fifth or sixth token on."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for i in range(N_PROMPTS):
        clean = torch.randint(3, 97, (LENGTH,), generator=draw).tolist()
        corrupted = clean.copy()
        corrupted[4 + i % 2] = 3 + (clean[4 + i % 2] + 11) % 90
        found.append(Example(tuple(clean), tuple(corrupted), (5,), (7,)))
    return found


@cache
def streams(name: str) -> tuple[ResidualDecomposition, ResidualDecomposition]:
    """The stream of a tiny model, and that of the same prompts with clean and corrupted exchanged."""
    model = tiny(name)
    with model.lock, torch.inference_mode():
        return decompose_residual(model, examples()), decompose_residual(model, swapped(examples()))


@pytest.mark.parametrize(
    ("sizes", "writers", "readers", "edges"),
    [
        ((12, 12), 157, 445, 32_491),  # GPT-2 small
        ((4, 8, False), 33, 97, 1_281),  # attn-only-4l
        ((4, 6, False), 25, 73, 745),
        ((4, 4), 21, 53, 479),  # interp-mini
    ],
)
def test_a_graph_has_as_many_edges_as_the_literature_counts(sizes, writers, readers, edges):
    graph = Graph(*sizes)
    assert (len(graph.writers), len(graph.readers), len(graph.edges)) == (writers, readers, edges)


def test_a_parallel_block_has_no_edge_from_a_head_to_its_own_mlp():
    edge = Edge(Node("head", 1, 0), Node("mlp", 1))
    assert edge in Graph(2, 3).edges
    assert edge not in Graph(2, 3, parallel_attn_mlp=True).edges
    with pytest.raises(LookupError, match=r"There is no edge a1\.h0->m1: m1 does not come after a1\.h0"):
        Graph(2, 3, parallel_attn_mlp=True).check(edge)


@pytest.mark.parametrize("text", ["a0.h1->a5.h3<q>", "input->m0", "m2->logits", "input->logits", "a3.h0->m3"])
def test_an_edge_is_read_back_from_what_it_prints(text):
    assert str(Edge.parse(text)) == text


@pytest.mark.parametrize("text", ["a0.h1", "a0.h1->a5.h3", "input->m0<q>", "head->m0", "m0->a1.h0<z>", ""])
def test_what_is_no_edge_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="write "):
        Edge.parse(text)


def test_a_node_that_a_graph_does_not_have_is_named():
    with pytest.raises(LookupError, match=r"There is no node a2\.h0: the graph has 2 layers of 3 heads"):
        Graph(2, 3).check(Edge.parse("input->a2.h0<k>"))
    assert Node.of(Head(1, 2)) == Node.parse("a1.h2")


@pytest.mark.parametrize("name", WITH_EDGES)
def test_no_edge_is_the_clean_run_and_all_edges_are_the_corrupted_one(name):
    decomposition, other = streams(name)
    graph = graph_of(tiny(name))
    nothing = torch.zeros(1, len(graph.edges), dtype=torch.bool)
    with torch.inference_mode():
        none, everything = patch_edge_sets(decomposition, graph, torch.cat([nothing, ~nothing]))
    scale = float(decomposition.clean.final_residual.abs().max())
    assert float((none - decomposition.clean.final_residual).abs().max()) <= 1e-5 * scale
    assert float((everything - other.clean.final_residual).abs().max()) <= 1e-5 * scale
    assert float((everything - none).abs().max()) > 0.01 * scale


@pytest.mark.parametrize("name", WITH_EDGES)
def test_an_edge_alone_is_a_set_of_one_edge(name):
    decomposition, _ = streams(name)
    graph = graph_of(tiny(name))
    some = torch.randperm(len(graph.edges), generator=torch.Generator().manual_seed(1))[:70]
    with torch.inference_mode():
        alone = patch_single_edges(decomposition, graph.edges)
        sets = patch_edge_sets(decomposition, graph, torch.eye(len(graph.edges), dtype=torch.bool)[some])
    scale = float(decomposition.clean.final_residual.abs().max())
    assert float((alone[some] - sets).abs().max()) <= 1e-5 * scale
    assert float((alone - decomposition.clean.final_residual).abs().max()) > 0.01 * scale


def test_of_many_edges_only_what_is_read_is_kept(monkeypatch):
    decomposition, _ = streams("gpt2")
    graph, sizes = graph_of(tiny("gpt2")), []
    readout = Readout(tiny("gpt2"), examples(), OUTCOMES.get("logit_diff"), decomposition.clean.logits)
    monkeypatch.setattr(work_units, "TOKENS_AT_ONCE", {"cpu": 2 * N_PROMPTS * 5})

    def read(residual: torch.Tensor) -> torch.Tensor:
        sizes.append(len(residual))
        return readout(residual)

    with torch.inference_mode():
        found, want = (
            patch_single_edges(decomposition, graph.edges, read),
            readout(patch_single_edges(decomposition, graph.edges)),
        )
    torch.testing.assert_close(found, want)
    assert sum(sizes) == len(graph.edges) and max(sizes) <= 2 * 3 * 5  # two writers into a layer


def test_the_cut_into_parts_does_not_change_an_edge(monkeypatch):
    decomposition, _ = streams("llama")
    graph = graph_of(tiny("llama"))
    with torch.inference_mode():
        whole = patch_single_edges(decomposition, graph.edges)
        monkeypatch.setattr(work_units, "TOKENS_AT_ONCE", {"cpu": 130})
        parts = patch_single_edges(decomposition, graph.edges)
        shuffled = patch_single_edges(decomposition, graph.edges[::-1])
    scale = float(whole.abs().max())
    assert float((parts - whole).abs().max()) <= 1e-5 * scale
    assert float((shuffled.flip(0) - whole).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_neither_company_nor_cuts_nor_the_layer_of_its_first_edge_change_a_set(name, monkeypatch):
    """Sets of edges into the last readers alone are run from there when they are alone, and from the first layer beside the others."""
    decomposition, _ = streams(name)
    graph = graph_of(tiny(name))
    layer = torch.tensor([edge.reader.layer if edge.qkv or edge.reader.kind == "mlp" else 3 for edge in graph.edges])
    drawn = torch.rand(6, len(graph.edges), generator=torch.Generator().manual_seed(2)) < 0.4
    sets = drawn & (layer >= torch.tensor([0, 1, 2, 3, 2, 4])[:, None])
    sets[4] &= torch.tensor([edge.reader == Node("mlp", 2) for edge in graph.edges])
    assert sets.any(1).tolist() == [True] * 5 + [False]
    with torch.inference_mode():
        together = patch_edge_sets(decomposition, graph, sets)
        alone = torch.cat([patch_edge_sets(decomposition, graph, one[None]) for one in sets])
        monkeypatch.setattr(work_units, "TOKENS_AT_ONCE", {"cpu": 130})
        in_parts = patch_edge_sets(decomposition, graph, sets)
        monkeypatch.setattr(work_units, "LEAST_MEMORY", {"cpu": 2 * decomposition.outputs.nbytes})
        in_little_memory = patch_edge_sets(decomposition, graph, sets)
    scale = float(together.abs().max())
    for other in (alone, in_parts, in_little_memory):
        assert float((other - together).abs().max()) <= 1e-5 * scale
    assert float((together[:5] - decomposition.clean.final_residual).abs().amax((1, 2)).min()) > 0.001 * scale
    assert torch.equal(alone[5], decomposition.clean.final_residual)


def test_what_writers_write_adds_up_to_the_stream():
    decomposition, _ = streams("gpt2")
    with torch.inference_mode():
        total = decomposition.outputs.sum(0) + decomposition.biases.sum(0)
    assert float((total[:, -1] - decomposition.clean.final_residual).abs().max()) <= 1e-5 * float(
        decomposition.clean.final_residual.abs().max()
    )


def test_what_attention_adds_to_every_head_is_its_own_bias():
    for name in ("gpt2", "llama"):
        own = [getattr(projection, "bias", None) for projection in tiny(name).layout.outputs]
        want = torch.zeros(3, 60) if own[0] is None else torch.stack([*own])
        assert torch.equal(streams(name)[0].biases, want) and (own[0] is None) == (name == "llama")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hides_no_norm_behind_attention_and_makes_none(dtype):
    for name in TINY:
        model = wrap_model(tiny_hf(name).to(dtype), name=f"half {name}")
        with model.lock, torch.inference_mode():
            if name in WITH_EDGES:
                assert decompose_residual(model, examples()).outputs.dtype == dtype
            else:
                with pytest.raises(ValueError, match=f"half {name} has no edges"):
                    decompose_residual(model, examples())


def test_a_model_whose_parts_are_not_known_is_refused_before_it_is_read():
    """It has no TransformerLens bridge either."""
    known = tiny("gpt2")
    model = Model(known.facts, None, known.hf, None)
    task = Task("random", tuple(examples()), "logit_diff")
    said = "the parts of a GPT2LMHeadModel model are not known"
    for ask in (lambda: decompose_residual(model, examples()), lambda: mean_outputs(model, task)):
        with model.lock, torch.inference_mode(), pytest.raises(ValueError, match=said):
            ask()
    assert model._bridge is None


def test_a_model_with_norms_behind_attention_has_no_edges():
    model = tiny("gemma2")
    with (
        model.lock,
        torch.inference_mode(),
        pytest.raises(ValueError, match="tiny-gemma2 has no edges: in a Gemma2ForCausalLM model"),
    ):
        decompose_residual(model, examples())


def test_parts_that_do_not_add_up_are_no_edges():
    model = wrap_model(tiny_hf("llama"), name="louder")
    assert model.layout is not None
    model.layout.outputs[1].register_forward_hook(lambda module, args, out: out * 1.02)
    with model.lock, torch.inference_mode(), pytest.raises(ValueError, match=r"louder has no edges: .* does not add up"):
        decompose_residual(model, examples())


@pytest.mark.parametrize("n_kv_heads", [None, 2])
@pytest.mark.parametrize("sharpness", [30.0, 6.0])
def test_edges_of_a_planted_model_have_the_effects_of_its_ground_truth(sharpness, n_kv_heads):
    planted = plant("mini_ioi", seed=5, sharpness=sharpness, n_kv_heads=n_kv_heads)
    truth = planted.ground_truth_effects("ioi", n_prompts=6)
    effects, apart = effects_of(planted.model, [Example(*p) for p in truth.prompts])
    for (writer, reader), effect in truth.edges.items():
        assert effects.pop(edge_of(writer, reader)) == pytest.approx(effect, abs=1e-4)
    assert max(map(abs, effects.values())) < 1e-4  # all other edges, those of noise heads among them
    assert apart < 1e-5


def test_all_edges_together_are_the_corrupted_run_in_double_precision():
    planted = plant("mini_ioi", seed=2)
    assert planted.model.hf is not None
    planted.model.hf.double()
    assert effects_of(planted.model, [Example(*p) for p in planted.prompts("ioi", 4)], [])[1] < 1e-9


def edge_of(writer: str, reader: str) -> Edge:
    """An edge of a planted model's ground truth, whose heads are written L1H4 and L2H0.q."""
    node, _, part = reader.partition(".")
    return Edge(*(Node(n) if n in ("input", "logits") else Node.of(Head.parse(n)) for n in (writer, node)), part)


def effects_of(model, prompts: list[Example], edges=None) -> tuple[dict[Edge, float], float]:
    """Mean effect of each edge on the logit difference; and how far all edges together are from the corrupted run."""
    graph, outcome = graph_of(model), OUTCOMES.get("logit_diff")
    with model.lock, torch.inference_mode():
        decomposition, other = decompose_residual(model, prompts), decompose_residual(model, swapped(prompts))
        read = Readout(model, prompts, outcome, decomposition.clean.logits)
        baseline, corrupted = read(decomposition.clean.final_residual[None]), read(other.clean.final_residual[None])
        everything = read(patch_edge_sets(decomposition, graph, torch.ones(1, len(graph.edges), dtype=torch.bool)))
        chosen = graph.edges if edges is None else edges
        found = (read(patch_single_edges(decomposition, chosen)) - baseline).mean(1).tolist() if chosen else []
    return dict(zip(chosen, found, strict=True)), float((everything - corrupted).abs().max())
