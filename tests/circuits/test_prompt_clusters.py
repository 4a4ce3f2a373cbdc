"""Every function that gives intervals or p-values over prompts respects their clusters, or refuses them."""

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import interp
from interp import circuits
from interp.ablation import gradient_importance, pruning_curve
from interp.heads import Head
from interp.statistics import cluster_sums, mean_interval, resample_prompts, sign_flip_p_value
from interp.tasks import Example, Task
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny

LABELS = [*"abacbdaca"]  # nine prompts in four clusters


@cache
def tasks() -> tuple[Task, Task]:
    """The same prompts without and with clusters."""
    plain = random_task(5, 4)
    examples = zip(plain, LABELS, strict=True)
    return plain, replace(plain, examples=tuple(replace(example, cluster=label) for example, label in examples))


def model():
    return tiny("gpt2")


@cache
def scores(of: int):
    return circuits.score_edges(model(), tasks()[of], method="eap")


def circuit():
    return scores(0).circuit(60)


SMALL = {"n_draws": 2}
INTERVALS = {
    "pruning_curve": lambda task: pruning_curve(model(), task, gradient_importance(model(), task), steps=3),
    "patch_grid": lambda task: circuits.patch_grid(model(), task).to_dataframe(),
    "direct_logit_attribution": lambda task: circuits.direct_logit_attribution(model(), task).to_dataframe(),
    "faithfulness_curve": lambda task: circuits.faithfulness_curve(model(), task, scores(0), shares=[0.1, 0.5], **SMALL).table,
    "minimality": lambda task: circuits.minimality(model(), task, circuit(), granularity="nodes", **SMALL).table,
    "completeness": lambda task: circuits.completeness(model(), task, circuit(), n_greedy_runs=0, **SMALL).table,
    "suppression": lambda task: circuits.suppression(model(), task),
}
WITH_SIZE = ("pruning_curve", "patch_grid", "direct_logit_attribution", "faithfulness_curve")


@pytest.mark.parametrize("name", INTERVALS)
def test_clusters_change_the_intervals_and_nothing_else(name):
    plain, clustered = map(INTERVALS[name], tasks())
    assert (name in WITH_SIZE) == ("n_clusters" in clustered) and "n_clusters" not in plain
    assert "n_clusters" not in clustered or set(clustered["n_clusters"]) == {4}
    bounds = ["ci_low", "ci_high"]
    same = [column for column in plain.select_dtypes("number") if column not in (*bounds, "share")]
    np.testing.assert_allclose(plain[same], clustered[same])
    wide = (plain["ci_high"] - plain["ci_low"]).to_numpy() > 1e-6
    assert wide.any() and (plain[bounds] != clustered[bounds]).to_numpy()[wide].all()


def test_the_table_of_heads_is_over_clusters_by_the_same_functions_on_the_effects():
    plain, clustered = (interp.ablate_heads(model(), task, ablation="zero") for task in tasks())
    np.testing.assert_array_equal(plain.effects, clustered.effects)
    table, interval = clustered.heads(), mean_interval(clustered.effects, resample_prompts(9, 0, LABELS))
    np.testing.assert_array_equal(table["ci_low"], interval.low)
    np.testing.assert_array_equal(table["p_value"], sign_flip_p_value(cluster_sums(clustered.effects, LABELS)))
    assert table["p_value"].min() >= 2 / 2**4
    assert set(table["n"]) == {9} and set(table["n_clusters"]) == {4} and "n_clusters" not in plain.heads()
    assert "9 prompts in 4 clusters" in repr(clustered) and "9 prompts," in repr(plain)
    assert "n = 9 in 4 clusters" in clustered.record.caption() and "clusters" not in plain.record.caption()
    assert plain.heads().drop(columns="control_ci_low").columns.tolist() == [
        name for name in table if name not in ("n_clusters", "control_ci_low")
    ]


def test_a_stored_table_of_heads_keeps_the_clusters(tmp_path):
    from interp.store import open_run

    run = open_run(interp.ablate_heads(model(), tasks()[1], ablation="zero").save(tmp_path / "run"))
    assert set(run.heads()["n_clusters"]) == {4}
    assert run.record.clusters == LABELS and run.record.n_clusters == 4


def test_the_curve_of_a_confirmation_is_over_clusters():
    from tests.support.planted_detections import planted_case, ranked_first

    planted, kinds = planted_case(n_prompts=9)
    task = kinds["needle"]
    labelled = replace(task, examples=tuple(replace(e, cluster=c) for e, c in zip(task, LABELS, strict=True)))
    detection = ranked_first(planted.model, [Head(1, 0), Head(2, 1)])
    options = {"ks": [1], "metric": "logit_diff", "positions": ["all"]}
    plain, clustered = (interp.confirm(detection, planted.model, one, **options) for one in (task, labelled))
    for before, after in ((plain.table, clustered.table), (plain.tables["curve"], clustered.tables["curve"])):
        np.testing.assert_array_equal(before["effect"], after["effect"])
        assert set(after["n_clusters"]) == {4} and "n_clusters" not in before
    mine = clustered.tables["prompts"].query("group == 'bottom'")
    interval = mean_interval(mine["value"].to_numpy()[None], resample_prompts(9, 0, LABELS))
    row = clustered.table.query("group == 'bottom'").iloc[0]
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low[0], interval.high[0]))


def test_stability_resamples_clusters():
    plain, clustered = (circuits.stability(scores(i), 30) for i in (0, 1))
    np.testing.assert_array_equal(scores(0).values, scores(1).values)
    weights = resample_prompts(9, 0, LABELS, 100).weights
    top = [set(np.argsort(-np.abs(row @ scores(1).values.T), kind="stable")[:30]) for row in weights]
    overlap = [len(a & b) / len(a | b) for i, a in enumerate(top) for b in top[:i]]
    assert clustered.jaccard == pytest.approx(np.mean(overlap)) and clustered.jaccard != plain.jaccard


def test_accuracy_with_forced_attention_and_with_scaled_heads_is_over_clusters():
    from interp.engine.forward.run import plain_logits

    def answered(i: int, example: Example) -> Example:
        best = int(plain_logits(model(), [example]).argmax())
        return replace(example, answers=(best if right[i] else (best + 1) % 97,), distractors=())

    right = np.array([1, 0, 1, 0, 1, 1, 0, 0, 1], dtype=float)
    task = replace(tasks()[1], examples=tuple(answered(i, e) for i, e in enumerate(tasks()[1])), metric="answer_logprob")
    repaired = circuits.repair(model(), task, [Head(1, 2)], ["middle"], ["middle"], n_draws=1).table
    scaled = circuits.head_scaling_curve(model(), task, task, scales=[1.0])
    interval = mean_interval(right[None], resample_prompts(9, 0, LABELS))
    for row in (repaired.query("condition == 'clean'").iloc[0], scaled.iloc[0]):
        assert (row["accuracy"], row["ci_low"], row["ci_high"]) == pytest.approx((5 / 9, interval.low[0], interval.high[0]))
    assert set(repaired["n"]) == {9} and set(repaired["n_clusters"]) == {4}


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda task: circuits.find_codes(model(), task, n_train=3), "find_codes"),
        (lambda task: circuits.decompose_mlp(model(), task, 1, [Head(0, 1)], "middle"), "decompose_mlp"),
    ],
    ids=["find_codes", "decompose_mlp"],
)
def test_what_permutes_prompts_refuses_clusters(call, name):
    with pytest.raises(ValueError, match=f"{name}, .* takes every prompt for independent, and those of .* in 4 clusters"):
        call(tasks()[1])


def test_passages_are_swapped_in_whole_clusters_which_is_a_test_of_their_sums():
    from interp.detectors.support.gold_and_competing_passages import passage_swap_threshold

    gold, competing = np.random.default_rng(0).normal(0.2, 1, (2, 9, 2, 3))
    sums = [np.stack([part[np.equal(LABELS, name)].sum(0) for name in "abcd"]) * 4 / 9 for part in (gold, competing)]
    (expected, rate), clustered, single = (
        passage_swap_threshold(*parts, 199, 0.05, 1, labels)
        for parts, labels in ((sums, None), ((gold, competing), LABELS), ((gold, competing), None))
    )
    np.testing.assert_allclose(clustered[0], expected)
    assert rate == clustered[1] == single[1] and not np.allclose(single[0], expected)


def test_no_function_draws_prompts_without_asking_for_their_clusters():
    calls = [
        node
        for path in Path(interp.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "resample_prompts"
    ]
    assert len(calls) > 9 and all("clusters" in ast.unparse(call.args[2]) for call in calls)
