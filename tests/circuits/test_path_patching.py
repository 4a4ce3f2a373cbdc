"""Path patching against its definition of two hooked runs, and on planted circuits whose paths are known."""

from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest
import torch

from interp.circuits import path_patch, path_patch_stages, score_edges
from interp.heads import Head
from interp.models.planted import PlantedModel, plant
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import examples
from tests.support.tiny_models import tiny

PROJECTIONS = {"gpt2": ("c_attn",), "llama": ("q_proj", "k_proj", "v_proj")}


def hooked(model, ids, on_z=None, on_parts=None):
    """Logits of a plain run; ``on_z(layer, z)`` and ``on_parts(layer, parts)`` see and may replace what goes into the output projection
    [batch pos heads*d_head] and what leaves the projections, side by side."""

    def before(layer):
        return lambda module, args: (on_z(layer, args[0]), *args[1:])

    def behind(layer, i, store):
        def hook(module, args, out):
            store[i] = out
            return on_parts(layer, i, out)

        return hook

    with ExitStack() as stack:
        for layer, (attention, output) in enumerate(zip(model.layout.attentions, model.layout.outputs, strict=True)):
            if on_z:
                stack.callback(output.register_forward_pre_hook(before(layer)).remove)
            if on_parts:
                for i, name in enumerate(PROJECTIONS[model.hf.config.model_type]):
                    stack.callback(getattr(attention, name).register_forward_hook(behind(layer, i, {})).remove)
        return model.hf(ids, use_cache=False).logits[:, -1]


def by_definition(model, prompts, sender, receivers, at, frozen=False) -> float:
    """The mean effect on the logit difference by two runs with hooks, at positions ``at``; of shared keys all heads must be receivers."""
    facts, d = model.facts, model.facts.d_head
    clean, corrupted = (torch.tensor([getattr(e, side) for e in prompts]) for side in ("clean", "corrupted"))
    kept: dict[str, dict] = {"clean": {}, "corrupted": {}, "parts": {}}

    def keeping(side):
        def see(layer, z):
            kept[side][layer] = z.clone()
            return z

        return see

    def edited(layer, z):
        z = z.clone()
        z[:, at] = kept["clean"][layer][:, at]
        if layer == sender.layer:
            own = slice(sender.head * d, (sender.head + 1) * d)
            z[:, at, own] = kept["corrupted"][layer][:, at, own]
        return z

    def recorded(layer, i, out):
        kept["parts"][layer, i] = out.clone()
        return out

    def replaced(layer, i, out):
        out = out.clone()
        for head, part in receivers:
            if head.layer != layer:
                continue
            which, width = "qkv".index(part), facts.n_heads * d
            if len(PROJECTIONS[model.hf.config.model_type]) == 1:
                start = which * width + head.head * d
            elif which == i:
                start = (head.head if part == "q" else head.head // facts.group_size) * d
            else:
                continue
            out[:, at, start : start + d] = kept["parts"][layer, i][:, at, start : start + d]
        return out

    with torch.no_grad():
        before = hooked(model, clean, keeping("clean"))
        hooked(model, corrupted, keeping("corrupted"))
        after = hooked(model, clean, edited, recorded)
        if receivers:
            after = hooked(model, clean, None, replaced)
    pairs = [(e.answers[0], e.distractors[0]) for e in prompts]
    return float(np.mean([float((after - before)[i, a] - (after - before)[i, b]) for i, (a, b) in enumerate(pairs)]))


CASES = [
    ("gpt2", [], "end"),
    ("gpt2", [(Head(2, 1), "q"), (Head(1, 3), "q"), (Head(2, 4), "q")], "end"),
    ("gpt2", [(Head(1, 0), "k"), (Head(2, 2), "v"), (Head(2, 2), "k")], (6,)),
    ("gpt2", [(Head(2, 3), "q"), (Head(2, 3), "v")], "all"),
    ("llama", [(Head(2, 5), "q"), (Head(1, 2), "q")], "end"),
    ("llama", [*((Head(2, h), "k") for h in (0, 1, 2)), *((Head(1, h), "v") for h in (3, 4, 5))], "all"),
]


@pytest.mark.parametrize(("name", "receivers", "positions"), CASES)
def test_an_effect_is_that_of_two_hooked_runs(name, receivers, positions):
    model, prompts = tiny(name), examples()
    task = Task("random", tuple(prompts), "logit_diff")
    found = path_patch(model, task, receivers or "logits", positions=positions)
    at = {"end": [-1], "all": slice(None)}.get(positions) or list(positions)
    top = max((head.layer for head, _ in receivers), default=3)
    senders = [head for head in model.facts.heads() if head.layer < top][::2]
    want = [by_definition(model, prompts, sender, receivers, at) for sender in senders]
    scale = float(np.nanmax(np.abs(found.values)))
    assert [found[head] for head in senders] == pytest.approx(want, abs=2e-4 * scale)
    assert scale > 1e-3
    assert all(np.isnan(found[head]) == (head.layer >= top) for head in model.facts.heads())


def test_with_mlps_kept_a_head_reaches_the_logits_directly_alone():
    model, prompts = tiny("gpt2"), examples()
    task = Task("random", tuple(prompts), "logit_diff")
    kept, recomputed = (path_patch(model, task, freeze_mlps=frozen).values for frozen in (True, False))
    scores = score_edges(model, task, method="exact")
    direct = {edge.writer[1:]: effect for edge, effect in zip(scores.graph.edges, scores.effects, strict=True)
              if edge.reader.kind == "logits" and edge.writer.kind == "head"}  # fmt: skip
    assert {(int(i), int(j)): kept[i, j] for i, j in np.ndindex(kept.shape)} == pytest.approx(direct, abs=1e-4)
    assert np.abs(kept - recomputed).max() > 0.01


@cache
def planted(n_kv_heads: int | None = None) -> PlantedModel:
    return plant("mini_ioi", seed=3, n_kv_heads=n_kv_heads)


def task_of(source: PlantedModel) -> Task:
    return Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", 4)), "logit_diff")


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_stages_lead_from_the_movers_to_s_inhibition_to_the_duplicate_head(n_kv_heads):
    source = planted(n_kv_heads)
    [mover], [negative] = source.heads("name_mover"), source.heads("negative_name_mover")
    [inhibition], [duplicate] = source.heads("s_inhibition"), source.heads("duplicate_token")
    logits, queries, keys = path_patch_stages(source.model, task_of(source), [("q", "end"), ("k", "s2")], k=2)
    for found, want in (
        (logits, {mover: -10, negative: 3}),
        (queries, {inhibition: -28 / 3}),
        (keys, {duplicate: -28 / 3}),
    ):
        assert found.record.arguments["gap"] == pytest.approx(-7, abs=1e-4)
        for head in source.model.facts.heads():
            if not np.isnan(found[head]):
                assert found[head] == pytest.approx(want.pop(head, 0), abs=1e-4), head
        assert not want


def test_stages_end_where_no_head_comes_before():
    source = planted()
    *_, last = found = path_patch_stages(source.model, task_of(source), [("q", "end"), ("k", "s2"), *[("v", "s1")] * 9], k=1)
    assert len(found) < 11
    assert not last.top(1)[0].layer or np.nanmax(np.abs(last.values)) < 1e-4


def test_one_receiver_at_a_time_has_the_effect_of_its_edge():
    source = planted()
    truth = source.ground_truth_effects("ioi").edges
    [inhibition] = source.heads("s_inhibition")
    for head in (*source.heads("name_mover"), *source.heads("negative_name_mover")):
        found = path_patch(source.model, task_of(source), [(head, "q")])
        assert found[inhibition] == pytest.approx(truth[str(inhibition), f"{head}.q"], abs=1e-4)
    at_end = path_patch(source.model, task_of(source), [(inhibition, "k")], positions="end")
    assert np.nanmax(np.abs(at_end.values)) < 1e-4  # a key is looked at where the name is, not at the end


def test_bad_input_is_refused_in_a_sentence():
    source = planted()
    task = task_of(source)
    with pytest.raises(ValueError, match="No head precedes L0H1: use receivers in a later layer"):
        path_patch(source.model, task, [(Head(0, 1), "q")])
    with pytest.raises(ValueError, match="pairs of a head and one of q, k, v"):
        path_patch(source.model, task, [(Head(1, 1), "z")])
    with pytest.raises(ValueError, match="pairs of a head"):
        path_patch(source.model, task, [])
    with pytest.raises(ValueError, match="receivers='end': give 'logits', or pairs of a head"):
        path_patch(source.model, task, "end")
    with pytest.raises(LookupError, match="Head L9H0 does not exist"):
        path_patch(source.model, task, [(Head(9, 0), "q")])
    with pytest.raises(LookupError, match="No position is called 'nowhere'"):
        path_patch(source.model, task, positions="nowhere")
