"""Heads shared by two tasks against counted chance, and rows set by hand against the closed forms of planted models."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.circuits import head_overlap, overlap, repair
from interp.engine import run, sweep
from interp.heads import Head, HeadScores
from interp.interventions import attend_to, zero
from interp.metrics.outcomes import OUTCOMES
from interp.models import plant
from interp.models.model import record_of
from interp.records import RunRecord
from interp.tasks import Example, Task
from tests.support.tiny_models import tiny

HOSTS = pytest.mark.parametrize("n_kv_heads", [None, 2], ids=["gpt2", "llama"])


def scores_of(values) -> HeadScores:
    return HeadScores("effect", np.asarray(values, float), "logits", (None, None), RunRecord("m"))


def task_of(planted, kind: str, n_prompts: int = 6) -> Task:
    return Task(kind, tuple(Example(*prompt) for prompt in planted.prompts(kind, n_prompts)), "logit_diff")


def ablated(planted, kind: str) -> HeadScores:
    found = ablate_heads(planted.model, task_of(planted, kind), ablation="zero")
    return scores_of(found.effects.mean(1).reshape(planted.model.facts.n_layers, -1))


def test_chance_is_what_counting_all_sets_of_heads_gives():
    shape, first = (3, 5), [Head(0, 1), Head(0, 2), Head(2, 4)]
    second = [Head(0, 2), Head(0, 0), Head(1, 3), Head(2, 4)]
    found = overlap(first, second, shape)
    heads = [Head(layer, head) for layer in range(3) for head in range(5)]
    anywhere = [len({*first} & {*drawn}) for drawn in combinations(heads, 4)]
    layers = [list(combinations([h for h in heads if h.layer == layer], n)) for layer, n in enumerate((2, 1, 1))]
    within = [len({*first} & {h for part in drawn for h in part}) for drawn in product(*layers)]
    assert found.shared == 2
    assert (found.expected, found.p_value) == pytest.approx((np.mean(anywhere), np.mean(np.array(anywhere) >= 2)))
    assert (found.expected_within_layers, found.p_value_within_layers) == pytest.approx(
        (np.mean(within), np.mean(np.array(within) >= 2))
    )
    assert found.expected == pytest.approx(3 * 4 / 15)  # a * b / n


def test_a_head_given_twice_counts_once_and_heads_beyond_the_model_are_refused():
    first, second = [Head(0, 1), Head(2, 4)], [Head(0, 1), Head(1, 3), Head(1, 0)]
    assert overlap(first * 2, [*second, second[0]], (3, 5)) == overlap(first, second, (3, 5))
    for head in (Head(3, 0), Head(0, 5), Head(-1, 0)):
        with pytest.raises(LookupError, match=f"Head {head} does not exist in 3 layers x 5 heads"):
            overlap(first, [head], (3, 5))


def test_top_heads_are_taken_by_magnitude_and_rounded_up():
    first = scores_of([[-9, 1, 0, 2], [3, 0, 0, -4], [0, 5, 0, 0]])
    second = scores_of([[8, 0, 0, 0], [0, 7, 0, -6], [0, -1, 0, 0]])
    table = head_overlap(first, second, (0.01, 0.1, 0.2))
    assert table[["k", "shared"]].values.tolist() == [[1, 1], [2, 1], [3, 2]]
    assert table["shared_share"].tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert table["p_value"].iloc[0] == pytest.approx(1 / 12)


def test_the_head_that_two_planted_tasks_share_is_their_overlap():
    planted = plant("two_tasks", seed=4, n_layers=5, n_heads=4, length=21, n_names=7)
    both = [ablated(planted, kind) for kind in ("repeats", "needle")]
    assert {*both[0].top(2)} & {*both[1].top(2)} == {*planted.heads("previous_token")}
    row = head_overlap(*both, shares=(2 / 20,)).iloc[0]
    assert (row["k"], row["shared"], row["expected"]) == (2, 1, pytest.approx(0.2))


def test_scores_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="heads of two models"):
        head_overlap(scores_of(np.ones((2, 3))), scores_of(np.ones((3, 2))))
    with pytest.raises(ValueError, match="not shares of the heads"):
        head_overlap(scores_of(np.ones((2, 3))), scores_of(np.ones((2, 3))), (0.1, 1.5))


def examples_of_lengths(*lengths: int) -> list[Example]:
    draw = np.random.default_rng(0)
    tokens = [tuple(draw.integers(4, 97, n).tolist()) for n in lengths]
    return [Example(row, row, (5,), (7,), {"one": (2, 3), "two": (4, 5)}) for row in tokens]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_row_that_is_set_looks_at_its_targets_and_other_rows_do_not_change(name):
    examples, heads = examples_of_lengths(9, 9), [Head(1, 3)]
    targets = torch.zeros(2, 9, dtype=torch.bool)
    targets[0, [2, 5]], targets[1, 4] = True, True
    was, now = (run(tiny(name), examples, capture=["pattern.1"], intervene=i) for i in ([], [attend_to(heads, targets)]))
    expected = was["pattern.1"].clone()
    expected[:, 3, -1] = targets / targets.sum(-1, keepdim=True)
    torch.testing.assert_close(now["pattern.1"], expected, rtol=0, atol=1e-6)
    assert float((now.logits - was.logits)[:, -1].abs().max()) > 1e-3
    torch.testing.assert_close(now.logits[:, :-1], was.logits[:, :-1])


@pytest.mark.parametrize("name", ["gpt2", "mistral", "opt"])
def test_set_rows_of_prompts_of_all_lengths_are_the_same_on_both_roads(name):
    task = Task("ragged", tuple(examples_of_lengths(6, 8, 7, 8)), "logit_diff")
    targets = torch.zeros(4, 8, dtype=torch.bool)
    targets[[0, 1, 2, 3], [4, 6, 5, 7]] = True
    variants = [(attend_to([Head(layer, 2)], targets),) for layer in range(3)]
    record, metric = record_of(tiny(name)), OUTCOMES.get("logit_diff")
    both = [sweep(tiny(name), task, variants, metric, record=record, backend=backend) for backend in ("resumed", "hooked")]
    np.testing.assert_allclose(both[0].values, both[1].values, atol=2e-4)
    assert np.abs(both[0].effects).min() > 0


@HOSTS
@pytest.mark.parametrize("wrong", [["s2"], ["s1", "s2"]])
def test_looking_at_the_repeated_name_repairs_what_a_removed_duplicate_head_broke(n_kv_heads, wrong):
    planted = plant("mini_ioi", seed=2, n_layers=5, n_heads=4, n_kv_heads=n_kv_heads, length=21, n_names=7)
    [flag], [chosen] = planted.heads("duplicate_token"), planted.heads("s_inhibition")
    found = repair(
        planted.model, task_of(planted, "ioi"), [chosen], wrong, ["io"], base_interventions=(zero([flag]),), n_draws=3
    )
    outcome = found.table.groupby("condition")["outcome"].mean()
    expected = {"clean": 7, "damaged": -7 / 3, "repair": 7, "right": -7, "random_heads": -7 / 3}
    assert outcome[[*expected]].to_dict() == pytest.approx(expected, abs=1e-4)
    assert -7 < outcome["random_positions"] < 0  # some of them hold the answer, or neither name
    table = found.table.drop_duplicates("condition").set_index("condition")
    told = table["accuracy"].drop("random_positions").to_dict()
    assert told == {"clean": 1, "damaged": 0, "repair": 1, "right": 0, "random_heads": 0}
    assert (table.loc["repair", "repaired"], table.loc["repair", "broken"]) == (1, 0)
    assert table["oracle"].to_dict() == {
        **dict.fromkeys(table.index, True), "clean": False, "damaged": False, "random_positions": False,
    }  # fmt: skip
    assert found.record.arguments["oracle"] is True


def test_random_heads_are_of_the_chosen_layers_and_never_chosen():
    planted = plant("mini_ioi", seed=2, n_layers=5, n_heads=4, length=21, n_names=7)
    chosen = [Head(1, 0), Head(1, 3), Head(4, 2)]
    table = repair(planted.model, task_of(planted, "ioi"), chosen, ["s2"], ["io"], n_draws=5).table
    drawn = [[Head.parse(name) for name in row.split()] for row in table.query("condition == 'random_heads'")["heads"].tolist()]
    assert len(drawn) == 5 and all([h.layer for h in row] == [1, 1, 4] and not {*row} & {*chosen} for row in drawn)
    assert "damaged" not in set(table["condition"])
    with pytest.raises(ValueError, match="all heads of their layers are chosen"):
        repair(planted.model, task_of(planted, "ioi"), [Head(1, h) for h in range(4)], ["s2"], ["io"])
    with pytest.raises(LookupError, match=r"No mark is called 'color'.*io, s1, s1_next, s2"):
        repair(planted.model, task_of(planted, "ioi"), chosen, ["color"], ["io"])
