"""Parts of heads shown what the corrupted prompt makes of them: exact, estimated, and estimated with what AtP* corrects."""

from functools import partial

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.circuits import direct_logit_attribution, score_nodes, score_positions
from interp.engine.edges.edge_patching import graph_of, patch_edge_sets
from interp.engine.edges.residual_decomposition import decompose_residual
from interp.engine.gradients.corrupted_qkvz_effects import (
    NODE_KINDS,
    ResidualChange,
    _linear,
    _parts,
    atp_estimates,
    corrupted_z,
    position_estimates,
    qk_fix_estimates,
    resume_changes,
)
from interp.engine.gradients.z_gradients import z_gradients
from interp.engine.sweep.readout import Readout
from interp.graph import QKV, Node
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.models import wrap_model
from interp.models.planted import plant
from interp.models.planted.head_roles import ROLES, Recipe, Role
from interp.tasks.task import Example, Task
from interp.tasks.token_batch import as_batch
from tests.engine.edges.test_edge_patching import N_PROMPTS, WITH_EDGES, examples
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_hf

LOGIT_DIFF = OUTCOMES.get("logit_diff")
SMOOTH = [name for name in WITH_EDGES if name != "opt"]  # whose ReLU has no slope to compare at its kinks


def double(name):
    model = wrap_model(tiny_hf(name), name=f"double {name}")
    model.hf.double()
    return model


def ioi(planted, n_prompts=6):
    return Task("ioi", tuple(Example(*p) for p in planted.prompts("ioi", n_prompts)), "logit_diff")


@pytest.mark.parametrize("name", WITH_EDGES)
def test_a_corrupted_part_is_all_edges_into_it_corrupted(name):
    model, task = tiny(name), Task("random", tuple(examples()), "logit_diff")
    graph = graph_of(model)
    heads = model.facts.heads()[::4]
    sets = torch.tensor([[(e.reader, e.qkv) == (Node.of(head), part) for e in graph.edges] for head in heads for part in QKV])
    with model.lock, torch.inference_mode():
        decomposition = decompose_residual(model, task.examples)
        read = Readout(model, task.examples, LOGIT_DIFF, decomposition.clean.logits)
        want = (
            (read(patch_edge_sets(decomposition, graph, sets)) - read(decomposition.clean.final_residual[None]))
            .abs()
            .mean(1)
            .view(-1, len(QKV))
        )
    for column, part in enumerate(QKV):
        found = score_nodes(model, task, part, method="exact")
        scale = found.values.max()
        assert scale > 1e-2
        assert [found[head] for head in heads] == pytest.approx(want[:, column].tolist(), abs=2e-5 * scale)


@pytest.mark.parametrize("positions", ["all", "end", "middle"])
def test_a_corrupted_output_is_the_patch_of_a_sweep(positions):
    model, task = tiny("llama"), random_task()  # two lengths
    exact, estimate = (
        np.abs(ablate_heads(model, task, positions=positions, **how).effects).mean(1).reshape(3, 6)
        for how in ({"ablation": "patch"}, {"estimator": "attribution", "ablation": "patch"})
    )
    for method, want in (("exact", exact), ("atp", estimate), ("atp-qk", estimate)):
        found = score_nodes(model, task, "z", method=method, positions=positions)
        np.testing.assert_allclose(found.values, want, rtol=0, atol=2e-5 * want.max())
    assert exact.max() > 1e-2


@pytest.mark.parametrize("name", SMOOTH)
def test_estimates_are_slopes_of_the_exact_effect_along_z_or_along_the_part(name):
    model, layer, prompts = double(name), 1, examples()
    step, apart = (1e-4, 1e-4) if name in ("gpt2", "gpt_neox", "phi") else (1e-2, 5e-3)  # root mean squares stay in float32
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        read = Readout(model, prompts, LOGIT_DIFF, decomposition.clean.logits)
        n = decomposition.clean.n_positions
        where = torch.rand(N_PROMPTS, n, generator=torch.Generator().manual_seed(3)) < 0.7
        passes = z_gradients(model, as_batch(model, prompts), LOGIT_DIFF.as_function(prompts, model.device), last=True)[2]
        slopes = torch.stack([gradients[layer][:, -n:] for gradients in passes])

        def central(change):
            """The slope at 0 of the effect of [batch n head d_head] = change(step) added to z."""
            sides = []
            for sign in (1, -1):
                added = decomposition.head_outputs(layer, change(sign * step)).unbind(2)
                sides.append(read(resume_changes(decomposition, [ResidualChange(layer, True, a) for a in added])))
            return (sides[0] - sides[1]) / (2 * step)

        clean = decomposition.clean.z[layer]
        for part in NODE_KINDS:
            new = corrupted_z(decomposition, layer, part, where) - clean
            want = central(lambda s, new=new: s * new)
            found = qk_fix_estimates(decomposition, layer, part, where, slopes)[0]
            assert float((found - want).abs().max()) <= apart * float(want.abs().max())
            if part != "z":
                along = central(partial(along_the_part, decomposition, layer, part, where))
                plain = atp_estimates(decomposition, layer, part, where, slopes)[0]
                assert float((plain - along).abs().max()) <= apart * float(along.abs().max())
                same = float((plain - found).abs().max()) <= 1e-9 * float(found.abs().max())
                assert same == (part == "v")  # values alone have a linear effect on z


def along_the_part(decomposition, layer, part, where, step):
    """What z changes by when the part goes a step of its way."""
    own, other, call = _parts(decomposition, layer)
    own[part] = own[part] + step * (other[part] - own[part]) * where[:, None, :, None]
    return decomposition.attend(layer, *(own[p] for p in QKV), like=call) - decomposition.clean.z[layer]


@pytest.mark.parametrize("part", NODE_KINDS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3", "phi"])  # all keys; grouped; a window
def test_one_position_at_a_time_is_brute_force(name, part):
    model, prompts, layer = double(name), examples(), 1
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        n = decomposition.clean.n_positions
        slope = torch.randn(decomposition.clean.z[layer].shape, dtype=torch.double, generator=torch.Generator().manual_seed(5))
        alone = torch.stack(
            [
                qk_fix_estimates(decomposition, layer, part, torch.eye(n, dtype=torch.bool)[[t]], slope[None])[0]
                for t in range(n)
            ],
            -1,
        )
        assert decomposition.clean.n_before and float(alone.abs().max()) > 1e-2
        for head in range(model.facts.n_heads):
            found = position_estimates(decomposition, layer, head, part, slope)
            assert float((found - alone[head]).abs().max()) <= 1e-10


def test_a_key_that_leads_by_more_than_numbers_can_hold_still_loses_its_place():
    model, layer = double("gpt2"), 1
    with model.lock, torch.no_grad():
        model.hf.transformer.h[layer].attn.c_attn.weight[:, :40] *= 1e5  # queries
        decomposition = decompose_residual(model, examples())
        slope = torch.randn(decomposition.clean.z[layer].shape, dtype=torch.double, generator=torch.Generator().manual_seed(5))
        n = decomposition.clean.n_positions
        alone = torch.stack(
            [
                qk_fix_estimates(decomposition, layer, "k", torch.eye(n, dtype=torch.bool)[[t]], slope[None])[0]
                for t in range(n)
            ],
            -1,
        )
        own, _, call = _parts(decomposition, layer)
        scores = (own["q"] @ own["k"].mT * call.scale)[..., -1, :].sort(-1).values
        assert float((scores[..., -1] - scores[..., -2]).max()) > 1000 and float(alone.abs().max()) > 0.1
        for head in range(5):
            torch.testing.assert_close(
                position_estimates(decomposition, layer, head, "k", slope), alone[head], rtol=0, atol=1e-10
            )


def test_keys_follow_the_closed_form_and_do_not_add_up():
    model, layer, head = double("llama"), 1, 4
    prompts = [Example((9, *e.clean[5:]), (8, *e.corrupted[5:]), e.answers, e.distractors) for e in examples()]
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, prompts)
        own, other, call = _parts(decomposition, layer)
        slope = torch.randn(decomposition.clean.z[layer].shape, dtype=torch.double, generator=torch.Generator().manual_seed(6))
        found = position_estimates(decomposition, layer, head, "k", slope)
        together = qk_fix_estimates(
            decomposition, layer, "k", torch.ones_like(decomposition.clean.positions, dtype=torch.bool), slope[None]
        )[0, head]
        linear = _linear(decomposition, layer, "k", slope)[:, head]
    q, k, v, moved = own["q"][:, head], own["k"][:, head], own["v"][:, head], other["k"][:, head]
    n = q.shape[1]
    unseen = ~torch.ones(n, n, dtype=torch.bool).tril()
    weights = (q @ k.mT * call.scale).masked_fill(unseen, -torch.inf).softmax(-1)
    slopes = slope[:, :, head] @ v.mT
    apart = slopes - (weights * slopes).sum(-1, keepdim=True)
    change = (q @ (moved - k).mT * call.scale).masked_fill(unseen, 0)
    moving = weights * change.expm1()
    assert decomposition.clean.n_before == 0 and n == 5
    torch.testing.assert_close(found, (moving / (1 + moving) * apart).sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(linear, (weights * change * apart).sum(1), rtol=0, atol=1e-10)
    assert float((found.sum(1) - together).abs().max()) > 1e-3


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_a_saturated_softmax_hides_queries_and_keys_from_a_gradient_and_not_from_the_fix(n_kv_heads):
    planted = plant("mini_ioi", seed=1, sharpness=30.0, n_kv_heads=n_kv_heads, dtype="float64")
    model, task = planted.model, ioi(planted)
    (mover,), (negative,), (inhibition,) = (planted.heads(r) for r in ("name_mover", "negative_name_mover", "s_inhibition"))
    for part, truth in (("q", {mover: 40 / 3, negative: 4}), ("k", {mover: 10, negative: 3})):
        exact, plain, fixed = (score_nodes(model, task, part, method=m) for m in ("exact", "atp", "atp-qk"))
        for head, size in truth.items():
            assert exact[head] == pytest.approx(size, abs=1e-3)
            assert fixed[head] == pytest.approx(size, abs=1e-3)
            assert plain[head] < 1e-6
        others = [head for head in model.facts.heads() if head not in truth]
        assert max(fixed[head] for head in others) < 1e-5
    behind = {m: score_nodes(model, task, "k", method=m)[inhibition] for m in ("exact", "atp", "atp-qk", "atp*")}
    assert behind.pop("exact") == pytest.approx(28 / 3, abs=1e-3)
    assert max(behind.values()) < 1e-6  # it works through the movers' saturated softmax, which no estimate passes


def test_by_position_the_key_that_matters_is_where_the_second_subject_stands():
    planted = plant("mini_ioi", seed=1, sharpness=30.0, dtype="float64")
    (mover,), task = planted.heads("name_mover"), ioi(planted)
    at = task.examples[0].marks["s2"][0]
    keys = score_positions(planted.model, task, mover, "k")
    queries = score_positions(planted.model, task, mover, "q")
    assert keys.values.shape == (6, len(task.examples[0].clean))
    assert keys.values[:, at] == pytest.approx([-10] * 6, abs=1e-3)
    assert queries.values[:, -1] == pytest.approx([-40 / 3] * 6, abs=1e-3)
    for found, where in ((keys, at), (queries, -1)):
        assert np.abs(np.delete(found.values, where, axis=1)).max() < 1e-5


def test_shorter_prompts_have_no_number_where_they_have_no_token():
    task = random_task()
    found = score_positions(tiny("llama"), task, Head(1, 3), "v")
    assert found.values.shape == (5, 11) and np.isnan(found.values[3:, 9:]).all() and not np.isnan(found.values[:, :9]).any()
    assert found.values[:, :2].tolist() == [[0, 0]] * 5  # both prompts begin alike
    assert found.tokens[3][9:] == ("", "")


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_a_dropped_gradient_is_that_of_a_run_whose_block_is_detached(name):
    model, prompts = tiny(name), examples()
    value = LOGIT_DIFF.as_function(prompts, model.device)

    def detach(module, args, kwargs, output):
        entering = args[0] if args else kwargs["hidden_states"]
        if isinstance(output, tuple):
            return (entering + (output[0] - entering).detach(), *output[1:])
        return entering + (output - entering).detach()

    _, _, passes = z_gradients(model, as_batch(model, prompts), value, last=True, dropped_layers=(0, 1, 2, None))
    plain = z_gradients(model, as_batch(model, prompts), value, last=True)[2][0]
    for layer in range(3):
        handle = model.layout.blocks[layer].register_forward_hook(detach, with_kwargs=True)
        try:
            tokens = torch.tensor([e.clean for e in prompts])
            leaves = []

            def tap(module, args, leaves=leaves):
                leaves.append(args[0].detach().requires_grad_() if not args[0].requires_grad else args[0])
                return (leaves[-1],)

            taps = [o.register_forward_pre_hook(tap) for o in model.layout.outputs]
            total = value(model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1).logits).sum()
            want = torch.autograd.grad(total, leaves, allow_unused=True)
        finally:
            handle.remove()
            for t in taps:
                t.remove()
        for at, slope in enumerate(want):
            found = passes[layer][at].flatten(-2)
            expected = torch.zeros_like(found) if slope is None else slope
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(plain[at].abs().max()))
        assert float(passes[layer][layer].abs().max()) == 0
    for found, expected in zip(passes[3], plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("n_kv_heads", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_two_ways_that_cancel_leave_a_gradient_only_where_one_is_dropped(n_kv_heads):
    roles = {Head(0, 1): "previous_token", Head(1, 2): "induction", Head(3, 0): "negative_induction"}
    planted = plant(roles, seed=3, sharpness=6.0, n_kv_heads=n_kv_heads, dtype="float64")
    one = plant(dict(list(roles.items())[:2]), seed=3, sharpness=6.0, n_kv_heads=n_kv_heads, dtype="float64")
    task = Task("repeats", tuple(Example(*p) for p in planted.prompts("repeats", 5)), "logit_diff")
    for part in ("v", "z"):
        exact, plain, dropped = (score_nodes(planted.model, task, part, method=m) for m in ("exact", "atp-qk", "atp*"))
        assert max(exact[0, 1], plain[0, 1]) < 1e-4
        way = score_nodes(one.model, task, part, method="atp-qk")[0, 1]
        assert way > 5
        assert dropped[0, 1] == pytest.approx(2 / 3 * way, abs=1e-3)  # of three other layers two hold one end of a way
        noise = [head for head in planted.model.facts.heads() if head not in roles]
        assert max(dropped[head] for head in noise) < 1e-4


def test_a_direct_effect_that_a_later_head_cancels_is_found_where_that_head_is_dropped(monkeypatch):
    def takes_back(space):
        """Looks at itself and writes the opposite of what was predicted."""
        return Recipe(space.output[:0], space.output[:0], space.output, -space.output, {0: 1.0})

    monkeypatch.setitem(ROLES, "canceller", Role("takes back what was predicted", 3, takes_back))
    named = {Head(0, 3): "duplicate_token", Head(1, 1): "s_inhibition", Head(2, 4): "name_mover", Head(3, 0): "canceller"}
    planted = plant(named, seed=2, dtype="float64")
    mover, task = Head(2, 4), ioi(planted)
    written = direct_logit_attribution(planted.model, task)
    assert (written.heads[mover], written.heads[3, 0]) == pytest.approx((10, -10), abs=1e-3)
    exact, plain, dropped = (score_nodes(planted.model, task, "z", method=m)[mover] for m in ("exact", "atp", "atp*"))
    assert max(exact, plain) < 1e-4
    assert dropped == pytest.approx(10 / 3, abs=1e-3)  # one of three other layers cancels it


def test_atp_star_is_the_mean_over_dropped_layers_of_the_mean_size():
    model, task = tiny("gpt2"), Task("random", tuple(examples()), "logit_diff")
    sizes = []
    with model.lock, torch.no_grad():
        decomposition = decompose_residual(model, task.examples)
        n = decomposition.clean.n_positions
        where = torch.ones(1, n, dtype=torch.bool)
        passes = z_gradients(
            model,
            as_batch(model, task.examples),
            LOGIT_DIFF.as_function(task.examples, model.device),
            last=True,
            dropped_layers=(0, 1, 2),
        )[2]
        for gradients in passes:
            change = corrupted_z(decomposition, 1, "q", where) - decomposition.clean.z[1]
            sizes.append((change * gradients[1][:, -n:]).sum((1, 3)).abs().mean(0))
    found = score_nodes(model, task, "q", method="atp*")
    np.testing.assert_allclose(found.values[1], (torch.stack(sizes).sum(0) / 2).numpy(), rtol=1e-4)
    assert found.bounds == (0.0, None) and found.record.arguments["method"] == "atp*"


def test_what_cannot_be_estimated_is_refused():
    model, task = tiny("llama"), random_task()
    with pytest.raises(LookupError, match=r"No method is called 'ig'\. There are: exact, atp, atp-qk, atp\*"):
        score_nodes(model, task, "q", method="ig")
    with pytest.raises(LookupError, match=r"No activation of a head is called 'o'\. There are: q, k, v, z"):
        score_nodes(model, task, "o")
    with pytest.raises(LookupError, match="No activation of a head is called 'o'"):
        score_positions(model, task, Head(0, 0), "o")
    with pytest.raises(ValueError, match="Metric 'kl' has no gradient"):
        score_nodes(model, task, "k", metric="kl")
    with pytest.raises(LookupError, match="Head L7H0 does not exist"):
        score_positions(model, task, Head(7, 0), "k")
    same = Task("same", tuple(Example(e.clean, e.clean, e.answers, e.distractors) for e in task), "logit_diff")
    with pytest.raises(ValueError, match="has no corrupted prompts"):
        score_nodes(model, same, "q")
