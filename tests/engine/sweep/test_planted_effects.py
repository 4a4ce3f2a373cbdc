"""What removing and patching planted heads does, by the engine's sweeps and by the exact trace: alone, in pairs, from both sides."""

import warnings
from math import exp

import numpy as np
import pytest

from interp.ablation import ablate_heads
from interp.engine import run
from interp.models import plant
from interp.tasks import Example, Task

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])
EXACT = 1e-6


def small(roles, seed, n_kv_heads=None, **options):
    """5 layers x 4 heads with 21 positions and 23 tokens, in double precision."""
    sizes = {"n_layers": 5, "n_heads": 4, "length": 21, "n_names": 7, "dtype": "float64"}
    return plant(roles, seed=seed, n_kv_heads=n_kv_heads, **(sizes | options))


def task_of(planted, kind, n_prompts=4, *, swapped=False):
    """Prompts of a kind; ``swapped`` asks for the clean answer after the corrupted prompt."""
    prompts = [Example(*prompt) for prompt in planted.prompts(kind, n_prompts)]
    sides = [Example(e.corrupted, e.clean, e.answers, e.distractors, e.marks) for e in prompts] if swapped else prompts
    return Task(kind, tuple(sides), "logit_diff")


def traced(planted, kind, heads, n_prompts=4):
    """Mean logit difference without these heads, by the exact trace."""
    prompts = planted.prompts(kind, n_prompts)
    logits = planted.trace([p.clean for p in prompts], ablated_heads=heads).logits[:, -1]
    return np.mean([row[p.answers[0]] - row[p.distractors[0]] for row, p in zip(logits, prompts, strict=True)])


def values_of(result):
    """Mean outcome of each variant."""
    return dict(zip(result.variants, result.values.mean(1), strict=True))


def by_role(planted, values):
    """The values of single heads by role; heads of noise must all have the same one."""
    noise = [value for heads, value in values.items() if len(heads) == 1 and heads[0] not in planted.roles]
    assert len(noise) > 10 and max(noise) - min(noise) < EXACT
    return {
        planted.roles[heads[0]]: value for heads, value in values.items() if len(heads) == 1 and heads[0] in planted.roles
    } | {"noise": noise[0]}


def test_of_all_heads_two_matter_for_repeats():
    for seed in range(3):
        for n_kv_heads in (None, 2):
            planted = small("repeats", seed, n_kv_heads)
            task, exact = task_of(planted, "repeats"), planted.ground_truth_effects("repeats", 4)
            effects = ablate_heads(planted.model, task, ablation="zero").effects
            needed = {*planted.heads("previous_token"), *planted.heads("induction")}
            for head, effect in zip(planted.model.facts.heads(), effects.mean(1), strict=True):
                assert effect == pytest.approx(-10 if head in needed else 0, abs=1e-4 if head in needed else EXACT), str(head)
                assert effect == pytest.approx(exact.ablations.get(head, 0), abs=EXACT)


@HOSTS
def test_half_gains_add_up_and_opposite_ones_cancel(n_kv_heads):
    halves = small("half_gains", 1, n_kv_heads)
    one, two = halves.heads("half_induction")
    found = values_of(ablate_heads(halves.model, task_of(halves, "repeats"), ablation="zero", heads=[one, two], pairs=True))
    assert found == pytest.approx({(one,): 5, (two,): 5, (one, two): 0}, abs=1e-4)

    opposites = small("cancelling", 1, n_kv_heads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*slower hooked backend")  # logits that cancel leave its proof no scale
        result = ablate_heads(opposites.model, task_of(opposites, "repeats"), ablation="zero")
    assert result.baseline == pytest.approx([0] * 4, abs=EXACT)
    want = {"previous_token": 0, "induction": -10, "negative_induction": 10, "noise": 0}
    assert by_role(opposites, values_of(result)) == pytest.approx(want, abs=1e-4)


@HOSTS
def test_ablations_of_mini_ioi_have_the_values_of_their_closed_forms(n_kv_heads):
    planted = small("mini_ioi", 3, n_kv_heads)
    result = ablate_heads(planted.model, task_of(planted, "ioi"), ablation="zero")
    want = {"duplicate_token": -7 / 3, "s_inhibition": -7 / 3, "name_mover": -3, "negative_name_mover": 10, "noise": 7}
    assert by_role(planted, values_of(result)) == pytest.approx(want, abs=1e-4)


@HOSTS
def test_what_a_backup_hides_is_missed_by_single_heads_and_found_by_pairs_and_by_sweeping_again(n_kv_heads):
    planted = small("backup", 2, n_kv_heads)
    [mover], [backup] = planted.heads("name_mover"), planted.heads("backup_name_mover")
    noise = [head for head in planted.model.facts.heads() if head not in planted.roles][:3]
    result = ablate_heads(planted.model, task_of(planted, "ioi"), ablation="zero", heads=[*planted.roles, *noise], pairs=True)
    values = {frozenset(heads): value for heads, value in values_of(result).items()}
    for heads, value in values.items():
        assert value == pytest.approx(traced(planted, "ioi", heads), abs=1e-5), heads
    base = result.baseline.mean()
    singles = {planted.roles.get(head, "noise"): values[frozenset([head])] for head in [*planted.roles, *noise]}
    want = {"duplicate_token": 7.6269, "s_inhibition": 7.6269, "name_mover": 7.0, "backup_name_mover": 7.0}
    assert singles == pytest.approx({**want, "negative_name_mover": 10.0, "noise": base}, abs=1e-4)
    assert base == pytest.approx(7.0247, abs=1e-4) and values[frozenset([mover, backup])] == pytest.approx(-3, abs=1e-4)

    hidden = {head for head, role in planted.roles.items() if role in want}
    assert {head for heads, value in values.items() if len(heads) == 1 and value < base - 1 for head in heads} == set()
    assert {head for heads, value in values.items() if len(heads) == 2 and value < base - 1 for head in heads} == hidden
    table = result.heads()
    assert table.loc[table["label"] == "+".join(map(str, sorted([mover, backup]))), "interaction"].item() == pytest.approx(
        -3 + base - 7 - 7, abs=1e-4
    )
    without = values[frozenset([mover])]
    again = {head for head in [*planted.roles, *noise] if head != mover and values[frozenset([head, mover])] < without - 1}
    assert again == hidden - {mover}, "with the name mover gone, a second sweep finds the others"


def patched(planted, heads, swapped, n_prompts=8):
    """Mean logit difference with heads, alone and in pairs, patched from the other side: corrupted into clean or, ``swapped``, back."""
    task = task_of(planted, "ioi", n_prompts, swapped=swapped)
    return values_of(ablate_heads(planted.model, task, ablation="patch", heads=heads, pairs=True))


@HOSTS
def test_a_backup_that_is_silent_in_the_clean_run_is_found_by_joint_removal_alone(n_kv_heads):
    planted = small("dormant_backup", 5, n_kv_heads)
    [mover], [backup] = planted.heads("name_mover"), planted.heads("backup_name_mover")
    variants = [(mover,), (backup,), (mover, backup)]
    noised, denoised = (patched(planted, [mover, backup], swapped) for swapped in (False, True))
    assert [noised[heads] for heads in variants] == pytest.approx([9.933, 10, 0], abs=1e-3)
    assert [denoised[heads] for heads in variants] == pytest.approx([5, 0, 10], abs=1e-3)


@HOSTS
def test_of_two_s_inhibition_heads_noising_finds_neither_and_denoising_both(n_kv_heads):
    planted = small("double_s_inhibition", 4, n_kv_heads)
    one, two = planted.heads("s_inhibition")
    [flag] = planted.heads("duplicate_token")
    noise = [head for head in planted.model.facts.heads() if head not in planted.roles][:2]
    noised, denoised = (patched(planted, [one, two, flag, *noise], swapped) for swapped in (False, True))
    variants = [(one,), (two,), (one, two)]
    assert [noised[heads] for heads in variants] == pytest.approx([10, 10, -10 / 3], abs=1e-4)
    assert [denoised[heads] for heads in variants] == pytest.approx([5, 5, 5], abs=1e-4)
    assert noised[flag,] == pytest.approx(-10 / 3, abs=1e-4), "S2 alone is no duplicate: the flag is needed"
    assert denoised[flag,] == pytest.approx(0, abs=1e-4), "and is not enough"
    for heads in [(noise[0],), (noise[1],), tuple(noise)]:
        assert noised[heads] == pytest.approx(10, abs=1e-4) and denoised[heads] == pytest.approx(0, abs=1e-4)


@HOSTS
def test_retrieval_and_anchors_carry_half_the_answer_each(n_kv_heads):
    planted = small("needle", 6, n_kv_heads)
    task = task_of(planted, "needle")
    result = ablate_heads(planted.model, task, ablation="zero")
    assert result.baseline == pytest.approx([20] * 4, abs=1e-4)
    want = {
        "retrieval": 10, "anchor_writer": 10, "anchor_reader": 10, "previous_token": 0, "first_token_sink": 20, "noise": 20,
    }  # fmt: skip
    assert by_role(planted, values_of(result)) == pytest.approx(want, abs=1e-4)
    [retrieval], [writer], [reader] = (planted.heads(role) for role in ("retrieval", "anchor_writer", "anchor_reader"))
    pairs = ablate_heads(planted.model, task, ablation="zero", heads=[retrieval, writer, reader], pairs=True)
    for heads, value in values_of(pairs).items():
        assert value == pytest.approx(traced(planted, "needle", heads), abs=1e-5)
        if len(heads) == 2:
            assert value == pytest.approx(10 if set(heads) == {writer, reader} else 0, abs=1e-4)


@HOSTS
def test_the_anchor_reader_delivers_the_needle_without_looking_at_it(n_kv_heads):
    planted = small("needle", 7, n_kv_heads)
    examples = list(task_of(planted, "needle"))
    [retrieval], [writer], [reader] = (planted.heads(role) for role in ("retrieval", "anchor_writer", "anchor_reader"))
    traces = planted.trace([e.clean for e in examples]).patterns
    for head, query, key in ((retrieval, 13, "needle"), (writer, 10, "needle"), (reader, 13, "delimiter")):
        pattern = run(planted.model, examples, capture=[f"pattern.{head.layer}"])[f"pattern.{head.layer}"][:, head.head]
        assert np.allclose(pattern.numpy(), traces[head], atol=EXACT)
        for row, example in zip(pattern, examples, strict=True):
            assert row[query, example.marks[key][1] - 1].item() == pytest.approx(
                1 / (1 + exp(-15) + (query - 1) * exp(-30)), abs=EXACT
            )
            if head == reader:
                needle = slice(*example.marks["needle"])
                assert row[query, needle].sum().item() < EXACT
