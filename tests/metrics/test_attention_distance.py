"""How far heads look: distance and entropy in all their forms, confidence, the histogram of offsets."""

import math

import pytest
import torch

from tests.support.pattern_cases import CASES, given, golden_heads, padded, random_pattern, unpadded

BLOCKS = (1, 23, 10**6)
NAN = float("nan")


def own_places(token_mask):
    """Place of each column in its own text, [batch pos]."""
    return torch.arange(token_mask.shape[1]) - token_mask.int().argmax(-1, keepdim=True)


def gaps(token_mask):
    """|query - key| in tokens, [query key]: the same for every text."""
    place = torch.arange(token_mask.shape[1]).double()
    return (place[:, None] - place).abs()


def by_hand(name, parameters, pattern, token_mask, causal, window):
    """The row metrics as formulas on the whole pattern, [n_layers batch head query] in float64."""
    pattern, gap, place, length = pattern.double(), gaps(token_mask), own_places(token_mask), token_mask.sum(-1, keepdim=True)
    if name == "attention_distance":
        kept = ~torch.isin(place, torch.tensor(parameters["exclude"]))
        left = pattern * kept[:, None, None]
        return (left * gap).sum(-1) / left.sum(-1)
    if name == "normalised_distance":
        farthest = place if causal else torch.maximum(place, length - 1 - place)
        return (pattern * gap).sum(-1) / farthest.where(farthest > 0, NAN)[:, None]
    if name == "windowed_distance":
        return (pattern * gap.clamp(max=parameters["window"])).sum(-1)
    if name in ("entropy", "normalised_entropy"):
        entropy = -torch.xlogy(pattern, pattern).sum(-1)
        keys = (place + 1 if causal else length.expand_as(place)).double().clamp(max=window or math.inf)
        return entropy if name == "entropy" else entropy / keys.log().where(keys > 1, NAN)[:, None]
    assert name == "confidence"
    return pattern.amax(-1)


METRICS = (
    ("attention_distance", {"exclude": ()}),
    ("attention_distance", {"exclude": (0, 3)}),
    ("normalised_distance", {}),
    ("windowed_distance", {"window": 1}),
    ("windowed_distance", {"window": 4}),
    ("windowed_distance", {"window": 30}),
    ("entropy", {}),
    ("normalised_entropy", {}),
    ("confidence", {}),
)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "parameters"), METRICS, ids=str)
def test_rows_in_blocks_have_the_number_of_the_whole_pattern(name, parameters, case, block):
    from interp.metrics.attention import ATTENTION_METRICS

    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    found = given(
        pattern, ATTENTION_METRICS.get(name).set(**parameters), block=block, token_mask=token_mask, causal=causal, window=window
    )[name]
    expected = by_hand(name, parameters, pattern, token_mask, causal, window)
    expected = expected.masked_fill(~token_mask[:, None], NAN)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_golden_distances(block):
    """heads.md 8.2: the mean distance over rows 3 to 7, and WAAD with a window of 2."""
    found = given(golden_heads(), "attention_distance", "windowed_distance:window=2", block=block)
    distance = found["attention_distance"][0, 0, :, 3:].mean(-1)
    torch.testing.assert_close(distance, torch.tensor([1.0, 2.5, 5.0, 0.0]))
    # Row t of the uniform head: 0 on itself, 1 on the token before, 2 on the t-1 others, each with 1/(t+1).
    uniform = [(1 + 2 * (t - 1)) / (t + 1) for t in range(3, 8)]
    assert uniform == pytest.approx([1.25, 1.4, 1.5, 1.571429, 1.625], abs=1e-6)
    waad = found["windowed_distance"][0, 0, :, 3:]
    torch.testing.assert_close(waad, torch.tensor([[1.0] * 5, uniform, [2.0] * 5, [0.0] * 5]))


def test_golden_entropies():
    """heads.md 8.3: ln(t+1) for the uniform head, 0 for the others; normalised 1 and 0 from the second row on."""
    found = given(golden_heads(), "entropy", "normalised_entropy")
    spread = torch.arange(1, 9).log()
    torch.testing.assert_close(found["entropy"][0, 0], torch.stack([0 * spread, spread, 0 * spread, 0 * spread]))
    share = torch.tensor([[0.0], [1.0], [0.0], [0.0]]).expand(-1, 7)
    torch.testing.assert_close(found["normalised_entropy"][0, 0, :, 1:], share)
    assert found["normalised_entropy"][0, 0, :, 0].isnan().all()


def test_uniform_rows_look_half_way_back_whatever_their_place():
    found = given(golden_heads(13), "normalised_distance", "confidence")
    previous, uniform, sink, itself = found["normalised_distance"][0, 0]
    torch.testing.assert_close(uniform[1:], torch.full((12,), 0.5))
    torch.testing.assert_close(previous[1:], 1 / torch.arange(1.0, 13))
    assert sink[1:].tolist() == [1.0] * 12
    assert itself[1:].tolist() == [0.0] * 12
    assert found["normalised_distance"][0, 0, :, 0].isnan().all()
    torch.testing.assert_close(found["confidence"][0, 0, 1], 1 / torch.arange(1.0, 14))
    assert found["confidence"][0, 0, [0, 2, 3]].eq(1).all()


def test_a_bidirectional_row_is_measured_by_the_farther_end():
    pattern = torch.zeros(1, 1, 5, 5)
    pattern[..., 4] = 1.0  # every row looks at the last token
    found = given(pattern, "normalised_distance", causal=False)["normalised_distance"]
    assert found[0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 1.0, 1 / 3, 0.0])


def test_a_single_token_has_numbers_only_where_there_is_something_to_say():
    found = given(torch.ones(1, 2, 1, 1), "entropy", "normalised_entropy", "normalised_distance", "attention_distance")
    assert found["entropy"].tolist() == [[[[0.0], [0.0]]]]
    assert found["attention_distance"].tolist() == [[[[0.0], [0.0]]]]
    for name in ("normalised_entropy", "normalised_distance"):
        scores = found.heads(name)
        assert math.isnan(scores[0, 1])
        assert "single key" in scores.nan_reason or "sees only itself" in scores.nan_reason


def test_excluding_the_sink_shows_what_is_left():
    """Half of every row on the first token, half on the token before: without the first, the distance is 1."""
    one = golden_heads(9)[:, :1]
    found = given(0.5 * one + 0.5 * golden_heads(9)[:, 2:3], "attention_distance:exclude=0")
    assert found["attention_distance"][0, 0, 0, 2:].tolist() == pytest.approx([1.0] * 7, abs=1e-5)
    assert found["attention_distance"][0, 0, 0, :2].isnan().all()  # rows 0 and 1 look at the first token alone


def test_positions_to_exclude_are_counted_in_each_text_by_itself():
    pattern = random_pattern(2, 3, padded([8, 5], left=True))
    left = given(pattern, "attention_distance:exclude=0", token_mask=padded([8, 5], left=True))["attention_distance"]
    alone = given(pattern[:, 1:, :, 3:, 3:], "attention_distance:exclude=0")["attention_distance"]
    torch.testing.assert_close(left[:, 1:, :, 3:], alone, equal_nan=True)


def test_an_excluded_far_sink_does_not_blur_a_near_distance_in_a_long_text():
    n = 3000
    pattern = 0.99 * golden_heads(n)[:, 2:3] + 0.01 * golden_heads(n)[:, :1]
    found = given(pattern, "attention_distance:exclude=0", block=2**16)["attention_distance"]
    assert found[0, 0, 0, 2:].sub(1).abs().max() < 2e-5


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_offsets_are_counted_where_a_row_has_a_choice(case, block):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    found = given(pattern, "argmax_offsets:radius=2", block=block, token_mask=token_mask, causal=causal, window=window)
    place = own_places(token_mask)
    for text, row_of_text in enumerate(pattern.transpose(0, 1)):
        rows = [q for q in range(token_mask.shape[1]) if token_mask[text, q] and not (causal and place[text, q] == 0)]
        best = row_of_text.argmax(-1) - torch.arange(token_mask.shape[1])
        for i, offset in enumerate(range(-2, 3)):
            share = (best[..., rows] == offset).double().mean(-1)
            torch.testing.assert_close(found["argmax_offsets"][:, text, :, i].double(), share, atol=1e-6, rtol=0)


def test_a_positional_head_has_one_offset_and_a_sink_none():
    found = given(golden_heads(12), "argmax_offsets")
    previous, _, sink, itself = found["argmax_offsets"][0, 0]
    assert previous.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert itself.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert sink.tolist() == pytest.approx([1 / 11, 1 / 11, 1 / 11, 0, 0, 0, 0])
    assert found.heads("argmax_offsets")[0, 0] == 1.0


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="window=0 is too small: use at least 1"):
        given(golden_heads(), "windowed_distance:window=0")


def test_permuting_heads_permutes_numbers():
    names = ("attention_distance", "windowed_distance", "normalised_entropy", "confidence", "argmax_offsets")
    pattern, order = random_pattern(2, 5, unpadded(3, 6)), [3, 0, 4, 1, 2]
    plain, permuted = given(pattern, *names), given(pattern[:, :, order], *names, block=17)
    for name in names:
        torch.testing.assert_close(permuted[name], plain[name][:, :, order], equal_nan=True)
