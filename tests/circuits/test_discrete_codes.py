"""Codes of heads: counts by hand, and planted heads that differ in what they copy, or do not."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from interp.circuits import auroc, find_codes
from interp.circuits.discrete_codes import NAME, NOTE, DiscreteCodes, _head_outputs, _learn, unique_share
from interp.engine import run
from interp.heads import Head, HeadScores
from interp.models import plant
from interp.models.value_and_output_weights import output_weights
from interp.records import RunRecord
from interp.tasks import Example, Task
from tests.support.tiny_models import tiny, tiny_tokens

N_TRAIN, N_PROMPTS = 10, 40


def test_the_share_counts_codes_that_only_positives_have():
    codes = np.array([[1, 5, -1], [2, 5, -1], [2, 7, -1], [3, 7, -1], [2, 5, -1]])
    positive = np.array([True, True, False, False, False])
    assert unique_share(codes, positive).tolist() == [1 / 3, 0, 0]


def test_pairs_are_of_an_earlier_and_a_later_head_and_their_codes_count_together():
    codes = np.zeros((2, 2, 2, 2), dtype=int)  # prompts, clean or corrupted, layers, heads
    codes[:, :, 0, 0] = [[0, 1], [1, 0]]
    codes[:, :, 1, 1] = [[4, 4], [3, 3]]  # each code stands on both sides, and no pair does
    codes[:, :, 1, 0] = -1
    scores = HeadScores("discrete_codes", np.zeros((2, 2)), "share of codes", (0.0, 1.0), RunRecord("m"))
    found = DiscreteCodes(codes, scores, np.ones((2, 2)), 1.0, RunRecord("m")).pairs_to_dataframe()
    pairs = {(row.writer, row.reader): row.value for row in found.itertuples()}
    together = 2 / 4  # (0, 4) and (1, 3) of these and (1, 4) and (0, 3)
    assert pairs == {("L0H0", "L1H0"): 0, ("L0H0", "L1H1"): together, ("L0H1", "L1H0"): 0, ("L0H1", "L1H1"): 0}
    assert found["note"].eq(NOTE).all()


def test_every_direction_has_a_code_of_its_own():
    directions = torch.linalg.qr(torch.randn(32, 6, generator=torch.Generator().manual_seed(1)))[0].T * 32**0.5
    which = torch.arange(90) % 6
    features, explained = _learn(directions[which], directions[which[:17]], 40, seed=0)
    codes = features.argmax(-1)
    assert explained > 0.9 and len(set(codes.tolist())) == 6
    assert_array_equal(codes, codes[which[:17]])


def test_what_is_coded_is_the_mean_of_what_a_head_writes():
    model = tiny("llama")
    rows = [row.tolist() for row in (*tiny_tokens(2, 7, seed=1), *tiny_tokens(2, 9, seed=2))]
    task = Task("t", tuple(Example(tuple(r), (*r[:3], 50, *r[4:]), (5,), (7,), {"m": (3, 5)}) for r in rows), "logit_diff")
    for positions, where in (("all", slice(None)), ("m", slice(3, 5)), ("end", slice(-1, None))):
        found = _head_outputs(model, task, positions)
        for i, e in enumerate(task):
            for side, tokens in enumerate((e.clean, e.corrupted)):
                z = run(model, tokens, capture=["z.2"])["z.2"][0, where, 3].mean(0)
                torch.testing.assert_close(found[i, side, 2, 3], z @ output_weights(model, 2)[3], rtol=1e-4, atol=1e-5)


@cache
def found(sharpness: float, mixed: bool = False) -> tuple[DiscreteCodes, dict[str, Head]]:
    """Codes of a planted model of 5 layers x 4 heads; ``mixed``: every other prompt has its sides exchanged."""
    planted = plant("mini_ioi", seed=10, sharpness=sharpness, n_layers=5, n_heads=4, length=21, n_names=7)
    prompts = [Example(*prompt) for prompt in planted.prompts("ioi", N_PROMPTS)]
    sides = [Example(e.corrupted, e.clean, e.answers, e.distractors) if mixed and i % 2 else e for i, e in enumerate(prompts)]
    codes = find_codes(planted.model, Task("ioi", tuple(sides), "logit_diff"), n_train=N_TRAIN)
    return codes, {role: head for head, role in planted.roles.items()}


def truth(roles: dict[str, Head]) -> np.ndarray:
    return np.array([Head(layer, head) in roles.values() for layer in range(5) for head in range(4)])


def test_sharp_heads_of_a_planted_circuit_are_told_from_noise():
    codes, roles = found(30.0)
    for role in ("duplicate_token", "s_inhibition"):  # they write nothing on corrupted prompts
        assert codes.scores[roles[role]] == 1 and codes.p_values[roles[role]] < 0.05
    assert auroc(codes.scores.values.ravel(), truth(roles)) > 0.9
    assert codes.codes.shape == (N_PROMPTS - N_TRAIN, 2, 5, 4)


def test_no_code_tells_how_much_of_its_one_direction_a_soft_head_writes():
    codes, roles = found(6.0)
    duplicate = roles["duplicate_token"]
    assert len(set(codes.codes[:, :, duplicate.layer, duplicate.head].ravel().tolist())) == 1
    assert codes.scores[duplicate] == 0 and codes.p_values[duplicate] == 1


def test_sides_exchanged_at_random_leave_nothing_to_find():
    codes, roles = found(30.0, mixed=True)
    assert min(codes.p_values[head] for head in roles.values()) > 0.05
    assert codes.scores.values.max() < 0.5


def test_every_output_says_that_it_is_exploratory():
    codes, _ = found(30.0)
    assert "exploratory" in NOTE and "AUROC" in NOTE and codes.record.arguments["note"] == NOTE
    assert NOTE in repr(codes) and NAME in repr(codes.scores) and NAME in codes.scores._repr_html_()
    table = codes.to_dataframe()
    assert table["note"].eq(NOTE).all() and table["metric"].eq(NAME).all()
    assert "exploratory" in NAME and "AUROC" in NAME and NAME in codes.scores.plot().to_json()
    drawn = codes.plot().to_json()
    assert NAME in drawn and "AUROC of the planted heads" in drawn
    assert table["p_value"].tolist() == codes.p_values.ravel().tolist()


def test_tasks_with_nothing_to_learn_from_are_refused():
    row = tuple(range(4, 11))
    with pytest.raises(ValueError, match="n_train=2 of 2 prompts leaves none to score"):
        find_codes(tiny("gpt2"), Task("t", (Example(row, row[::-1], (5,), (7,)),) * 2, "logit_diff"), n_train=2)
    with pytest.raises(ValueError, match="no corrupted prompts"):
        find_codes(tiny("gpt2"), Task("t", (Example(row, row, (5,), (7,)),) * 2, "logit_diff"), n_train=1)
    for wrong, said in (({"n_codes": 0}, "n_codes=0 and n_permutations=200"), ({"n_permutations": 0}, "and n_permutations=0")):
        with pytest.raises(ValueError, match=f"{said}: use at least 1 of each"):
            find_codes(tiny("gpt2"), Task("t", (Example(row, row[::-1], (5,), (7,)),) * 2, "logit_diff"), n_train=1, **wrong)
