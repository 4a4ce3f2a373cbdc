"""Statistics against numbers by hand, simulations with known truth, and a second road where there is one."""

from itertools import product

import numpy as np
import pytest

from interp.statistics import (
    Interval,
    benjamini_hochberg,
    cluster_sums,
    expanded_levels,
    independent_units,
    least_p_value,
    mean_interval,
    random_head_control,
    resample_prompts,
    sign_flip_p_value,
)


def test_resamples_are_whole_prompts_that_sum_to_one():
    weights = resample_prompts(7, seed=0, resamples=50).weights
    assert weights.shape == (50, 7)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights * 7, np.round(weights * 7))


def test_weighted_mean_is_the_mean_of_the_drawn_prompts():
    effects, weights = np.array([[3.0, -1.0, 5.0]]), resample_prompts(3, seed=4, resamples=200).weights
    drawn = [np.repeat(effects[0], np.round(3 * row).astype(int)).mean() for row in weights]
    np.testing.assert_allclose((effects @ weights.T)[0], drawn)


def test_interval_of_a_constant_row_has_no_width():
    interval = mean_interval(np.full((2, 6), -1.5), resample_prompts(6, seed=0))
    np.testing.assert_allclose([interval.mean, interval.low, interval.high], -1.5)


@pytest.mark.parametrize(("n_examples", "skewed"), [(8, False), (50, False), (50, True)])
def test_interval_covers_the_true_mean_in_about_95_of_100_samples(n_examples, skewed):
    rng, rows = np.random.default_rng(1), 2000
    effects = rng.exponential(2.0, (rows, n_examples)) - 2 if skewed else rng.normal(0, 3, (rows, n_examples))
    interval = mean_interval(effects, resample_prompts(n_examples, seed=2))
    coverage = ((interval.low <= 0) & (interval.high >= 0)).mean()
    assert 0.92 <= coverage <= 0.97  # standard error of the coverage: 0.005; the weights are shared by all rows


DRAWS = {
    "normal": lambda rng, size: rng.normal(0, 3, size),
    "heavy": lambda rng, size: rng.standard_t(4, size),
    "skewed": lambda rng, size: rng.exponential(2, size) - 2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_examples", "kind"), [(12, "normal"), (24, "normal"), (24, "heavy"), (50, "normal"), (50, "heavy"), (50, "skewed")]
)
def test_intervals_of_1000_sweeps_cover_the_true_means_of_their_heads_at_the_stated_rate(n_examples, kind):
    rng, covered = np.random.default_rng(1), []
    for seed in range(1000):
        true = rng.normal(0, 2, 6)
        effects = true[:, None] + DRAWS[kind](rng, (6, n_examples))
        interval = mean_interval(effects, resample_prompts(n_examples, seed))
        covered.append((interval.low <= true) & (true <= interval.high))
    print(kind, n_examples, np.mean(covered))
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAWS)
def test_of_the_heads_found_in_200_sweeps_the_stated_share_is_false(kind):
    rng, real, false, none = np.random.default_rng(2), np.arange(48) < 12, [], []
    for seed in range(200):
        noise = DRAWS[kind](rng, (48, 24)) * rng.choice([-1, 1], (48, 24))  # symmetric: the test's null hypothesis
        effects = noise + np.where(real, 1.2 * noise.std(), 0.0)[:, None]
        found = benjamini_hochberg(sign_flip_p_value(effects, seed)) <= 0.05
        assert found[real].mean() > 0.5
        false.append((found & ~real).sum() / max(1, found.sum()))
        none.append((benjamini_hochberg(sign_flip_p_value(noise, seed)) <= 0.05).mean())
    for shares in (false, none):
        print(kind, np.mean(shares), np.std(shares) / np.sqrt(200))
        assert np.mean(shares) <= 0.05 + 3 * np.std(shares) / np.sqrt(200)


def test_expanded_levels_give_students_interval_for_normal_data():
    from scipy.stats import norm, t

    wide, mirrored = expanded_levels(8)
    assert wide + mirrored == pytest.approx(1)
    # a bootstrap mean of n normal values has standard deviation sqrt((n - 1) / n) * s / sqrt(n)
    assert norm.ppf(wide) * np.sqrt(7 / 8) == pytest.approx(t.ppf(0.025, 7))


def test_interval_refuses_a_single_prompt():
    with pytest.raises(ValueError, match="at least 2 prompts, got 1"):
        resample_prompts(1, seed=0)


def test_exact_sign_flip_by_hand():
    # signs of (1, 2, 3): sums 6 4 2 0 0 -2 -4 -6. |6|: 2 of 8; for (1, 2, -3) the sum is 0 and all 8 are as far
    p = sign_flip_p_value(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, -3.0], [-1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(p, [2 / 8, 1.0, 4 / 8])


@pytest.mark.parametrize(("n_heads", "n_examples"), [(3, 2), (5, 7), (2, 12), (4, 40), (700, 40)])
def test_the_least_p_value_is_that_of_effects_of_one_sign(n_heads, n_examples):
    effects = np.ones((n_heads, n_examples)) + np.arange(n_examples) / 100
    assert sign_flip_p_value(effects).min() == pytest.approx(least_p_value(n_heads, n_examples))


def test_exact_sign_flip_equals_enumeration():
    effects = np.random.default_rng(3).normal(0.4, 1, (4, 9))
    signs = np.array(list(product([-1, 1], repeat=9)))
    expected = [(np.abs(signs @ row) >= abs(row.sum()) - 1e-9).mean() for row in effects]
    np.testing.assert_allclose(sign_flip_p_value(effects), expected)


def test_sums_that_tie_up_to_rounding_count_as_equal():
    row = np.array([[0.1, 0.2, 0.3, -0.6 + 0.6]])  # 0.1 + 0.2 + 0.3 depends on the order of addition; the last value is 0
    assert sign_flip_p_value(row)[0] == 2 / 8


def test_random_sign_flip_agrees_with_the_exact_one():
    from scipy.stats import permutation_test

    effects = np.random.default_rng(5).normal(0.35, 1, (3, 14))
    exact = [permutation_test((row,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue for row in effects]
    np.testing.assert_allclose(sign_flip_p_value(effects, seed=1, flips=40_000), exact, atol=0.01)


def test_a_head_without_any_effect_has_p_one():
    assert sign_flip_p_value(np.zeros((1, 6)))[0] == 1
    assert sign_flip_p_value(np.zeros((1, 20)))[0] == 1


@pytest.mark.parametrize("n_examples", [9, 30])
def test_p_values_are_uniform_when_nothing_happens(n_examples):
    p = sign_flip_p_value(np.random.default_rng(8).normal(0, 1, (3000, n_examples)), seed=9, flips=2000)
    for level in (0.05, 0.25, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 3000))


def test_one_strong_head_among_a_thousand_can_be_found():
    effects = np.random.default_rng(0).normal(0, 1, (1024, 24))
    effects[700] -= 6
    q = benjamini_hochberg(sign_flip_p_value(effects))
    assert q[700] <= 0.05


def test_benjamini_hochberg_by_hand():
    # sorted p: .01 .02 .03 .5, times 4/rank: .04 .04 .04 .5
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.03, 0.5, 0.01, 0.02])), [0.04, 0.5, 0.04, 0.04])
    # times 3/rank: .003 .45 .9; the second may not exceed the third, nor any of them 1
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.9, 0.001, 0.3])), [0.9, 0.003, 0.45])
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.6, 0.7])), [0.7, 0.7])


def test_benjamini_hochberg_equals_scipy():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(2).uniform(size=37) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))


def test_control_is_the_mean_of_the_other_heads_of_the_group():
    effects = np.array([[1.0, 3.0], [4.0, 4.0], [6.0, 8.0], [-2.0, 0.0]])  # means 2 4 7 -1
    resamples = resample_prompts(2, seed=0)
    np.testing.assert_allclose(random_head_control(effects, ["all"] * 4, resamples).mean, [10 / 3, 8 / 3, 5 / 3, 13 / 3])
    by_layer = random_head_control(effects, [0, 1, 0, 1], resamples).mean
    np.testing.assert_allclose(by_layer, [7, -1, 2, 4])


def test_head_alone_in_its_group_has_no_control():
    control = random_head_control(np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]]), ["a", "b", "b"], resample_prompts(2, seed=0))
    assert np.isnan([control.mean[0], control.low[0], control.high[0]]).all()
    assert not np.isnan([control.mean[1:], control.low[1:], control.high[1:]]).any()


def test_control_of_a_head_does_not_depend_on_that_head():
    effects = np.random.default_rng(3).normal(0, 1, (9, 11))
    louder = effects.copy()
    louder[4] += 100
    resamples = resample_prompts(11, seed=5)
    before, after = (random_head_control(e, ["all"] * 9, resamples, seed=5) for e in (effects, louder))
    np.testing.assert_allclose([before.low[4], before.high[4]], [after.low[4], after.high[4]])
    assert after.high[3] > before.high[3] + 10


def test_control_interval_covers_the_mean_of_heads_and_prompts():
    rng, hits = np.random.default_rng(11), 0
    for trial in range(200):
        heads, prompts = rng.normal(0, 1, (40, 1)), rng.normal(0, 0.5, (1, 30))
        effects = heads + prompts + rng.normal(0, 0.5, (40, 30))
        control = random_head_control(effects, ["all"] * 40, resample_prompts(30, seed=trial, resamples=400), seed=trial)
        hits += control.low[0] <= 0 <= control.high[0]
    assert hits >= 180  # 95% of 200 is 190, standard error 3


@pytest.mark.parametrize(
    ("interval", "control", "expected"),
    [
        ((-6.0, -5.0), (-1.8, -0.1), True),
        ((0.6, 0.9), (-0.5, 0.5), True),
        ((0.5, 0.9), (-0.5, 0.5), False),  # they touch
        ((0.6, 0.9), (-0.7, -0.2), False),  # apart, but not as far from 0 as the others
        ((-0.05, -0.01), (-1.8, -0.1), False),  # clear of the others because it does nothing
        ((-3.0, 2.0), (-0.1, 0.1), False),  # holds 0
        ((-6.0, -5.0), (np.nan, np.nan), False),
    ],
)
def test_interval_is_beyond_the_control_when_all_of_it_is_farther_from_0(interval, control, expected):
    one, other = (Interval(*(np.array([x]) for x in (sum(ends) / 2, *ends))) for ends in (interval, control))
    assert one.exceeds(other).tolist() == [expected]


def test_statistics_are_the_same_for_the_same_seed_and_differ_for_another():
    effects = np.random.default_rng(0).normal(0.3, 1, (4, 21))
    np.testing.assert_array_equal(sign_flip_p_value(effects, seed=1), sign_flip_p_value(effects, seed=1))
    assert (sign_flip_p_value(effects, seed=1) != sign_flip_p_value(effects, seed=2)).any()
    first, again, other = (resample_prompts(5, seed=seed).weights for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_work_in_blocks_gives_the_same_numbers(monkeypatch):
    from interp import statistics

    effects, resamples = np.random.default_rng(0).normal(0.2, 1, (13, 19)), resample_prompts(19, seed=0)
    whole = mean_interval(effects, resamples), random_head_control(effects, ["all"] * 13, resamples)
    monkeypatch.setattr(statistics, "MAX_CELLS", 3 * len(resamples.weights))
    parts = mean_interval(effects, resamples), random_head_control(effects, ["all"] * 13, resamples)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose([a.low, a.high], [b.low, b.high], rtol=1e-12)


LABELS = ["b", "c", "a", "c", "c", "b", "c"]  # one prompt of a, two of b, four of c


def test_a_resample_of_clusters_weights_the_prompts_of_a_cluster_alike_by_hand():
    drawn = np.random.default_rng([4, 1]).multinomial(3, [1 / 3] * 3, size=60)  # how often a, b and c are drawn
    resamples = resample_prompts(7, seed=4, clusters=LABELS, resamples=60)
    for (a, b, c), row in zip(drawn, resamples.weights, strict=True):
        n = 1 * a + 2 * b + 4 * c
        np.testing.assert_allclose(row, np.array([b, c, a, c, c, b, c]) / n)
    assert (resamples.n_units, resamples.sizes) == (3, {"n": 7, "n_clusters": 3})


def test_the_mean_of_a_resample_is_that_of_the_prompts_of_the_drawn_clusters():
    effects = np.array([3.0, -1.0, 5.0, 2.0, 0.5, -4.0, 7.0])
    drawn = np.random.default_rng([9, 1]).multinomial(3, [1 / 3] * 3, size=40)
    of = {name: effects[np.equal(LABELS, name)] for name in "abc"}
    means = [np.concatenate([np.tile(of[name], k) for name, k in zip("abc", row, strict=True)]).mean() for row in drawn]
    np.testing.assert_allclose(resample_prompts(7, 9, LABELS, 40).weights @ effects, means)


@pytest.mark.parametrize("n_examples", [2, 7, 64])
def test_without_clusters_and_with_clusters_of_one_prompt_nothing_changes_by_a_bit(n_examples):
    expected = np.random.default_rng([5, 1]).multinomial(n_examples, [1 / n_examples] * n_examples, size=2000) / n_examples
    single = resample_prompts(n_examples, 5, [f"{i:03}" for i in range(n_examples)])
    assert resample_prompts(n_examples, 5).weights.tobytes() == expected.tobytes() == single.weights.tobytes()
    effects = np.random.default_rng(0).normal(0.2, 1, (3, n_examples))
    assert cluster_sums(effects, None) is effects
    assert mean_interval(effects, single).low.tobytes() == mean_interval(effects, resample_prompts(n_examples, 5)).low.tobytes()


def test_a_test_over_clusters_flips_their_prompts_together_by_hand():
    # sums of a, b, c: 1, 2 and 3 as in the test above of three prompts; then 1, 2, -3
    effects = np.array([[1.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0], [4.0, -9.0, 1.0, 2.0, 3.0, -2.0, 1.0]])
    np.testing.assert_allclose(cluster_sums(effects, LABELS), [[1, 2, 3], [1, 2, -3]])
    np.testing.assert_allclose(sign_flip_p_value(cluster_sums(effects, LABELS)), [2 / 8, 1.0])


def correlated(rng, n_rows, sizes=(5,) * 12):
    """Effects of prompts that share most of their noise with their cluster, and the labels of the clusters."""
    labels = [f"{i:02}" for i, size in enumerate(sizes) for _ in range(size)]
    shared = rng.normal(size=(n_rows, len(sizes)))[:, independent_units(len(labels), labels)]
    return shared + 0.3 * rng.normal(size=shared.shape), labels


@pytest.mark.parametrize(
    ("sizes", "least"),
    [((5,) * 12, 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)), ((1, 1, 1, 20, 1, 1, 1, 20, 1, 1, 1, 9), 0.87)],
    ids=["equal", "three large ones"],  # of 2,000 trials 0.935 and 0.917
)
def test_intervals_cover_the_truth_over_clusters_and_not_over_prompts_that_are_alike(sizes, least):
    held = {"clusters": 0, "prompts": 0}
    for trial in range(300):
        effects, labels = correlated(np.random.default_rng([trial, 9]), 1, sizes)
        for name, clusters in (("clusters", labels), ("prompts", None)):
            interval = mean_interval(effects, resample_prompts(sum(sizes), trial, clusters, 400))
            held[name] += bool(interval.low[0] <= 0 <= interval.high[0])
    print(sizes, {name: n / 300 for name, n in held.items()})
    assert least <= held["clusters"] / 300 <= 0.99
    assert held["prompts"] / 300 < 0.75


@pytest.mark.parametrize("sizes", [(5,) * 12, (2, 7, 3, 4, 1, 6, 5, 8, 3)], ids=["equal", "unequal"])
def test_p_values_over_clusters_are_uniform_when_nothing_happens(sizes):
    effects, labels = correlated(np.random.default_rng(8), 3000, sizes)
    p = sign_flip_p_value(cluster_sums(effects, labels))
    for level in (0.0625, 0.25, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 3000))
    assert (sign_flip_p_value(effects, seed=9, flips=400) <= 0.0625).mean() > 0.2


def test_an_interval_refuses_a_single_cluster_and_clusters_of_other_prompts():
    with pytest.raises(ValueError, match="at least 2 clusters, and all 5 prompts are of one: add prompts of others"):
        resample_prompts(5, 0, ["a"] * 5)
    with pytest.raises(ValueError, match="clusters for 7 prompts and values for 6"):
        resample_prompts(6, 0, LABELS)
