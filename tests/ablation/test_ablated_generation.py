"""What a model says next, with heads changed and without."""

import numpy as np
import pytest
import torch

from interp import interventions
from interp.ablation import compare_next_tokens, continue_prompt
from interp.heads import Head
from tests.support.tiny_models import tiny

PROMPT = [1, 17, 5, 40, 8]


def test_the_continuation_is_what_transformers_generates(model):
    found = continue_prompt(model, PROMPT, n_tokens=6)
    made = model.hf.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert found.tokens == tuple(made[0, len(PROMPT) :].tolist())
    with torch.inference_mode():
        expected = model.hf(torch.tensor([PROMPT])).logits[0, -1].double().softmax(-1)
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-6)


def test_heads_stay_off_at_every_step(gpt2):
    """The other road: the rows of W_O of these heads are zeroed (its bias stays), and transformers generates."""
    from copy import deepcopy

    off = [Head(0, 1), Head(2, 4)]
    found = continue_prompt(gpt2, PROMPT, n_tokens=6, intervene=[interventions.zero(off)])
    other = deepcopy(gpt2.hf)
    d_head = gpt2.facts.d_head
    with torch.no_grad():
        for layer, head in off:
            other.transformer.h[layer].attn.c_proj.weight[head * d_head : (head + 1) * d_head] = 0
    made = other.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert found.tokens == tuple(made[0, len(PROMPT) :].tolist())
    assert np.abs(found.probabilities - continue_prompt(gpt2, PROMPT).probabilities).max() > 1e-3


def test_the_table_holds_the_top_tokens_of_both_sides(gpt2):
    before = continue_prompt(gpt2, PROMPT, n_tokens=1)
    after = continue_prompt(gpt2, PROMPT, n_tokens=1, intervene=[interventions.zero(gpt2.facts.heads())])
    table = compare_next_tokens(gpt2, before, after, k=7)
    assert len(table) == 7 and {before.tokens[0], after.tokens[0]} <= set(table["token"])
    assert table["before"].is_monotonic_decreasing
    for side in (before, after):
        best = sorted(range(gpt2.facts.d_vocab), key=lambda token: -side.probabilities[token])[:3]
        assert set(best) <= set(table["token"])
    np.testing.assert_allclose(table["difference"], table["after"] - table["before"], rtol=0, atol=1e-15)
    assert table["text"].tolist() == gpt2.to_str_tokens(table["token"])


def test_a_prompt_that_leaves_no_room_is_refused(gpt2):
    assert len(continue_prompt(gpt2, [5] * 62, n_tokens=9).tokens) == 2
    with pytest.raises(ValueError, match="reads at most 64"):
        continue_prompt(gpt2, [5] * 64)
    with pytest.raises(ValueError, match="The prompt is empty"):
        continue_prompt(gpt2, [])
    with pytest.raises(ValueError, match="n_tokens=0 is too few"):
        continue_prompt(gpt2, PROMPT, n_tokens=0)
    with pytest.raises(ValueError, match="A continuation needs a causal"):
        continue_prompt(tiny("bert"), PROMPT)
