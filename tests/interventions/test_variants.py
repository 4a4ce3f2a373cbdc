"""One contract for all attention variants: neutral settings, the paper's own formula, blocks, batches, cache steps, sweeps."""

import pytest
import torch

from interp.ablation.ablations import build_variants
from interp.engine import generate, observe
from interp.engine.attention.attention_interface import attention_hooks
from interp.engine.attention.attention_rows import AttentionLayer, read_rows
from interp.engine.forward.run import run
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import INTERVENTIONS, Intervention
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import record_of
from interp.options_text import option_text
from interp.tasks.token_batch import as_batch
from tests.support import naive_variants
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_tokens

SETTINGS = {
    "window": [{"size": 3}],
    "dilated": [{"size": 3, "dilation": 2}],
    "neighborhood": [{"size": 5, "stride": 3}, {"size": 3, "stride": 1, "dilation": 2}],
    "strided": [{"stride": 4, "size": 2}],
    "blocked": [{"size": 4, "halo": 0}, {"size": 4, "halo": 2}],
    "shifted_groups": [{"size": 6, "sinks": 1}],
    "power_attention": [{"size": 1, "sinks": 0}, {"size": 3, "sinks": 2}],
    "information_pathways": [{"rate": 0.4}, {"rate": 0.6, "local": 5, "seed": 3}],
    "top_keys": [{"k": 3}],
    "mask_top_keys": [{"k": 3, "probability": 0.7}],
    "power": [{"exponent": 2.5}],
    "softplus": [{"exponent": 1.0, "length_scale": 0.0}, {"exponent": 3.0, "length_scale": 7.0}],
    "taylor": [{}],
    "interpolate": [{"u": 0.3, "to": "identity"}, {"u": 1.0, "to": "uniform"}],
    "toeplitz": [{"decay": 0.8}],
    "heavy_hitters": [{"heavy": 2, "recent": 2}],
    "recycled": [{"k": 2, "stride": 4}],
    "landmark": [{"size": 4}, {"size": 3, "top": 2}, {"size": 4, "representative": "mean"}],
    "block_top_keys": [{"size": 3, "top": 2}, {"size": 1, "top": 3}, {"size": 2, "top": 5, "threshold": 0.7}],
    "remembered_denominator": [{"size": 3, "sinks": 1, "stride": 1}, {"size": 2, "sinks": 1, "stride": 4}],
    "hip": [{"k": 3}, {"k": 5}],
    "flex_prefill": [{"gamma": 0.3, "tau": 0.0, "size": 2}, {"gamma": 0.3, "tau": 1.0, "size": 3}],
    "region_top_keys": [{"size": 3, "top": 1}, {"size": 4, "top": 2}],
    "routing": [{"n_clusters": 3, "size": 1}],
    "amplify_span": [{"gain": 1.5}, {"gain": float("-inf")}],
    "isolate_span": [{"way": way} for way in ("both", "from_rest", "to_rest", "inside")],
    "agent": [{"n_agents": 3}],
    "combiner": [{"size": 4}],
    "block_tied": [{"size": 3}],
    "scatterbrain": [{"k": 2, "n_features": 5}, {"k": 0, "n_features": 6, "seed": 1}],
    "local_linear": [{"ridge": 2.0}],
    "symmetric": [{"part": "symmetric"}, {"part": "antisymmetric"}],
    "mixture_of_heads": [{"k": 2}, {"k": 1, "at_random": True}],
    "reversed_attention": [{}],
    "permuted_blocks": [{"size": 2, "widths": (1, 3, 4), "mass": 0.6}],
    "linear": [{"feature": feature} for feature in ("elu", "relu", "exp", "taylor")],
}
VARIANTS = [name for name in INTERVENTIONS.names() if getattr(INTERVENTIONS.get(name), "source", "")]
CASES = [pytest.param(name, options, id=f"{name} {options}") for name in VARIANTS for options in SETTINGS[name]]
DRAWN = ("information_pathways", "mask_top_keys", "mixture_of_heads")
"""Drawn at random, or made of all heads of a layer: see the tests of each in ``test_variant_claims``."""
TARGETS = torch.stack([torch.arange(13) % 5 < 2, torch.arange(13) % 4 == 1])
HEADS = [Head(0, 1), Head(1, 2), Head(2, 3)]


def build(name, heads=HEADS, positions="all", targets=TARGETS, **options):
    constructor = INTERVENTIONS.get(name)
    needed = {"targets": targets} if "targets" in constructor.needs else {}
    return constructor(heads, **needed, **options, positions=positions)


def inputs_of(model, tokens):
    """The unchanged inputs of each layer's attention."""
    calls = {}
    hooks = {
        module: lambda call, layer=layer: (
            calls.setdefault(layer, call)
            and read_rows(AttentionLayer(layer, call, as_batch(model, tokens)), None, block=1 << 19)
        )
        for layer, module in enumerate(model.layout.attentions)
    }
    with torch.inference_mode(), attention_hooks(model.hf, hooks):
        model.hf(input_ids=tokens, use_cache=False)
    return [calls[layer] for layer in range(len(hooks))]


def changed_z(call, layer, model, tokens, interventions, block=1 << 19, token_mask=None):
    with torch.inference_mode():
        return read_rows(AttentionLayer(layer, call, as_batch(model, tokens, token_mask)), None, interventions, block=block)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_neutral_setting_changes_no_bit(name):
    model, tokens = tiny("llama"), tiny_tokens(2, 13)
    neutral = INTERVENTIONS.get(name).neutral
    for layer, call in enumerate(inputs_of(model, tokens)):
        plain = changed_z(call, layer, model, tokens, [])
        if neutral is not None:
            assert torch.equal(changed_z(call, layer, model, tokens, [build(name, **neutral)]), plain)
        moved = changed_z(call, layer, model, tokens, [build(name, **SETTINGS[name][0])])
        head = HEADS[layer].head
        assert float((moved - plain)[:, head].abs().max()) > 1e-2
        others = [h for h in range(plain.shape[1]) if h != head]
        assert torch.equal(moved[:, others], plain[:, others])


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case.values[0] not in DRAWN])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_formula_of_the_paper_agrees(name, options, architecture):
    model, tokens = tiny(architecture), tiny_tokens(2, 13)
    naive = getattr(naive_variants, name)
    for layer, call in enumerate(inputs_of(model, tokens)):
        head = HEADS[layer].head
        found = changed_z(call, layer, model, tokens, [build(name, **options)])[:, head]
        for row in range(len(tokens)):
            q, k, v = (x[row].double() for x in (call.q[:, head], call.k[:, head // call.group_size], call.head_value(head)))
            needed = {"targets": TARGETS[row]} if "targets" in INTERVENTIONS.get(name).needs else {}
            wanted = naive(q, k, v, call.scale, head, layer, **options, **needed) @ v
            assert float((found[row] - wanted).abs().max()) <= 1e-5 * float(v.abs().max())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_blocks_of_any_size_give_the_same(name, options):
    model, tokens = tiny("llama"), tiny_tokens(2, 13)
    change = [build(name, **options)]
    for layer, call in enumerate(inputs_of(model, tokens)):
        whole = changed_z(call, layer, model, tokens, change)
        for block in (1, 60, 300):
            torch.testing.assert_close(changed_z(call, layer, model, tokens, change, block), whole, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_cache_steps_generate_what_whole_passes_do(name, options, architecture):
    model, prompt, change = tiny(architecture), tiny_tokens(1, 9)[0].tolist(), [build(name, **options)]
    made = generate(model, prompt, 6, intervene=change)
    tokens = list(prompt)
    for token in made.tokens:
        logits = run(model, tokens, intervene=change).logits[0, -1].double()
        if len(tokens) == len(prompt):
            torch.testing.assert_close(made.logits, logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
        assert float(logits.max() - logits[token]) <= 1e-4 * float(logits.abs().max())
        tokens.append(token)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("left", [False, True])
def test_texts_of_unequal_lengths_are_as_alone(name, options, left):
    model, change = tiny("llama"), [build(name, **options)]
    texts = [tiny_tokens(1, n, seed=n)[0].tolist() for n in (12, 7)]
    width = len(texts[0])
    padded = [([0] * (width - len(t)) + t) if left else (t + [0] * (width - len(t))) for t in texts]
    mask = [
        ([False] * (width - len(t)) + [True] * len(t)) if left else ([True] * len(t) + [False] * (width - len(t)))
        for t in texts
    ]
    together = observe(model, torch.tensor(padded), [], token_mask=torch.tensor(mask), intervene=change)
    assert together is not None
    metrics = attention_metrics(["attention_distance", "entropy"])
    both = observe(model, torch.tensor(padded), metrics, token_mask=torch.tensor(mask), intervene=change)
    for row, text in enumerate(texts):
        own = [build(name, targets=TARGETS[row, None], **options)]
        alone = observe(model, torch.tensor([text]), metrics, intervene=own)
        for metric in metrics:
            values = both[metric.name][:, row][..., torch.tensor(mask[row])]
            torch.testing.assert_close(values, alone[metric.name][:, 0], rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("positions", ["all", "end"])
def test_many_heads_at_once_are_as_one_by_one(name, options, positions):
    """Three heads of one layer that are not neighbours and two that are, in a padded batch."""
    model, heads = tiny("llama"), [Head(0, 0), Head(0, 2), Head(0, 3), Head(1, 1), Head(1, 2)]
    tokens, mask = tiny_tokens(2, 12), torch.ones(2, 12, dtype=torch.bool)
    mask[1, :5] = False
    metrics = attention_metrics(["attention_distance", "entropy", "received_attention"])
    seen = []
    for changes in ([build(name, heads, positions, **options)], [build(name, [h], positions, **options) for h in heads]):
        seen.append(observe(model, tokens, metrics, token_mask=mask, intervene=changes))
    for metric in metrics:
        torch.testing.assert_close(seen[0][metric.name], seen[1][metric.name], rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("site", ["scores", "pattern", "z"])
@pytest.mark.parametrize("heads", [[1], [1, 2], [0, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("n_texts", [1, 2])
def test_a_replacement_may_return_what_it_was_given(site, heads, alike, n_texts):
    """As it is, changed in place, or a part of it that is broadcast: also in some heads of a layer and one text."""
    model, tokens = tiny("llama"), tiny_tokens(n_texts, 7)
    call, chosen = inputs_of(model, tokens)[1], tuple(Head(1, head) for head in heads)

    def z(replacement, **fields):
        return changed_z(call, 1, model, tokens, [Intervention(site, chosen, replacement, "", alike=alike, **fields)])

    plain = changed_z(call, 1, model, tokens, [])
    assert torch.equal(z(lambda x, at: x), plain)
    assert torch.equal(z(lambda x, at: x + 1, strength=0.0), plain)
    assert torch.equal(z(lambda x, at: x.mul_(0.5)), z(lambda x, at: x * 0.5))
    assert torch.equal(z(lambda x, at: x[..., :1]), z(lambda x, at: x[..., :1].clone()))


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("positions", ["all", "end"])
def test_the_resumed_sweep_is_the_hooked_one(name, options, positions):
    model, task = tiny("llama"), random_task(2, 2)
    text = name + (":" if options else "") + ",".join(f"{key}={option_text(value)}" for key, value in options.items())
    variants = build_variants(model, task, text, positions, [(HEADS[1],), tuple(HEADS)], 0)
    outcome, record = OUTCOMES.get("logit_diff"), record_of(model)
    fast, slow = (
        sweep(model, task, variants, outcome, record=record, backend=backend).values for backend in ("resumed", "hooked")
    )
    scale = float(abs(slow).max())
    assert float(abs(fast - slow).max()) <= 2e-5 * scale
