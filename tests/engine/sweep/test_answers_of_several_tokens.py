"""Teacher-forced outcomes of answers of several tokens equal a loop over the plain model, token by token."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.ablation.ablations import build_variants
from interp.engine.sweep.sweep import clean_outcome, sweep
from interp.interventions import zero
from interp.metrics import check_task
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import record_of
from interp.models.value_and_output_weights import output_rows
from interp.tasks.position_names import resolve_positions
from interp.tasks.task import Example, Task
from tests.support.sweep_cases import some_heads
from tests.support.tiny_models import D_VOCAB

METRICS = ("answer_logprob", "answer_loss", "accuracy", "prob_mass")
SIZES = ((7, 3), (6, 4), (9, 1), (8, 2), (7, 1), (10, 3))
"""Tokens of the prompt and of the answer: equal total lengths with different answers, and the reverse."""


def several(model=None, seed=5) -> Task:
    """Six prompts; with a model the answers of three of them are its own greedy continuation."""
    generator = torch.Generator().manual_seed(seed)

    def example(i, n_prompt, n_answer):
        prompt = torch.randint(4, D_VOCAB, (n_prompt,), generator=generator).tolist()
        answer = torch.randint(4, D_VOCAB, (n_answer,), generator=generator).tolist()
        if model is not None and i % 2 == 0:
            answer = []
            for _ in range(n_answer):
                answer.append(int(model.hf(torch.tensor([[*prompt, *answer]])).logits[0, -1].argmax()))
        other = [*prompt[:2], (prompt[2] + 1) % D_VOCAB, *prompt[3:]]
        marks = {"middle": (2, 5)} | ({"end": (n_prompt - 1, n_prompt + n_answer - 1)} if n_answer > 1 else {})
        sides = ((*side, *answer[:-1]) for side in (prompt, other))
        return Example(*sides, (answer[-1],), (), marks)

    return Task("several", tuple(example(i, *sizes) for i, sizes in enumerate(SIZES)), "answer_logprob")


def loop(model, task, metric, ablated=None):
    """The outcome of each example, from one forward pass of Hugging Face's model per token of its answer."""
    found = []
    for example in task:
        prompt, steps = list(example.prompt), []
        for token in example.answer_tokens:
            logits = model.hf(torch.tensor([prompt])).logits[0, -1].double()
            steps.append((logits.log_softmax(-1)[token].item(), int(logits.argmax()) == token))
            prompt.append(token)
        logprob = sum(step for step, _ in steps)
        values = {"answer_logprob": logprob, "answer_loss": -logprob, "prob_mass": np.exp(logprob)}
        found.append({**values, "accuracy": float(all(right for _, right in steps))}[metric])
    return np.array(found)


@pytest.mark.parametrize("metric", METRICS)
def test_the_outcome_of_the_clean_run_is_that_of_a_loop_over_tokens(model, metric):
    task = several(model)
    expected = loop(model, task, metric)
    np.testing.assert_allclose(clean_outcome(model, task, OUTCOMES.get(metric)), expected, rtol=1e-5, atol=1e-6)
    if metric == "accuracy":
        assert {0.0, 1.0} == {*expected}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", ["resumed", "hooked"])
def test_zero_ablation_equals_a_loop_with_zeroed_output_weights(llama, backend, metric):
    task, heads = several(llama), some_heads(llama, every=3)
    variants = build_variants(llama, task, "zero", "all", [(head,) for head in heads], 0)
    result = sweep(llama, task, variants, OUTCOMES.get(metric), record=record_of(llama), backend=backend)
    _, layout = llama.known_parts
    d_head = llama.facts.d_head
    for head, values in zip(heads, result.values, strict=True):
        weight = layout.outputs[head.layer].weight
        columns = slice(head.head * d_head, (head.head + 1) * d_head)
        kept = weight.data[:, columns].clone()
        assert torch.equal(output_rows(layout.outputs[head.layer], head.head, d_head), kept.T)
        weight.data[:, columns] = 0
        try:
            np.testing.assert_allclose(values, loop(llama, task, metric), rtol=1e-5, atol=1e-5)
        finally:
            weight.data[:, columns] = kept


@pytest.mark.parametrize("positions", ["all", "end", "middle"])
@pytest.mark.parametrize("ablation", ["mean", "resample", "patch", "uniform"])
def test_both_backends_agree_on_answers_of_different_lengths(llama, ablation, positions):
    task = several()
    task = replace(task, examples=task.examples + several(seed=6).examples)  # resampling needs pairs of equal length
    agree(llama, task, build_variants(llama, task, ablation, positions, [(head,) for head in some_heads(llama)], 0))


@pytest.mark.parametrize("positions", ["end", (-1,), (0,)])
def test_both_backends_agree_in_every_architecture(model, positions):
    agree(model, several(), [(zero([head], positions=positions),) for head in some_heads(model, every=7)])


def agree(model, task, variants):
    arguments = (model, task, variants, OUTCOMES.get("answer_logprob"))
    fast, plain = (sweep(*arguments, record=record_of(model), backend=backend) for backend in ("resumed", "hooked"))
    assert np.abs(plain.effects).max() > 1e-3
    np.testing.assert_allclose(fast.values, plain.values, rtol=0, atol=1e-5 * np.abs(plain.values).max())


def test_end_names_the_positions_that_predict_each_token(llama):
    found = [resolve_positions("end", len(e.clean), e.marks) for e in several()]
    assert found == [[6, 7, 8], [5, 6, 7, 8], [8], [7, 8], [6], [9, 10, 11]]
    assert several().marks == ["middle"]


def test_the_gradient_estimate_of_a_small_change_is_its_effect(llama):
    from interp.engine.gradients.attribution_patching import attribute
    from interp.interventions import scale

    task, variants = several(), [(scale([head], 0.999),) for head in some_heads(llama)]
    arguments = (llama, task, variants, OUTCOMES.get("answer_logprob"))
    exact, estimate = (run(*arguments, record=record_of(llama)) for run in (sweep, attribute))
    np.testing.assert_allclose(estimate.baseline, exact.baseline, rtol=0, atol=1e-5)
    np.testing.assert_allclose(estimate.effects, exact.effects, rtol=0.05, atol=1e-5)


def test_a_check_counts_a_prompt_as_right_where_every_token_is(llama):
    task = several(llama)
    found = check_task(llama, task)
    assert found.performance.n_right == loop(llama, task, "accuracy").sum() and found.performance.n_preferred is None
    assert found.lengths.tolist() == [7, 6, 9, 8, 7, 10] and "tokens, answers of 1 to 4" in " ".join(found.lines())
    assert ablate_heads(llama, task, ablation="zero").record.performance.n_right == found.performance.n_right


@pytest.mark.parametrize("metric", ["logit_diff", "kl", "prob_diff"])
def test_metrics_of_one_token_are_refused(llama, metric):
    with pytest.raises(ValueError, match=f"Metric '{metric}' reads one token, and an answer of task 'several' has 4"):
        ablate_heads(llama, several(), metric=metric)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answers": (5, 6)}, "must be the only one, without distractors"),
        ({"distractors": (7,)}, "must be the only one, without distractors"),
        ({"marks": {"end": (3, 5)}}, "must end with the prompt"),
        ({"corrupted": (4, 5, 6, 7, 8, 30)}, "both prompts with the same tokens"),
    ],
)
def test_an_example_that_is_not_one_forced_answer_is_refused(changes, sentence):
    example = Example((4, 5, 6, 7, 8, 9), (4, 9, 6, 7, 8, 9), (5,), (), {"end": (3, 6)})
    Task("fine", (example,), "answer_logprob")
    with pytest.raises(ValueError, match=sentence):
        Task("bad", (replace(example, **changes),), "answer_logprob")
