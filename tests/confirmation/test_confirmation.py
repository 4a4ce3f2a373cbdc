"""Detected heads ablated together, compared with controls: the sets, the values, the intervals and the errors."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from interp import interventions
from interp.confirmation import confirm, draw_sets
from interp.confirmation.confirmation_result import interval_over_draws
from interp.confirmation.head_sets import unmatched_sentence
from interp.detectors.support.null_threshold import prompt_digests
from interp.engine import run
from interp.heads import Head
from interp.statistics import mean_interval, resample_prompts
from interp.tasks import Task
from tests.support.planted_detections import SHAPE, detection_of, planted_case, ranked_first
from tests.support.sweep_cases import random_task

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])


def heads_in(text):
    return [Head.parse(word) for word in text.split()]


# -- the sets -----------------------------------------------------------------------------------------------------------------


def scores_with(found, seed=0):
    values = np.random.default_rng(seed).uniform(0, 0.4, SHAPE)
    for place, head in enumerate(found):
        values[head] = 0.9 - place / 100
    return values


def test_controls_are_drawn_from_the_heads_that_were_not_found_and_matched_by_layer():
    found = [Head(2, 1), Head(0, 3), Head(2, 2), Head(4, 0)]
    sets, unmatched = draw_sets(detection_of(scores_with(found)), [1, 2, 4], 6, seed=0)
    by_group = Counter((s.group, s.k) for s in sets)
    assert by_group == {
        (g, k): n for g, n in (("detected", 1), ("random", 6), ("layer_matched", 6), ("bottom", 1)) for k in (1, 2, 4)
    }
    assert unmatched == {1: 0, 2: 0, 4: 0}
    for s in sets:
        assert len(set(s.heads)) == len(s.heads) == s.k
        if s.group == "detected":
            assert list(s.heads) == found[: s.k]
        else:
            assert not set(s.heads) & set(found)
        if s.group == "layer_matched":
            assert Counter(h.layer for h in s.heads) == Counter(h.layer for h in found[: s.k])


def test_heads_above_the_threshold_are_no_controls_even_where_fewer_are_taken_out():
    found = [Head(2, 1), Head(0, 3), Head(3, 3)]
    sets, _ = draw_sets(detection_of(scores_with(found)), [1], 30, seed=1)
    drawn = {s.heads[0] for s in sets if s.group == "random"}
    assert not drawn & set(found)
    assert len(drawn) > 10


def test_a_draw_is_a_curve_and_other_seeds_give_other_draws():
    detection = detection_of(scores_with([Head(1, 1)]))
    sets, _ = draw_sets(detection, [1, 3, 6], 5, seed=0)
    for draw in range(5):
        one, three, six = (s.heads for s in sets if s.group == "random" and s.draw == draw)
        assert one == three[:1] and three == six[:3]
    other, _ = draw_sets(detection, [1, 3, 6], 5, seed=1)
    assert draw_sets(detection, [1, 3, 6], 5, seed=0)[0] == sets != other


def test_where_a_layer_runs_out_the_nearest_layers_stand_in_and_it_is_said():
    found = [Head(2, h) for h in range(3)] + [Head(3, 0)]
    sets, unmatched = draw_sets(detection_of(scores_with(found)), [1, 2, 4], 5, seed=0)
    assert unmatched == {1: 0, 2: 1, 4: 2}
    assert unmatched_sentence({"2": 1, "4": 2}).endswith("too few others: for k = 2, 1 of 2; for k = 4, 2 of 4.")
    assert unmatched_sentence({}) == ""
    for s in sets:
        if s.group == "layer_matched" and s.k == 4:
            layers = Counter(h.layer for h in s.heads)
            assert layers[2] == 1 and layers[3] + layers[1] == 3  # two of layer 2 lack, and 1 and 3 are equally near


def test_bottom_heads_are_the_lowest_ones_and_equal_scores_are_taken_in_random_order():
    values = np.full(SHAPE, 0.2)
    values[4] = 0.0
    values[1, 2], values[0, 0] = 0.9, np.nan
    lows = [draw_sets(detection_of(values), [2], 5, seed=s)[0][-1] for s in range(9)]
    assert {s.group for s in lows} == {"bottom"}
    assert all(h.layer == 4 for s in lows for h in s.heads)
    assert len({frozenset(s.heads) for s in lows}) > 1


# -- the numbers --------------------------------------------------------------------------------------------------------------


@HOSTS
def test_every_set_of_a_planted_model_has_the_value_of_its_exact_trace(n_kv_heads):
    planted, tasks = planted_case(n_kv_heads)
    [retrieval], task = planted.heads("retrieval"), tasks["needle"]
    detection = ranked_first(planted.model, [retrieval, *planted.heads("previous_token")])
    found = confirm(detection, planted.model, task, ks=[1, 2, 5], ablation="zero", positions=["all"], metric="logit_diff")
    right, wrong = (np.array([getattr(e, side)[0] for e in task]) for side in ("answers", "distractors"))
    for row in found.table.to_dict("records"):
        logits = planted.trace([e.clean for e in task], ablated_heads=heads_in(row["heads"])).logits[:, -1]
        each = np.arange(len(task))
        assert row["value"] == pytest.approx((logits[each, right] - logits[each, wrong]).mean(), abs=1e-3), row


@HOSTS
def test_the_planted_head_is_needed_for_its_task_alone_and_its_controls_are_not(n_kv_heads):
    planted, tasks = planted_case(n_kv_heads)
    keeper = planted.heads("previous_token")  # both tasks need it: left among the controls, it would be one that matters
    detection = ranked_first(planted.model, [*planted.heads("retrieval"), *keeper])
    found = confirm(
        detection, planted.model, tasks["needle"], ks=[1], ablation="zero", specificity=[tasks["repeats"]], metric="logit_diff"
    )
    curve = found.tables["curve"].set_index(["task", "positions", "group", "k"])
    gain = planted.settings["gain"]
    for where in ("all", "end"):
        assert curve.loc[("needle", where, "detected", 1), "effect"] == pytest.approx(-gain, abs=0.01)
        assert curve.loc[("repeats", where, "detected", 1), "effect"] == pytest.approx(0, abs=1e-3)
        for group in ("random", "layer_matched", "bottom"):
            heads = [h for row in found.table.query("group == @group")["heads"] for h in heads_in(row)]
            if not set(heads) & set(planted.heads("induction")):
                assert curve.loc[("needle", where, group, 1), "effect"] == pytest.approx(0, abs=1e-3)
    assert found.table.query("k == 0")["effect"].eq(0).all()
    counted = confirm(detection, planted.model, tasks["needle"], ks=[1], ablation="zero", positions=["end"])
    shares = counted.tables["curve"].set_index(["group", "k"])["value"]
    assert shares["detected", 0] == 1 and shares["detected", 1] < 0.5  # all logits are equal without the head
    assert shares["random", 1] == shares["layer_matched", 1] == shares["bottom", 1] == 1


@pytest.mark.parametrize("ablation", ["zero", "uniform", "resample"])
@pytest.mark.parametrize("where", ["all", "end"])
def test_sets_equal_hooked_runs_with_all_their_heads_changed(llama, ablation, where):
    task = random_task(3, 2)
    detection = ranked_first(llama, [Head(1, 2), Head(2, 4), Head(0, 1)])
    found = confirm(detection, llama, task, ks=[2, 3], ablation=ablation, positions=[where], metric="logit_diff")
    if ablation == "resample":
        from interp.ablation.ablations import resample_source_ids
        from interp.engine.sweep.z_cache import cache_z

        bank, source_ids = cache_z(llama, task), torch.from_numpy(resample_source_ids(task, 0))
    for row in found.table.query("k == 3").drop_duplicates("group").to_dict("records"):
        heads, values = heads_in(row["heads"]), []
        for i, example in enumerate(task):
            if ablation == "resample":
                change = [patched(llama, bank, h, int(source_ids[i]), where) for h in heads]
            else:
                change = [getattr(interventions, ablation)(heads, where)]
            logits = run(llama, [example], intervene=change).logits[0, -1]
            values.append(logit_diff(logits, example))
        assert row["value"] == pytest.approx(np.mean(values), abs=2e-5)


def patched(model, bank, head, donor, where):
    """A change that gives one head the z of example ``donor``, whatever the row is."""
    source = SimpleNamespace(z=lambda h, rows, positions: bank.z(h, torch.full_like(rows, donor), positions))
    return interventions.patch([head], source, where)


def logit_diff(logits, example):
    return float(logits[list(example.answers)].mean() - logits[list(example.distractors)].mean())


def test_the_end_is_changed_with_means_of_the_end(gpt2):
    task = random_task(3, 2)
    found = confirm(ranked_first(gpt2, [Head(0, 3)]), gpt2, task, ks=[1], positions=["end"], metric="logit_diff")
    z = torch.stack([run(gpt2, [e], capture=["z.0"])["z.0"][0, -1, 3] for e in task]).mean(0)
    means = torch.zeros(gpt2.facts.n_layers, gpt2.facts.n_heads, gpt2.facts.d_head)
    means[0, 3] = z
    change = [interventions.mean([Head(0, 3)], means, "end")]
    values = [logit_diff(run(gpt2, [e], intervene=change).logits[0, -1], e) for e in task]
    assert found.table.query("group == 'detected' and k == 1")["value"].item() == pytest.approx(np.mean(values), abs=2e-5)


# -- intervals ----------------------------------------------------------------------------------------------------------------


def test_the_tables_of_a_confirmation_agree_with_each_other(llama):
    task = random_task(6, 5)
    found = confirm(ranked_first(llama, [Head(1, 2), Head(2, 4)]), llama, task, ks=[1, 3], n_draws=6, metric="logit_diff")
    prompts, curve = found.tables["prompts"], found.tables["curve"]
    keys = ["positions", "group", "k", "draw"]
    means = prompts.groupby(keys)["value"].mean()
    assert np.allclose(found.table.set_index(keys)["value"], means.loc[pd.MultiIndex.from_frame(found.table[keys])])
    points = prompts.groupby(keys[:3])["value"].mean()
    assert np.allclose(curve.set_index(keys[:3])["value"], points.loc[pd.MultiIndex.from_frame(curve[keys[:3]])])
    assert (curve["ci_low"] <= curve["value"]).all() and (curve["value"] <= curve["ci_high"]).all()
    assert np.allclose(
        found.table["effect"], found.table["value"] - found.table.groupby("positions")["value"].transform("first")
    )
    assert set(curve["n_draws"]) == {1, 6} and (curve["n"] == 11).all()
    row = found.table.query("group == 'bottom' and k == 3 and positions == 'end'").iloc[0]
    mine = prompts.query("group == 'bottom' and k == 3 and positions == 'end'")
    effects = (mine["value"] - mine["baseline"]).to_numpy()[None]
    interval = mean_interval(effects, resample_prompts(11, 0))
    assert (row["effect_ci_low"], row["effect_ci_high"]) == pytest.approx((interval.low[0], interval.high[0]))


def test_an_interval_over_draws_and_prompts_holds_the_truth_as_often_as_it_says():
    rng, trials, held = np.random.default_rng(0), 300, 0
    for trial in range(trials):
        values = 2.0 + rng.normal(0, 1, (5, 1)) + rng.normal(0, 1, (1, 12)) + rng.normal(0, 0.5, (5, 12))
        interval = interval_over_draws(values, resample_prompts(12, trial, resamples=400), trial)
        held += bool(interval.low[0] <= 2.0 <= interval.high[0])
    assert held / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_prompts_are_told_apart_by_where_the_answer_stands():
    planted, tasks = planted_case()
    task = tasks["needle"]
    found = confirm(ranked_first(planted.model, planted.heads("retrieval")), planted.model, task, ks=[1], metric="logit_diff")
    starts = np.array([e.marks["needle"][0] / len(e.clean) for e in task])
    assert found.tables["prompts"].groupby("example")["depth"].first().tolist() == pytest.approx(starts)
    depths = found.by_depth(bins=4)
    rows = depths.query("group == 'random' and positions == 'all'")
    assert rows["n"].tolist() == [n for n in np.histogram(starts, 4, (0, 1))[0] if n]
    assert np.average(rows["value"], weights=rows["n"]) == pytest.approx(
        found.tables["curve"].query("group == 'random' and positions == 'all'")["value"].item()
    )
    repeats = confirm(ranked_first(planted.model, planted.heads("induction")), planted.model, tasks["repeats"], ks=[1])
    assert repeats.by_depth().empty


# -- refusals -----------------------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_answered_with_one_sentence(llama, gpt2):
    task, good = random_task(), ranked_first(llama, [Head(1, 2)])
    used = replace(good, prompts=prompt_digests([task.examples[1].clean, task.examples[4].clean, (1, 2)]))
    with pytest.raises(ValueError, match=r"2 of the 5 prompts of task 'random' were used for detection"):
        confirm(used, llama, task, metric="logit_diff")
    with pytest.raises(ValueError, match="confirm them in the model in which they were detected"):
        confirm(good, gpt2, task, metric="logit_diff")
    with pytest.raises(ValueError, match="n_draws=4 is too few"):
        confirm(good, llama, task, n_draws=4)
    with pytest.raises(ValueError, match="k=0 is not a number of heads to ablate: ks must be at least 1"):
        confirm(good, llama, task, ks=[0, 1])
    with pytest.raises(ValueError, match=r"k=10 needs 10 heads with a score and as many controls: 18 heads"):
        confirm(good, llama, task, ks=[2, 10])
    with pytest.raises(LookupError, match=r"'patch'. There are: agent, amplify_span, attend_to, .* uniform, window, zero"):
        confirm(good, llama, task, ablation="patch")
    with pytest.raises(LookupError, match="No position is called 'needle'"):
        confirm(good, llama, task, positions=["all", "needle"])
    with pytest.raises(LookupError, match="'rouge'"):
        confirm(good, llama, task, metric="rouge")
    everyone = replace(good, threshold=np.zeros_like(good.threshold))
    with pytest.raises(ValueError, match="18 of 18 heads are retrieval heads, which leaves too few controls"):
        confirm(everyone, llama, task)


def test_a_model_that_answers_nothing_is_no_ground_to_confirm_on(llama):
    logits = [run(llama, [e]).logits[0, -1] for e in random_task()]
    worst = Task(
        "random",
        tuple(replace(e, answers=(int(x.argmin()),)) for e, x in zip(random_task(), logits, strict=True)),
        "answer_loss",
    )
    seen = []
    with pytest.raises(ValueError, match="answers none of the 5 prompts of task 'random' correctly"):
        confirm(ranked_first(llama, [Head(1, 2)]), llama, worst, progress=lambda *at: seen.append(at))
    assert not seen  # no head was ablated


def test_default_numbers_of_heads_leave_twice_as_many_controls(llama):
    found = confirm(ranked_first(llama, [Head(1, 2)]), llama, random_task(), metric="logit_diff", positions=["end"])
    assert sorted(set(found.table["k"])) == [0, 1, 2, 5]  # of 18 heads
    assert found.record.arguments["ks"] == [1, 2, 5]


def test_progress_counts_all_sweeps_and_a_ledger_saves_them(llama):
    class Ledger(dict):
        def put(self, key, values):
            self[key] = values

    seen, ledger, task = [], Ledger(), random_task()
    detection = ranked_first(llama, [Head(1, 2)])
    arguments = {"ks": [1], "metric": "logit_diff", "ledger": ledger}
    first = confirm(detection, llama, task, **arguments, progress=lambda *at: seen.append(at))
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]  # one total, although the sweeps differ in size
    size = len(ledger)
    ledger.put = None  # a second run may only read
    again = confirm(detection, llama, task, **arguments)
    assert size > 1 and again.table.equals(first.table)
