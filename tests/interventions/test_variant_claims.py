"""What papers claim of attention variants, each on queries and keys or on a model that has the behaviour."""

import pytest
import torch

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.attention_rows import AttentionLayer, read_rows
from interp.engine.forward.run import run
from interp.heads import Head
from interp.interventions import INTERVENTIONS
from interp.interventions.variants.flex_prefill import block_mask
from interp.tasks.token_batch import TokenBatch
from tests.support.tiny_models import tiny, tiny_tokens

ONE = [Head(0, 0)]


def build(name, heads=ONE, **options):
    return INTERVENTIONS.get(name)(heads, **options)


def pattern_of(q, k, *changes, v=None, block=1 << 19):
    """The pattern [query key] of a causal head with these queries and keys [token d_head], and its output."""
    n, found = len(q), torch.zeros(len(q), len(q))
    parts = (x.float()[None, None] for x in (q, k, torch.eye(n) if v is None else v))
    call = AttentionInputs(*parts, mask=None, scale=q.shape[1] ** -0.5, softcap=None)
    tokens = torch.zeros(1, n, dtype=torch.long)

    def read(rows):
        found[rows.queries, rows.keys] = rows.pattern[0, 0]

    layer = AttentionLayer(0, call, TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool)))
    output = read_rows(layer, read, list(changes), block=block)[0, 0]
    return found, output


def random_qk(n, d=16, seed=0, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator) * sharpness for _ in range(2))


def reached(model, change, distance, n=40):
    """Whether the token so many places before the last one moves the logits at the last position."""
    tokens = tiny_tokens(1, n, seed=5)
    other = tokens.clone()
    other[0, n - 1 - distance] = (other[0, n - 1 - distance] + 7) % 40 + 3
    first, second = (run(model, ids, intervene=[change]).logits[0, -1] for ids in (tokens, other))
    moved = float((first - second).abs().max() / first.abs().max())
    assert not 3e-6 < moved < 1e-4, "neither rounding nor an effect"
    return moved > 1e-5


@pytest.mark.parametrize("distance", [1, 2, 3, 5, 7, 8, 11, 15, 23, 27, 31, 33])
def test_powers_of_two_reach_a_token_in_as_many_layers_as_its_distance_has_binary_ones(distance):
    model = tiny("llama")  # three layers
    assert model.facts.n_layers == 3
    powers = build("power_attention", model.facts.heads(), size=1)
    assert reached(model, powers, distance) == (distance.bit_count() <= 3)
    window = build("window", model.facts.heads(), size=7)  # as many keys as the powers have up to 32
    assert reached(model, window, distance) == (distance <= 3 * 6)
    dilated = build("dilated", model.facts.heads(), size=7, dilation=2)
    assert reached(model, dilated, distance) == (distance % 2 == 0 and distance <= 3 * 12)


def recall(q, k, variant, n_best):
    """Share of the true top keys of each row, beyond the first ``n_best`` rows, to which the variant gives weight."""
    whole, kept = pattern_of(q, k)[0], pattern_of(q, k, variant)[0]
    shares = []
    for i in range(n_best, len(q)):
        best = whole[i, : i + 1].topk(n_best).indices
        shares.append(float((kept[i, best] > 0).float().mean()))
    return sum(shares) / len(shares)


def test_hip_finds_the_top_keys_where_neighbours_are_alike():
    n, budget = 256, 32
    q, k = random_qk(n, 32)
    place = torch.arange(n)[:, None] / n * torch.arange(1, 17) * 0.7
    smooth = torch.cat([torch.sin(place), torch.cos(place)], -1)
    alike = recall(q * 3, smooth, build("hip", k=budget), budget)
    independent = recall(q, k, build("hip", k=budget), budget)
    print("recall of hip: smooth keys", alike, "independent keys", independent)
    assert alike >= 0.98
    assert 0.6 <= independent <= 0.75


def test_flex_prefill_takes_lines_for_heads_with_lines_and_blocks_for_constant_blocks():
    n, size, d = 128, 8, 32
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(n // size, d, generator=generator).repeat_interleave(size, 0) * 2
    kept = block_mask(blocks, blocks, d**-0.5, 0.9, 0.1, size)
    pooled = pattern_of(blocks, blocks)[0].view(n // size, size, n // size, size).sum((1, 3)) / size
    assert float((pooled * kept).sum() / pooled.sum()) >= 0.9
    assert not torch.equal(kept, torch.ones_like(kept).tril())
    lines = torch.randn(n, d, generator=generator)
    lines[40] = 0
    lines[40, 0] = 30  # one column that every query reads, and nothing that block means would show
    q = torch.randn(n, d, generator=generator) * 0.1
    q[:, 0] = 2
    kept = block_mask(q, lines, d**-0.5, 0.9, 0.1, size)
    assert kept[40 // size :, 40 // size].all()
    free = kept.clone()
    free[:, [0, 40 // size]] = False
    assert not free.tril(-2).all()
    assert torch.equal(block_mask(q, lines, d**-0.5, 1.0, 0.1, size), torch.ones(n // size, n // size, dtype=torch.bool))


def test_recycled_attention_keeps_a_late_needle_only_if_its_full_row_chose_it():
    n, needle, d = 64, 20, 8
    q, k = torch.zeros(n, d), torch.zeros(n, d)
    q[:, 0], k[needle, 0] = 4, 8  # every query reads the needle
    change = build("recycled", k=1, stride=16)
    assert float(pattern_of(q, k, change)[0][-1, needle]) > 0.9
    q[48, 0] = -4  # but the last full row does not
    assert float(pattern_of(q, k, change)[0][-1, needle]) == 0
    assert float(pattern_of(q, k, build("recycled", k=50, stride=16))[0][-1, needle]) > 0.9
    assert float(pattern_of(q, k, build("window", size=16))[0][-1, needle]) == 0


def test_a_head_interpolated_to_the_identity_copies_its_own_value():
    q, k = random_qk(23)
    v = torch.randn(23, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pattern_of(q, k, build("interpolate", u=1.0), v=v)[1], v)
    half = pattern_of(q, k, build("interpolate", u=0.5), v=v)[1]
    torch.testing.assert_close(half, (v + pattern_of(q, k, v=v)[1]) / 2)
    uniform = pattern_of(q, k, build("interpolate", u=1.0, to="uniform"))[0]
    torch.testing.assert_close(uniform, (torch.ones(23, 23).tril() / torch.arange(1, 24)[:, None]))


def test_the_symmetric_and_the_antisymmetric_part_add_up_to_the_scores():
    q, k = random_qk(19)
    whole, *parts = (
        pattern_of(q, k, *change)[0].double().log()
        for change in ((), [build("symmetric")], [build("symmetric", part="antisymmetric")])
    )
    summed = (parts[0] + parts[1]).softmax(-1)  # logarithms of rows are scores up to a constant of each row
    torch.testing.assert_close(summed, whole.softmax(-1), rtol=1e-4, atol=1e-6)
    mirrored = pattern_of(k, q, build("symmetric"))[0]  # a symmetric head does not care which side asks
    torch.testing.assert_close(mirrored.double().log().softmax(-1), parts[0].softmax(-1), rtol=1e-4, atol=1e-6)


def test_the_exact_denominator_gives_the_kept_keys_their_own_weights():
    q, k = random_qk(40)
    whole, kept = pattern_of(q, k)[0], pattern_of(q, k, build("remembered_denominator", size=4, sinks=1, stride=1))[0]
    seen = kept > 0
    assert 0 < int(seen.sum()) < int((whole > 0).sum())
    torch.testing.assert_close(kept[seen], whole[seen], rtol=1e-5, atol=1e-7)


def test_random_keys_are_as_many_as_asked_for_and_the_same_for_all_queries():
    q, k = random_qk(400)
    kept = pattern_of(q, k, build("information_pathways", rate=0.3, seed=2))[0] > 0
    lower = kept.tril(-1)
    columns = [lower[j + 1 :, j] for j in range(300)]
    assert all(bool(column.all()) or not bool(column.any()) for column in columns)
    assert abs(sum(bool(column.all()) for column in columns) / 300 - 0.3) < 4 * (0.21 / 300) ** 0.5
    assert kept.diagonal().all()
    other = pattern_of(q, k, build("information_pathways", rate=0.3, seed=3))[0] > 0
    assert not torch.equal(kept, other)


def test_masked_top_keys_hide_only_top_keys_and_rows_sum_to_one():
    q, k = random_qk(300, sharpness=2.0)
    whole, kept = pattern_of(q, k)[0], pattern_of(q, k, build("mask_top_keys", k=5, probability=0.6))[0]
    torch.testing.assert_close(kept.sum(-1), torch.ones(300))
    hidden = (kept == 0) & (whole > 0)
    largest = whole.topk(5, -1).values[:, -1:]
    assert not bool((hidden & (whole < largest)).any())
    share = float(hidden[50:].sum() / (5 * 250))
    assert abs(share - 0.6) < 0.06


def test_heads_of_largest_queries_stay_and_all_heads_are_the_identity():
    model, tokens = tiny("llama"), tiny_tokens(1, 11)
    heads = model.facts.heads()
    plain = run(model, tokens).logits
    every = run(model, tokens, intervene=[build("mixture_of_heads", heads, k=model.facts.n_heads)]).logits
    torch.testing.assert_close(every, plain, rtol=1e-4, atol=1e-5)
    few = run(model, tokens, intervene=[build("mixture_of_heads", heads, k=1)]).logits
    drawn = [
        run(model, tokens, intervene=[build("mixture_of_heads", heads, k=1, at_random=True, seed=s)]).logits for s in (0, 1)
    ]
    assert float((few - plain).abs().max()) > 0.1 and not torch.equal(drawn[0], drawn[1])


def test_reversed_columns_sum_to_one():
    q, k = random_qk(31)
    pattern, _ = pattern_of(q, k, build("reversed_attention"))
    torch.testing.assert_close(pattern.sum(0), torch.ones(31))
    torch.testing.assert_close(pattern, (q @ k.T * 0.25).masked_fill(torch.ones(31, 31).triu(1) > 0, -torch.inf).softmax(0))


def test_a_planted_permutation_is_found():
    n, width = 64, 4
    cluster = torch.arange(n) % width  # tokens of one column of a grid of 4 attend to each other
    vectors = torch.randn(width, 16, generator=torch.Generator().manual_seed(0)) * 4
    q = vectors[cluster]
    change = build("permuted_blocks", size=16, widths=(1, 2, 3, width), mass=0.95)
    plain = build("permuted_blocks", size=16, widths=(1,), mass=0.95)
    whole = pattern_of(q, q)[0]
    found, straight = (pattern_of(q, q, c)[0] > 0 for c in (change, plain))
    assert float((whole * found).sum(-1).mean()) > 0.95
    assert found.sum() < 0.5 * straight.sum()
