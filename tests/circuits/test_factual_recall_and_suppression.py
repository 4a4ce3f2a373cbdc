"""Recall of facts: decompositions against planted sums, heads and suppression against the closed forms of planted models."""

from dataclasses import replace
from functools import cache
from math import exp, log

import numpy as np
import pytest
import torch

from interp.circuits import (
    decompose_mlp,
    head_scaling_curve,
    residual_contributions,
    ridge_decompose,
    subject_heads,
    suppression,
)
from interp.engine import run
from interp.graph import Node
from interp.heads import Head
from interp.models import plant
from interp.models.value_and_output_weights import output_weights
from interp.tasks import Example, Task
from tests.support.tiny_models import tiny, tiny_tokens

N_TOPICS, EACH, WIDTH = 10, 6, 40
ALPHA = np.array([1.5, -0.7, 0.0])
MOVER, NEGATIVE = Head(3, 1), Head(4, 2)


def sum_of_parts(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Random parts, their sum with ``ALPHA`` and a constant, that constant, and the topics."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(3, N_TOPICS * EACH, WIDTH)) + rng.normal(size=(3, 1, WIDTH))
    constant = rng.normal(size=WIDTH)
    output = np.tensordot(ALPHA, parts, 1) + constant + noise * rng.normal(size=(N_TOPICS * EACH, WIDTH))
    return parts, output, constant, [f"topic {i // EACH}" for i in range(N_TOPICS * EACH)]


def test_a_planted_sum_is_recovered_exactly():
    parts, output, constant, topics = sum_of_parts(0)
    found = ridge_decompose(parts, output, topics, n_resamples=20, n_shuffles=3)
    np.testing.assert_allclose(found.coefficients, ALPHA, atol=1e-10)
    np.testing.assert_allclose(found.intercept, constant, atol=1e-10)
    assert (found.r2, found.r2_held_out, found.ridge) == pytest.approx((1, 1, 0))
    assert found.condition < 2


def test_a_planted_sum_in_noise_is_recovered_as_well_as_its_variance_allows():
    noise = np.sqrt((ALPHA**2).sum() * 0.005 / 0.995)  # a share of .005 of the variance
    parts, output, _, topics = sum_of_parts(noise)
    found = ridge_decompose(parts, output, topics)
    assert np.abs(found.coefficients - ALPHA).max() < 3 * noise / np.sqrt(N_TOPICS * EACH * WIDTH)
    assert (found.r2, found.r2_held_out) == pytest.approx((0.995, 0.995), abs=1e-3)
    assert found.p_value == 1 / 100


def test_intervals_over_topics_hold_the_planted_coefficients():
    held = []
    for seed in range(20):
        parts, output, _, topics = sum_of_parts(1.0, seed)
        found = ridge_decompose(parts, output, topics, n_resamples=200, n_shuffles=1)
        held += ((found.ci_low < ALPHA) & (found.ci_high > ALPHA)).tolist()
        assert (found.ci_high - found.ci_low).max() < 8 / np.sqrt(N_TOPICS * EACH * WIDTH)  # twice what the noise asks for
    assert np.mean(held) > 0.85


def test_ridge_regression_is_least_squares_with_a_constant_a_coordinate_and_rows_of_the_ridge():
    parts, output, _, topics = sum_of_parts(3.0)
    found = ridge_decompose(parts, output, topics, n_resamples=2, n_shuffles=1)
    constants = np.tile(np.eye(WIDTH), (N_TOPICS * EACH, 1))
    design = np.hstack([parts.reshape(3, -1).T, constants])
    around = parts - parts.mean(1, keepdims=True)
    penalty = np.sqrt(found.ridge * np.square(around).sum() / 3) * np.eye(3, 3 + WIDTH)
    solved = np.linalg.lstsq(np.vstack([design, penalty]), np.concatenate([output.ravel(), np.zeros(3)]), rcond=None)[0]
    np.testing.assert_allclose(found.coefficients, solved[:3], atol=1e-9)
    np.testing.assert_allclose(found.intercept, solved[3:], atol=1e-9)


def test_what_is_rotated_or_unrelated_is_not_described():
    parts, output, _, topics = sum_of_parts(0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    rotated = ridge_decompose(parts, parts[0] @ rotation, topics, n_resamples=2, n_shuffles=1)
    assert rotated.r2_held_out < 0.05
    unrelated = ridge_decompose(parts, np.random.default_rng(2).normal(size=output.shape), topics, n_resamples=2)
    assert abs(unrelated.r2_held_out) < 0.01 and unrelated.p_value > 0.05


def test_parts_that_are_alike_are_reported_by_their_condition():
    parts, output, _, topics = sum_of_parts(0.1)
    twins = np.concatenate([parts, parts[:1] + 1e-3 * parts[1:2]])
    assert ridge_decompose(twins, output, topics, n_resamples=2, n_shuffles=1).condition > 1e3


def test_too_few_topics_and_constant_outputs_are_refused():
    parts, output, constant, topics = sum_of_parts(0)
    with pytest.raises(ValueError, match="4 topics are too few"):
        ridge_decompose(parts[:, : 4 * EACH], output[: 4 * EACH], topics[: 4 * EACH])
    with pytest.raises(ValueError, match="the same for every prompt"):
        ridge_decompose(parts, np.tile(constant, (len(output), 1)), topics)


@cache
def ragged() -> Task:
    """Prompts of two lengths in mixed order, about seven subjects."""
    rows = [
        row for short, long in zip(tiny_tokens(7, 6, seed=1), tiny_tokens(7, 9, seed=2), strict=True) for row in (long, short)
    ]
    examples = []
    for i, row in enumerate(row.tolist() for row in rows):
        row[2] = 10 + i // 2
        corrupted = [*row[:2], 30, *row[3:]]
        examples.append(Example(tuple(row), tuple(corrupted), (50 + i,), (5,), {"subject": (1, 3)}))
    return Task("ragged", tuple(examples), "logit_diff")


def test_what_is_written_at_the_end_is_what_hooks_see_and_adds_up():
    model, task = tiny("llama"), ragged()
    written = residual_contributions(model, task)
    torch.testing.assert_close(written.contributions.sum(0), written.final_residual, rtol=0, atol=1e-4)
    for i in (0, 3):
        seen = run(model, [task.examples[i]], capture=["z.1", "mlp_out.1", "resid_post.2"])
        torch.testing.assert_close(written[Node("mlp", 1)][i], seen["mlp_out.1"][0, -1], rtol=0, atol=1e-4)
        torch.testing.assert_close(written.final_residual[i], seen["resid_post.2"][0, -1], rtol=0, atol=1e-4)
        head = seen["z.1"][0, -1, 4] @ output_weights(model, 1)[4]
        torch.testing.assert_close(written[Node("head", 1, 4)][i], head, rtol=0, atol=1e-4)


def test_an_mlp_is_decomposed_from_its_own_heads():
    model, task, heads = tiny("llama"), ragged(), [Head(0, 5), Head(1, 2)]
    found = decompose_mlp(model, task, 1, heads)
    runs = [run(model, [e], capture=["z.0", "z.1", "mlp_out.1"]) for e in task]
    parts = [
        np.stack(
            [(seen[f"z.{h.layer}"][0, -1, h.head] @ output_weights(model, h.layer)[h.head]).detach().numpy() for seen in runs]
        )
        for h in heads
    ]
    output = np.stack([seen["mlp_out.1"][0, -1].numpy() for seen in runs])
    again = ridge_decompose(np.stack(parts).astype(float), output.astype(float), [e.clean[2] for e in task])
    np.testing.assert_allclose(found.coefficients, again.coefficients, atol=1e-4)
    assert found.r2_held_out == pytest.approx(again.r2_held_out, abs=1e-4)
    with pytest.raises(LookupError, match=r"no edge a2.h0->m1"):
        decompose_mlp(model, task, 1, [Head(2, 0)])


@cache
def suppressing():
    """A name mover in layer 3 and one that predicts against the name in layer 4, the last."""
    places = {Head(0, 0): "duplicate_token", Head(1, 3): "s_inhibition", MOVER: "name_mover", NEGATIVE: "negative_name_mover"}
    planted = plant(places, seed=1, n_layers=5, n_heads=4, length=21, n_names=7, dtype="float64")
    return planted, Task("ioi", tuple(Example(*prompt) for prompt in planted.prompts("ioi", 8)), "logit_diff")


def others(task: Task) -> float:
    """The mean share of prompts whose answer is another one: what a mean over prompts takes from the answer."""
    answers = np.array([e.answers[0] for e in task])
    return float(np.mean(answers[:, None] != answers))


def test_the_head_that_carries_the_name_comes_first_and_the_one_against_it_last():
    planted, task = suppressing()
    table = subject_heads(planted.model, task, "io").set_index("label")
    assert set(table["ablation"]) == {"mean"}
    assert table.index[0] == str(MOVER) and table.index[-1] == str(NEGATIVE)
    assert table.loc[str(MOVER), ["attention", "subject"]].tolist() == pytest.approx([1, -10 * others(task)], abs=1e-4)
    assert table.loc[str(NEGATIVE), ["attention", "answer"]].tolist() == pytest.approx([1, 3 * others(task)], abs=1e-4)
    assert table["subject"].iloc[1:-1].abs().max() < 1e-4
    with pytest.raises(LookupError, match=r"No mark is called 'subject'.*io, s1"):
        subject_heads(planted.model, task)


@pytest.mark.parametrize("name", ["llama", "mistral"])  # mistral's windows of 4 end inside the mark
def test_attention_to_the_subject_is_what_patterns_show(name):
    task = Task("ragged", tuple(replace(e, marks={"subject": (1, 7 - i % 2)}) for i, e in enumerate(ragged())), "logit_diff")
    table = subject_heads(tiny(name), task)
    shown = np.zeros((3, 6))
    for i, example in enumerate(task):
        seen = run(tiny(name), [example], capture=["pattern.0", "pattern.1", "pattern.2"])
        for layer in range(3):
            shown[layer] += seen[f"pattern.{layer}"][0, :, -1, 1 : 7 - i % 2].sum(-1).numpy() / len(task)
    assert np.ptp(shown) > 0.05
    found = {(row.layer, row.head): row.attention for row in table.itertuples()}
    assert found == {head: pytest.approx(weight, abs=1e-5) for head, weight in np.ndenumerate(shown)}


def test_the_last_layer_holds_back_what_was_planted_against_the_answer():
    planted, task = suppressing()
    table = suppression(planted.model, task).set_index("component")
    assert set(table["ablation"]) == {"mean"}
    assert table.loc["a4.h2", "effect"] == pytest.approx(3 * others(task), abs=1e-4)
    assert table["effect"].drop(["a4.h2", "all"]).abs().max() < 1e-4
    assert table.loc["all", ["effect", "share"]].tolist() == pytest.approx([3 * others(task), 1], abs=1e-4)


def test_scaling_a_head_down_gives_the_answer_back_and_costs_nothing_where_the_head_is_silent():
    planted, task = suppressing()
    scales = (0.0, 0.5, 1.0, 2.0)
    table = head_scaling_curve(planted.model, task, task, [NEGATIVE], scales)
    answer = [10 - 3 * scale for scale in scales]
    expected = [a - log(exp(a) + planted.model.facts.d_vocab - 1) for a in answer]
    assert table["answer_logprob"].tolist() == pytest.approx(expected, abs=1e-4)
    assert table["accuracy"].tolist() == [1, 1, 1, 1]
    assert table["intervention"].tolist() == ["scale 0", "scale 0.5", "scale 1", "scale 2"] and set(table["heads"]) == {"L4H2"}
    assert table["control_kl"].iloc[2] == 0 and (table["control_kl"].iloc[[0, 1, 3]] > 1e-4).all()
    silent = Task("repeats", tuple(Example(*p) for p in planted.prompts("needle", 5)), "logit_diff")
    assert head_scaling_curve(planted.model, task, silent, [NEGATIVE], scales)["control_kl"].max() < 1e-6
    everything = head_scaling_curve(planted.model, task, silent, scales=(0.0,))
    assert everything["answer_logprob"].tolist() == pytest.approx(expected[:1], abs=1e-4)
