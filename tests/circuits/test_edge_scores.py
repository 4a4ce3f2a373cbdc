"""What scores of edges, heads and places refuse or say of themselves, and exact edges in half precision."""

import numpy as np
import pytest
import torch

from interp.circuits import acdc, circuit_outcomes, patch_grid, score_edges, score_nodes, score_positions
from interp.engine.gradients.corrupted_qkvz_effects import resume_changes
from interp.engine.sweep import work_units
from interp.graph import Graph
from interp.heads import Head
from interp.models import wrap_model
from interp.tasks.task import Example, Task
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_hf, tiny_tokens


def prompt(clean: tuple[int, ...], corrupted: tuple[int, ...]) -> Example:
    return Example(clean, corrupted, (5,), (7,))


def test_an_edge_that_carries_nothing_has_no_effect_in_half_precision():
    """The second prompt differs from its twin by a token of the same embedding."""
    hf = tiny_hf("llama").to(torch.bfloat16)
    with torch.no_grad():
        hf.get_input_embeddings().weight[9] = hf.get_input_embeddings().weight[8]
    task = Task("half", (prompt((3, 4, 6, 7, 5), (3, 5, 6, 7, 5)), prompt((3, 8, 6, 9, 4), (3, 9, 6, 9, 4))), "logit_diff")
    found = score_edges(wrap_model(hf, name="half"), task, method="exact").values
    assert np.abs(found[:, 0]).max() > 0.1
    assert np.abs(found[:, 1]).max() == 0


def test_numbers_that_are_none_are_refused():
    hf = tiny_hf("gpt2")
    model, task = wrap_model(hf, name="broken"), Task("pairs", (prompt((3, 4, 6), (3, 8, 6)),), "logit_diff")
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.weight[3, 4] = torch.inf
    kept = np.ones((1, len(Graph(3, 5).edges)), bool)
    for ask in (
        lambda: score_edges(model, task, method="exact"),
        lambda: score_edges(model, task, method="eap"),
        lambda: circuit_outcomes(model, task, kept),
        lambda: acdc(model, task),
        lambda: patch_grid(model, task),
        lambda: score_nodes(model, task, "v", method="exact"),
        lambda: score_positions(model, task, Head(0, 1), "v"),
    ):
        with pytest.raises(ValueError, match="broken computes NaN or inf in float32"):
            ask()


def test_heads_and_places_without_a_gap_are_refused():
    """What one pair gains, the other loses."""
    pairs = (prompt((3, 4, 6), (3, 8, 6)), prompt((3, 8, 6), (3, 4, 6)))
    for ask in (score_nodes, lambda *given: score_positions(given[0], given[1], Head(0, 1), given[2])):
        with pytest.raises(ValueError, match="run have the same logit_diff"):
            ask(tiny("gpt2"), Task("both", pairs, "logit_diff"), "v")


def test_records_of_patches_name_what_is_shown():
    model, task = tiny("llama"), random_task()
    for found in (score_nodes(model, task, "v"), score_positions(model, task, Head(1, 3), "v"), patch_grid(model, task)):
        assert found.record.arguments["ablation"] == "counterfactual"
    assert patch_grid(model, task, positions=["end", (2, 3)]).record.arguments["positions"] == ["end", "2,3"]


def test_one_place_needs_no_list_and_none_is_refused():
    model, task = tiny("llama"), random_task()
    one, same = patch_grid(model, task, positions="end"), patch_grid(model, task, positions=["end"])
    assert one.positions == ("end",)
    np.testing.assert_array_equal(one.values, same.values)
    with pytest.raises(ValueError, match="leaves nothing to patch"):
        patch_grid(model, task, positions=[])


def test_places_of_long_prompts_are_patched_in_parts(monkeypatch):
    model, task, sizes = tiny("gpt2"), random_task(), []
    whole = patch_grid(model, task, positions=["middle", "end", "all"])

    def counted(stream, changes):
        sizes.append(len(changes))
        return resume_changes(stream, changes)

    monkeypatch.setattr("interp.circuits.activation_patching.resume_changes", counted)
    monkeypatch.setattr(work_units, "TOKENS_AT_ONCE", {"cpu": 2 * 3 * 9})
    parts = patch_grid(model, task, positions=["middle", "end", "all"])
    np.testing.assert_allclose(parts.values, whole.values, rtol=0, atol=1e-5 * np.abs(whole.values).max())
    assert set(sizes) == {1, 2, 3}


# The authors' code (hannamw/EAP-IG, commit 795f560, TransformerLens 2.16) on the same weights and tokens: steps=5.
PUBLISHED = {
    "input->a0.h2<v>": -0.167509,
    "input->m0": -0.046406,
    "a0.h1->a1.h3<q>": 0.000391,
    "m0->a2.h4<k>": 0.009295,
    "a1.h4->m2": 0.055718,
    "m2->logits": 0.100416,
}


def test_the_published_form_of_eap_ig_activations_gives_the_numbers_of_the_authors_code():
    clean = tiny_tokens(3, 7)
    corrupted = clean.clone()
    corrupted[:, 1] = (corrupted[:, 1] + 9) % 80 + 3
    pairs = zip(clean.tolist(), corrupted.tolist(), strict=True)
    task = Task("pairs", tuple(Example(tuple(a), tuple(b), (5,), (6,)) for a, b in pairs), "logit_diff")
    scores = score_edges(tiny("gpt2"), task, method="eap-ig-activations", steps=5, rule="left")
    found = {str(edge): effect for edge, effect in zip(scores.graph.edges, scores.effects, strict=True)}
    assert {name: found[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=2e-6)
    added = score_edges(tiny("gpt2"), task, method="eap-ig-activations-added", steps=5, rule="left")
    assert np.abs(added.effects - scores.effects).max() > 1e-3
    with pytest.raises(LookupError, match=r"No rule is called 'right'\. There are: midpoint, left"):
        score_edges(tiny("gpt2"), task, rule="right")
