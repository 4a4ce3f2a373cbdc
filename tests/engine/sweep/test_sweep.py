"""The sweep gives the numbers of one hooked forward pass per head, on every architecture, by whichever road it takes."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import interventions
from interp.ablation.ablate_heads import ablate_heads
from interp.ablation.ablations import ablations, build_variants, resample_source_ids
from interp.circuits import clean_and_corrupted_runs, score_edges
from interp.engine.attention.attention_interface import NAME
from interp.engine.sweep import clean_pass as clean_module
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.sweep import clean_outcome, sweep
from interp.engine.sweep.variant import resumable
from interp.engine.sweep.work_units import UnitMemory, plan_sweep
from interp.errors import ExtensionError, FastPathUnavailable, MemoryBudgetExceeded
from interp.heads import Head
from interp.interventions import Intervention
from interp.metrics.outcomes import OUTCOMES
from interp.metrics.score_task import score_task
from interp.models.memory import LIBRARY_BYTES, forward_bytes
from interp.models.model import Layout, Model, record_of
from interp.models.wrap_model import wrap_model
from interp.options_text import option_text
from interp.tasks.task import Example, Task
from tests.interventions.test_variants import SETTINGS
from tests.support.sweep_cases import random_task, some_heads
from tests.support.tiny_models import TINY, tiny, tiny_hf
from tests.support.zeroed_output import zeroed_output

TOLERANCE, NUMBER = 1e-5, r"[12]\.\d+"
OPTIONS = {
    "calibrate_sinks": ":beta=0,alpha=1.2,min_rows=2",
    "streaming": ":n_sink=1,n_recent=2",
    "attend_to": ":targets=all",
}
"""Ablations whose defaults are for longer prompts than these."""
OPTIONS |= {
    name: ":" + ",".join(f"{o}={option_text(v)}" for o, v in settings[0].items()) for name, settings in SETTINGS.items()
}
OPTIONS = {name: text + ",targets=middle" * (name in ("amplify_span", "isolate_span")) for name, text in OPTIONS.items()}
OWN_SCORES = ("agent", "block_top_keys", "combiner", "flex_prefill", "linear", "scatterbrain", "symmetric")
"""Attention variants that compute scores of their own, which models that bound theirs refuse."""


def both_roads(model, task, variants, metric="logit_diff"):
    outcome, record = OUTCOMES.get(metric), record_of(model)
    return [sweep(model, task, variants, outcome, record=record, backend=backend) for backend in ("resumed", "hooked")]


@pytest.mark.parametrize("ablation", [name + OPTIONS.get(name, "").rstrip(":") for name in ablations()])
def test_restarted_sweep_equals_one_hooked_pass_per_head(model, ablation):
    task, variants = random_task(), []
    places, heads = ("all", "end", "middle"), [(h,) for h in some_heads(model)]
    for positions in places:
        variants += build_variants(model, task, ablation, positions, heads, 0)
    if model.facts.architecture.startswith("Gemma2") and ablation.split(":")[0] in OWN_SCORES:
        with pytest.raises(ValueError, match="bounds its scores to"):
            both_roads(model, task, variants)
        return
    fast, plain = both_roads(model, task, variants)
    largest = np.abs(plain.effects).reshape(len(places), -1).max(1)
    moved = largest > 1e-3  # a variant that keeps few keys may keep all that an early position sees
    assert moved[0] if ablation.split(":")[0] in SETTINGS else moved.all(), dict(zip(places, largest, strict=True))
    scale = np.abs(plain.values).max() if ablation.split(":")[0] in SETTINGS else 1  # of values up to 4
    np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE * scale)
    np.testing.assert_allclose(fast.baseline, plain.baseline, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("positions", ["all", "end", (3, -2)])
def test_a_change_of_scores_is_the_same_on_both_roads(model, positions):
    def favour(scores, place):
        return scores * 0.5 + (place.keys == 2).to(scores)[:, None]

    variants = [(Intervention("scores", (head,), favour, "favour key 2", positions),) for head in some_heads(model)]
    fast, plain = both_roads(model, random_task(), variants)
    assert (fast.backend, plain.backend) == ("resumed", "hooked")
    assert np.abs(plain.effects).max() > 1e-3
    np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("metric", OUTCOMES.names())
def test_every_outcome_is_the_same_on_both_roads(metric):
    for name in ("gpt2", "gemma2"):
        model, task = tiny(name), random_task()
        variants = build_variants(model, task, "zero", "all", [(h,) for h in some_heads(model)], 0)
        fast, plain = both_roads(model, task, variants, metric)
        np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE)


def test_pairs_across_layers_equal_one_hooked_pass_per_pair(model):
    task, h = random_task(), model.facts.n_heads - 1
    pairs = [(Head(0, h), Head(2, 1)), (Head(1, 0), Head(1, h)), (Head(0, 2), Head(1, 3))]
    for ablation, positions in (("zero", "all"), ("mean", "middle"), ("patch", "all")):
        fast, plain = both_roads(model, task, build_variants(model, task, ablation, positions, pairs, 0))
        np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE)


IN_DOUBLE = ("gpt2", "gpt_neox", "phi", "opt")
"""Architectures that compute in double precision throughout: RMS norms are in single precision whatever the model's dtype."""


@pytest.mark.parametrize(
    ("name", "factor", "dtype", "tolerance"),
    [
        *((name, 10.0, torch.float32, TOLERANCE) for name in TINY),
        *((name, 1.0, torch.float32, 1e-6) for name in TINY),
        *((name, 10.0, torch.float64, 1e-12) for name in IN_DOUBLE),
    ],
)
def test_zero_ablation_of_each_head_is_plain_hugging_face_with_its_output_weights_zeroed(name, factor, dtype, tolerance):
    hf, other = (tiny_hf(name, factor=factor).to(dtype) for _ in range(2))
    task, model = random_task(n_short=0), wrap_model(other, name="to ablate")
    hf.set_attn_implementation("eager" if dtype == torch.float32 else "sdpa")  # eager softmax is in single precision
    plain, tokens = wrap_model(hf), torch.tensor([e.clean for e in task])
    result = ablate_heads(model, task, ablation="zero")
    for head, effects, values in zip(model.facts.heads(), result.effects, result.values, strict=True):
        with zeroed_output(plain, head) as module:
            logits = module(tokens).logits[:, -1]
        want = [float(row[list(e.answers)].mean() - row[e.distractors[0]]) for row, e in zip(logits, task, strict=True)]
        np.testing.assert_allclose(values, want, rtol=0, atol=tolerance, err_msg=str(head))
        assert np.abs(effects).max() > 100 * tolerance


def test_bridge_and_restart_start_from_hugging_face_eager_logits(model):
    task = random_task(n_short=0)
    tokens = torch.tensor([e.clean for e in task])
    with torch.no_grad():
        before = model.hf.config._attn_implementation
        model.hf.set_attn_implementation("eager")
        want = model.hf(tokens).logits[:, -1]
        model.hf.set_attn_implementation(before)
        clean = clean_pass(model, task.examples, range(len(task)))
        bridged = model.bridge(tokens)[:, -1]
    torch.testing.assert_close(clean.logits, want, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(bridged, want, rtol=0, atol=TOLERANCE)


def test_a_head_without_output_weights_has_no_effect(gpt2):
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        hf.transformer.h[1].attn.c_proj.weight[8:16] = 0
    result = ablate_heads(
        wrap_model(hf, name="one silent head"), random_task(), ablation="zero", heads=[Head(1, 1), Head(1, 2)]
    )
    assert np.abs(result.effects[0]).max() <= 1e-6 < 1e-3 < np.abs(result.effects[1]).max()


def test_patching_every_head_of_a_layer_from_the_same_prompt_changes_nothing(llama):
    task = random_task()
    twin = Task(task.name, tuple(type(e)(e.clean, e.clean, e.answers, e.distractors, e.marks) for e in task), task.metric)
    variants = build_variants(llama, twin, "patch", "all", [tuple(Head(1, h) for h in range(6))], 0)
    fast, _ = both_roads(llama, twin, variants)
    assert np.abs(fast.effects).max() <= TOLERANCE


@pytest.mark.slow
@given(budget=st.integers(150_000, 3_000_000), cap=st.sampled_from([9, 40, 130, 2048]))
@settings(max_examples=15, deadline=None)
def test_the_cut_into_units_does_not_change_the_numbers(budget, cap):
    from interp.engine.sweep import work_units

    model, task = tiny("llama"), random_task()
    whole = ablate_heads(model, task, ablation="mean")
    before = work_units.TOKENS_AT_ONCE["cpu"]
    work_units.TOKENS_AT_ONCE["cpu"] = cap
    try:
        parts = ablate_heads(model, task, ablation="mean", memory=budget)
    finally:
        work_units.TOKENS_AT_ONCE["cpu"] = before
    np.testing.assert_allclose(parts.values, whole.values, rtol=0, atol=TOLERANCE)


def test_every_unit_of_a_plan_fits_the_budget_and_covers_the_grid_once(llama):
    task = random_task(5, 4)
    variants = build_variants(llama, task, "zero", "all", [(h,) for h in llama.facts.heads()], 0)
    outcome, budget = OUTCOMES.get("logit_diff"), 200_000
    plan = plan_sweep(llama, task, variants, outcome, budget, identity="x")
    cost, longest = UnitMemory(llama.facts, outcome), max(len(example.clean) for example in task.examples)
    sizes = [cost.unit(longest, unit.n_positions, len(unit.example_ids), len(unit.variants)) for unit in plan.units]
    assert max(sizes) <= budget and plan.n_units > 4
    n_positions = [unit.n_positions for unit in plan.units]
    proof = cost.proof(longest, min(n_positions), patterns=False, selected=max(n_positions))
    assert plan.bytes <= LIBRARY_BYTES + max(budget, proof)
    cells = [(v, r) for unit in plan.units for v in unit.variants for r in unit.example_ids]
    assert sorted(cells) == [(v, r) for v in range(len(variants)) for r in range(len(task))]
    assert len({unit.key for unit in plan.units}) == plan.n_units
    assert cost.unit(11, 11, 2, 2) > cost.unit(11, 11, 1, 2)


def test_a_budget_below_one_prompt_is_refused_with_estimate_and_budget(llama):
    with pytest.raises(
        MemoryBudgetExceeded, match=r"needs about .* KiB in addition to tiny-llama, more than the budget of 100 B"
    ):
        ablate_heads(llama, random_task(), ablation="zero", memory=100)


def test_a_model_without_a_known_layout_takes_the_hooked_road_to_the_same_numbers(gpt2):
    blind = Model(gpt2.facts, gpt2.tokenizer, gpt2.hf, None, gpt2.bridge)
    task, heads = random_task(), some_heads(gpt2)
    with pytest.warns(UserWarning, match="parts of a GPT2LMHeadModel model are not known; using the slower hooked backend"):
        plain = ablate_heads(blind, task, ablation="mean", heads=heads)
    fast = ablate_heads(gpt2, task, ablation="mean", heads=heads)
    assert (plain.backend, fast.backend) == ("hooked", "resumed")
    np.testing.assert_allclose(plain.values, fast.values, rtol=0, atol=TOLERANCE)


def test_a_wrong_layout_is_found_out_before_any_number_is_made(gpt2):
    parts = gpt2.layout
    wrong = Layout(parts.blocks, parts.attentions, parts.outputs, parts.blocks[0].ln_1, parts.unembed)
    model = Model(gpt2.facts, gpt2.tokenizer, gpt2.hf, wrong, gpt2.bridge)
    with pytest.warns(UserWarning, match="a resumed run differs from the model"):
        result = ablate_heads(model, random_task(), ablation="zero", heads=[Head(0, 1)])
    np.testing.assert_allclose(
        result.values, ablate_heads(gpt2, random_task(), ablation="zero", heads=[Head(0, 1)]).values, rtol=0, atol=TOLERANCE
    )
    with pytest.raises(FastPathUnavailable):
        variants = build_variants(model, random_task(), "zero", "all", [(Head(0, 1),)], 0)
        sweep(model, random_task(), variants, OUTCOMES.get("logit_diff"), record=record_of(model), backend="resumed")


@pytest.mark.parametrize("positions", ["all", "end", "middle", (1, -2)])
def test_patterns_changed_in_several_layers_equal_hooked_passes(model, positions):
    heads = [Head(layer, layer % model.facts.n_heads) for layer in range(model.facts.n_layers)]
    sharper = Intervention("scores", tuple(heads[1:]), lambda x, context: 2 * x, "sharper", positions)
    variants = [
        (interventions.zero(heads[:1], positions), interventions.uniform(heads[1:], positions)),
        (interventions.streaming(heads, 1, 2, positions),),
        (sharper, interventions.scale(heads[:1], 0.5, positions)),
        (interventions.uniform(heads[-1:], positions), interventions.uniform(heads[:-1], positions)),
    ]
    fast, plain = both_roads(model, random_task(), variants)
    assert fast.backend == "resumed" and (np.abs(plain.effects).max(1) > 1e-3).all()
    np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ablation", ["zero", "uniform"])
def test_a_model_of_one_layer_is_resumed(ablation):
    hf = tiny_hf("llama")
    hf.model.layers = hf.model.layers[:1]
    hf.config.num_hidden_layers = 1
    model = wrap_model(hf)
    variants = build_variants(model, random_task(), ablation, "all", [(head,) for head in model.facts.heads()], 0)
    fast, plain = both_roads(model, random_task(), variants)
    assert sweep(model, random_task(), variants, OUTCOMES.get("logit_diff"), record=record_of(model)).backend == "resumed"
    np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=TOLERANCE)


def test_a_head_that_a_variant_changes_twice_is_not_resumed(llama):
    half, uniform = interventions.scale([Head(1, 1)]), interventions.uniform([Head(1, 1)])
    assert not resumable((half, uniform)) and resumable((half, interventions.uniform([Head(0, 1)])))
    found = sweep(llama, random_task(), [(half, uniform)], OUTCOMES.get("logit_diff"), record=record_of(llama))
    assert found.backend == "hooked" and np.abs(found.effects).max() > 1e-3
    with pytest.raises(FastPathUnavailable, match="A variant changes a head twice"):
        sweep(
            llama,
            random_task(),
            [(half, uniform)],
            OUTCOMES.get("logit_diff"),
            record=record_of(llama),
            backend="resumed",
        )


def test_blocks_of_queries_do_not_change_a_changed_pattern(monkeypatch, llama):
    task = random_task()
    whole = ablate_heads(llama, task, ablation="uniform")
    monkeypatch.setattr(clean_module, "BLOCK", 40)
    np.testing.assert_allclose(ablate_heads(llama, task, ablation="uniform").values, whole.values, rtol=0, atol=TOLERANCE)


def test_nothing_is_left_behind_when_a_default_fails(gpt2):
    def broken(x, place):
        raise RuntimeError("no")

    bad = interventions.Intervention("z", (Head(1, 1), Head(2, 0)), broken, "broken")
    before = gpt2.hf.config._attn_implementation
    with pytest.raises(RuntimeError, match="no"):
        sweep(gpt2, random_task(), [(bad,)], OUTCOMES.get("logit_diff"), record=record_of(gpt2))
    assert gpt2.hf.config._attn_implementation == before != NAME
    modules = [*gpt2.layout.blocks, *gpt2.layout.attentions, *gpt2.layout.outputs]
    assert not any(m._forward_pre_hooks or m._forward_hooks or "forward" in m.__dict__ for m in modules)


def test_results_that_are_not_finite_are_errors(gpt2):
    infinite = interventions.Intervention("z", (Head(1, 1),), lambda x, place: x.new_full((), torch.inf), "infinite")
    with pytest.raises(ValueError, match=r"logit_diff of infinite L1H1 @all x1 on example 3 is nan"):
        sweep(gpt2, random_task(), [(infinite,)], OUTCOMES.get("logit_diff"), record=record_of(gpt2))


@pytest.mark.parametrize("road", ["resumed", "hooked", "clean", "circuit"])
def test_an_outcome_outside_its_declared_bounds_is_an_error(gpt2, road, monkeypatch):
    right = OUTCOMES.get("prob_mass")
    shifted = replace(right, function=lambda *args: right.function(*args) + 1.5)
    task, found = random_task(), rf"Metric 'prob_mass' is {NUMBER} on example \d, and its declared upper bound is 1: correct"
    with pytest.raises(ValueError, match=found):
        if road == "clean":
            clean_outcome(gpt2, task, shifted)
        elif road == "circuit":
            monkeypatch.setattr(clean_and_corrupted_runs.OUTCOMES, "get", lambda name: shifted)
            score_edges(gpt2, task, method="exact", metric="prob_mass")
        else:
            variants = [(interventions.zero([Head(1, 1)]),)]
            sweep(gpt2, task, variants, shifted, record=record_of(gpt2), backend=road)


@pytest.mark.parametrize("returned", ["mean", "each logit"])
def test_an_outcome_without_one_number_for_each_example_is_an_error(gpt2, returned):
    functions = {"mean": lambda logits, *_: logits.mean(), "each logit": lambda logits, *_: logits}
    odd = replace(OUTCOMES.get("prob_mass"), function=functions[returned], bounds=(None, None))
    with pytest.raises(
        ExtensionError, match=r"Metric 'prob_mass' must return one number for each example, \[batch\] \(\d,\), not \("
    ):
        clean_outcome(gpt2, random_task(), odd)


def test_bounds_name_value_and_example_and_leave_room_for_rounding():
    outcome = OUTCOMES.get("answer_logprob")
    outcome.check_bounds(np.array([[-3.0, 1e-6], [-np.inf, 0.0]]), [4, 9])
    with pytest.raises(ValueError, match=r"Metric 'answer_logprob' is 0\.687 on example 9, and its declared upper bound is 0"):
        outcome.check_bounds(torch.tensor([[-3.0, -1.0], [-2.0, 0.687]]), [4, 9])


def test_unknown_names_are_answered_with_the_known_ones(gpt2):
    task = random_task()
    with pytest.raises(LookupError, match=r"Head L12H0 does not exist: tiny-gpt2 has layers 0-2 and heads 0-4\."):
        ablate_heads(gpt2, task, heads=[Head(12, 0)])
    with pytest.raises(LookupError, match=r"No metric is called 'logit'. There are: accuracy, answer_logprob"):
        ablate_heads(gpt2, task, metric="logit")
    with pytest.raises(LookupError, match=r"No ablation is called 'means'. There are: agent, amplify_span, attend_to"):
        ablate_heads(gpt2, task, ablation="means")
    with pytest.raises(LookupError, match=r"No position is called 'subject'.*There are: all, end, middle\."):
        ablate_heads(gpt2, task, positions="subject")


def test_donors_are_other_prompts_of_equal_length():
    task = random_task(4, 3)
    source_ids = resample_source_ids(task, seed=3)
    lengths = np.array([len(e.clean) for e in task])
    assert (
        (source_ids != np.arange(7)).all() and sorted(source_ids) == list(range(7)) and (lengths[source_ids] == lengths).all()
    )
    with pytest.raises(ValueError, match="example 4 is the only one with 9 tokens"):
        resample_source_ids(random_task(4, 1), seed=3)


def test_a_metric_that_needs_distractors_refuses_a_task_without(gpt2):
    task = random_task()
    bare = Task("bare", tuple(type(e)(e.clean, e.corrupted, e.answers, ()) for e in task), "answer_logprob")
    with pytest.raises(ValueError, match="example 0 of task 'bare' has none"):
        ablate_heads(gpt2, bare, metric="logit_diff")
    assert np.isfinite(ablate_heads(gpt2, bare, heads=[Head(0, 0)]).values).all()


def test_bfloat16_weights_give_the_effects_of_float32_within_their_precision():
    hf = tiny_hf("llama")
    task, heads = random_task(), some_heads(tiny("llama"))
    exact = ablate_heads(tiny("llama"), task, ablation="zero", heads=heads).effects
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rough = ablate_heads(wrap_model(hf.to(torch.bfloat16), name="half"), task, ablation="zero", heads=heads)
    assert rough.backend == "resumed"
    assert np.corrcoef(exact.ravel(), rough.effects.ravel())[0, 1] > 0.95


def test_the_score_of_a_task_is_the_baseline_of_its_sweep(model):
    task = random_task()
    for metric in ("logit_diff", "accuracy", "prob_mass"):
        baseline = ablate_heads(model, task, ablation="zero", metric=metric, heads=[Head(0, 0)]).baseline
        np.testing.assert_allclose(score_task(model, task, metric), baseline, rtol=0, atol=TOLERANCE)


def test_the_plan_of_a_sweep_counts_the_patterns_of_the_plain_model_it_is_compared_with(monkeypatch):
    """Eager attention keeps 2.1 patterns of one layer in float32: 6 heads x 300 x 300."""
    llama, ids = tiny("llama"), tuple(range(3, 53)) * 6
    task, outcome = Task("long", (Example(ids, ids, (5,), (6,)),), "logit_diff"), OUTCOMES.get("logit_diff")
    variants = build_variants(llama, task, "zero", "end", [(Head(0, 0),)], 0)
    cost, patterns = UnitMemory(llama.facts, outcome), int(2.1 * 4 * 6 * 300 * 300)
    for own_attention, kept in (("sdpa", 0), ("eager", patterns)):
        monkeypatch.setattr(llama, "own_attention", own_attention)
        proof = (
            LIBRARY_BYTES
            + cost.kept_pass(2, 300, 0, 0)
            + forward_bytes(llama.facts, 1, 300, patterns=False, all_logits=False)
            + kept
        )
        assert plan_sweep(llama, task, variants, outcome, None, identity="x").bytes >= proof
    assert cost.proof(300, 300, patterns=True) > patterns > cost.proof(300, 300, patterns=False) / 4
