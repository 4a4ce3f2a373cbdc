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
    "olmo_clipped": lambda: T.OlmoConfig(**SIZES, num_attention_heads=5, clip_qkv=0.02, pad_token_id=0),
    "opt_350m": lambda: T.OPTConfig(
        vocab_size=97, hidden_size=40, ffn_dim=56, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=64,
        do_layer_norm_before=False, word_embed_proj_dim=24, pad_token_id=0,
    ),
    "gpt2_cross": lambda: T.GPT2Config(vocab_size=97, n_positions=64, n_embd=40, n_layer=2, n_head=5, add_cross_attention=True),
    "gpt_oss": lambda: T.GptOssConfig(**GROUPS, head_dim=12, num_local_experts=4, num_experts_per_tok=2),
}  # fmt: skip


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


@pytest.mark.parametrize("family", ["cancelling", "mini_ioi", "sinks"])
@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_hard_attention_in_single_precision_is_sound(doctor, family, n_kv_heads):
    from interp.models.planted import plant

    assert failed(doctor(plant(family, seed=3, sharpness=30.0, n_kv_heads=n_kv_heads).model)) == []


BROKEN = {
    "blocks.1.hook_resid_post": "residual_adds_up",
    "blocks.1.attn.hook_z": "pattern_times_v_is_z",
    "blocks.1.attn.hook_pattern": "pattern_rows_sum_to_one",
    "logits": "logits_equal_hugging_face",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_one_percent_at_an_ordinary_position_is_found_beside_a_massive_activation(doctor, wrap_model, broken):
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        hf.transformer.wpe.weight[0, 7] = 1e6
    model = wrap_model(hf, tiny_tokenizer())
    right = model.bridge.run_with_cache
    assert failed(doctor(model)) == []

    def wrong(tokens):
        logits, cache = right(tokens)
        values = {**cache, "logits": logits}
        place = (0, slice(None), 5) if "pattern" in broken else (0, 5)
        values[broken] = values[broken].clone()
        values[broken][place] *= 1.01
        return values.pop("logits"), values

    model.bridge.__dict__["run_with_cache"] = wrong
    assert BROKEN[broken] in failed(doctor(model))


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
