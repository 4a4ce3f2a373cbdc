"""The gradient estimate is the slope of the exact sweep."""

import numpy as np
import pytest
import torch

from interp.ablation.ablate_heads import ablate_heads
from interp.ablation.ablations import build_variants
from interp.engine.gradients.attribution_patching import attribute, head_gate_gradients
from interp.engine.sweep.sweep import rank_variants, sweep
from interp.heads import Head
from interp.interventions import Intervention
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_hooked_transformer, wrap_model
from interp.models.model import Model, record_of
from interp.store import start_run, write_ablation
from tests.models.test_hooked_transformer import BASE, save
from tests.support.sweep_cases import random_task, some_heads
from tests.support.tiny_models import TINY, tiny, tiny_hf


@pytest.fixture(params=TINY)
def smooth(request):
    """Each tiny architecture; OPT with GELU, since a difference quotient across a kink of ReLU is not its slope."""
    if request.param != "opt":
        return tiny(request.param)
    hf = tiny_hf("opt")
    for block in hf.model.decoder.layers:
        block.activation_fn = torch.nn.GELU()
    return wrap_model(hf, name="smooth opt")


@pytest.fixture
def toy(tmp_path):
    """A TransformerLens 2.x model, whose parts are not known."""
    config = {**BASE, "act_fn": "gelu_new", "d_vocab": 97, "d_vocab_out": 97}
    return load_hooked_transformer(save(tmp_path, config), dtype="float64")


@pytest.mark.parametrize("ablation", ["zero", "mean", "patch", "uniform"])
def test_attribution_equals_the_central_difference_of_the_exact_effect(smooth, ablation):
    model = smooth
    task, heads, step = random_task(), some_heads(model, every=7), 1e-3
    outcome, record = OUTCOMES.get("logit_diff"), record_of(model)
    variants = build_variants(model, task, ablation, "all", [(h,) for h in heads], 0)
    estimate = attribute(model, task, variants, outcome, record=record)
    up, down = (sweep(model, task, [(i.at(s),) for (i,) in variants], outcome, record=record).values for s in (step, -step))
    slope = (up - down) / (2 * step)
    assert np.abs(slope).max() > 1e-2
    np.testing.assert_allclose(estimate.effects, slope, rtol=0, atol=0.01 * np.abs(slope).max())


@pytest.mark.parametrize("positions", ["all", "middle"])
@pytest.mark.parametrize("ablation", ["zero", "mean", "patch", "uniform"])
def test_a_model_without_a_known_layout_is_estimated_to_the_same_numbers(model, ablation, positions):
    blind = Model(model.facts, model.tokenizer, model.hf, None, model.bridge)
    hooked, plain = (
        ablate_heads(m, random_task(), estimator="attribution", ablation=ablation, positions=positions, pairs=True, heads=heads)
        for m, heads in ((m, some_heads(m, every=7)) for m in (blind, model))
    )
    scale = np.abs(plain.effects).max()
    assert scale > 1e-2
    np.testing.assert_allclose(hooked.baseline, plain.baseline, rtol=0, atol=1e-5)
    np.testing.assert_allclose(hooked.effects, plain.effects, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("ablation", ["zero", "mean", "patch", "uniform"])
def test_the_estimate_of_a_toy_is_the_slope_of_its_exact_effect(toy, ablation):
    task, step = random_task(), 1e-2
    outcome, record = OUTCOMES.get("logit_diff"), record_of(toy)
    variants = build_variants(toy, task, ablation, "all", [(h,) for h in some_heads(toy)], 0)
    estimate = attribute(toy, task, variants, outcome, record=record)
    with pytest.warns(UserWarning, match="using the slower hooked backend"):
        up, down = (sweep(toy, task, [(i.at(s),) for (i,) in variants], outcome, record=record).values for s in (step, -step))
    slope = (up - down) / (2 * step)
    assert np.abs(slope).max() > 1e-2
    np.testing.assert_allclose(estimate.effects, slope, rtol=0, atol=0.01 * np.abs(slope).max())


def test_adaptive_measures_the_top_share_of_a_toy(toy):
    with pytest.warns(UserWarning, match="using the slower hooked backend"):
        result = ablate_heads(toy, random_task(), estimator="adaptive", top_share=0.2)
    assert result.backend == "hooked" and result.estimate.backend == "gradient"
    assert list(result.variants) == sorted(rank_variants(result.estimate)[:3]) and len(result.estimate.variants) == 15


def test_adaptive_measures_the_top_share_exactly_and_keeps_the_estimate(llama):
    task = random_task()
    whole = ablate_heads(llama, task, ablation="zero")
    estimate = ablate_heads(llama, task, estimator="attribution", ablation="zero")
    some = ablate_heads(llama, task, estimator="adaptive", ablation="zero", top_share=0.25)
    assert len(some.variants) == round(0.25 * 18) and set(some.variants) == set(rank_variants(estimate)[: len(some.variants)])
    exact = dict(zip(whole.variants, whole.effects, strict=True))
    for variant, effect in zip(some.variants, some.effects, strict=True):
        np.testing.assert_allclose(effect, exact[variant], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(some.estimate.values, estimate.values)


def test_metrics_without_a_gradient_at_the_clean_run_are_refused(gpt2):
    for metric in ("kl", "accuracy"):
        with pytest.raises(ValueError, match=f"Metric '{metric}' has no gradient at the clean run"):
            ablate_heads(gpt2, random_task(), estimator="attribution", metric=metric, heads=[Head(0, 0)])


def test_adaptive_pairs_are_measured_beside_their_heads(llama):
    heads = [Head(0, 1), Head(1, 2), Head(2, 0), Head(2, 5)]
    result = ablate_heads(llama, random_task(), estimator="adaptive", heads=heads, pairs=True, top_share=0.3)
    pairs = [v for v in result.variants if len(v) == 2]
    assert pairs and all((head,) in result.variants for pair in pairs for head in pair)


def test_a_stored_adaptive_run_says_how_well_estimate_and_measurement_agree(llama, tmp_path):
    result = ablate_heads(llama, random_task(), estimator="adaptive", ablation="zero", top_share=0.4)
    with start_run(tmp_path / "run", {"estimator": "adaptive"}) as writer:
        run = write_ablation(writer, result)
    assert len(run.heads()) == 7 and len(run.table("estimates")) == 18
    exact = dict(zip(run.heads()["label"], run.heads()["effect"], strict=True))
    guess = {k: v for k, v in zip(run.table("estimates")["label"], run.table("estimates")["effect"], strict=True) if k in exact}
    agreement = run.manifest["details"]["agreement"]
    assert agreement["n"] == 7 and agreement["k"] == 3
    assert agreement["same_sign"] == np.mean([np.sign(exact[k]) == np.sign(guess[k]) for k in exact])


def test_changes_of_scores_are_estimated_where_the_parts_are_known_and_refused_elsewhere(llama):
    def squared(pattern, place):
        return pattern.square() / pattern.square().sum(-1, keepdim=True)

    task, outcome, record = random_task(), OUTCOMES.get("logit_diff"), record_of(llama)
    twice = Intervention("scores", (Head(1, 2),), lambda x, place: 2 * x, "sharper")
    same = Intervention("pattern", (Head(1, 2),), squared, "sharper")
    scores, pattern = attribute(llama, task, [(twice,), (same,)], outcome, record=record).effects
    assert np.abs(scores).max() > 1e-3
    np.testing.assert_allclose(scores, pattern, rtol=0, atol=1e-5)
    blind = Model(llama.facts, llama.tokenizer, llama.hf, None, llama.bridge)
    with pytest.raises(ValueError, match="effect of 'sharper' cannot be estimated in tiny-llama"):
        attribute(blind, task, [(twice,)], outcome, record=record)


@pytest.mark.parametrize("metric", ["logit_diff", None])
def test_a_model_in_double_precision_has_slopes_in_double_precision(metric):
    model = wrap_model(tiny_hf("gpt2").double(), name="double")
    slopes = head_gate_gradients(model, random_task(), OUTCOMES.get(metric) if metric else None)
    assert (slopes != slopes.astype(np.float32)).mean() > 0.9
