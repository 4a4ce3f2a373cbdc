"""The builder of hand-written patterns hands them over unchanged."""

import pytest
import torch

from tests.support.pattern_cases import CASES, given, golden_heads, padded, random_pattern, unpadded, visible_keys


def whole_rows():
    """A metric whose values are the rows themselves: one per key, summed over nothing."""
    from interp.engine.attention.attention_metric import AttentionMetric

    def function(rows):
        batch, heads = rows.pattern.shape[:2]
        length = rows.prompts.token_mask.shape[1]
        table = torch.zeros(batch, heads, length, length)
        table[:, :, rows.queries, rows.keys] = rows.pattern
        first = float(rows.queries.start == 0)  # counted once, whatever the blocks
        return table.flatten(2), torch.full((batch, heads, length * length), first)

    return AttentionMetric("rows", "cell", "weight", (0.0, 1.0), function, "")


@pytest.mark.parametrize("block", [1, 23, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_the_engine_hands_over_the_pattern_that_was_written(case, block):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(4, 5, token_mask, causal, window)
    seen = given(pattern, whole_rows(), block=block, token_mask=token_mask, causal=causal, window=window)
    torch.testing.assert_close(seen["rows"].unflatten(-1, pattern.shape[-2:]), pattern, atol=1e-6, rtol=0)


def test_heads_of_a_group_read_the_same_value_through_their_own_output_weights():
    values, w_o = torch.randn(1, 1, 2, 7, 3), torch.randn(1, 4, 3, 11)
    layers = []

    from interp.engine.attention.attention_metric import AttentionMetric

    def norms(rows):
        layers.append(rows.layer.value_norms)
        return rows.entropy

    pattern = random_pattern(1, 4, unpadded(1, 7))
    given(pattern, AttentionMetric("n", "query", "", (0.0, None), norms, ""), values=values, w_o=w_o, n_kv_heads=2)
    expected = torch.stack([(values[0, :, head // 2] @ w_o[0, head]).norm(dim=-1) for head in range(4)], 1)
    torch.testing.assert_close(layers[-1], expected)


def test_golden_heads_are_what_their_names_say():
    previous, uniform, sink, itself = golden_heads()[0]
    assert previous.argmax(-1).tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    assert uniform[3].tolist() == [0.25] * 4 + [0.0] * 4
    assert sink[:, 0].tolist() == [1.0] * 8
    assert itself.equal(torch.eye(8))


def test_visible_keys_of_a_padded_window():
    seen = visible_keys(padded([4, 2], left=True), window=2)
    assert seen[1, 0].int().tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 0], [0, 0, 1, 1]]
