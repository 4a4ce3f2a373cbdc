"""What `check_task` and every run say of the unchanged model equals a loop over its logits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp.ablation import ablate_heads
from interp.circuits import score_edges
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.unit_runner import UnitRunner
from interp.interventions import zero
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import record_of
from interp.tasks import make_task
from interp.tasks.task import Example, Task
from interp.tasks.vocabulary_report import MOST_PROMPTS, task_vocabulary
from interp.tasks.words_and_templates import NAMES, OBJECTS, PLACES
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny
from tests.support.tokenizer_only_models import STARTING, task_model


def half_right(model):
    """Five prompts whose answers are set so that two are right, three preferred to the distractor."""
    task = random_task()
    examples = []
    for i, example in enumerate(task):
        order = model.hf(torch.tensor([example.clean])).logits[0, -1].argsort(descending=True).tolist()
        answer, distractor = [(0, 5), (0, 3), (4, 6), (9, 7), (3, 1)][i]
        examples.append(replace(example, answers=(order[answer],), distractors=(order[distractor],)))
    return replace(task, examples=tuple(examples))


@pytest.fixture
def task(llama):
    return half_right(llama)


def counts(performance):
    return performance.n, performance.n_right, performance.n_preferred, performance.metric


def logit_diffs(model, task, side):
    found = []
    for example in task:
        logits = model.hf(torch.tensor([getattr(example, side)])).logits[0, -1]
        found.append((logits[example.answers[0]] - logits[example.distractors[0]]).item())
    return np.array(found)


def test_a_check_counts_right_and_preferred_answers_and_measures_the_gap(llama, task):
    found = interp.check_task(llama, task)
    assert counts(found.performance) == (5, 2, 3, "logit_diff")
    assert found.performance.outcome == pytest.approx(logit_diffs(llama, task, "clean").mean(), abs=1e-5)
    np.testing.assert_allclose(found.clean, logit_diffs(llama, task, "clean"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.corrupted, logit_diffs(llama, task, "corrupted"), rtol=0, atol=1e-5)
    assert found.gap == pytest.approx((found.clean - found.corrupted).mean()) and found.ci_low < found.gap < found.ci_high
    assert found.lengths.tolist() == [11, 11, 11, 9, 9] and found.n_changed.tolist() == [1] * 5 and found.n_distinct == 5
    row = found.to_dataframe().iloc[0]
    assert (row["accuracy"], row["pairwise"], row["n_prompts"]) == (0.4, 0.6, 5) and not row["does_task"]
    assert "right on 2 of 5 prompts" in found.verdict and "Fewer than 50% are right" in found.verdict


def test_half_of_the_prompts_are_enough(llama, task):
    four = replace(task, examples=task.examples[:4])
    assert interp.check_task(llama, four).does_task and "Fewer" not in interp.check_task(llama, four).verdict


def test_prompts_without_distractor_and_corrupted_version_have_no_pairwise_share_and_no_gap(llama, task):
    plain = replace(task, examples=tuple(Example(e.clean, e.clean, e.answers, ()) for e in task), metric="answer_logprob")
    found = interp.check_task(llama, plain)
    assert found.performance.n_preferred is None and found.corrupted is None and np.isnan([found.gap, found.ci_low]).all()
    assert "none with a corrupted version" in " ".join(found.lines()) and found.to_json()["gap"] is None


@pytest.mark.parametrize("name", ["word", "bpe"])
def test_words_that_the_tokenizer_cuts_are_counted(name):
    task = Task("ioi", (Example((1, 2), (1, 3), (4,), (5,)),), "logit_diff", {"seed": 0})
    words = task_vocabulary(task_model(name), task)
    cut = [] if name == "word" else sorted({*NAMES} - {*STARTING})  # a name may begin a text
    assert sorted(words.left_out) == cut and words.n_words == len({*NAMES, *PLACES, *OBJECTS}) == words.n_single + len(cut)
    assert words.n_distinct == MOST_PROMPTS and "at least 1000 distinct prompts" in words.sentence()


def test_the_prompts_of_a_small_task_are_counted_to_the_last():
    task = make_task("facts", task_model("word"), n_prompts=2, held_out=True)
    assert task_vocabulary(task_model("word"), task).n_distinct == 84


@pytest.mark.parametrize("estimator", ["exact", "attribution", "adaptive"])
def test_every_ablation_records_how_many_prompts_are_right(llama, task, estimator):
    result = ablate_heads(llama, task, ablation="zero", estimator=estimator)
    assert counts(result.record.performance) == (5, 2, 3, "logit_diff")
    assert result.record.performance.outcome == pytest.approx(result.baseline.mean())


@pytest.mark.parametrize("backend", ["resumed", "hooked"])
def test_a_sweep_counts_right_prompts_without_another_pass(llama, task, backend, monkeypatch):
    monkeypatch.setitem(sweep.__globals__, "plain_logits", None)
    variants = [(zero([head]),) for head in llama.facts.heads()[:2]]
    result = sweep(llama, task, variants, OUTCOMES.get("logit_diff"), record=record_of(llama), backend=backend)
    assert (result.record.performance.n_right, result.record.performance.n_preferred) == (2, 3)


def test_a_sweep_resumed_from_stored_units_counts_the_same_without_a_pass(llama, task, monkeypatch):
    class Ledger(dict):
        get, put = dict.get, dict.__setitem__

    stored, variants = Ledger(), [(zero([head]),) for head in llama.facts.heads()[:2]]
    arguments = (llama, task, variants, OUTCOMES.get("logit_diff"))
    first = sweep(*arguments, record=record_of(llama), ledger=stored)
    monkeypatch.setattr(UnitRunner, "measure", None)
    second = sweep(*arguments, record=record_of(llama), ledger=stored)
    assert stored and second.record.performance == first.record.performance


def test_a_run_of_the_corrupted_prompts_says_nothing_of_how_well_the_task_is_done(llama, task):
    result = ablate_heads(llama, task.swapped(), ablation="zero")
    assert result.record.performance is None and result.record.performance_sentence == ""


def test_scores_of_edges_record_how_many_prompts_are_right():
    model = tiny("gpt2")
    task = half_right(model)
    assert score_edges(model, task, method="eap").record.performance.n_right == 2


def test_a_record_keeps_the_performance_in_its_file(llama, task):
    record = ablate_heads(llama, task, ablation="zero").record
    assert type(record).from_json(record.to_json()).performance == record.performance
    assert replace(record, baseline={}).performance_sentence == ""
