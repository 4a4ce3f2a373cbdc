"""Where there is nothing to find, nothing is found: heads of untrained models, at the stated rate."""

import numpy as np
import pytest
import torch
import transformers as T

from interp.ablation.ablate_heads import ablate_heads
from interp.models import wrap_model
from interp.tasks.task import Example, Task

N_EXAMPLES, LEVEL = 24, 0.05


def untrained(seed: int):
    """A freshly initialised GPT-2 of 3 layers x 5 heads over 997 tokens, as its authors initialise it."""
    torch.manual_seed(seed)
    return wrap_model(
        T.GPT2LMHeadModel(T.GPT2Config(vocab_size=997, n_positions=32, n_embd=40, n_layer=3, n_head=5)), name="untrained"
    )


def fair_task(seed: int) -> Task:
    """Prompts of 7 random tokens whose answer and distractor are drawn alike: no head can prefer one of them."""
    rng = np.random.default_rng(seed)
    rows = [rng.choice(997, 9, replace=False).tolist() for _ in range(N_EXAMPLES)]
    return Task("fair", tuple(Example(tuple(r[:7]), tuple(r[:7]), (r[7],), (r[8],)) for r in rows), "logit_diff")


@pytest.mark.parametrize("n_seeds", [25, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_untrained_models_have_no_important_heads_beyond_the_stated_rate(ablation, n_seeds):
    tables = []
    for seed in range(n_seeds):
        model, task = untrained(seed), fair_task(seed)
        tables.append(ablate_heads(model, task, ablation=ablation, seed=seed).heads())
    found = np.array([t["q_value"] <= LEVEL for t in tables])
    shares = found.mean(1)
    print(ablation, n_seeds, "share of heads:", shares.mean(), "of models with any:", found.any(1).mean())
    assert shares.mean() <= LEVEL + 3 * shares.std() / np.sqrt(n_seeds)
    bound = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / n_seeds)  # every discovery is false here: any at all is what BH bounds
    assert found.any(1).mean() <= bound
    p = np.concatenate([t["p_value"] for t in tables])
    assert abs((p <= 0.5).mean() - 0.5) < 0.1 and (p <= 0.05).mean() < 0.1
