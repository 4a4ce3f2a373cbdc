"""Future attention, and preplan and anchor tokens."""

import numpy as np
import pytest
import torch

from tests.support.pattern_cases import CASES, given, golden_heads, padded, random_pattern, unpadded, visible_keys

BLOCKS = (1, 23, 10**6)
NAN = float("nan")
OBSERVED = (
    "attention_distance",
    "windowed_distance:window=2",
    "future_attention:horizon_min=1:horizon_max=3:positions=response",
)


def response(start, stop, n_texts=1):
    return ({"response": (start, stop)},) * n_texts


@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_golden_future_attention(block):
    """heads.md 8.2: rows 3 to 7 count, 1 to 3 tokens ahead."""
    found = given(golden_heads(), OBSERVED[2], marks=response(3, 8), block=block)["future_attention"][0, 0]
    third = 1 / 3
    table = [
        [0, 0, third, third, third, 0.5, 1, NAN],
        [0.25, 0.225, 0.205556, 0.169841, 0.144841, 0.133929, 0.125, NAN],
        [1, 0, 0, 0, 0, 0, 0, NAN],
        [0, 0, 0, 0, 0, 0, 0, NAN],
    ]
    torch.testing.assert_close(found, torch.tensor(table), atol=1e-6, rtol=0, equal_nan=True)
    assert table[1][2] == pytest.approx((1 / 4 + 1 / 5 + 1 / 6) / 3, abs=1e-6)  # token 2 is seen by rows 3, 4, 5


HORIZONS = ((1, 3), (0, 2), (2, 0), (5, 40))


@pytest.mark.parametrize("positions", ["all", "response"])
@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_future_attention_is_the_mean_over_the_rows_of_the_horizon(case, block, horizon, positions):
    token_mask, causal, window = CASES[case]
    (low, high), marks = horizon, response(1, 3, len(token_mask)) if positions == "response" else ()
    pattern = random_pattern(2, 3, token_mask, causal, window)
    asked = f"future_attention:horizon_min={low}:horizon_max={high}:positions={positions}"
    found = given(pattern, asked, block=block, token_mask=token_mask, causal=causal, window=window, marks=marks)[
        "future_attention"
    ]
    seen = visible_keys(token_mask, causal, window)
    for text, row in enumerate(token_mask):
        columns = row.nonzero()[:, 0].tolist()
        counted = columns[1:3] if positions == "response" else columns
        assert found[:, text][..., ~row].isnan().all()
        for column in columns:
            rows = [t for t in counted if low <= t - column <= (high or 99) and seen[text, 0, t, column]]
            mean = pattern[:, text][:, :, rows, column].double().mean(-1)
            torch.testing.assert_close(found[:, text, :, column].double(), mean, atol=1e-6, rtol=0, equal_nan=True)


def test_impossible_horizons_and_unknown_marks_are_refused():
    with pytest.raises(ValueError, match="horizon_min=5:horizon_max=3 is invalid"):
        given(golden_heads(), "future_attention:horizon_min=5:horizon_max=3")
    with pytest.raises(LookupError, match=r"No position is called 'response' in these prompts\. There are: all, end"):
        given(golden_heads(), OBSERVED[2])


def test_golden_groups_waad_and_fai():
    """Of the golden heads 30% is one: the head that looks at itself is local, the sink global."""
    from interp.heads import Head
    from interp.metrics import preplan_and_anchors

    found = preplan_and_anchors(given(golden_heads(), *OBSERVED, marks=response(3, 8)))
    assert found.distance.values.tolist() == [pytest.approx([1.0, 2.5, 5.0, 0.0])]
    assert (found.local_heads, found.global_heads) == ((Head(0, 3),), (Head(0, 2),))
    np.testing.assert_allclose(found.waad.values, [[NAN] * 3 + [0.0] * 5], atol=1e-6)
    np.testing.assert_allclose(found.delta.values, [[NAN] * 3 + [0.0] * 4 + [NAN]], atol=1e-6)
    np.testing.assert_allclose(found.fai.values, [[1, 0, 0, 0, 0, 0, 0, NAN]], atol=1e-6)
    assert not found.is_anchor.any()  # token 0 is not of the response, the others have 0
    assert found.overlap.tolist() == [[1.0, 1.0]]
    assert (found.waad.unit, found.fai.unit, found.fai.record.metric) == (
        "tokens",
        "weight",
        "future_attention(horizon_min=1, horizon_max=3, positions=response)",
    )


def test_groups_of_half_the_heads_are_means_of_their_heads():
    from interp.metrics import preplan_and_anchors

    found = preplan_and_anchors(given(golden_heads(), *OBSERVED, marks=response(3, 8)), share=0.5, q=0.4)
    assert [str(h) for h in found.local_heads + found.global_heads] == ["L0H3", "L0H0", "L0H2", "L0H1"]
    np.testing.assert_allclose(found.waad.values[0, 3:], [0.5] * 5)  # previous token 1, self 0
    half = [(1 + 0.25) / 2, 0.225 / 2, 0.205556 / 2, 0.169841 / 2, 0.144841 / 2, 0.133929 / 2, 0.125 / 2, NAN]
    np.testing.assert_allclose(found.fai.values[0], half, atol=1e-6)
    assert found.is_anchor[0].tolist() == [False] * 3 + [True, True] + [False] * 3  # 0.4 of the 4 tokens with a number


@pytest.mark.parametrize("block", [1, 400, 10**6])
@pytest.mark.parametrize("left", [False, True])
def test_group_numbers_equal_those_of_the_averaged_maps(left, block):
    """The paper's way: average the maps of a group, then read WAAD and FAI from the average."""
    from interp.metrics import preplan_and_anchors

    token_mask = padded([23, 17], left)
    pattern = random_pattern(3, 5, token_mask)
    marks = ({"response": (6, 23)}, {"response": (4, 15)})
    names = (
        "attention_distance",
        "windowed_distance:window=4",
        "future_attention:horizon_min=2:horizon_max=9:positions=response",
    )
    found = preplan_and_anchors(given(pattern, *names, token_mask=token_mask, marks=marks, block=block), q=0.3)
    back = torch.arange(23.0)[:, None] - torch.arange(23.0)
    counted = torch.zeros_like(token_mask)
    for text, mark in enumerate(marks):
        counted[text, token_mask[text].nonzero()[slice(*mark["response"]), 0]] = True
    distance = (pattern * back.clamp(min=0)).sum(-1)
    pooled = torch.cat([distance[:, text][..., counted[text]] for text in (0, 1)], -1).mean(-1)
    np.testing.assert_allclose(found.distance.values, pooled, rtol=1e-5)
    order = pooled.flatten().argsort().tolist()
    assert [h.layer * 5 + h.head for h in found.local_heads] == order[:4]  # 30% of 15 heads, rounded to even
    assert [h.layer * 5 + h.head for h in found.global_heads] == order[:-5:-1]
    near, far = (pattern.transpose(1, 2).flatten(0, 1)[group].double().mean(0) for group in (order[:4], order[-4:]))
    for text, rows in enumerate(counted):
        waad = (near[text] * back.clamp(0, 4)).sum(-1)
        np.testing.assert_allclose(found.waad.values[text], waad.where(rows, NAN), rtol=1e-5)
        chosen = (back >= 2) & (back <= 9) & rows[:, None]
        fai = (far[text] * chosen).sum(0) / chosen.sum(0)
        np.testing.assert_allclose(found.fai.values[text], fai.where(token_mask[text], NAN), rtol=1e-4, atol=1e-7)
        places = rows.nonzero()[:, 0]
        change = (waad[places[:-1]] - waad[places[1:]]).abs()
        assert found.is_preplan[text].nonzero()[0].tolist() == sorted(
            places[change.topk(round(0.3 * len(change))).indices].tolist()
        )
        ranked = fai[places][fai[places].isfinite()]
        expected = places[fai[places].nan_to_num(-1).topk(round(0.3 * len(ranked))).indices]
        assert found.is_anchor[text].nonzero()[0].tolist() == sorted(expected.tolist())


def test_tokens_that_look_back_before_each_chunk_are_where_waad_falls():
    """In chunks of 8 tokens the first looks 12 back, the others one; the far head looks at the fourth tokens of chunks alone."""
    from interp.metrics import preplan_and_anchors

    length, start = 64, 16
    local, far = torch.zeros(length, length), torch.zeros(length, length)
    for row in range(length):
        local[row, max(row - (12 if row >= start and row % 8 == 0 else 1), 0)] = 1
        far[row, 4 if row < 16 else row - 12 - (row - 12 - 4) % 8] = 1 if row >= 4 else 0
    far[:4, 0] = 1
    heads = torch.stack([local, far, 0.5 * local + 0.5 * far])[None]
    names = ("attention_distance", "windowed_distance", "future_attention:horizon_min=5:positions=response")
    seen = given(heads, *names, marks=response(start, length))
    found = preplan_and_anchors(seen, share=0.34, q=0.125)
    assert [str(h) for h in found.local_heads + found.global_heads] == ["L0H0", "L0H1"]
    falls = np.nan_to_num(found.delta.values[0])
    assert np.flatnonzero(falls > 0).tolist() == list(range(16, 64, 8))
    assert falls[16] == pytest.approx(9)
    assert np.flatnonzero(falls < 0).tolist() == list(range(23, 63, 8))  # the token before rises: |delta| marks both
    assert np.flatnonzero(found.is_anchor[0]).tolist() == [20, 28, 36, 44]  # the last row, 63, looks at 44


def test_previous_token_heads_have_waad_one_and_no_preplan_token():
    from interp.metrics import preplan_and_anchors

    previous, _, sink, _ = golden_heads(20)[0]
    seen = given(torch.stack([previous, previous, sink, sink])[None], *OBSERVED, marks=response(2, 20))
    found = preplan_and_anchors(seen)
    np.testing.assert_allclose(found.waad.values[0, 2:], 1.0, atol=1e-6)
    assert not found.is_preplan.any()


def test_leaving_the_sink_out_changes_who_is_global():
    """Head 1 keeps 0.9 on token 0 and looks one back with the rest; head 2 looks three back."""
    from interp.metrics import preplan_and_anchors

    one = torch.eye(30)
    back = [torch.cat([one[:1].expand(n, -1), one[:-n]]) for n in (1, 3, 2)]
    heads = torch.stack([one, 0.9 * one[:1] + 0.1 * back[0], back[1], back[2]])[None]
    chosen = []
    for distance in ("attention_distance", "attention_distance:exclude=0"):
        found = preplan_and_anchors(given(heads, distance, *OBSERVED[1:], marks=response(10, 30)))
        chosen.append(str(found.global_heads[0]))
    assert chosen == ["L0H1", "L0H2"]


def test_texts_that_split_otherwise_lower_the_overlap():
    from interp.metrics import preplan_and_anchors

    previous, uniform, sink, itself = golden_heads(12)[0]
    pattern = torch.stack([torch.stack([previous, itself, sink, uniform]), torch.stack([previous, itself, uniform, sink])])
    found = preplan_and_anchors(given(pattern, *OBSERVED, marks=response(4, 12, 2)))
    assert found.overlap.tolist() in ([[1.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]])


def test_what_was_not_observed_and_impossible_shares_are_refused():
    from interp.metrics import preplan_and_anchors

    seen = given(golden_heads(), *OBSERVED, marks=response(3, 8))
    with pytest.raises(LookupError, match="'windowed_distance' was not observed"):
        preplan_and_anchors(given(golden_heads(), "attention_distance", "future_attention"))
    with pytest.raises(ValueError, match=r"share=0\.6: use 0 < share <= 0\.5"):
        preplan_and_anchors(seen, share=0.6)
    with pytest.raises(ValueError, match=r"q=0\.0 is not a share"):
        preplan_and_anchors(seen, q=0.0)
    with pytest.raises(ValueError, match="1 heads cannot be split"):
        preplan_and_anchors(given(random_pattern(1, 1, unpadded(1, 8)), *OBSERVED, marks=response(3, 8)))


def test_tokens_without_a_number_are_neither_ranked_nor_chosen():
    from interp.metrics.preplan_anchor_tokens import top_tokens

    values = np.array([[NAN, 0.5, 0.1, 0.9, 0.0, NAN], [NAN] * 6, [0.0] * 6, [NAN, NAN, 0.2, NAN, NAN, NAN]])
    assert top_tokens(values, 0.5).astype(int).tolist() == [[0, 1, 0, 1, 0, 0], [0] * 6, [0] * 6, [0, 0, 1, 0, 0, 0]]
    assert top_tokens(values, 1.0).sum(1).tolist() == [3, 0, 0, 1]
