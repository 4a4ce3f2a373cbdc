"""Grids of patches by layer and position: against TransformerLens's, the ends of the run, and planted models from both sides."""

from typing import Any

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.circuits import patch_grid
from interp.figures import figure_bytes, patch_map
from interp.heads import Head
from interp.models.planted import plant
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import examples
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny

ROLES = {Head(0, 2): "duplicate_token", Head(1, 4): "s_inhibition", Head(2, 1): "name_mover", Head(2, 5): "negative_name_mover"}


@pytest.fixture(scope="module", params=[None, 2], ids=["gpt2", "llama"])
def planted(request):
    return plant(ROLES, seed=7, n_kv_heads=request.param, dtype="float64")


def ioi(planted, n_prompts=4):
    return Task("ioi", tuple(Example(*p) for p in planted.prompts("ioi", n_prompts)), "logit_diff")


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gpt_neox"])
def test_every_cell_is_a_hooked_pass_of_transformerlens(name, swapped):
    from transformer_lens import patching

    model, task = tiny(name), Task("random", tuple(examples()), "logit_diff")
    task = task.swapped() if swapped else task
    run, other = (torch.tensor([getattr(e, side) for e in task]) for side in ("clean", "corrupted"))

    def value(logits):
        return torch.stack(
            [row[e.answers[0]] - row[e.distractors[0]] for row, e in zip(logits[:, -1], task, strict=True)]
        ).mean()

    with torch.no_grad():
        cache, baseline = model.bridge.run_with_cache(other)[1], float(value(model.bridge(run)))
        for site, theirs in (("resid", "resid_pre"), ("attn", "attn_out"), ("mlp", "mlp_out")):
            want = getattr(patching, f"get_act_patch_{theirs}")(model.bridge, run, cache, value).numpy() - baseline
            found = patch_grid(model, task, site)
            assert found.effects.shape == want.shape == (3, 9)
            np.testing.assert_allclose(found.effects, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()))
            assert np.abs(want[:, 4:]).max() > 1e-2 and not found.effects[:, :4].any()
            assert found.clean.mean() == pytest.approx(baseline, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "phi"])
def test_the_whole_stream_at_once_is_the_corrupted_run(name):
    task = random_task()  # two lengths
    found = patch_grid(tiny(name), task, positions=["all", "end", "middle"])
    scale = np.abs(found.values).max()
    gap = found.corrupted - found.clean
    assert np.abs(gap).max() > 1e-2
    np.testing.assert_allclose(found.values[:, 0], np.broadcast_to(gap, (3, 5)), rtol=0, atol=1e-5 * max(1, scale))
    np.testing.assert_allclose(found.values[0, 2], gap, rtol=0, atol=1e-5 * max(1, scale))  # where the prompts differ
    assert patch_grid(tiny(name), task).positions == ("middle", "end")


def test_noising_shows_the_way_of_the_second_subject_through_the_planted_heads(planted):
    task = ioi(planted)
    s2, end, length = task.examples[0].marks["s2"][0], len(task.examples[0].clean) - 1, len(task.examples[0].clean)
    resid, attn = (patch_grid(planted.model, task, site) for site in ("resid", "attn"))
    want = np.zeros((4, length))
    want[:2, s2] = -7  # all that differs is the token, and from layer 1 on its flag
    want[2, s2] = -3.5  # movers look at IO and the third name alike: -5, +1.5
    want[2, end] = -28 / 3  # nothing is suppressed: S is as often there as IO and more
    want[3, end] = -7
    np.testing.assert_allclose(resid.effects, want, rtol=0, atol=1e-3)
    want = np.zeros((4, length))
    want[0, s2], want[1, end], want[2, end] = -28 / 3, -28 / 3, -7
    np.testing.assert_allclose(attn.effects, want, rtol=0, atol=1e-3)
    assert resid.gap == pytest.approx(-7, abs=1e-3)


def test_denoising_misses_what_needs_another_part_as_well(planted):
    task = ioi(planted).swapped()
    s2, end, length = task.examples[0].marks["s2"][0], len(task.examples[0].clean) - 1, len(task.examples[0].clean)
    resid, attn = (patch_grid(planted.model, task, site) for site in ("resid", "attn"))
    want = np.zeros((4, length))
    want[:2, s2], want[2, end], want[3, end] = 7, 3.5, 7
    want[2, s2] = resid.effects[2, s2]  # below, by hand
    np.testing.assert_allclose(resid.effects, want, rtol=0, atol=1e-3)
    assert resid.effects[2, s2] == pytest.approx(-7 / 3, abs=1e-3)  # S twice beside IO, and nothing suppressed
    want = np.zeros((4, length))
    want[1, end], want[2, end] = 3.5, 7  # the duplicate's flag alone, on another name, restores nothing
    np.testing.assert_allclose(attn.effects, want, rtol=0, atol=1e-3)


def test_a_swapped_task_is_denoising_for_sweeps_too(planted):
    found = ablate_heads(planted.model, ioi(planted).swapped(), ablation="patch", heads=[*ROLES])
    assert found.baseline == pytest.approx([0] * 4, abs=1e-3)
    assert found.effects.mean(1) == pytest.approx([0, 3.5, 10, -3], abs=1e-3)


def test_twice_swapped_is_the_same_task():
    task = random_task()
    assert task.swapped().swapped().digest() == task.digest() != task.swapped().digest()
    assert task.swapped().examples[1].clean == task.examples[1].corrupted
    assert task.swapped().examples[1].answers == task.examples[1].answers
    assert task.swapped().arguments["swapped"] and task.swapped().marks == task.marks


def test_the_table_and_the_picture_hold_every_cell(planted):
    grid = patch_grid(planted.model, ioi(planted), "attn", positions=["s2", "end", (1, 2)])
    table = grid.to_dataframe().set_index(["layer", "position"])
    assert len(table) == 12 and table.loc[(1, "end"), "effect"] == pytest.approx(-28 / 3, abs=1e-3)
    assert table.loc[(2, "end"), "share_of_gap"] == pytest.approx(1, abs=1e-3) and table.loc[(0, "1,2"), "effect"] == 0
    figure = patch_map(grid, tokens=["S", "END", "f A"])
    cells: Any = figure.data[0]
    np.testing.assert_array_equal(cells.z, grid.effects)
    assert list(figure.layout.xaxis.ticktext) == ["S s2", "END end", "f A 1,2"]
    assert "noising: 0 = clean run, −7 = corrupted run" in figure.layout.annotations[0].text.replace("<br>", " ")
    assert "133% of the total effect" in cells.hovertext[1][1]
    assert figure.layout.xaxis.tickangle is None and "n = 4" in grid.record.caption()
    narrow = patch_map(patch_grid(planted.model, ioi(planted)), tokens=["wonderful"] * 10)
    assert narrow.layout.xaxis.tickangle == -90 and narrow.layout.height > figure.layout.height + 60
    assert figure_bytes(figure, ".png")[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="The grid has 3 positions, and 1 tokens were given"):
        patch_map(grid, tokens=["S"])


def test_what_cannot_be_patched_is_refused():
    model, task = tiny("llama"), random_task()
    with pytest.raises(LookupError, match=r"No site is called 'pattern'\. There are: resid, attn, mlp"):
        patch_grid(model, task, "pattern")
    with pytest.raises(LookupError, match="No position is called 'subject'"):
        patch_grid(model, task, positions=["subject"])
    same = Task("same", tuple(Example(e.clean, e.clean, e.answers, e.distractors) for e in task), "logit_diff")
    with pytest.raises(ValueError, match="has no corrupted prompts"):
        patch_grid(model, same)
    with pytest.raises(ValueError, match="tiny-gemma2 has no edges"):
        patch_grid(tiny("gemma2"), task)
