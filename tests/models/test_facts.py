"""Facts, layout and the shared-weight bridge of eight tiny architectures."""

import subprocess
import sys
import threading

import pytest
import torch
import transformers

from interp.models import wrap_model
from tests.support.tiny_models import TINY, tiny, tiny_hf, tiny_tokenizer, tiny_tokens


def test_facts_state_the_sizes_of_each_architecture(model):
    facts, grouped = model.facts, model.facts.n_kv_heads != model.facts.n_heads
    assert (facts.n_layers, facts.d_head, facts.d_mlp, facts.d_vocab, facts.max_length) == (3, 8, 56, 97, 64)
    assert (facts.n_heads, facts.n_kv_heads, facts.d_model) == ((6, 2, 60) if grouped else (5, 5, 40))
    assert facts.n_parameters == sum(p.numel() for p in model.hf.parameters())
    assert (facts.dtype, facts.causal, facts.bos_token_id, facts.revision) == ("float32", True, 1, "")
    assert len(facts.heads()) == 3 * facts.n_heads


@pytest.mark.parametrize(
    ("name", "positions", "sliding_windows", "parallel", "prepend_bos"),
    [
        ("gpt2", "learned", (None, None, None), False, True),
        ("llama", "rotary", (None, None, None), False, True),
        ("mistral", "rotary", (4, 4, 4), False, True),
        ("qwen3", "rotary", (None, None, None), False, False),
        ("gemma2", "rotary", (4, None, 4), False, True),
        ("gpt_neox", "rotary", (None, None, None), True, False),
        ("phi", "rotary", (None, None, None), True, False),
        ("opt", "learned", (None, None, None), False, True),
    ],
)
def test_facts_state_positions_windows_and_bos(name, positions, sliding_windows, parallel, prepend_bos):
    facts = tiny(name).facts
    assert (facts.positions, facts.sliding_windows, facts.parallel_attn_mlp, facts.prepend_bos) == (
        positions,
        sliding_windows,
        parallel,
        prepend_bos,
    )


def test_a_neox_model_with_serial_blocks_is_not_parallel():
    from interp.models import wrap_model

    hf = tiny_hf("gpt_neox")
    hf.config.use_parallel_residual = False
    assert not wrap_model(hf).facts.parallel_attn_mlp


def test_bloom_positions_are_alibi_and_without_a_bound():
    import transformers

    from interp.models import wrap_model

    facts = wrap_model(
        transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=97, hidden_size=24, n_layer=2, n_head=3))
    ).facts
    assert (facts.positions, facts.max_length, facts.d_head, facts.d_mlp) == ("alibi", None, 8, 96)


def test_multi_query_falcon_has_one_key_value_head():
    import transformers

    from interp.models import wrap_model

    config = transformers.FalconConfig(
        vocab_size=97, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, multi_query=True
    )
    model = wrap_model(transformers.FalconForCausalLM(config))
    assert (model.facts.n_kv_heads, model.facts.parallel_attn_mlp, model.facts.positions) == (1, True, "rotary")
    assert model.layout is not None


def test_query_heads_read_their_own_key_value_head(llama):
    from interp.heads import Head

    assert [llama.facts.kv_head(Head(1, h)) for h in range(6)] == [0, 0, 0, 1, 1, 1]


def test_the_digest_changes_with_one_weight_and_not_with_order():
    from interp.models.read_facts import weights_digest

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}
    same = weights_digest(reversed(tensors.items()))
    assert weights_digest(tensors.items()) == same
    assert weights_digest({**tensors, "b": torch.ones(5)}.items()) != same
    tensors["a"][1, 2] += 1e-6
    assert weights_digest(tensors.items()) != same


def test_the_digest_of_a_large_model_sees_every_value():
    from interp.models.read_facts import weights_digest

    big = torch.zeros(2**26 + 2**15, dtype=torch.float32)  # more than 256 MiB
    before = weights_digest([("w", big)])
    big[12_345_677] = 1e-6
    assert weights_digest([("w", big)]) != before
    assert len(before) == 16


def test_the_layout_names_every_part(model):
    layout, facts = model.layout, model.facts
    assert len(layout.blocks) == len(layout.attentions) == len(layout.outputs) == 3
    for block, attention, output in zip(layout.blocks, layout.attentions, layout.outputs, strict=True):
        assert attention in list(block.modules())
        assert output in list(attention.modules())
        assert facts.n_heads * facts.d_head in output.weight.shape
    assert layout.final_norm.weight.shape == (facts.d_model,)
    assert layout.unembed.weight.shape == (97, facts.d_model)


@pytest.mark.parametrize(
    ("change", "norm"), [({}, "LayerNorm"), ({"do_layer_norm_before": False}, "Identity"), ({"word_embed_proj_dim": 24}, None)]
)
def test_the_final_norm_of_opt_is_what_stands_between_the_last_block_and_the_unembedding(change, norm):
    from interp.models.find_layout import layout_of

    torch.manual_seed(1)
    config = transformers.OPTConfig(
        vocab_size=97,
        hidden_size=40,
        ffn_dim=56,
        num_hidden_layers=3,
        num_attention_heads=5,
        max_position_embeddings=64,
        **{"word_embed_proj_dim": 40, **change},
    )
    layout = layout_of(transformers.OPTForCausalLM(config).eval())
    assert (layout and type(layout.final_norm).__name__) == norm  # OPT 350M projects to another width after its last norm


@pytest.mark.parametrize(("name", "scale"), [("granite", 1 / 8), ("cohere", 0.0625), ("olmo2", 1.0)])
def test_a_factor_of_the_logits_is_measured(name, scale):
    from interp.models.find_layout import layout_of

    torch.manual_seed(1)
    sizes = {"vocab_size": 97, "hidden_size": 60, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 6,
             "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    configs = {
        "granite": lambda: transformers.GraniteForCausalLM(transformers.GraniteConfig(**sizes, logits_scaling=8.0)),
        "cohere": lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**sizes, logit_scale=0.0625)),
        "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**sizes)),
    }
    assert layout_of(configs[name]().eval()).logit_scale == pytest.approx(scale, rel=1e-5)


def test_a_model_whose_attention_is_part_of_a_larger_module_has_no_layout():
    from interp.models.find_layout import layout_of

    config = transformers.MambaConfig(vocab_size=97, hidden_size=24, num_hidden_layers=2, state_size=4)
    layout = layout_of(transformers.MambaForCausalLM(config).eval())
    assert layout is None or all(type(module).__name__ == "MambaMixer" for module in layout.attentions)


def test_causality_is_measured_and_not_read_off_the_class():
    sizes = {"vocab_size": 97, "hidden_size": 60, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 6,
             "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(1)
    for bidirectional in (False, True):
        config = transformers.Gemma3TextConfig(**sizes, use_bidirectional_attention=bidirectional)
        model = wrap_model(transformers.Gemma3ForCausalLM(config))
        assert model.facts.causal is not bidirectional
    with pytest.raises(ValueError, match="bidirectional: its outputs depend on later tokens"):
        model.facts.check_causal("A sweep")


def test_the_bridge_gives_the_logits_of_hugging_face_eager(model):
    tokens = tiny_tokens()
    eager = tiny_hf(model.facts.name.removeprefix("tiny-"))
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        assert torch.allclose(model.bridge(tokens), eager(tokens).logits, atol=1e-5)


def test_the_bridge_shares_the_storage_of_every_weight_and_leaves_the_module_alone(model):
    tokens, classes = tiny_tokens(), {type(module) for module in model.hf.modules()}
    with torch.no_grad():
        before = model.hf(tokens).logits
        model.bridge(tokens)
        assert torch.equal(model.hf(tokens).logits, before)
    bridged = {p.data_ptr() for p in model.bridge.original_model.parameters()}
    assert {p.data_ptr() for p in model.hf.parameters()} <= bridged
    assert classes == {type(module) for module in model.hf.modules()}


def test_wrapping_freezes_the_module_and_puts_it_into_eval_mode():
    from interp.models import wrap_model

    hf = tiny_hf("gpt2").train()
    wrap_model(hf)
    assert not hf.training
    assert not any(p.requires_grad for p in hf.parameters())


def test_a_nan_weight_is_refused_by_name():
    from interp.errors import ArtefactInvalid
    from interp.models import wrap_model

    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[2, 3] = float("nan")
    with pytest.raises(ArtefactInvalid, match=r"layers\.1\.mlp\.up_proj\.weight of broken holds 1 NaN or infinite values"):
        wrap_model(hf, name="broken")


def test_a_weight_that_is_checked_in_parts_has_the_count_of_the_whole(monkeypatch):
    from interp.models import wrap_model as wrap

    module = sys.modules[wrap.__module__]
    monkeypatch.setattr(module, "CHECKED_AT_ONCE", 5)
    weight = torch.zeros(3, 4)
    weight[0, 3] = weight[1, 2] = float("nan")
    weight[2, 3] = -float("inf")
    assert module.count_non_finite(weight) == module.count_non_finite(weight.T) == 3


def test_prompts_carry_bos_where_the_facts_say_so():
    assert tiny("llama").to_tokens("w1 w2") == [1, 5, 6]
    assert tiny("gpt_neox").to_tokens("w1 w2") == [5, 6]
    assert tiny("llama").to_tokens_without_special("w1 w2") == [5, 6]


def test_a_tokenizer_that_adds_bos_itself_decides():
    from tokenizers.processors import TemplateProcessing

    from interp.models import wrap_model

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    model = wrap_model(tiny_hf("gpt_neox"), tokenizer)
    assert model.facts.prepend_bos
    assert model.to_tokens("w1 w2") == [1, 5, 6]


def test_text_without_a_tokenizer_is_refused():
    from interp.models import wrap_model

    with pytest.raises(ValueError, match="loaded without a tokenizer"):
        wrap_model(tiny_hf("gpt2")).to_tokens("w1")


def test_two_threads_get_one_bridge():
    from interp.models import wrap_model

    model, found = wrap_model(tiny_hf("llama")), []
    threads = [threading.Thread(target=lambda: found.append(model.bridge)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(bridge) for bridge in found}) == 1


def test_importing_the_room_and_listing_names_loads_no_torch():
    code = (
        "import sys, interp.models as m; m.embedded_names(); dir(m); "
        "sys.exit(sum(x in sys.modules for x in ('torch', 'transformers', 'transformer_lens')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_imports_no_transformer_lens(tmp_path):
    tiny_hf("gpt2").save_pretrained(tmp_path)
    code = f"import sys; from interp.models import load_model; load_model({str(tmp_path)!r}); sys.exit('transformer_lens' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tiny_models_are_eight():
    assert len(TINY) == 8
