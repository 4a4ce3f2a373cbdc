"""Heads with inputs of their own, against the whole layer that is run for each of these inputs."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers as T

from interp.circuits import circuit_outcomes
from interp.engine.edges import qkv_from_separate_inputs
from interp.engine.edges.edge_patching import graph_of
from interp.engine.edges.qkv_from_separate_inputs import gradients_at_inputs, head_columns, projected, qkv_of_inputs
from interp.engine.edges.residual_decomposition import ResidualDecomposition, decompose_residual
from interp.graph import QKV
from interp.models import Model, wrap_model
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import WITH_EDGES, examples
from tests.support.tiny_models import tiny, tiny_hf

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 60,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MLA: dict[str, Any] = {"n_routed_experts": 3, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "moe_intermediate_size": 20}
MLA |= {"kv_lora_rank": 14, "q_lora_rank": 22, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8, "n_group": 1}
NOT_CUT = {  # all heads normed together, and latents that queries, keys and values are made of
    "heads normed together": lambda: T.OlmoeForCausalLM(
        T.OlmoeConfig(**SIZES, num_attention_heads=6, intermediate_size=28, num_experts=3, num_experts_per_tok=2)
    ),
    "latent attention": lambda: T.DeepseekV3ForCausalLM(
        T.DeepseekV3Config(**SIZES, num_attention_heads=5, num_key_value_heads=5, intermediate_size=28, topk_group=1, **MLA)
    ),
}


def decomposed(model: Model, layer: int, copies: int = 2) -> tuple[ResidualDecomposition, torch.Tensor]:
    """The stream of some prompts, and random inputs for every query, key and value of a layer."""
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, examples())
        x = decomposition.clean.residual[layer]
        draw = torch.Generator().manual_seed(layer)
        shape = (len(QKV), model.facts.n_heads, copies * len(x), *x.shape[1:])
        return decomposition, x.repeat(copies, 1, 1) + x.std() * torch.randn(shape, generator=draw)


@pytest.fixture(scope="module", params=NOT_CUT)
def not_cut(request) -> Model:
    torch.manual_seed(3)
    return wrap_model(NOT_CUT[request.param]().eval())


def check(model: Model, *, cut: bool) -> None:
    decomposition, inputs = decomposed(model, layer=1)
    n_heads = model.facts.n_heads
    with model.lock, torch.no_grad():
        assert (head_columns(decomposition, 1) is not None) == cut
        made = qkv_of_inputs(decomposition, 1, inputs)
        for i, part in enumerate(QKV):
            for head in range(n_heads):
                alone = decomposition.per_query_head(decomposition.qkv(1, inputs[i, head]))[part][:, head]
                torch.testing.assert_close(getattr(made, part)[:, head], alone, rtol=1e-4, atol=1e-5)
        x = inputs[0, 0]
        with projected(decomposition, 1) as outputs:
            whole = [*decomposition.per_query_head(decomposition.qkv(1, x)).values()]
        slopes = [torch.randn(t.shape, generator=torch.Generator().manual_seed(7)) for t in whole]
        found = [*gradients_at_inputs(decomposition, 1, x, outputs, slopes)]
    for i, (part, slope) in enumerate(zip(QKV, slopes, strict=True)):
        for head in range(n_heads):
            entering = x.clone().requires_grad_()
            own = decomposition.per_query_head(decomposition.qkv(1, entering))[part][:, head]
            expected = torch.autograd.grad(own, entering, slope[:, head])[0]
            torch.testing.assert_close(found[i][head], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", WITH_EDGES)
def test_columns_of_a_head_give_what_the_whole_layer_gives_for_its_input(name):
    check(tiny(name), cut=True)


def test_heads_that_cannot_be_cut_run_with_the_whole_layer(not_cut):
    check(not_cut, cut=False)


def test_columns_of_other_heads_are_noticed_on_the_data(monkeypatch):
    model = wrap_model(tiny_hf("llama", seed=5))
    right: Any = qkv_from_separate_inputs._columns_by_head
    monkeypatch.setattr(qkv_from_separate_inputs, "_columns_by_head", lambda part, leaf: right(part, leaf).flip(0))
    check(model, cut=False)


def test_prompts_that_were_decomposed_in_inference_mode_find_the_same_columns():
    model = wrap_model(tiny_hf("qwen3", seed=6))
    with model.lock, torch.inference_mode():
        decomposition = decompose_residual(model, [Example((3, 4, 5), (3, 6, 5), (7,), (8,))])
        cut = head_columns(decomposition, 0)
    assert cut is not None
    assert [columns.tolist() for columns in cut.columns[:1]] == [[[*range(8 * h, 8 * h + 8)] for h in range(6)]]
    assert [columns.tolist() for columns in cut.columns[1:]] == [
        [[*range(start + 8 * h, start + 8 * h + 8)] for h in range(2)] for start in (48, 64)
    ]


def test_columns_are_found_with_the_fused_modules_of_a_sweep():
    model = wrap_model(tiny_hf("qwen3", seed=7))  # norms of queries and keys are fused, and gradients pass through them
    task = Task("pair", tuple(examples()), "logit_diff")
    everything = np.ones((1, len(graph_of(model).edges)), dtype=bool)
    with torch.no_grad():
        logits = model.hf(torch.tensor([example.clean for example in task])).logits[:, -1]
    expected = [row[e.answers[0]] - row[e.distractors[0]] for row, e in zip(logits, task, strict=True)]
    np.testing.assert_allclose(circuit_outcomes(model, task, everything)[0], torch.stack(expected).numpy(), atol=1e-4)
