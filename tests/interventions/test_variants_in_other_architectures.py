"""Attention variants in models that do more to their scores: soft caps, biases by distance, learned sinks."""

import pytest
import torch
import transformers as T

from interp.engine import observe
from interp.engine.forward.run import run
from interp.heads import Head
from interp.interventions import INTERVENTIONS, streaming
from interp.models import wrap_model
from tests.interventions.test_variants import build, changed_z, inputs_of
from tests.support.tiny_models import tiny, tiny_tokens

TOKENS = tiny_tokens(2, 13)
HEAD = Head(1, 2)
N = TOKENS.shape[1]
MASKS = {
    "window": ({"size": 3}, lambda i, j: i - j < 3),
    "strided": ({"stride": 4, "size": 2}, lambda i, j: i - j < 2 or (i - j) % 4 == 0),
    "power_attention": ({"size": 1, "sinks": 1}, lambda i, j: j < 1 or (i - j) & (i - j - 1) == 0),
}


@pytest.fixture(scope="module")
def gpt_oss():
    torch.manual_seed(0)
    config = T.GptOssConfig(
        vocab_size=97, hidden_size=48, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        head_dim=12, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64, sliding_window=64,
    )  # fmt: skip
    hf = T.GptOssForCausalLM(config).eval()
    for layer in hf.model.layers:
        layer.self_attn.sinks.data.normal_()
    return wrap_model(hf, name="gpt-oss")


def naive(call, head, row, keep):
    """The output of one head with the keys that ``keep`` allows, in double precision: soft cap, bias and sink as the model has them."""
    q, k, v = (x[row].double() for x in (call.q[:, head], call.k[:, head // call.group_size], call.head_value(head)))
    scores = q @ k.T * call.scale
    if call.softcap is not None:
        scores = call.softcap * (scores / call.softcap).tanh()
    for i in range(N):
        for j in range(N):
            if call.slopes is not None:
                scores[i, j] += float(call.slopes[head]) * (j - i)
            if j > i or not keep(i, j):
                scores[i, j] = -torch.inf
    if call.sinks is not None:
        scores = torch.cat([scores, call.sinks[head].double().expand(N, 1)], 1)
    return scores.softmax(-1)[:, :N] @ v


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("architecture", ["gemma2", "bloom", "gpt_oss"])
def test_masks_keep_soft_caps_biases_and_learned_sinks(architecture, name, gpt_oss):
    model = gpt_oss if architecture == "gpt_oss" else tiny(architecture)
    options, keep = MASKS[name]
    call = inputs_of(model, TOKENS)[HEAD.layer]
    assert (call.softcap, call.slopes, call.sinks) != (None, None, None)
    found = changed_z(call, HEAD.layer, model, TOKENS, [build(name, [HEAD], **options)])[:, HEAD.head]
    if architecture == "gemma2":  # its odd layers have a window of their own
        seen = call.visible()[0, 0]
        keep = lambda i, j, keep=keep: keep(i, j) and bool(seen[i, j])  # noqa: E731
    for row in range(len(TOKENS)):
        wanted = naive(call, HEAD.head, row, keep)
        assert float((found[row] - wanted).abs().max()) <= 1e-5 * float(call.v.abs().max())


def test_a_streaming_head_keeps_its_learned_sink(gpt_oss):
    call = inputs_of(gpt_oss, TOKENS)[HEAD.layer]
    found = changed_z(call, HEAD.layer, gpt_oss, TOKENS, [streaming([HEAD], n_sink=1, n_recent=2)])[:, HEAD.head]
    for row in range(len(TOKENS)):
        wanted = naive(call, HEAD.head, row, lambda i, j: j < 1 or i - j < 2)
        assert float((found[row] - wanted).abs().max()) <= 1e-5 * float(call.v.abs().max())


OWN_SCORES = {"agent": {}, "combiner": {}, "linear": {}, "scatterbrain": {"k": 2}, "symmetric": {}}


@pytest.mark.parametrize("name", OWN_SCORES)
@pytest.mark.parametrize(
    ("architecture", "said"), [("gemma2", "bounds its scores to"), ("bloom", "bias by distance"), ("gpt_oss", "learned sink")]
)
def test_variants_with_scores_of_their_own_are_refused_in_a_sentence(architecture, said, name, gpt_oss):
    model = gpt_oss if architecture == "gpt_oss" else tiny(architecture)
    with pytest.raises(ValueError, match=said):
        run(model, TOKENS, intervene=[INTERVENTIONS.get(name)([HEAD], **OWN_SCORES[name])])


def test_the_engines_attention_with_sinks_is_that_of_the_model(gpt_oss):
    plain = gpt_oss.hf(TOKENS).logits
    neutral = run(gpt_oss, TOKENS, intervene=[build("window", gpt_oss.facts.heads(), size=1000)]).logits
    torch.testing.assert_close(neutral, plain.detach(), rtol=1e-4, atol=1e-5)
    assert observe(gpt_oss, TOKENS, [], intervene=[build("window", [HEAD], size=2)]) is not None
