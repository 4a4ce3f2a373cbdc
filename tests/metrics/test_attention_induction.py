"""Self, previous-token, duplicate-token and induction scores: the right cells, and no others."""

import numpy as np
import pytest
import torch

from tests.support.pattern_cases import given, padded, random_pattern, unpadded, visible_keys
from tests.support.tiny_models import tiny, tiny_tokens

NAMES = ("self_attention_score", "prev_token_score", "duplicate_token_score", "induction_score")
LENGTH = 9


def is_cell(name: str, tokens: list[int], query: int, key: int) -> bool:
    """Whether the score of a text's row ``query`` counts ``key``, in words that share nothing with the metrics."""
    if name == "self_attention_score":
        return key == query
    if name == "prev_token_score":
        return key == query - 1
    occurrences = [place for place in range(query) if tokens[place] == tokens[query]]
    return key in (occurrences if name == "duplicate_token_score" else [place + 1 for place in occurrences])


def by_hand(
    name: str, pattern: torch.Tensor, tokens: torch.Tensor, token_mask: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """The score [n_layers batch head query] summed cell by cell over the whole ``pattern``; NaN where a row sees no such cell."""
    scores = torch.full(pattern.shape[:-1], torch.nan, dtype=torch.double)
    for text in range(len(tokens)):
        columns = token_mask[text].nonzero()[:, 0].tolist()
        ids = tokens[text, columns].tolist()
        for query in range(len(columns)):
            keys = [columns[k] for k in range(len(columns)) if is_cell(name, ids, query, k)]
            keys = [k for k in keys if seen[text, 0, columns[query], k]]
            if keys:
                scores[:, text, :, columns[query]] = pattern[:, text, :, columns[query], keys].double().sum(-1)
    return scores


def assert_same(found: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5, equal_nan=True)


def one_hot(keys: list[int]) -> torch.Tensor:
    """A head whose row t is on key ``keys[t]``, [1 1 query key]."""
    return torch.eye(len(keys))[keys][None, None]


def test_a_perfect_induction_head_scores_one_and_its_other_measures_do_not():
    tokens = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 3, 4]])
    pattern = one_hot([0, 0, 0, 0, 0, 2, 3, 4, 5])  # on the first token where there is nothing to copy
    found = given(pattern, "induction_score", tokens=tokens)
    row = found["induction_score"][0, 0, 0]
    assert row[:5].isnan().all() and row[5:].tolist() == [1.0] * 4
    assert found.heads("induction_score").values.item() == 1.0
    diagonal = pattern[0, 0].diagonal(-3)
    assert diagonal.mean().item() == pytest.approx(5 / 6)  # .8333: rows 3 and 4 are read, and row 4 has nothing to copy
    detector = torch.tensor([[q > k - 1 >= 0 and tokens[0, k - 1] == tokens[0, q] for k in range(9)] for q in range(9)])
    assert ((pattern * detector).sum() / pattern.sum()).item() == pytest.approx(4 / 9)  # .4444: all rows are counted


def test_all_earlier_occurrences_count_by_hand():
    tokens = torch.tensor([[7, 8, 7, 9, 7]])
    last = torch.tensor([0.1, 0.2, 0.25, 0.4, 0.05])
    pattern = torch.eye(5)
    pattern[4] = last
    found = given(pattern[None, None], *NAMES, tokens=tokens)
    assert found["duplicate_token_score"][0, 0, 0, 4].item() == pytest.approx(0.1 + 0.25)
    assert found["induction_score"][0, 0, 0, 4].item() == pytest.approx(0.2 + 0.4)
    assert found["self_attention_score"][0, 0, 0, 4].item() == pytest.approx(0.05)
    assert found["prev_token_score"][0, 0, 0, 4].item() == pytest.approx(0.4)
    rows = [~found[name][0, 0, 0].isnan() for name in NAMES]
    assert [row.nonzero()[:, 0].tolist() for row in rows] == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 4], [2, 4]]


def test_after_the_same_token_twice_running_the_key_to_copy_is_the_token_itself():
    found = given(one_hot([0, 1]), *NAMES, tokens=torch.tensor([[5, 5]]))
    assert found["induction_score"][0, 0, 0, 1] == 1 and found["duplicate_token_score"][0, 0, 0, 1] == 0


@pytest.mark.parametrize("rows", range(1, LENGTH + 1))
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 3), (False, None)])
def test_scores_are_those_of_the_full_pattern(rows, left, causal, window):
    token_mask = padded([LENGTH, 4, 1], left)
    tokens = (
        torch.randint(3, (3, LENGTH), generator=torch.Generator().manual_seed(rows)) * token_mask
    )  # padding is token 0 as well
    pattern = random_pattern(2, 5, token_mask, causal, window, seed=rows)
    found = given(pattern, *NAMES, tokens=tokens, token_mask=token_mask, causal=causal, window=window, block=rows * 3 * LENGTH)
    for name in NAMES:
        assert_same(found[name], by_hand(name, pattern, tokens, token_mask, visible_keys(token_mask, causal, window)))


def test_an_occurrence_outside_the_window_is_none():
    tokens = torch.tensor([[1, 2, 3, 4, 1, 1]])
    token_mask = unpadded(1, 6)
    found = given(random_pattern(1, 1, token_mask, window=3), *NAMES, tokens=tokens, window=3)
    assert found["duplicate_token_score"][0, 0, 0].isfinite().tolist() == [False] * 5 + [True]
    assert found["induction_score"][0, 0, 0].isfinite().tolist() == [False] * 5 + [True]  # key 5, after the 1 at 4


def test_a_row_that_sees_only_itself_puts_nothing_on_the_token_before():
    found = given(one_hot([0, 1, 2]), "prev_token_score", window=1, block=3)
    assert found["prev_token_score"][0, 0, 0, 1:].tolist() == [0, 0]


def test_the_first_key_of_a_window_counts_though_the_token_before_it_is_out_of_sight():
    tokens = torch.tensor([[1, 2, 3, 1]])
    found = given(one_hot([0, 0, 1, 1]), "induction_score", tokens=tokens, window=3, block=4)
    assert found["induction_score"][0, 0, 0, 3] == 1


@pytest.mark.parametrize("left", [False, True])
def test_a_text_padded_with_its_own_first_token_has_no_more_repeats(left):
    token_mask = padded([6, 3], left)
    tokens = torch.tensor([[1, 2, 3, 1, 2, 3], [1, 1, 1, 1, 2, 3] if left else [1, 2, 3, 1, 1, 1]])
    found = given(
        random_pattern(1, 2, token_mask), "duplicate_token_score", "induction_score", tokens=tokens, token_mask=token_mask
    )
    for name in ("duplicate_token_score", "induction_score"):
        assert found[name][0, 1].isnan().all() and found[name][0, 0, 0].isfinite().sum() == 3


def test_planted_heads_are_the_highest_of_their_kind_among_random_ones():
    n, places = 20, {"self_attention_score": 3, "prev_token_score": 7, "duplicate_token_score": 0, "induction_score": 10}
    for seed in range(5):
        half = torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:n] + 1
        tokens = torch.cat([torch.zeros(1, dtype=torch.long), half, half])[None]
        row = torch.arange(2 * n + 1)
        pattern = random_pattern(1, 11, unpadded(1, 2 * n + 1), seed=seed)[0]
        for name, back in zip(NAMES, (0, 1, n, n - 1), strict=True):
            pattern[0, places[name]] = torch.eye(2 * n + 1)[(row - back).clamp(min=0)]
        found = given(pattern, *NAMES, tokens=tokens)
        for name in NAMES:
            scores = found.heads(name)
            assert scores[0, places[name]] == pytest.approx(1)
            others = np.delete(scores.values[0], places[name])
            assert scores.top(1, by="highest")[0].head == places[name] and others.max() < 0.3


def test_a_threshold_drops_weights_cell_by_cell():
    tokens = torch.tensor([[7, 8, 7, 9, 7]])
    pattern = torch.eye(5)
    pattern[4] = torch.tensor([0.85, 0.005, 0.1, 0.04, 0.005])
    found = [given(pattern[None, None], f"induction_score:threshold={t}", tokens=tokens) for t in (0, 0.01, 0.05)]
    assert [f["induction_score"][0, 0, 0, 4].item() for f in found] == pytest.approx([0.045, 0.04, 0])


def test_one_token_has_only_a_score_on_itself():
    found = given(torch.ones(1, 1, 1, 1), *NAMES)
    assert found["self_attention_score"].item() == 1
    assert all(found[name].isnan().all() for name in NAMES[1:])
    assert np.isnan(found.heads("prev_token_score").values).all() and found.heads("prev_token_score").nan_reason


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2"])
def test_scores_of_a_model_are_those_of_the_patterns_that_a_hook_sees(name):
    from interp.metrics.attention import observe_attention

    model = tiny(name)
    tokens = tiny_tokens(2, 12) % 5 + 4
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(tokens)
    pattern = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(3)])
    for block in (1, 200, 1 << 18):
        found = observe_attention(model, tokens, NAMES, block=block)
        for metric in NAMES:
            for layer in range(3):
                window = {"mistral": 4, "gemma2": (4, None, 4)[layer]}.get(name)
                seen = visible_keys(unpadded(2, 12), window=window)
                want = by_hand(metric, pattern[layer][None], tokens, unpadded(2, 12), seen)
                assert_same(found[metric][layer][None], want)


@pytest.mark.parametrize("name", ["duplicate_token_score", "induction_score"])
def test_patches_of_an_image_are_not_repeats_of_each_other(name):
    with pytest.raises(ValueError, match="the prompts are images: use text"):
        given(random_pattern(1, 2, unpadded(1, 7), causal=False), name, causal=False, grid=(2, 3, 1))
