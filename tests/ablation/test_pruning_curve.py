"""Curves of heads taken out together: every point is one hooked run, and a good order is told from random ones."""

import numpy as np
import pytest
import torch

from interp import interventions
from interp.ablation import gradient_importance, pruning_curve
from interp.ablation.pruning_curve import _head_order, _layer_matched_order
from interp.engine.forward.run import answer_logits
from interp.engine.sweep import unit_runner
from interp.engine.sweep.outcome import Answers
from interp.heads import Head, HeadScores
from interp.metrics import score_task
from interp.metrics.outcomes import OUTCOMES
from interp.models import wrap_model
from interp.models.model import record_of
from interp.tasks.token_batch import as_batch
from tests.support.sweep_cases import random_task, some_heads
from tests.support.tiny_models import tiny, tiny_hf

ALIVE = (Head(0, 2), Head(0, 5), Head(1, 0), Head(2, 4))


def four_heads():
    """A model of 18 heads of which only ``ALIVE`` write anything."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        for layer, block in enumerate(hf.model.layers):
            dead = [h for h in range(6) if (layer, h) not in ALIVE]
            block.self_attn.o_proj.weight.view(60, 6, 8)[:, dead] = 0
    return wrap_model(hf, name="four heads")


def by_hooks(model, task, *changes):
    """logit_diff under the changes, one hooked pass for each example, [n_examples]."""
    found = []
    for i, example in enumerate(task):
        with torch.inference_mode():
            logits = answer_logits(model, as_batch(model, [example]), torch.tensor([i]), changes)
        found.append(OUTCOMES.get("logit_diff").function(logits, Answers.of([example]), logits).item())
    return np.array(found)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_points_of_the_curve_are_hooked_runs_with_the_first_heads_zeroed(name):
    model, task = tiny(name), random_task()
    order = some_heads(model, every=2)[::-1]
    table = pruning_curve(model, task, order, steps=4)
    ours = table[table["curve"] == "importance"]
    counts = np.round(np.linspace(0, len(order), 5)).astype(int)
    assert ours["n_ablated"].tolist() == counts.tolist()
    np.testing.assert_allclose(ours["share_ablated"], counts / len(order))
    expected = [by_hooks(model, task, *([interventions.zero(order[:n])] if n else [])).mean() for n in counts]
    np.testing.assert_allclose(ours["value"], expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 1e-2
    ends = table[table["curve"] == "random"].iloc[[0, -1]]["value"]
    np.testing.assert_allclose(ends, [expected[0], expected[-1]], rtol=0, atol=1e-5)
    assert ours["value"].iloc[0] == pytest.approx(score_task(model, task, "logit_diff").mean(), abs=1e-5)


def test_random_curve_is_the_mean_over_its_orders(llama):
    task, heads = random_task(), some_heads(llama, every=3)
    table = pruning_curve(llama, task, heads, steps=2, n_random=6, seed=5)
    middle = table[(table["curve"] == "random") & (table["n_ablated"] == 3)].iloc[0]
    rng = np.random.default_rng(5)
    orders = [[heads[i] for i in rng.permutation(6)] for _ in range(6)]
    expected = np.mean([by_hooks(llama, task, interventions.zero(one[:3])) for one in orders])
    assert middle["value"] == pytest.approx(expected, abs=1e-5)
    assert (middle["n"], middle["n_orders"], middle["unit"], middle["ablation"], middle["seed"]) == (5, 6, "logits", "zero", 5)
    assert middle["ci_low"] < middle["value"] < middle["ci_high"]


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_heads_hold_the_outcome_until_the_last_four_go(seed):
    model, task = four_heads(), random_task(6, 5, seed=seed)
    scores = gradient_importance(model, task)
    table = pruning_curve(model, task, scores, steps=18, metric="answer_loss", layer_matched=True, n_random=8, seed=seed)
    values = {curve: part.set_index("n_ablated")["value"] for curve, part in table.groupby("curve")}
    clean = values["importance"][0]
    np.testing.assert_allclose(values["importance"][:14], clean, atol=1e-6)
    assert abs(values["importance"][18] - clean) > 1e-2
    for curve in ("random", "layer_matched"):
        assert (values[curve][:14] - clean).abs().max() > 1e-2
        assert values[curve][18] == values["importance"][18]


def test_heads_may_be_replaced_by_their_means_instead(llama):
    task, heads = random_task(), llama.facts.heads()
    caches = [llama.bridge.run_with_cache(torch.tensor([e.clean]))[1] for e in task]
    z = [torch.cat([c[f"blocks.{layer}.attn.hook_z"][0] for c in caches]).mean(0) for layer in range(3)]
    change = interventions.mean(heads[:6], torch.stack(z))
    table = pruning_curve(llama, task, heads, steps=3, ablation="mean")
    assert table["value"][1] == pytest.approx(by_hooks(llama, task, change).mean(), abs=1e-5)
    assert abs(table["value"][1] - by_hooks(llama, task, interventions.zero(heads[:6])).mean()) > 1e-2


def test_all_sets_of_heads_run_as_rows_of_one_batch_for_each_length_and_equal_ones_once(llama, monkeypatch):
    rows = []

    def counting(model, clean, variants):
        rows.append(len(variants))
        return resume_variants(model, clean, variants)

    resume_variants = unit_runner.resume_variants
    pruning_curve(llama, random_task(), llama.facts.heads(), steps=6)  # the model is proven in a first run
    monkeypatch.setattr(unit_runner, "resume_variants", counting)
    pruning_curve(llama, random_task(), llama.facts.heads(), steps=6)
    assert rows == [6 * 6 - 5] * 2  # two lengths; the set of all heads is shared by six orders


def test_order_of_scores_is_by_magnitude_and_leaves_out_what_was_not_measured(llama):
    values = np.full((3, 6), np.nan)
    values[0, 1], values[2, 3], values[1, 5], values[1, 0] = -0.5, 0.1, 2.0, -0.5
    scores = HeadScores("effect", values, "logits", (None, None), record_of(llama))
    assert _head_order(llama, scores) == [Head(2, 3), Head(0, 1), Head(1, 0), Head(1, 5)]


def test_layer_matched_orders_take_as_many_heads_of_each_layer_at_every_step():
    heads = [Head(0, 1), Head(2, 0), Head(0, 3), Head(2, 5), Head(1, 1), Head(0, 0), Head(2, 2)]
    orders = {tuple(_layer_matched_order(heads, np.random.default_rng(seed))) for seed in range(20)}
    assert len(orders) > 5
    for one in orders:
        assert [h.layer for h in one] == [h.layer for h in heads] and sorted(one) == sorted(heads)


def test_same_seed_same_table_and_another_seed_other_orders(gpt2):
    tables = [pruning_curve(gpt2, random_task(), gpt2.facts.heads(), steps=5, seed=s) for s in (0, 0, 1)]
    assert tables[0].equals(tables[1])
    assert tables[0]["value"][:6].tolist() == tables[2]["value"][:6].tolist()
    assert tables[0]["value"][6:].tolist() != tables[2]["value"][6:].tolist()


def test_what_is_no_curve_is_refused(gpt2):
    heads, task = gpt2.facts.heads(), random_task()
    for options in ({"n_random": 4}, {"steps": 0}, {"steps": 16}):
        with pytest.raises(ValueError, match="curve of 15 heads takes 1 to 15 steps and at least 5 random orders"):
            pruning_curve(gpt2, task, heads, **options)
    with pytest.raises(ValueError, match="names L0H0 twice"):
        pruning_curve(gpt2, task, [*heads, Head(0, 0)])
    with pytest.raises(ValueError, match="this one is empty"):
        pruning_curve(gpt2, task, [])
    with pytest.raises(LookupError, match="Head L3H0 does not exist"):
        pruning_curve(gpt2, task, [Head(3, 0)])
    with pytest.raises(LookupError, match="No ablation is called 'attribution'"):
        pruning_curve(gpt2, task, heads, ablation="attribution")
