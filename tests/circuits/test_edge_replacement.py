"""What a corrupted edge shows: by the sets road, and by taking the head or MLP itself out of a plain run."""

from functools import cache

import numpy as np
import pytest
import torch

from interp import interventions
from interp.ablation import ablate_heads
from interp.circuits import Node, circuit_outcomes, score_edges
from interp.circuits.edge_replacement import (
    EDGE_ABLATIONS,
    check_edge_ablation,
    decompositions_with_ablation,
    resample_corrupted_prompts,
)
from interp.engine.edges.edge_patching import graph_of
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.z_cache import cache_z
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import record_of
from interp.models.planted import plant
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import edge_of
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny

HEADS = [Head(0, 1), Head(1, 4), Head(2, 2)]
MODELS = ("gpt2", "llama", "mistral", "gpt_neox")


def without(model, writers) -> np.ndarray:
    """For each writer a circuit without any of its edges."""
    return np.array([[edge.writer != writer for edge in graph_of(model).edges] for writer in writers])


@cache
def removed(name: str, ablation: str) -> np.ndarray:
    """The outcome with all edges of a head corrupted, for each of HEADS."""
    kept = without(tiny(name), map(Node.of, HEADS))
    return circuit_outcomes(tiny(name), random_task(), kept, ablation=ablation, seed=3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("ablation", "of_heads"), [("zero", "zero"), ("resample", "resample"), ("counterfactual", "patch")])
def test_a_head_with_all_its_edges_corrupted_is_an_ablated_head(name, ablation, of_heads):
    expected = ablate_heads(tiny(name), random_task(), ablation=of_heads, heads=HEADS, seed=3)
    assert np.abs(expected.effects).max() > 0.05
    np.testing.assert_allclose(removed(name, ablation), expected.values, atol=1e-5 * np.abs(expected.values).max())


class Means:
    """The mean z of the prompts of each length, position by position, as a source of ``patch``."""

    def __init__(self, model, task):
        self.bank, self.rows = cache_z(model, task), {r: rows for rows in task.by_length().values() for r in rows}

    def z(self, head, rows, positions):
        return torch.stack([self.bank.z(head, torch.tensor(self.rows[r]), positions).mean(0) for r in rows.tolist()])


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_is_taken_over_prompts_of_one_length_at_each_position(name):
    model, task = tiny(name), random_task()
    variants = [(interventions.patch([head], Means(model, task)),) for head in HEADS]
    outcome = OUTCOMES.get(task.metric)
    expected = sweep(model, task, variants, outcome, record=record_of(model))
    assert np.abs(expected.effects).max() > 0.05
    np.testing.assert_allclose(removed(name, "mean"), expected.values, atol=1e-5 * np.abs(expected.values).max())


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_an_mlp_with_all_its_edges_corrupted_is_an_mlp_whose_output_is_replaced(ablation):
    model, task = tiny("gpt2"), random_task()
    assert model.hf is not None
    for layer in range(2):
        found = circuit_outcomes(model, task, without(model, [Node("mlp", layer)]), ablation=ablation)[0]
        for rows in task.by_length().values():
            examples = [task.examples[r] for r in rows]

            def replaced(module, args, output):
                return output.mean(0, keepdim=True).expand_as(output) if ablation == "mean" else torch.zeros_like(output)

            handle = model.hf.transformer.h[layer].mlp.register_forward_hook(replaced)
            with torch.inference_mode():
                logits = model.hf(torch.tensor([e.clean for e in examples])).logits[:, -1]
            handle.remove()
            differences = [
                float(row[list(e.answers)].mean() - row[list(e.distractors)].mean())
                for row, e in zip(logits, examples, strict=True)
            ]
            np.testing.assert_allclose(found[rows], differences, atol=1e-5)


@pytest.mark.parametrize("ablation", EDGE_ABLATIONS)
def test_without_any_edge_the_outcome_is_that_of_the_corrupted_run(ablation):
    model, task = tiny("gpt2"), random_task()
    nothing, everything = circuit_outcomes(
        model, task, np.array([[False], [True]]).repeat(len(graph_of(model).edges), 1), ablation=ablation, seed=5
    )
    scores = score_edges(model, task, method="eap", ablation=ablation, seed=5)
    np.testing.assert_allclose(nothing, scores.corrupted, atol=1e-5)
    np.testing.assert_allclose(everything, scores.clean, atol=1e-5)
    assert scores.record.arguments["ablation"] == ablation and set(scores.to_dataframe()["ablation"]) == {ablation}
    assert scores.record.interventions == (f"corrupted edge ({ablation})",)


@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_estimates_of_edges_into_the_logits_are_exact_in_a_planted_model(ablation):
    """Edges into the logits of a planted model add up: its norms give back their input."""
    source = plant("mini_ioi", seed=4, dtype="float64")
    task = Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", 5)), "logit_diff")
    exact, estimate = (score_edges(source.model, task, method=m, ablation=ablation) for m in ("exact", "eap"))
    into_logits = [i for i, edge in enumerate(exact.graph.edges) if edge.reader.kind == "logits"]
    assert np.abs(exact.values[into_logits]).max() > 1
    np.testing.assert_allclose(estimate.values[into_logits], exact.values[into_logits], atol=1e-5)


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_zeroed_edges_of_a_planted_model_have_the_effects_that_a_hand_counts(n_kv_heads):
    source = plant("mini_ioi", seed=1, n_kv_heads=n_kv_heads)
    task = Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", 6)), "logit_diff")
    scores = score_edges(source.model, task, method="exact", ablation="zero")
    effects = dict(zip(scores.graph.edges, scores.effects, strict=True))
    [mover], [negative], [inhibition] = map(source.heads, ("name_mover", "negative_name_mover", "s_inhibition"))
    assert scores.clean.mean() == pytest.approx(7, abs=1e-4)  # 10 of the mover, -3 of the negative one
    assert scores.corrupted.mean() == pytest.approx(0, abs=1e-4)
    assert effects[edge_of(str(mover), "logits")] == pytest.approx(-10, abs=1e-3)
    assert effects[edge_of(str(negative), "logits")] == pytest.approx(3, abs=1e-3)
    assert effects[edge_of(str(inhibition), f"{mover}.q")] == pytest.approx(-40 / 3, abs=1e-3)  # it sees IO, S, S alike: -10/3
    assert effects[edge_of("input", f"{mover}.v")] == pytest.approx(-10, abs=1e-3)


def test_other_prompts_are_a_random_exchange_within_each_length():
    task = random_task(5, 4)
    changed = resample_corrupted_prompts(task, 2)
    clean = [e.clean for e in task]
    assert sorted(e.corrupted for e in changed) == sorted(clean)
    assert all(e.corrupted != e.clean == c for e, c in zip(changed, clean, strict=True))
    assert changed.digest() == resample_corrupted_prompts(task, 2).digest() != resample_corrupted_prompts(task, 3).digest()


def test_what_an_ablation_needs_and_a_task_lacks_is_said_in_a_sentence():
    lonely = random_task(3, 1)
    for ablation in ("mean", "resample"):
        with pytest.raises(
            ValueError,
            match=f"Ablation '{ablation}' needs another prompt of equal length, and example 3 .* is the only one of 9 tokens",
        ):
            circuit_outcomes(tiny("gpt2"), lonely, without(tiny("gpt2"), [Node("input")]), ablation=ablation)
    same = Task("same", tuple(Example(e.clean, e.clean, e.answers, e.distractors) for e in lonely), "logit_diff")
    with pytest.raises(ValueError, match=r"has no corrupted prompts .*: add them, or use the ablation zero, mean or resample"):
        check_edge_ablation(same, "counterfactual")
    check_edge_ablation(same, "zero")
    with pytest.raises(
        LookupError, match=r"No ablation of edges is called 'patch'\. There are: counterfactual, resample, mean, zero"
    ):
        score_edges(tiny("gpt2"), lonely, ablation="patch")


def test_what_is_alike_on_all_prompts_is_corrupted_by_zero_alone():
    """Every prompt begins with the same token."""
    model, outcome = tiny("gpt2"), OUTCOMES.get("logit_diff")
    examples = (Example((1, *e.clean[1:]), (1, *e.corrupted[1:]), e.answers, e.distractors) for e in random_task())
    task = Task("first", tuple(examples), "logit_diff")
    for ablation, least, most in (("mean", 0, 1e-6), ("zero", 0.1, np.inf)):
        with model.lock, torch.inference_mode():
            for _, stream, _ in decompositions_with_ablation(model, task, outcome, ablation):
                added = stream.output_difference(range(len(stream.outputs))).abs()
                assert least <= float(added[:, :, 0].max()) <= most
                assert float(added[:, :, 1:].max()) > 0.1
