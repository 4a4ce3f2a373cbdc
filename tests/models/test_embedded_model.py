"""The model that ships with the project really does its tasks: through the workbench, and through the training text itself."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from interp.ablation.ablate_heads import ablate_heads
from interp.metrics.score_task import score_task
from interp.models import doctor, load_model
from interp.tasks import make_task

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "data" / "training"
FOLDER = ROOT / "data" / "models" / "interp-mini"
N = 200
LEAST = {
    "induction": 0.98,
    "key_value": 0.98,
    "needle": 0.95,
    "ioi": 0.98,
    "docstring": 0.95,
    "facts": 0.98,
    "colored_objects": 0.90,
}
LEAST_ON_TRAINING_TEXT = {"arithmetic": 0.90, "tracking": 0.90, "facts_held": 0.98, "greater_than": 0.85}


@cache
def mini():
    return load_model()


@cache
def evaluation():
    """The module data/training/evaluate.py, which is a script beside its generator and not part of the package."""
    sys.path.insert(0, str(TRAINING))
    try:
        spec = importlib.util.spec_from_file_location("evaluate", TRAINING / "evaluate.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TRAINING))
    return module


@pytest.mark.parametrize("name", LEAST)
def test_the_embedded_model_does_the_task(name):
    assert score_task(mini(), make_task(name, mini(), n_prompts=N, seed=11)).mean() >= LEAST[name]


@pytest.mark.parametrize("depth", [0.0, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (0.25, 0.5, 0.75)), 1.0])
def test_the_needle_is_found_at_every_depth(depth):
    assert score_task(mini(), make_task("needle", mini(), n_prompts=N, seed=12, depth=depth)).mean() >= LEAST["needle"]


def test_later_years_get_the_probability():
    assert score_task(mini(), make_task("greater_than", mini(), n_prompts=N, seed=11), "prob_diff").mean() >= 0.85


def test_facts_are_known_in_paraphrases_that_were_held_out():
    task = make_task("facts", mini(), n_prompts=80, seed=11, held_out=True)
    assert score_task(mini(), task).mean() >= LEAST["facts"]


@pytest.mark.parametrize("name", LEAST_ON_TRAINING_TEXT)
def test_the_steps_that_the_text_determines_are_predicted(name):
    module = evaluation()
    total, count = module.score(mini().hf, mini().tokenizer, module.documents(name, N, 21))
    assert count >= N and total / count >= LEAST_ON_TRAINING_TEXT[name]


def test_swapping_the_plan_swaps_the_steps():
    swaps = evaluation().plan_swaps(mini().hf, mini().tokenizer, 60, 22)
    for plan in ("plan_order", "plan_operation"):
        assert swaps[f"{plan} follows the new plan"][0] >= 57 and swaps[f"{plan} follows the old plan"][0] <= 1


def test_corrupted_prompts_take_the_answer_away():
    for name in ("ioi", "induction", "key_value", "needle", "facts", "colored_objects"):
        task = make_task(name, mini(), n_prompts=60, seed=13)
        turned = type(task)(
            task.name, tuple(type(e)(e.corrupted, e.clean, e.answers, e.distractors) for e in task), task.metric
        )
        clean, corrupted = score_task(mini(), task, "logit_diff"), score_task(mini(), turned, "logit_diff")
        assert clean.mean() > 4 and corrupted.mean() < 1


def test_one_head_above_the_first_layer_carries_retrieval():
    costs = []
    for name in ("key_value", "induction"):
        task = make_task(name, mini(), n_prompts=60, seed=14)
        result = ablate_heads(mini(), task, ablation="mean", metric="accuracy", heads=mini().facts.heads()[4:])
        costs.append(result.effects.mean(1))
    assert np.min(np.max(costs, axis=0)) <= -0.5


def test_heads_that_matter_for_ioi_stand_clear_of_the_random_control():
    task = make_task("ioi", mini(), n_prompts=64, seed=0)
    table = ablate_heads(mini(), task, ablation="mean").heads()
    found = table[table["exceeds_control"]]
    assert 1 <= len(found) <= 5 and (found["ci_high"] < found["control_ci_low"]).all() and (found["q_value"] <= 0.05).all()


def test_the_embedded_model_passes_its_own_doctor():
    assert [check.name for check in doctor(mini()) if check.passed is False] == []


def test_the_folder_is_small_and_complete():
    files = {file.name: file for file in FOLDER.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= set(files)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8 * 2**20
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in files.values())
