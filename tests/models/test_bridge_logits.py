"""The bridge of every tiny architecture has the logits of Hugging Face's eager attention, in single and in half precision."""

import pytest
import torch

from interp.models import wrap_model
from tests.support.tiny_models import TINY, tiny_hf, tiny_tokens


def logits_of(hf, attention, tokens):
    hf.set_attn_implementation(attention)
    with torch.no_grad():
        return hf(tokens).logits


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("seed", range(3))
def test_logits_of_the_bridge_are_those_of_eager_attention_at_every_position(name, seed):
    tokens = tiny_tokens(3, 11, seed=seed)
    with torch.no_grad():
        found = wrap_model(tiny_hf(name, seed=seed)).bridge(tokens)
    wanted = logits_of(tiny_hf(name, seed=seed), "eager", tokens)
    assert wanted.abs().max() > 2
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_a_bridge_in_bfloat16_predicts_what_its_model_predicts(name):
    tokens = tiny_tokens(3, 11)
    with torch.no_grad():
        found = wrap_model(tiny_hf(name).to(torch.bfloat16)).bridge(tokens).float()
    wanted = logits_of(tiny_hf(name).to(torch.bfloat16), "eager", tokens).float()
    assert torch.cosine_similarity(found, wanted, dim=-1).min() >= 0.999
    assert found.argmax(-1).equal(wanted.argmax(-1))


@pytest.mark.parametrize("name", [name for name in TINY if tiny_hf(name)._supports_sdpa])
def test_torchs_own_attention_differs_by_rounding_alone(name):
    tokens = tiny_tokens(3, 11)
    eager, fused = (logits_of(tiny_hf(name), attention, tokens) for attention in ("eager", "sdpa"))
    torch.testing.assert_close(fused, eager, rtol=0, atol=2e-3)
