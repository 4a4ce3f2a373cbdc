"""Which tokens are looked at: received attention, sinks of every kind, over-focus, likeness of rows."""

import math

import pytest
import torch

from tests.support.pattern_cases import CASES, given, golden_heads, padded, random_pattern, unpadded, visible_keys

BLOCKS = (1, 23, 10**6)
NAN = float("nan")
HARMONIC = [sum(1 / n for n in range(1, length + 1)) for length in range(1, 129)]


def texts(token_mask):
    """The columns of each text."""
    return [row.nonzero()[:, 0] for row in token_mask]


def close(found, expected, **options):
    options = {"atol": 1e-5, "rtol": 1e-5, "equal_nan": True} | options
    torch.testing.assert_close(found.double(), torch.as_tensor(expected, dtype=torch.double), **options)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("min_rows", [1, 3])
def test_received_attention_is_the_mean_of_the_rows_that_see_a_column(case, block, min_rows):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    asked = f"received_attention:min_rows={min_rows}"
    found = given(pattern, asked, block=block, token_mask=token_mask, causal=causal, window=window)["received_attention"]
    seen = visible_keys(token_mask, causal, window)
    for text, columns in enumerate(texts(token_mask)):
        assert found[:, text][..., ~token_mask[text]].isnan().all()
        for place, column in enumerate(columns):
            rows = [row for row in columns.tolist() if seen[text, 0, row, column]]
            enough = not causal or len(columns) - place >= min_rows
            mean = pattern[:, text][:, :, rows, column].double().mean(-1)
            close(found[:, text, :, column], mean if enough else mean * NAN)


def test_golden_importance_of_every_position():
    """heads.md 8.3."""
    found = given(golden_heads(), "received_attention", block=20)["received_attention"][0, 0]
    tail = [1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2]
    close(found[0], [2 / 8, *tail, 0])  # rows 0 and 1 look at token 0, the last token is looked at by nobody
    close(found[1], [0.3397, 0.2454, 0.2030, 0.1769, 0.1586, 0.1448, 0.1339, 0.125], atol=5e-5)
    close(found[1], [sum(1 / (row + 1) for row in range(k, 8)) / (8 - k) for k in range(8)])
    close(found[2], [1] + [0] * 7)
    close(found[3], [1 / 8, *tail, 1])


@pytest.mark.parametrize("length", [8, 16, 32, 64, 128])
def test_a_uniform_head_has_the_harmonic_share_on_its_first_token(length):
    uniform = golden_heads(length)[:, 1:2]
    found = given(uniform, "sink_rate", "received_attention", block=300)
    expected = HARMONIC[length - 1] / length
    close(found["sink_rate"][0, 0, 0], [expected, float(length <= 8)])
    close(found["received_attention"][0, 0, 0, 0], expected)
    rounded = {8: 0.340, 16: 0.211, 32: 0.127, 64: 0.074, 128: 0.042}
    assert expected == pytest.approx(rounded[length], abs=5e-4)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("position", [0, 2])
def test_importance_counts_all_rows_from_the_position_on(case, block, position):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    asked = f"sink_rate:position={position}:epsilon=0.2"
    found = given(pattern, asked, block=block, token_mask=token_mask, causal=causal, window=window)["sink_rate"]
    assert found.shape == (4, len(token_mask), 5, 2)
    for text, columns in enumerate(texts(token_mask)):
        rows = columns[position:] if causal else columns
        weight = pattern[:, text][:, :, rows, columns[position]].double().mean(-1)
        close(found[:, text, :, 0], weight)
        assert found[:, text, :, 1].equal((weight > 0.2).float())


def test_the_number_of_a_head_is_the_share_of_texts_whose_sink_passes():
    """Head 0 parks half its weight on token 0 in both texts, head 1 in the second only; the rest looks at itself."""
    sink, itself = golden_heads(9)[0, 2], golden_heads(9)[0, 3]
    half = 0.5 * sink + 0.5 * itself
    found = given(torch.stack([torch.stack([half, itself]), torch.stack([half, half])]), "sink_rate")
    assert found.heads("sink_rate").values.tolist() == [[1.0, 0.5]]
    assert found["sink_rate"][0, 0, 1].tolist() == pytest.approx([1 / 9, 0.0])


def test_a_text_that_ends_before_the_position_has_no_importance():
    found = given(random_pattern(1, 3, padded([6, 2])), "sink_rate:position=4", token_mask=padded([6, 2]))
    assert found["sink_rate"][0, 1].isnan().all()
    assert found["sink_rate"][0, 0].isfinite().all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_sink_share_is_the_weight_of_the_first_tokens_in_late_rows(case, block):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    found = given(pattern, "sink_mass:n_sink=2:from_row=3", block=block, token_mask=token_mask, causal=causal, window=window)[
        "sink_mass"
    ]
    for text, columns in enumerate(texts(token_mask)):
        close(found[:, text][:, :, columns[3:]], pattern[:, text][:, :, columns[3:]][..., columns[:2]].double().sum(-1))
        early = torch.ones(token_mask.shape[1], dtype=torch.bool)
        early[columns[3:]] = False
        assert found[:, text][:, :, early].isnan().all()


def test_sink_share_of_a_uniform_head_and_of_a_sink():
    found = given(golden_heads(40), "sink_mass", block=900)
    previous, uniform, sink, itself = found["sink_mass"][0, 0, :, 16:]
    close(uniform, [4 / (t + 1) for t in range(16, 40)])
    assert (sink == 1).all()
    assert not previous.any()
    assert not itself.any()
    assert found["sink_mass"][..., :16].isnan().all()


PLANTED = {(0, 1): 11, (0, 4): 30, (2, 0): 11, (2, 3): 0}  # (layer, head): column


@pytest.mark.parametrize("block", [1, 700, 10**6])
@pytest.mark.parametrize("rule", ["ratio", "abs"])
@pytest.mark.parametrize("left", [False, True])
def test_planted_sinks_are_found_and_nothing_else(rule, left, block):
    """Half a weight added to one column of chosen heads of a spread random pattern, which is then normalised."""
    length, shorter = 60, 50
    token_mask = padded([length, shorter], left)
    pattern = random_pattern(3, 5, token_mask, peak=0.3)
    for (layer, head), column in PLANTED.items():
        for text, columns in enumerate(texts(token_mask)):
            pattern[layer, text, head, columns[column:], columns[column]] += 0.5
    pattern = pattern / pattern.sum(-1, keepdim=True).where(token_mask[:, None, :, None], 1)
    found = given(pattern, f"column_sinks:rule={rule}", token_mask=token_mask, block=block)
    for text, columns in enumerate(texts(token_mask)):
        own = found["column_sinks"][:, text][..., columns]
        assert own[..., 0].isnan().all()
        assert own[..., -7:].isnan().all()
        sink_flags = [tuple(cell) for cell in (own == 1).nonzero().tolist()]
        assert sink_flags == sorted((*head, column) for head, column in PLANTED.items() if column)
        assert own[..., 1:-7].isfinite().all()
    heads = found.heads("column_sinks").values
    expected = torch.zeros(3, 5)
    for (layer, head), column in PLANTED.items():
        expected[layer, head] = float(column > 0)
    assert torch.as_tensor(heads).float().equal(expected)


def test_the_first_token_is_judged_when_asked():
    found = given(golden_heads(30), "column_sinks:keep_first=false")
    assert found["column_sinks"][0, 0, 2].nan_to_num(9).tolist() == [1] + [0] * 22 + [9] * 7
    assert found.heads("column_sinks")[0, 2] == 1.0
    assert given(golden_heads(30), "column_sinks").heads("column_sinks")[0, 2] == 0.0


@pytest.mark.parametrize(
    ("length", "weight", "by_ratio", "by_threshold"),
    [(50, 0.101, 1, 1), (50, 0.099, 0, 0), (100, 0.06, 1, 0), (25, 0.15, 0, 1)],
)
def test_the_two_rules_meet_at_fifty_tokens(length, weight, by_ratio, by_threshold):
    """Every row from 4 on puts one weight on column 4 and the rest on the token before it, row 4 itself too."""
    pattern = golden_heads(length)[:, :1].clone()
    pattern[..., 4:, :] *= 1 - weight
    pattern[..., 5, 4] = 0
    pattern[..., 5, 3] = 1 - weight
    pattern[..., 4:, 4] = weight
    found = [given(pattern, f"column_sinks:rule={rule}")["column_sinks"][0, 0, 0, 4].item() for rule in ("ratio", "abs")]
    assert given(pattern, "received_attention")["received_attention"][0, 0, 0, 4].item() == pytest.approx(weight)
    assert found == [by_ratio, by_threshold]


def test_a_text_too_short_to_judge_has_no_number_and_an_unknown_rule_is_refused():
    found = given(golden_heads(7), "column_sinks")
    assert all(math.isnan(x) for x in found.heads("column_sinks").values.ravel())
    with pytest.raises(ValueError, match=r"rule=mean is unknown\. There are: ratio, abs"):
        given(golden_heads(), "column_sinks:rule=mean")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_over_focus_is_the_share_of_the_columns_with_most_attention(case, block):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    found = given(pattern, "over_focus:columns=3", block=block, token_mask=token_mask, causal=causal, window=window)[
        "over_focus"
    ]
    total = pattern.double().sum(-2).sort(descending=True).values / token_mask.sum(-1)[:, None, None]
    close(found, torch.stack([total[..., :k].sum(-1) for k in (1, 2, 3)], -1))


def test_over_focus_of_known_heads():
    found = given(golden_heads(12), "over_focus")
    previous, uniform, sink, itself = found["over_focus"][0, 0]
    close(previous, [(k + 1) / 12 for k in range(1, 11)])  # token 0 is looked at twice
    close(uniform[0], HARMONIC[11] / 12)
    assert (sink == 1).all()
    close(itself, [k / 12 for k in range(1, 11)])
    assert found.heads("over_focus")[0, 3] == pytest.approx(10 / 12)
    assert given(golden_heads(4), "over_focus")["over_focus"].shape[-1] == 4


def rows_alike(pattern, token_mask, causal, window):
    """The mean cosine of thresholded rows with the thresholded mean row, row by row, [n_layers batch head 1]."""
    seen, scores = visible_keys(token_mask, causal, window), torch.full((*pattern.shape[:3], 1), NAN, dtype=torch.double)
    for text, columns in enumerate(texts(token_mask)):
        rows = [row for place, row in enumerate(columns.tolist()) if not causal or 2 * place >= len(columns)]
        for layer, head in ((layer, head) for layer in range(pattern.shape[0]) for head in range(pattern.shape[2])):
            own = pattern[layer, text, head].double()[rows]
            mean = own.mean(0)
            mean = mean * (mean > 2 / len(columns))
            large = own * (own > 2 / seen[text, 0, rows].sum(-1, keepdim=True))
            cosines = [float(row @ mean / (row.norm() * mean.norm())) if row.any() and mean.any() else 0.0 for row in large]
            scores[layer, text, head] = sum(cosines) / len(cosines)
    return scores


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_likeness_of_rows_is_the_mean_cosine_with_the_mean_row(case, block):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    names = ("row_similarity", "attention_diversification")
    found = given(pattern, *names, block=block, token_mask=token_mask, causal=causal, window=window)
    close(found["row_similarity"], rows_alike(pattern, token_mask, causal, window))
    layers = rows_alike(pattern.mean(2, keepdim=True), token_mask, causal, window).expand(-1, -1, 5, -1)
    close(found["attention_diversification"], layers)


def test_rows_are_alike_when_all_look_at_one_token_and_not_when_each_looks_elsewhere():
    found = given(golden_heads(10), "row_similarity", "attention_diversification")
    previous, uniform, sink, itself = found.heads("row_similarity").values[0].tolist()
    assert (previous, uniform, sink, itself) == pytest.approx((0, 0, 1, 0))
    only_sinks = given(golden_heads(10)[:, 2:3].expand(-1, 3, -1, -1), "attention_diversification")
    assert only_sinks.heads("attention_diversification").values.tolist() == [pytest.approx([1.0] * 3)]


def test_permuting_heads_permutes_numbers():
    names = ("received_attention", "sink_mass:from_row=1", "sink_rate", "over_focus", "row_similarity")
    pattern, order = random_pattern(2, 5, unpadded(3, 6)), [3, 0, 4, 1, 2]
    plain, permuted = given(pattern, *names), given(pattern[:, :, order], *names, block=17)
    for name in plain.values:
        close(permuted[name], plain[name][:, :, order])
