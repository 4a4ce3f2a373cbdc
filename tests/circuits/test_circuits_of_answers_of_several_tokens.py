"""Edges and circuits of teacher-forced answers: the sum over the tokens of the answer, each predicted from a prompt of its own.

The log-probability of an answer is the sum over its tokens, and what is predicted at a position depends on no later one. A changed
run of the whole prompt therefore changes the answer by the sum of what it changes on prompts that end before each of its tokens, whose
answers have one token.
"""

from dataclasses import replace

import numpy as np
import pytest

from interp.circuits import (
    bisect_faithfulness,
    circuit_outcomes,
    faithfulness_curve,
    patch_grid,
    path_patch,
    residual_contributions,
    score_edges,
    score_nodes,
    score_positions,
)
from interp.circuits.edge_method_and_ablation_names import EDGE_METHODS
from interp.circuits.edge_replacement import resample_corrupted_prompts
from interp.heads import Head
from interp.tasks.task import Example, Task
from tests.engine.sweep.test_answers_of_several_tokens import SIZES, several
from tests.support.tiny_models import tiny

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
OWNERS = np.repeat(range(len(SIZES)), [n for _, n in SIZES])


def token_by_token(task: Task) -> Task:
    """Every token of every answer as an example of its own."""
    found = []
    for example in task:
        for i, token in enumerate(example.answer_tokens):
            end = len(example.prompt) + i
            found.append(Example(example.clean[:end], example.corrupted[:end], (token,), ()))
    return Task("tokens", tuple(found), "answer_logprob")


def summed(values: np.ndarray) -> np.ndarray:
    """Values [... n_tokens] of ``token_by_token`` by example."""
    return np.stack([values[..., np.equal(OWNERS, i)].sum(-1) for i in range(len(SIZES))], -1)


@FAMILIES
@pytest.mark.parametrize("ablation", ["counterfactual", "zero"])
@pytest.mark.parametrize("method", sorted({*EDGE_METHODS} - {"eap-ig-outputs"}))
def test_scores_of_edges_are_sums_over_the_tokens_of_the_answer(family, ablation, method):
    model, how = tiny(family), {"method": method, "steps": 3, "ablation": ablation}
    found, by_token = (score_edges(model, task, **how) for task in (several(), token_by_token(several())))
    for own, one in ((found.values, by_token.values), (found.clean, by_token.clean), (found.corrupted, by_token.corrupted)):
        np.testing.assert_allclose(own, summed(one), rtol=0, atol=1e-5 * max(1, np.abs(own).max()))
    assert np.abs(found.values).max() > 0.05


@FAMILIES
@pytest.mark.parametrize("ablation", ["counterfactual", "zero"])
def test_circuits_are_sums_over_the_tokens_of_the_answer(family, ablation):
    model = tiny(family)
    n_edges = len(score_edges(model, several(), method="eap").graph.edges)
    masks = np.random.default_rng(0).random((7, n_edges)) < np.linspace(0, 1, 7)[:, None]
    found, by_token = (
        circuit_outcomes(model, task, masks, ablation=ablation) for task in (several(), token_by_token(several()))
    )
    np.testing.assert_allclose(found, summed(by_token), rtol=0, atol=3e-5)
    assert np.ptp(found, axis=0).min() > 1e-3


@FAMILIES
def test_estimates_at_the_outputs_of_readers_are_nearly_the_sums(family):
    """Nearly: the share of its path that an edge moves its reader is measured over all positions of a prompt."""
    model, how = tiny(family), {"method": "eap-ig-outputs", "steps": 3}
    found, by_token = (score_edges(model, task, **how) for task in (several(), token_by_token(several())))
    into_logits = [edge.reader.kind == "logits" for edge in found.graph.edges]
    np.testing.assert_allclose(found.values[into_logits], summed(by_token.values)[into_logits], rtol=0, atol=3e-5)
    assert np.corrcoef(found.effects, summed(by_token.values).mean(1))[0, 1] > 0.99


def test_exact_top_and_faithfulness_take_such_answers():
    model, task = tiny("llama"), several()
    exact, top = score_edges(model, task, method="exact"), score_edges(model, task, exact_top=30)
    patched = ~np.isnan(top.effects)
    assert patched.sum() == 30
    np.testing.assert_allclose(top.values[patched], exact.values[patched], rtol=0, atol=3e-5)
    curve = faithfulness_curve(model, task, exact, shares=[0.5, 1.0], n_draws=1)
    assert curve.table["faithfulness"].iloc[1] == pytest.approx(1, abs=1e-4)
    assert curve.clean == pytest.approx(exact.clean.mean(), abs=1e-4)
    size = bisect_faithfulness(model, task, exact, 0.5, n_draws=0).size_at(0.5)
    assert size is not None
    both = faithfulness_curve(model, task, exact, shares=[n / len(exact.graph.edges) for n in (size - 1, size)], n_draws=0)
    assert both.table["n_edges"].tolist() == [size - 1, size]
    assert both.table["faithfulness"].iloc[0] < 0.5 <= both.table["faithfulness"].iloc[1]


def test_another_prompt_keeps_the_tokens_of_the_answer():
    task = replace(several(), examples=tuple(several(seed=seed).examples[i] for i in range(4) for seed in (5, 6)))
    paired = resample_corrupted_prompts(task, 0)  # nine tokens each, two of answers of three, of four, of one and of two
    for i, (example, own) in enumerate(zip(paired, task, strict=True)):
        n, other = len(own.prompt), task.examples[i ^ 1]
        assert example.clean == own.clean and example.corrupted == other.prompt + own.clean[n:] != own.clean
    model = tiny("llama")
    of_three = replace(task, examples=task.examples[:2])
    for ablation, prompts in (("resample", task), ("mean", of_three)):
        scores = score_edges(model, prompts, method="exact", ablation=ablation)
        assert np.abs(scores.effects).max() > 1e-3 and np.isfinite(scores.values).all()
    with pytest.raises(ValueError, match="those of 9 tokens in task 'several' have answers of 1 and 2 and 3 and 4 tokens"):
        score_edges(model, task, method="exact", ablation="mean")
    with pytest.raises(ValueError, match="example 2 is the only one with 9 tokens and an answer of 1"):
        resample_corrupted_prompts(several().select([0, 1, 2, 3]), 0)
    by_hand = score_edges(model, paired, method="exact")
    np.testing.assert_allclose(score_edges(model, task, method="exact", ablation="resample").values, by_hand.values, atol=1e-6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, task: patch_grid(model, task, positions="end"),
        lambda model, task: path_patch(model, task, "logits"),
        lambda model, task: score_nodes(model, task, "v"),
        lambda model, task: score_positions(model, task, Head(0, 1), "v"),
        residual_contributions,
    ],
    ids=["patch_grid", "path_patch", "score_nodes", "score_positions", "residual_contributions"],
)
def test_what_reads_the_last_position_alone_refuses_them(ask):
    with pytest.raises(ValueError, match="read the last position alone, and an answer has 4 tokens"):
        ask(tiny("gpt2"), several())
