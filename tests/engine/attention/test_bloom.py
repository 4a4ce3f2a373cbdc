"""Bloom adds ALiBi by itself; observed through the engine's attention it is the same model."""

import pytest
import torch
import transformers as T

from interp import interventions, observe_attention
from interp.engine.attention import bloom
from interp.engine.attention.attention_interface import attend, attention_hooks
from interp.engine.attention.attention_observer import observing, prepare_inputs
from interp.engine.attention.bloom import alibi_slopes
from interp.engine.forward.run import run
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.sweep import sweep
from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.models import wrap_model
from interp.records import RunRecord
from interp.tasks.task import Example, Task
from tests.support.reference_metrics import FORMULAS, eager_pattern, reference_metrics_of, same
from tests.support.tiny_models import D_VOCAB, tiny, tiny_hf, tiny_tokens

BLOCKS = [1, 7, 200, 1 << 18]


def test_slopes_are_those_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(1).tolist() == [2.0**-8]
    assert alibi_slopes(5).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1]
    torch.testing.assert_close(alibi_slopes(16)[:3], torch.tensor([2**-0.5, 2**-1.0, 2**-1.5]))
    assert len(alibi_slopes(112)) == 112


@pytest.mark.parametrize("block", BLOCKS)
def test_streamed_metrics_are_those_of_the_full_pattern(block):
    tokens = tiny_tokens(2, 23)
    wanted = reference_metrics_of(eager_pattern(tiny_hf("bloom"), input_ids=tokens), causal=True)
    found = observe_attention(tiny("bloom"), tokens, FORMULAS, block=block)
    for metric in FORMULAS:
        assert same(found[metric], wanted[metric]), metric


@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_leaves_a_text_as_it_is_alone(left):
    tokens = tiny_tokens(3, 11)
    token_mask = torch.tensor([[i < n for i in range(11)] for n in (11, 6, 2)])
    token_mask = token_mask.flip(-1) if left else token_mask
    found = observe_attention(tiny("bloom"), tokens, FORMULAS, token_mask=token_mask, block=90)
    for row in range(3):
        wanted = reference_metrics_of(
            eager_pattern(tiny_hf("bloom"), input_ids=tokens[row : row + 1, token_mask[row]]), causal=True
        )
        for metric in FORMULAS:
            assert same(found[metric][:, row : row + 1, :, token_mask[row]], wanted[metric]), metric


@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_observing_changes_neither_logits_nor_model(padding):
    model, tokens = tiny("bloom"), tiny_tokens(2, 9)
    token_mask = torch.ones(2, 9, dtype=torch.bool)
    if padding:
        token_mask[1, :4] = False
        token_mask = token_mask if padding == "left" else token_mask.flip(-1)
    texts, _ = prepare_inputs(model, tokens, token_mask)
    inputs = {"input_ids": tokens, "attention_mask": token_mask.long()} if padding else {"input_ids": tokens}
    with torch.no_grad():
        plain = model.hf(**inputs, output_hidden_states=True)
        with observing(model, attention_metrics(FORMULAS), texts, block=50):
            observed = model.hf(**inputs, output_hidden_states=True)
        assert torch.equal(model.hf(**inputs).logits, plain.logits)
    for one, other in zip(observed.hidden_states, plain.hidden_states, strict=True):
        assert same(one[token_mask], other[token_mask])
    assert same(observed.logits[token_mask], plain.logits[token_mask])


def test_a_context_without_readers_leaves_bloom_alone_and_one_with_readers_restores_it():
    hf = tiny_hf("bloom")
    calls = []
    read = {module: lambda call: calls.append(call) or attend(call) for module in hf.modules()}
    tokens = tiny_tokens(2, 7)
    with torch.no_grad():
        plain = hf(tokens).logits
        with attention_hooks(hf, {}):
            assert torch.equal(hf(tokens).logits, plain)
            with attention_hooks(hf, read):
                assert same(hf(tokens).logits, plain)
            assert torch.equal(hf(tokens).logits, plain)
    assert len(calls) == 3
    assert all(torch.equal(call.slopes, alibi_slopes(5)) and call.mask is None for call in calls)
    assert hf.config._attn_implementation == "eager"
    assert not [module for module in hf.modules() if "forward" in vars(module)]


def test_without_slopes_the_numbers_are_others(monkeypatch):
    tokens = tiny_tokens(2, 23)
    right = observe_attention(tiny("bloom"), tokens, ["attention_distance"])["attention_distance"]
    monkeypatch.setattr(bloom, "alibi_slopes", lambda n_heads: torch.zeros(n_heads))
    wrong = observe_attention(tiny("bloom"), tokens, ["attention_distance"])["attention_distance"]
    assert not same(wrong, right)


@pytest.mark.parametrize("cuts", [(7, 8), (1, 2, 3, 4, 5, 6, 7, 8), (3, 8)])
@pytest.mark.parametrize("padded", [False, True])
def test_passes_that_go_on_from_a_cache_are_one_pass(cuts, padded):
    model, tokens = tiny("bloom"), tiny_tokens(2, 8)
    token_mask = torch.ones(2, 8, dtype=torch.bool)
    token_mask[1, :3] = not padded
    texts, _ = prepare_inputs(model, tokens, token_mask)
    whole = observe_attention(model, tokens, FORMULAS, token_mask=token_mask)
    cache, logits, first = T.DynamicCache(config=model.hf.config), [], 0
    with observing(model, attention_metrics(FORMULAS), texts, block=30) as observer:
        for last in cuts:
            mask = {"attention_mask": token_mask[:, :last].long()} if padded else {}
            out = model.hf(tokens[:, first:last], past_key_values=cache, use_cache=True, **mask)
            logits.append(out.logits)
            first = last
    for metric in FORMULAS:
        found, wanted = observer.result()[metric], whole[metric]
        assert same(found.nan_to_num(-1), wanted.nan_to_num(-1)), metric
    with torch.no_grad():
        plain = model.hf(tokens, attention_mask=token_mask.long()).logits
    assert same(torch.cat(logits, 1)[token_mask], plain[token_mask])


def test_a_changed_pattern_acts_on_the_same_rows():
    head = Head(1, 4)
    seen = observe_attention(
        tiny("bloom"), tiny_tokens(2, 9), ["attention_distance"], intervene=[interventions.uniform([head])]
    )
    assert same(seen["attention_distance"][1, :, 4], (torch.arange(9) / 2).expand(2, -1))


@pytest.mark.parametrize("length", [1, 7])
def test_a_run_is_never_restarted_where_the_restart_would_lose_the_slopes(length):
    ids = tuple(range(10, 10 + length))
    example = Example(ids, ids, (5,), (6,))
    with pytest.raises(FastPathUnavailable, match="ALiBi"), torch.inference_mode():
        clean_pass(tiny("bloom"), [example], [0])


def test_a_sweep_takes_the_hooked_road_and_gives_what_a_zeroed_output_gives():
    model, head = wrap_model(tiny_hf("bloom")), Head(1, 3)
    tokens = tiny_tokens(3, 7)
    examples = [Example(tuple(row), tuple(row), (5,), (6,)) for row in tokens.tolist()]
    record = RunRecord("tiny", "", model.facts.weights_digest, dtype="float32", device="cpu")
    outcome = OUTCOMES.get("logit_diff")
    with pytest.warns(UserWarning, match="ALiBi; using the slower hooked backend"):
        result = sweep(model, Task("t", tuple(examples), "logit_diff"), [(interventions.zero([head]),)], outcome, record=record)
    hf = tiny_hf("bloom")
    with torch.no_grad():
        hf.transformer.h[1].self_attention.dense.weight[:, 24:32] = 0
        logits = hf(tokens).logits[:, -1]
    wanted = logits[:, 5] - logits[:, 6]
    torch.testing.assert_close(torch.tensor(result.values[0]).float(), wanted, atol=1e-4, rtol=1e-5)
    assert result.backend == "hooked"


SIZES = {"vocab_size": D_VOCAB, "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 5}
UNSEEN = {
    "gptj": lambda: T.GPTJConfig(vocab_size=D_VOCAB, n_positions=64, n_embd=40, n_layer=3, n_head=5, rotary_dim=4),
    "gpt_neo": lambda: T.GPTNeoConfig(
        vocab_size=D_VOCAB, hidden_size=40, num_layers=3, num_heads=5, attention_types=[[["global"], 3]]
    ),
    "falcon": lambda: T.FalconConfig(**SIZES, multi_query=True),
    "falcon with ALiBi": lambda: T.FalconConfig(**SIZES, multi_query=False, alibi=True),
    "mpt": lambda: T.MptConfig(vocab_size=D_VOCAB, d_model=40, n_heads=5, n_layers=3, max_seq_len=64),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_model_that_hands_over_no_attention_is_refused_by_name(name):
    hf = T.AutoModelForCausalLM.from_config(UNSEEN[name]())
    before = hf.config.to_dict()
    with pytest.raises(ValueError, match=f"{type(hf).__name__} does not compute attention through"):
        observe_attention(wrap_model(hf), tiny_tokens(2, 7), ["entropy"])
    assert hf.config.to_dict() == before


@pytest.mark.parametrize("name", ["gptj", "gpt_neo"])
def test_a_changed_pattern_is_refused_where_it_would_be_lost(name):
    model = wrap_model(T.AutoModelForCausalLM.from_config(UNSEEN[name]()))
    with pytest.raises(ValueError, match="cannot be observed or changed"):
        run(model, tiny_tokens(1, 7), intervene=[interventions.uniform([Head(1, 2)])])
