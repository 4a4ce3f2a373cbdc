"""The self-check passes on sound models and names what is broken on others."""

import pytest
import torch
import transformers as T

from tests.support.tiny_models import tiny, tiny_hf, tiny_tokenizer

SIZES = {"vocab_size": 97, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "max_position_embeddings": 64}
GROUPS = SIZES | {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "pad_token_id": 0}
MORE = {
    "bloom": lambda: T.BloomConfig(vocab_size=97, hidden_size=40, n_layer=2, n_head=5),
    "falcon": lambda: T.FalconConfig(**SIZES, num_attention_heads=5, multi_query=True),
    "gemma": lambda: T.GemmaConfig(**GROUPS, head_dim=12),
    "gemma3_text": lambda: T.Gemma3TextConfig(
        **GROUPS, head_dim=12, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gptj": lambda: T.GPTJConfig(vocab_size=97, n_positions=64, n_embd=40, n_layer=2, n_head=5, rotary_dim=4),
    "phi3": lambda: T.Phi3Config(**GROUPS, sliding_window=4),
    "qwen2": lambda: T.Qwen2Config(**GROUPS),
}


@pytest.fixture
def doctor():
    from interp.models import doctor

    return doctor


@pytest.fixture
def wrap_model():
    from interp.models import wrap_model

    return wrap_model


def failed(checks):
    return [check.name for check in checks if check.passed is False]


def test_every_tiny_model_is_sound(doctor, model):
    checks = doctor(model)
    assert len(checks) == 9
    assert all(check.passed for check in checks), failed(checks)
    assert all(check.error <= check.tolerance for check in checks)


@pytest.mark.parametrize("name", MORE)
def test_every_other_architecture_with_a_known_layout_is_sound(doctor, wrap_model, name):
    torch.manual_seed(0)
    model = wrap_model(T.AutoModelForCausalLM.from_config(MORE[name]()), tiny_tokenizer())
    assert model.layout is not None
    assert failed(doctor(model)) == []


def test_the_known_layouts_are_those_that_are_tested():
    from interp.models.layout import KNOWN
    from tests.support.tiny_models import TINY

    assert {*TINY, *MORE} == KNOWN


def test_a_weight_broken_after_loading_is_found_and_the_other_checks_still_run(doctor, wrap_model):
    model = wrap_model(tiny_hf("llama"), tiny_tokenizer())
    with torch.no_grad():
        model.hf.model.layers[2].self_attn.v_proj.weight[0, 0] = float("inf")
    checks = doctor(model)
    assert "weights_finite" in failed(checks)
    assert "tokenizer_round_trip" not in failed(checks)
    assert "layers.2.self_attn.v_proj.weight" in checks[0].note


def test_a_bridge_over_other_weights_fails_the_comparison_with_hugging_face(doctor, wrap_model):
    model = wrap_model(tiny_hf("gpt2"), tiny_tokenizer())
    model._bridge = wrap_model(tiny_hf("gpt2", seed=1)).bridge
    assert failed(doctor(model)) == ["logits_equal_hugging_face", "layout_gives_logits"]


def test_a_wrong_window_in_the_facts_is_found(doctor, wrap_model):
    from dataclasses import replace

    model = wrap_model(tiny_hf("mistral"), tiny_tokenizer())
    model.facts = replace(model.facts, sliding_windows=(3, 4, 4))
    assert failed(doctor(model)) == ["pattern_is_causal"]


def test_a_wrong_layout_is_found(doctor, wrap_model):
    from dataclasses import replace

    model = wrap_model(tiny_hf("gpt2"), tiny_tokenizer())
    model.layout = replace(model.layout, final_norm=torch.nn.Identity())
    assert failed(doctor(model)) == ["layout_gives_logits"]


def test_a_bos_policy_that_the_tokens_contradict_is_found(doctor, wrap_model):
    model = wrap_model(tiny_hf("llama"), tiny_tokenizer())
    model.to_tokens_without_special = lambda text: [1, *tiny("llama").to_tokens_without_special(text)]
    assert "bos_as_stated" in failed(doctor(model))


def test_a_bridge_that_cannot_be_built_is_reported_and_not_raised(doctor, wrap_model):
    model = wrap_model(tiny_hf("gpt2"), tiny_tokenizer())
    model.hf.__class__ = type("NewLMHeadModel", (type(model.hf),), {})
    model.hf.config.architectures = ["NewLMHeadModel"]
    checks = {check.name: check for check in doctor(model)}
    assert "TransformerLens cannot wrap NewLMHeadModel" in checks["residual_adds_up"].note
    assert checks["residual_adds_up"].passed is False
    assert checks["weights_finite"].passed


def test_checks_that_do_not_apply_say_why(doctor, wrap_model):
    model = wrap_model(tiny_hf("gpt2"))
    model.layout = None
    skipped = {check.name: check.note for check in doctor(model) if check.passed is None}
    assert set(skipped) == {"layout_gives_logits", "tokenizer_round_trip", "bos_as_stated"}
    assert "hooked forward passes" in skipped["layout_gives_logits"]
