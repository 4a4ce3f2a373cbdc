"""Prompts share a batch only where its length changes nothing: longrope gives long batches other frequencies."""

import numpy as np
import pytest
import torch
import transformers as T

from interp.ablation import ablate_heads
from interp.engine import capture_attention
from interp.engine.sweep.clean_pass import clean_pass
from interp.metrics import observe_attention
from interp.models import wrap_model
from interp.tasks.task import Example, Task
from tests.support.tiny_models import TINY, tiny, tiny_hf

SWITCH = 8


def longrope():
    torch.manual_seed(3)
    config = T.Phi3Config(
        vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        max_position_embeddings=64, original_max_position_embeddings=SWITCH, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [1.5, 3.0, 6.0, 9.0],
                         "original_max_position_embeddings": SWITCH},
    )  # fmt: skip
    hf = T.Phi3ForCausalLM(config).eval()
    with torch.no_grad():
        for p in hf.parameters():
            if p.dim() > 1:
                p.mul_(4)
    return wrap_model(hf, name="longrope")


def prompt(n, seed):
    ids = torch.randint(3, 97, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Example(tuple(ids), tuple(ids), (5,), (6,))


def test_only_a_model_whose_frequencies_change_has_more_than_one_class():
    model = longrope()
    assert model.length_class(3) == model.length_class(SWITCH) != model.length_class(SWITCH + 1) == model.length_class(40)
    assert {tiny(name).length_class(n) for name in ("llama", "gpt2", "gemma2") for n in (2, 60)} == {b""}


@pytest.mark.parametrize("lengths", [(5, 7, 11), (11, 5, 8, 20)])
def test_prompts_of_both_classes_give_what_each_gives_alone(lengths):
    model = longrope()
    examples = tuple(prompt(n, n) for n in lengths)
    together = ablate_heads(model, Task("t", examples, "logit_diff"), ablation="zero")
    for i, example in enumerate(examples):
        with torch.no_grad():
            logits = model.hf(torch.tensor([example.clean])).logits[0, -1]
        assert together.baseline[i] == pytest.approx(float(logits[5] - logits[6]), abs=1e-5)
        alone = ablate_heads(model, Task("t", (example, example), "logit_diff"), ablation="zero")
        assert together.values[:, i] == pytest.approx(alone.values[:, 0], abs=1e-5)
    names = ["entropy", "received_attention", "argmax_offsets"]
    found = observe_attention(model, [list(e.clean) for e in examples], names)
    for i, example in enumerate(examples):
        one = observe_attention(model, list(example.clean), names)
        for name in names:
            part = found[name][:, i, :, : one[name].shape[-1]]
            torch.testing.assert_close(part, one[name][:, 0], equal_nan=True, atol=1e-6, rtol=1e-5)
    assert found["entropy"][:, 0, :, lengths[0] :].isnan().all()


def random_mix(seed):
    """A task of 2 to 6 prompts of 1 to 40 tokens."""
    lengths = np.random.default_rng(seed).integers(1, 41, 2 + seed % 5).tolist()
    return Task("mix", tuple(prompt(n, 100 * seed + i) for i, n in enumerate(lengths)), "logit_diff")


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_prompts_of_50_random_mixes_of_lengths_give_what_each_gives_alone(name):
    model, plain = tiny(name), tiny_hf(name)
    for seed in range(50):
        mix = random_mix(seed)
        together = clean_pass(model, mix.examples, range(len(mix))).logits
        rows = observe_attention(model, [list(e.clean) for e in mix], ["entropy"])["entropy"]
        for i, example in enumerate(mix):
            with torch.no_grad():
                alone = plain(torch.tensor([example.clean])).logits[0, -1]
            torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-5)
            best = alone.topk(2).values
            assert together[i].argmax() == alone.argmax() or best[0] - best[1] <= 2e-5
            own = observe_attention(model, list(example.clean), ["entropy"])["entropy"][:, 0]
            torch.testing.assert_close(rows[:, i, :, : len(example.clean)], own, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_effects_on_prompts_of_50_random_mixes_of_lengths_are_those_on_each_alone():
    for seed in range(50):
        model, mix = tiny(TINY[seed % len(TINY)]), random_mix(seed)
        heads = model.facts.heads()[seed % 3 :: 5]
        together = ablate_heads(model, mix, ablation="zero", heads=heads)
        for i, example in enumerate(mix):
            alone = ablate_heads(model, Task("one", (example, example), "logit_diff"), ablation="zero", heads=heads)
            np.testing.assert_allclose(together.values[:, i], alone.values[:, 0], rtol=0, atol=1e-5)
            np.testing.assert_allclose(together.effects[:, i], alone.effects[:, 0], rtol=0, atol=2e-5)


def test_a_pass_that_mixes_classes_is_refused():
    with pytest.raises(ValueError, match="depend on the length of the whole batch, and these prompts have 5 to 11 tokens"):
        capture_attention(longrope(), [list(prompt(n, n).clean) for n in (5, 11)])
