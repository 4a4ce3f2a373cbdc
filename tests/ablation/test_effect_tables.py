"""Tables of heads: what each column says, and which sweeps are refused."""

from dataclasses import replace

import numpy as np
import pytest

from interp.ablation.effect_tables import agreement
from interp.heads import Head, HeadScores
from interp.records import RunRecord
from tests.support.sweep_results import N_EXAMPLES, N_HEADS, N_LAYERS, planted, sweep_result


def test_planted_heads_are_distinct_and_no_other():
    table = sweep_result(planted()).heads()
    assert table[table["exceeds_control"]]["label"].tolist() == ["L1H1", "L2H3"]
    assert table[table["exceeds_layer_control"]]["label"].tolist() == ["L1H1", "L2H3"]
    assert (table["ci_low"] <= table["effect"]).all() and (table["effect"] <= table["ci_high"]).all()


def test_layout_in_memory_does_not_change_the_table():
    result = sweep_result(planted())
    turned = replace(result, values=np.asfortranarray(result.values))
    assert turned.effects.strides != result.effects.strides
    assert turned.heads().equals(result.heads())


def test_columns_of_a_row_by_hand():
    effects = planted()
    result = sweep_result(effects, baseline=np.arange(N_EXAMPLES))
    row = result.heads().iloc[6]
    assert (row["layer"], row["head"], row["kv_head"], row["label"]) == (1, 1, 0, "L1H1")
    assert row["effect"] == pytest.approx(effects[6].mean())
    assert row["baseline"] == pytest.approx(8)  # mean of 0..16
    assert row["value"] == pytest.approx(8 + effects[6].mean())
    assert row["n"] == 17 and row["sign_consistency"] == 1
    assert row["control"] == pytest.approx(np.delete(effects, 6, 0).mean())
    assert row["layer_control"] == pytest.approx(effects[[5, 7, 8, 9]].mean())
    assert (row["metric"], row["unit"], row["ablation"], row["positions"]) == ("logit_diff", "logits", "zero", "all")
    assert (row["task"], row["model"], row["revision"], row["seed"]) == ("ioi", "toy", "0123456789", 3)


def test_share_of_prompts_with_the_sign_of_the_mean_by_hand():
    effects = planted()[:2]
    effects[0], effects[1] = [-3.0, *[0.1] * 16], 0.0
    table = sweep_result(effects).heads()
    assert table["sign_consistency"].tolist() == pytest.approx([1 / 17, 1])  # mean -1.4/17: one prompt; mean 0: all are 0


def test_a_layer_of_strong_heads_is_special_but_its_heads_are_not_within_it():
    table = sweep_result(planted(strong=range(5), size=-1.0)).heads()
    assert table["exceeds_control"].tolist() == [True] * 5 + [False] * 10
    assert not table["exceeds_layer_control"].any()


def test_head_without_effect_is_not_distinct_among_strong_ones():
    effects = planted(strong=range(14))
    effects[14] = np.linspace(-0.03, -0.01, N_EXAMPLES)
    table = sweep_result(effects).heads()
    last = table.iloc[14]
    assert last["ci_low"] > last["control_ci_high"] and last["q_value"] <= 0.05
    assert not last["exceeds_control"] and not last["exceeds_layer_control"]


def test_no_head_of_a_null_model_is_reported_beyond_the_stated_rate():
    reports = [sweep_result(planted(size=0.0, seed=seed), record=RunRecord("toy", seed=seed)).heads() for seed in range(50)]
    wrong = [bool((table["q_value"] <= 0.05).any()) for table in reports]
    assert sum(wrong) <= 7  # at a family-wise rate of 5%, more than 7 of 50 has a probability of 1%
    assert sum(table["exceeds_control"].any() for table in reports) <= sum(wrong)


def test_one_head_has_no_control_and_is_not_distinct():
    row = sweep_result(planted()[6:7]).heads().iloc[0]
    assert np.isnan(row["control"]) and np.isnan(row["layer_control"])
    assert not row["exceeds_control"] and row["p_value"] < 0.001


def test_interaction_is_the_pair_minus_its_heads():
    effects = planted(strong=())[:3]
    pair = effects[0] + effects[1] - 5 + np.linspace(-1, 1, N_EXAMPLES)
    variants = [(Head(0, 0),), (Head(0, 1),), (Head(0, 2),), (Head(0, 0), Head(0, 1))]
    table = sweep_result([*effects, pair], variants).heads()
    assert table["label"].tolist() == ["L0H0", "L0H1", "L0H2", "L0H0+L0H1"]
    assert table["layer2"].tolist() == [-1, -1, -1, 0] and table["head2"].tolist() == [-1, -1, -1, 1]
    last = table.iloc[3]
    assert last["interaction"] == pytest.approx(-5)
    assert -5.4 < last["interaction_ci_low"] < -5 < last["interaction_ci_high"] < -4.6  # standard error of the mean: 0.15
    assert table["interaction"].isna().tolist() == [True, True, True, False]


def test_pairs_do_not_change_the_statistics_of_single_heads():
    effects = planted()
    alone = sweep_result(effects).heads()
    heads = [(Head(*divmod(i, N_HEADS)),) for i in range(len(effects))]
    both = sweep_result([*effects, effects[0] * 9], [*heads, (Head(0, 0), Head(0, 1))]).heads()
    columns = ["effect", "ci_low", "q_value", "control_ci_low", "layer_control_ci_high", "exceeds_control"]
    assert both[columns].iloc[:-1].equals(alone[columns])


def test_pair_without_its_single_heads_is_refused():
    with pytest.raises(ValueError, match="needs the effect of each head alone, and L0H1 was only"):
        sweep_result(planted()[:2], [(Head(0, 0),), (Head(0, 0), Head(0, 1))]).heads()


def test_examples_hold_every_value_of_the_sweep():
    result = sweep_result(planted(), baseline=np.arange(N_EXAMPLES))
    table = result.examples()
    assert len(table) == N_LAYERS * N_HEADS * N_EXAMPLES
    row = table[(table["label"] == "L2H3") & (table["example"] == 4)].iloc[0]
    assert row["baseline"] == 4 and row["value"] == result.values[13, 4] and row["effect"] == result.effects[13, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_number_that_is_not_finite_is_refused_with_the_head_named(bad):
    effects = planted()
    effects[8, 2] = bad
    with pytest.raises(ValueError, match=f"L1H3 ablated \\(zero\\) is {bad} on example 2"):
        sweep_result(effects).heads()


def test_clean_run_that_is_not_finite_is_refused():
    baseline = np.ones(N_EXAMPLES)
    baseline[5] = np.nan
    with pytest.raises(ValueError, match="clean run is nan on example 5"):
        sweep_result(planted(), baseline=baseline).heads()


def test_sweep_that_changed_nothing_is_refused_but_one_silent_head_is_not():
    with pytest.raises(ValueError, match="Every effect of zero at positions 'all' on logit_diff is exactly 0"):
        sweep_result(np.zeros((4, 6))).heads()
    effects = planted()
    effects[2] = 0
    row = sweep_result(effects).heads().iloc[2]
    assert (row["effect"], row["p_value"], row["ci_low"], row["ci_high"]) == (0, 1, 0, 0)


def test_same_effect_everywhere_is_refused():
    with pytest.raises(ValueError, match="same effect"):
        sweep_result(np.full((4, 6), -0.5), baseline=np.zeros(6)).heads()


def test_values_of_another_shape_are_refused():
    result = sweep_result(planted())
    broken = replace(result, variants=result.variants[:-1])
    with pytest.raises(ValueError, match="14 heads"):
        broken.heads()


def test_scores_leave_unmeasured_heads_out():
    result = sweep_result(planted()[:6])
    scores = result.scores()
    assert scores.values.shape == (3, 5) and np.isnan(scores.values).sum() == 9
    assert scores[1, 0] == pytest.approx(result.effects[5].mean())
    assert (scores.name, scores.unit, scores.bounds) == ("effect on logit_diff", "logits", (None, None))


def test_scores_of_an_unknown_column_name_those_there_are():
    result = sweep_result(planted())
    with pytest.raises(LookupError, match=r"'efect'.*effect, n, ci_low"):
        result.scores("efect")


def scores(values):
    return HeadScores("effect", np.array(values, dtype=float), "logits", (None, None), RunRecord("toy"))


def test_agreement_by_hand():
    exact = scores([[-4, 1, 0], [-0.5, 2, np.nan]])
    estimate = scores([[-3, 2, 5], [0.5, 1, -9]])
    found = agreement(estimate, exact, k=2)
    # ranks of -4 1 0 -.5 2: 1 4 3 2 5; of -3 2 5 .5 1: 1 4 5 2 3; squared differences 0 0 4 0 4: rho = 1 - 6*8/(5*24) = 0.6
    assert found == {"n": 5, "spearman": pytest.approx(0.6), "k": 2, "top_overlap": 0.5, "same_sign": 0.75}


def test_agreement_of_scores_with_themselves_is_complete():
    same = scores(np.random.default_rng(0).normal(size=(3, 5)))
    found = agreement(same, same, k=99)
    assert found == {"n": 15, "spearman": pytest.approx(1), "k": 15, "top_overlap": 1, "same_sign": 1}


def test_agreement_needs_a_shared_head_of_one_model():
    with pytest.raises(ValueError, match="No head"):
        agreement(scores([[1, np.nan]]), scores([[np.nan, 1]]))
    with pytest.raises(ValueError, match="two models"):
        agreement(scores([[1, 2]]), scores([[1], [2]]))
    assert agreement(scores([[1, 1, 1]]), scores([[1, 2, 3]]))["spearman"] is None
