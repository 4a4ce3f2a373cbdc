"""Rows observed block by block give what the full pattern gives, in every architecture, whatever the blocks, padding or cache."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import observe_attention
from interp.engine import TokenBatch, capture_attention, observing
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_observer import observe
from interp.engine.sweep.sweep import sweep
from interp.errors import ExtensionError, MemoryBudgetExceeded
from interp.heads import Head
from interp.interventions import Intervention, scale, uniform, zero
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.records import RunRecord
from interp.tasks.task import Example, Task
from tests.support.reference_metrics import FORMULAS as NAMES
from tests.support.reference_metrics import hooked_pattern, reference_metrics_of, same
from tests.support.tiny_models import D_VOCAB, TINY, tiny, tiny_hf, tiny_tokens

METRICS = attention_metrics(NAMES)
WINDOWED = {"mistral", "gemma2"}
T = 13
RECORD = RunRecord("m", "", "0", dtype="float32", device="cpu")


def seen_by(model, length: int) -> torch.Tensor:
    """Which keys a causal query of each layer sees, [n_layers 1 1 query key]."""
    back = torch.arange(length)[:, None] - torch.arange(length)
    tables = [(back >= 0) & (back < (window or length)) for window in model.facts.sliding_windows]
    return torch.stack(tables)[:, None, None]


@pytest.mark.parametrize("name", TINY)
def test_streamed_metrics_equal_those_of_the_full_pattern_at_every_block_size(name):
    model, tokens = tiny(name), tiny_tokens(2, T)
    want = reference_metrics_of(hooked_pattern(model, tokens), seen_by(model, T))
    group = model.facts.group_size
    for block in [*(2 * group * T * rows for rows in range(1, T + 1)), 1, 1 << 18]:
        seen = observe(model, tokens, METRICS, block=block)
        for metric in NAMES:
            assert same(seen[metric], want[metric])


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_its_members_one_at_a_time(name, side):
    model = tiny(name)
    texts = [tiny_tokens(1, n, seed=n)[0] for n in (5, 9, T)]
    pad = [(T - len(t), 0) if side == "left" else (0, T - len(t)) for t in texts]
    tokens = torch.stack([torch.nn.functional.pad(t, p) for t, p in zip(texts, pad, strict=True)])
    token_mask = torch.stack([torch.nn.functional.pad(torch.ones(len(t)), p) for t, p in zip(texts, pad, strict=True)]).bool()
    together = observe(model, tokens, METRICS, token_mask=token_mask, block=150)
    for row, text in enumerate(texts):
        alone = observe(model, text[None], METRICS)
        for metric in NAMES:
            assert same(together[metric][:, row][..., token_mask[row]], alone[metric][:, 0])
            assert torch.isnan(together[metric][:, row][..., ~token_mask[row]]).all()


def test_prompts_of_different_lengths_are_padded_on_the_right_by_themselves():
    model = tiny("qwen3")
    texts = [tiny_tokens(1, n, seed=n)[0].tolist() for n in (4, 11)]
    together = observe(model, texts, METRICS)
    assert together.prompts.token_mask.sum(1).tolist() == [4, 11]
    assert same(together["entropy"][:, 0, :, :4], observe(model, texts[0], METRICS)["entropy"][:, 0])


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("steps", [(6, 1, 1, 1, 1, 1, 1, 1), (4, 5, 4)])
def test_a_pass_in_steps_with_a_cache_equals_one_pass(name, steps):
    model, tokens = tiny(name), tiny_tokens(2, T)
    whole = observe(model, tokens, METRICS)
    texts = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    with observing(model, METRICS, texts, block=200) as observer:
        cache, first = None, 0
        for n in steps:
            cache = observer.forward(
                input_ids=tokens[:, first : first + n], past_key_values=cache, use_cache=True
            ).past_key_values
            first += n
        in_steps = observer.result()
    assert first == T
    for metric in NAMES:
        assert same(in_steps[metric], whole[metric])


def test_generation_is_observed_step_by_step():
    model, tokens = tiny("llama"), tiny_tokens(1, 6)
    with torch.no_grad():
        written = model.hf.generate(tokens, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    texts = TokenBatch(written, torch.ones_like(written, dtype=torch.bool))
    with observing(model, METRICS, texts) as observer:
        again = model.hf.generate(tokens, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        seen = observer.result()
    assert torch.equal(again, written)
    whole = observe(model, written[:, :-1], METRICS)  # the last token is written and never read
    assert same(seen["entropy"][..., :-1], whole["entropy"])
    assert torch.isnan(seen["entropy"][..., -1]).all()


@pytest.mark.parametrize("name", TINY)
def test_observing_does_not_change_what_the_model_computes(name):
    model, tokens = tiny(name), tiny_tokens(2, T)
    with torch.no_grad():
        plain = model.hf(tokens).logits
    texts = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    with observing(model, METRICS, texts, block=100) as observer:
        watched = observer.hf(tokens).logits
    torch.testing.assert_close(watched, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert model.hf.config._attn_implementation != "interp"


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2"])
@pytest.mark.parametrize("block", [60, 1 << 18])
def test_interventions_act_on_the_blocks_as_on_whole_patterns(name, block):
    from interp.engine import run

    model, tokens = tiny(name), tiny_tokens(2, T)
    changes = [uniform([Head(0, 1), Head(1, 2)]), uniform([Head(2, 0)], positions=(3, -1)), zero([Head(1, 0)], positions="end")]
    changes.append(scale([Head(1, 3)], 0.5))
    pattern = torch.stack([run(model, tokens, capture=[f"pattern.{i}"], intervene=changes)[f"pattern.{i}"] for i in range(3)])
    seen = observe(model, tokens, METRICS, intervene=changes, block=block)
    want = reference_metrics_of(pattern, seen_by(model, T))
    for metric in NAMES:
        assert same(seen[metric], want[metric])
    assert seen.record.interventions == tuple(map(str, changes))


@pytest.mark.parametrize("block", [70, 1 << 18])
def test_a_change_of_scores_acts_before_the_softmax(block):
    """Adding the logarithm of a weight to one key's scores multiplies its attention by that weight before rows are normalised."""
    model, tokens, head = tiny("llama"), tiny_tokens(2, T), Head(2, 4)

    def favour(scores, place):
        return scores + (place.keys == 3).to(scores)[:, None] * np.log(5.0)

    change = Intervention("scores", (head,), favour, "favour key 3")
    old = hooked_pattern(model, tokens)[2, :, 4].double()
    new = old.clone()
    new[..., 3] *= 5
    new /= new.sum(-1, keepdim=True)
    seen = observe(model, tokens, METRICS, intervene=[change], block=block)
    assert same(seen["entropy"][2, :, 4], -torch.xlogy(new, new).sum(-1))
    untouched = observe(model, tokens, METRICS)
    assert same(seen["entropy"][:2], untouched["entropy"][:2])
    assert float((seen["entropy"][2, :, 4] - untouched["entropy"][2, :, 4]).abs().max()) > 0.01


def test_strength_zero_is_the_identity_bit_for_bit():
    model, tokens = tiny("gemma2"), tiny_tokens(2, T)
    changes = [
        uniform([Head(0, 1)]).at(0.0),
        Intervention("scores", (Head(1, 1),), lambda x, place: x * 0, "flat", strength=0.0),
    ]
    plain, changed = observe(model, tokens, METRICS), observe(model, tokens, METRICS, intervene=changes)
    assert torch.equal(plain["attention_distance"], changed["attention_distance"])
    assert torch.equal(plain["received_attention"], changed["received_attention"])


@given(rows=st.integers(1, 3), length=st.integers(1, 16), block=st.integers(1, 3000), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_bounds_hold_and_a_batch_equals_its_members(rows, length, block, seed):
    model, tokens = tiny("llama"), tiny_tokens(rows, length, seed=seed)
    seen = observe(model, tokens, METRICS, block=block)
    place = torch.arange(length)
    assert (seen["entropy"] >= 0).all() and (seen["entropy"] <= torch.log(place + 1.0) + 1e-5).all()
    assert (seen["attention_distance"] >= 0).all() and (seen["attention_distance"] <= place + 1e-4).all()
    assert (seen["received_attention"] >= 0).all() and (seen["received_attention"] <= 1 + 1e-5).all()
    alone = observe(model, tokens[-1:], METRICS)
    for metric in NAMES:
        assert same(seen[metric][:, -1:], alone[metric])


def test_permuting_heads_permutes_their_numbers():
    hf = tiny_hf("gpt2")
    order = torch.tensor([3, 0, 4, 1, 2])
    tokens = tiny_tokens(2, T)
    from interp.models import wrap_model

    before = observe(wrap_model(hf, name="before"), tokens, METRICS)
    attention, d = hf.transformer.h[1].attn, 8
    columns = torch.cat([40 * part + (order[:, None] * d + torch.arange(d)).ravel() for part in range(3)])
    with torch.no_grad():
        attention.c_attn.weight.copy_(attention.c_attn.weight[:, columns].clone())
        attention.c_attn.bias.copy_(attention.c_attn.bias[columns].clone())
        attention.c_proj.weight.copy_(attention.c_proj.weight[columns[:40]].clone())
    after = observe(wrap_model(hf, name="after"), tokens, METRICS)
    for metric in NAMES:
        assert same(after[metric][1], before[metric][1][:, order])
        assert same(after[metric][2], before[metric][2])


def test_bfloat16_weights_give_float32_statistics():
    from interp.models import wrap_model

    model = wrap_model(tiny_hf("llama").to(torch.bfloat16), name="half")
    tokens = tiny_tokens(2, T)
    seen = observe(model, tokens, METRICS)
    assert seen["entropy"].dtype == torch.float32
    with torch.no_grad():
        model.hf.set_attn_implementation("eager")
        pattern = torch.stack(model.hf(tokens, output_attentions=True).attentions).double()
        model.hf.set_attn_implementation("sdpa")
    first = -torch.xlogy(pattern[0], pattern[0]).sum(-1)  # later layers see other roundings
    assert float((seen["entropy"][0] - first).abs().max()) < 0.02


def test_scores_of_heads_and_tokens_carry_names_units_and_records():
    seen = observe_attention(tiny("llama"), "w1 w2 w3 w2 w1", ["entropy", "received_attention"])
    heads, tokens = seen.heads("entropy"), seen.tokens("received_attention", [Head(1, 2), Head(0, 5)])
    assert (heads.values.shape, heads.unit, heads.bounds) == ((3, 6), "nats", (0.0, None))
    np.testing.assert_allclose(heads.values, seen["entropy"].double().mean((1, 3)), rtol=1e-12)
    assert tokens.tokens == (("<s>", "w1", "w2", "w3", "w2", "w1"),)
    want = (seen["received_attention"][1, 0, 2] + seen["received_attention"][0, 0, 5]) / 2
    np.testing.assert_allclose(tokens.values[0], want, rtol=1e-6)
    assert heads.record.metric == "entropy" and heads.record.model == "tiny-llama"
    with pytest.raises(LookupError, match=r"'sink' was not observed. There are: entropy, received_attention"):
        seen.heads("sink")


def test_the_value_of_a_head_weighs_tokens_or_texts_the_same():
    model = tiny("gpt2")
    texts = [[5, 6], [7, 8, 9, 10, 11], [12]]
    even = observe_attention(
        model, texts, ["entropy", "prev_token_score", "sink_rate"], intervene=[uniform(model.facts.heads())]
    )
    short, long = log(1) + log(2), log(1) + log(2) + log(3) + log(4) + log(5)  # t + 1 equal weights have entropy log(t + 1)
    expected = {"token": (short + long + log(1)) / (2 + 5 + 1), "text": (short / 2 + long / 5 + log(1)) / 3}
    for weight, value in expected.items():
        np.testing.assert_allclose(even.heads("entropy", weight=weight).values, value, rtol=1e-5)
    assert (even.heads("entropy").values == even.heads("entropy", weight="token").values).all()
    previous = (1 / 2 + (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4) / 2  # the text of one token has no previous one
    np.testing.assert_allclose(even.heads("prev_token_score", weight="text").values, previous, rtol=1e-5)
    assert (even.heads("sink_rate", weight="text").values == even.heads("sink_rate").values).all()
    records = [even.heads("entropy", weight=weight).record for weight in ("token", "text")]
    assert [record.arguments.get("weight") for record in records] == [None, "text"]
    with pytest.raises(LookupError, match=r"No weight is called 'tokens'\. .*token, text"):
        even.heads("entropy", weight="tokens")


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("", "Prompt 0 has no tokens"),
        ("  \n", "Prompt 0 has no tokens"),
        ([], "There are no prompts"),
        ([[5, 6], []], "Prompt 1 has no tokens"),
        ([4] * 65, "Prompt 0 has 65 tokens, more than the 64 of tiny-llama's context"),
    ],
)
def test_texts_that_cannot_be_observed_are_refused_in_a_sentence(prompts, message):
    with pytest.raises(ValueError, match=message):
        observe(tiny("llama"), prompts, METRICS)


def test_padding_between_tokens_is_refused():
    with pytest.raises(ValueError, match="Prompt 1 is empty or has padding between its tokens"):
        observe(tiny("llama"), tiny_tokens(2, 4), METRICS, token_mask=torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]))


def test_a_memory_budget_that_does_not_hold_one_row_is_refused_and_a_small_one_is_kept():
    model, tokens = tiny("llama"), tiny_tokens(2, T)
    with pytest.raises(MemoryBudgetExceeded, match=r"Observing 13 tokens of tiny-llama needs about .* 1 KiB is the budget"):
        observe(model, tokens, METRICS, memory=1024)
    small = observe(model, tokens, METRICS, memory=400_000)
    assert same(small["entropy"], observe(model, tokens, METRICS)["entropy"])


def with_sinks():
    """A small GPT-OSS, whose softmax has a learned sink beside the keys, and whose layers alternate between a window and full rows."""
    from transformers import GptOssConfig, GptOssForCausalLM

    from interp.models import wrap_model

    torch.manual_seed(2)
    config = GptOssConfig(
        vocab_size=D_VOCAB, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4, max_position_embeddings=64,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    hf = GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for layer in hf.model.layers:
            layer.self_attn.sinks.copy_(torch.tensor([-1.0, 0.5, 2.0, 0.0]))
    return wrap_model(hf, name="sinks")


@pytest.mark.parametrize("sink", [-1.0, 2.0, -14.0])
def test_cut_rows_keep_the_share_of_their_learned_sink(sink):
    from interp.interventions import calibrate_sinks, streaming
    from interp.interventions.variants.heavy_hitters import heavy_hitters
    from interp.interventions.variants.permuted_blocks import permuted_blocks

    model, tokens = with_sinks(), tiny_tokens(2, 9)
    with torch.no_grad():
        model.hf.model.layers[0].self_attn.sinks[2] = sink
    metrics = [AttentionMetric("mass", "query", "weight", (0.0, 1.0), lambda rows: rows.mass, "")]

    def mass(intervention):
        return observe(model, tokens, metrics, intervene=[intervention])["mass"][0, :, 2].double()

    found = {variant: mass(variant([Head(0, 2)], **options)) for variant, options in (
        (streaming, {"n_sink": 1, "n_recent": 2}),
        (heavy_hitters, {"heavy": 1, "recent": 1}),
        (permuted_blocks, {"size": 2, "widths": (1,), "mass": 0.6}),
    )}  # fmt: skip
    with torch.no_grad():
        model.hf.set_attn_implementation("eager")
        rows = model.hf(tokens, output_attentions=True).attentions[0][:, 2].double()
    lag = torch.arange(9)[:, None] - torch.arange(9)
    kept = (rows * ((lag < 2) | (torch.arange(9) < 1))).sum(-1)
    wanted = kept / (kept + 1 - rows.sum(-1))
    near = {"atol": 2e-6, "rtol": 1e-5}
    torch.testing.assert_close(found[streaming], wanted, **near)
    assert float((wanted - rows.sum(-1)).abs().max()) > 0.01 or sink == -14
    for variant in (heavy_hitters, permuted_blocks):  # less is kept beside the same sink logit
        assert (found[variant] < rows.sum(-1) + 1e-5).all()
        assert (found[variant].max() < 0.99) == (rows.sum(-1).max() < 0.99)
    first = (torch.arange(9) == 0).expand(2, 2, 4, 9)
    calibrated = mass(calibrate_sinks([Head(0, 2)], first, beta=0.0))
    torch.testing.assert_close(calibrated, rows.sum(-1), **near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hooked_rows_know_whether_a_learned_sink_is_there(dtype):
    """A row of bfloat16 does not sum to 1, which is no sink; a row beside a learned sink keeps its share on the road of hooks."""
    from interp.engine.forward.run import run
    from interp.interventions import InterventionContext, streaming
    from interp.models import wrap_model

    seen = []

    def keep(x, context):
        seen.append((context.head, context.sink_share, x))
        return x

    for model in (with_sinks(), wrap_model(tiny_hf("gpt2"), name="plain")):
        model.hf.to(dtype)
        change = Intervention("pattern", (Head(0, 2),), keep, "seen")
        run(model, tiny_tokens(2, 9), intervene=[change])
    (_, share, rows), (_, none, plain) = seen
    assert none is None and (dtype == torch.float32 or float((plain.sum(-1) - 1).abs().max()) > 1e-5)
    torch.testing.assert_close(share, 1 - rows.sum(-1, keepdim=True))
    assert float(share.max()) > 0.5
    at = torch.arange(9)[None]
    context = InterventionContext(Head(0, 2), torch.arange(2), at, at <= at.mT[None], at)
    cut = streaming([Head(0, 2)], n_sink=1, n_recent=2).apply(plain, context)
    torch.testing.assert_close(cut[:, 3:].sum(-1), torch.ones(2, 6))  # shorter rows lose nothing and stay


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
def test_rows_and_a_learned_sink_sum_to_one(block):
    model, tokens = with_sinks(), tiny_tokens(2, 9)
    metrics = attention_metrics(["received_attention", "entropy", "confidence"])
    metrics.append(AttentionMetric("mass", "query", "weight", (0.0, 1.0), lambda rows: rows.mass, ""))
    found = observe(model, tokens, metrics, block=block)
    with torch.no_grad():
        model.hf.set_attn_implementation("eager")
        patterns = torch.stack(model.hf(tokens, output_attentions=True).attentions)
        model.hf.set_attn_implementation("sdpa" if model.hf._supports_sdpa else "eager")
    assert float(patterns.sum(-1).max()) < 0.99
    torch.testing.assert_close(found["confidence"], patterns.amax(-1).nan_to_num(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["mass"], patterns.sum(-1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["entropy"], -torch.xlogy(patterns, patterns).sum(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["all", "end"])
def test_a_sweep_under_a_learned_sink_is_the_model_with_a_zeroed_head(positions):
    model, tokens, heads = with_sinks(), tiny_tokens(3, 9), [Head(0, 1), Head(1, 2)]
    examples = tuple(Example(tuple(row), tuple(row), (5,), (6,)) for row in tokens.tolist())
    variants = [(zero([head], positions=positions),) for head in heads]
    result = sweep(
        model, Task("t", examples, "logit_diff"), variants, OUTCOMES.get("logit_diff"), record=RECORD, backend="resumed"
    )
    for head, values in zip(heads, result.values, strict=True):

        def edit(module, args, head=head):
            z = args[0].clone()
            z[:, slice(None) if positions == "all" else slice(-1, None), head.head * 8 : head.head * 8 + 8] = 0
            return (z,)

        with torch.no_grad(), model.hf.model.layers[head.layer].self_attn.o_proj.register_forward_pre_hook(edit):
            logits = model.hf(tokens).logits[:, -1]
        torch.testing.assert_close(torch.tensor(values).float(), logits[:, 5] - logits[:, 6], atol=1e-6, rtol=1e-4)


def test_a_metric_asked_for_twice_is_refused():
    with pytest.raises(ValueError, match="'entropy' is given twice"):
        observe_attention(tiny("llama"), [5, 6], ["entropy", "entropy"])


def test_a_metric_of_a_misspelt_axis_or_parameter_is_refused_when_made():
    with pytest.raises(ValueError, match=r"Metric 'm' has axis='queries': write 'query'"):
        AttentionMetric("m", "queries", "", (0.0, None), lambda rows: rows.pattern, "")
    with pytest.raises(ValueError, match=r"function of metric 'm' takes the rows and its parameters, and does not: .*'k'"):
        AttentionMetric("m", "query", "", (0.0, None), lambda rows: rows.pattern, "", {"k": 1})


def occurrences(rows, visible):
    """Weight on keys whose token occurs twice or more among the keys of the block, or among those that the query sees."""
    tokens = rows.tokens(rows.keys)
    same = (tokens[:, :, None] == tokens[:, None, :]).float()
    if not visible:
        return rows.weighted_mean((same.sum(-1) >= 2).float())
    seen = rows.visible[:, 0].float()
    return (rows.pattern * ((seen @ same * seen >= 2)[:, None])).sum(-1)


def of_padding(rows):
    """The weight that each key receives over the number of queries that see it, padding included."""
    seeing = rows.visible[:, 0].float().expand(len(rows.pattern), -1, -1)
    return rows.pattern.sum(2), seeing.sum(1)[:, None]


@pytest.mark.parametrize("road", ["observe", "cache"])
def test_a_metric_that_reads_keys_which_a_row_does_not_see_is_refused(road):
    def metric(name, visible):
        return AttentionMetric(name, "query", "share", (0.0, 1.0), lambda rows: occurrences(rows, visible), "")

    model, tokens = tiny("llama"), tiny_tokens(1, 9)

    def read(metrics):
        return observe(model, tokens, metrics) if road == "observe" else capture_attention(model, tokens).observe(metrics)

    assert bool(read([metric("right", True)])["right"].isfinite().all())
    for _ in range(2):
        with pytest.raises(ExtensionError, match=r"'wrong' gives a text other values beside another text.* Use rows.visible"):
            read([metric("wrong", False)])


def test_a_metric_that_counts_padding_is_refused_and_one_that_needs_marks_is_not_compared():
    counted = AttentionMetric("counted", "key", "weight", (0.0, None), of_padding, "")
    with pytest.raises(ExtensionError, match=r"rows\.token_mask for padding"):
        observe(tiny("llama"), tiny_tokens(1, 9), [counted])
    marked = AttentionMetric(
        "marked", "query", "", (0.0, 1.0), lambda rows: rows.mass * rows.prompts.marks[0]["subject"][0], ""
    )
    batch = TokenBatch(tiny_tokens(1, 9), torch.ones(1, 9, dtype=torch.bool), [{"subject": (1, 2)}])
    with observing(tiny("llama"), [marked], batch) as observer:
        observer.forward(input_ids=batch.tokens, use_cache=False)
    torch.testing.assert_close(observer.result()["marked"], torch.ones(3, 1, 6, 9))


def test_the_memory_of_an_observation_is_a_number_of_bytes():
    with pytest.raises(TypeError, match="memory must be an int"):
        observe_attention(tiny("llama"), [5, 6], ["entropy"], memory="2MB")
