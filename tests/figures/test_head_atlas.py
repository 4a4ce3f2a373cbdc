"""Thumbnails hold the largest weight of each bin, and the atlas shows each of them where it says."""

import math
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from interp.engine import capture_attention
from interp.engine.attention.attention_interface import AttentionInputs, Mask
from interp.engine.attention.qk_cache import AttentionCache
from interp.figures import Atlas, atlas, style
from interp.figures.dark_theme import DARK_COLOURS
from interp.figures.head_atlas import LEVELS
from interp.heads import Head
from interp.metrics import thumbnails
from interp.metrics.thumbnails import overview
from interp.records import RunRecord
from interp.tasks.token_batch import TokenBatch
from tests.support.pattern_cases import CASES, NOTHING, random_pattern, visible_keys
from tests.support.tiny_models import TINY, tiny, tiny_images, tiny_tokens


def cached(pattern, token_mask=None, causal=True, window=None, n_kv_heads=None):
    """A cache whose patterns are these, [n_layers batch head query key]: keys are one-hot, queries are the scores."""
    _, batch, n_heads, length, _ = pattern.shape
    token_mask = torch.ones(batch, length, dtype=torch.bool) if token_mask is None else token_mask
    seen = visible_keys(torch.ones(1, length, dtype=torch.bool), causal, window)[0, 0]
    plain = bool(token_mask.all()) and window is None
    hidden = None if plain else Mask(lambda b, h, query, key: seen[query, key], length, length, 0, 0, token_mask)
    keys = torch.eye(length).expand(batch, n_kv_heads or n_heads, -1, -1)
    calls = [AttentionInputs(own.log().clamp(min=NOTHING), keys, keys[..., :0], hidden, 1.0, None, causal) for own in pattern]
    return AttentionCache(tuple(calls), TokenBatch(torch.zeros_like(token_mask).long(), token_mask), (), RunRecord("given"))


def by_hand(pattern, side):
    """The largest weight of each bin of one pattern [query key], weight by weight."""
    length = len(pattern)
    bins = np.zeros((side, side), dtype=np.float32)
    for query in range(length):
        for key in range(length):
            row, column = math.floor(query * side / length), math.floor(key * side / length)
            bins[row, column] = max(bins[row, column], pattern[query][key])
    return bins


def pixels(picture):
    """Red, green and blue of every pixel, [height width 3]."""
    return np.asarray(Image.open(BytesIO(picture.png)).convert("RGB"))


def colour(name, dark=False):
    return [*bytes.fromhex((DARK_COLOURS[name] if dark else name)[1:])]


def cell_of(picture, head):
    x0, y0, x1, y1 = picture.box(head)
    return pixels(picture)[y0:y1, x0:x1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 3, 4, 48])
def test_a_bin_holds_its_largest_weight(case, size):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(3, 5, token_mask, causal, window, seed=1)
    cache = cached(pattern, token_mask, causal, window)
    for example, own in enumerate(token_mask):
        found = thumbnails(cache, size, example=example)
        side = min(size, int(own.sum()))
        assert found.shape == (3, 5, side, side) and found.dtype == np.float32
        for layer in range(3):
            for head in range(5):
                alone = pattern[layer, example, head][own][:, own]
                np.testing.assert_allclose(found[layer, head], by_hand(alone.tolist(), side), atol=1e-6)


@pytest.mark.parametrize(
    "length, size", [(1, 1), (1, 48), (2, 48), (47, 48), (48, 48), (49, 48), (96, 48), (101, 48), (101, 7)]
)
def test_bins_fit_texts_of_any_length(length, size):
    pattern = random_pattern(1, 2, torch.ones(1, length, dtype=torch.bool), peak=3.0)
    found = thumbnails(cached(pattern), size)
    for head in range(2):
        np.testing.assert_allclose(found[0, head], by_hand(pattern[0, 0, head].tolist(), min(size, length)), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_blocks_that_cut_bins_change_nothing(causal, monkeypatch):
    pattern = random_pattern(2, 6, torch.ones(1, 53, dtype=torch.bool), causal)
    cache = cached(pattern, causal=causal, n_kv_heads=3)
    whole, read, seen = thumbnails(cache, 10), AttentionCache.read, []

    def in_small_blocks(own, layer, into):
        def noted(rows):
            seen.append(rows.pattern.shape)
            into(rows)

        read(own, layer, noted, block=700)

    monkeypatch.setattr(AttentionCache, "read", in_small_blocks)
    np.testing.assert_allclose(thumbnails(cache, 10), whole, atol=1e-6)
    assert max(rows for *_, rows, _ in seen) == (18 if causal else 6) and {heads for _, heads, *_ in seen} >= {2}


@pytest.mark.parametrize("name", [*TINY, "bert", "vit"])
def test_thumbnails_of_a_model_are_those_of_its_patterns(name):
    model = tiny(name)
    cache = capture_attention(model, tiny_images(2) if name == "vit" else tiny_tokens(2, 11))
    found = thumbnails(cache, 4, example=1)
    assert found.shape[:2] == (model.facts.n_layers, model.facts.n_heads)
    for head in model.facts.heads():
        wanted = by_hand(cache.pattern(head, example=1).tolist(), 4)
        np.testing.assert_allclose(found[head], wanted, atol=1e-6)
    assert not np.array_equal(found, thumbnails(cache, 4, example=0))


@pytest.mark.parametrize("case", CASES)
def test_the_overview_of_a_head_is_its_thumbnail_and_can_scale_keys(case):
    token_mask, causal, window = CASES[case]
    pattern = random_pattern(2, 3, token_mask, causal, window, seed=2)
    cache = cached(pattern, token_mask, causal, window)
    own = token_mask[1]
    scale = np.linspace(3, 1, int(own.sum()), dtype=np.float32)
    np.testing.assert_allclose(overview(cache, Head(1, 2), 3, example=1), thumbnails(cache, 3, example=1)[1, 2], atol=1e-6)
    scaled = overview(cache, Head(1, 2), 3, example=1, scale=scale)
    np.testing.assert_allclose(scaled, by_hand((pattern[1, 1, 2][own][:, own].numpy() * scale).tolist(), 3), atol=1e-5)


def test_the_overview_of_a_window_has_its_own_bins():
    cache = capture_attention(tiny("llama"), tiny_tokens(1, 13))
    pattern, scale = cache.pattern(Head(1, 2)).numpy(), np.linspace(3, 1, 13, dtype=np.float32)
    found = overview(cache, Head(1, 2), 4, scale=scale, window=(3, 13, 1, 4))
    assert found.shape == (4, 3)
    edges = [3, 6, 8, 11, 13]  # query q is in bin (q - 3) * 4 // 10
    for row, (start, end) in enumerate(pairwise(edges)):
        np.testing.assert_allclose(found[row], (pattern * scale)[start:end, 1:4].max(0), rtol=1e-5)


def test_thumbnails_of_what_is_not_there_are_refused():
    cache = capture_attention(tiny("llama"), tiny_tokens(2, 7))
    with pytest.raises(ValueError, match="size=0 is too small: use at least 1 bin per side of a thumbnail"):
        thumbnails(cache, 0)
    for example in (-1, 2):
        with pytest.raises(LookupError, match=f"No text {example}: the texts are 0-1"):
            thumbnails(cache, example=example)


SHAPES = [(3, 5, 48), (1, 1, 1), (1, 1, 48), (12, 12, 48), (7, 32, 15), (48, 64, 48), (2, 128, 48)]


@pytest.mark.parametrize("n_layers, n_heads, side", SHAPES)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_head_under_a_pixel_is_the_one_whose_box_has_it(n_layers, n_heads, side, grouped):
    groups = {5: 1, 1: 1, 12: 4, 32: 8, 64: 8, 128: 8}[n_heads] if grouped else None
    picture = atlas(np.zeros((n_layers, n_heads, side, side), np.float32), n_kv_heads=groups)
    assert Image.open(BytesIO(picture.png)).size == (picture.width, picture.height)
    owners = np.zeros((picture.height, picture.width), int)
    for layer in range(n_layers):
        for head in range(n_heads):
            x0, y0, x1, y1 = picture.box(Head(layer, head))
            assert min(x0, y0) >= 0 and x1 <= picture.width and y1 <= picture.height
            assert x1 - x0 == y1 - y0 == picture.cell
            owners[y0:y1, x0:x1] += 1
            for x, y in [(x0, y0), (x1 - 1, y1 - 1), ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - 0.01, y1 - 0.01)]:
                assert picture.head_at(x, y) == Head(layer, head)
            assert None is picture.head_at(x1, y0) is picture.head_at(x0, y1) is picture.head_at(x0 - 1, y0)
    assert owners.max() == 1 and owners.sum() == n_layers * n_heads * picture.cell**2
    for x, y in [(0, 0), (-5, 20), (picture.width - 1, picture.height - 1), (picture.width + 9, picture.tops[0])]:
        assert picture.head_at(x, y) is None


def test_a_head_that_is_not_there_has_no_box():
    picture = atlas(np.zeros((3, 5, 7, 7), np.float32))
    for head in (Head(3, 0), Head(0, 5), Head(-1, 0)):
        with pytest.raises(LookupError, match=f"Head {head} does not exist: there are layers 0-2 and heads 0-4"):
            picture.box(head)


@pytest.mark.parametrize("dark", [False, True])
def test_one_weight_is_one_dark_bin_of_its_head_and_the_future_is_grey(dark):
    thumbs = np.zeros((3, 5, 8, 8), np.float32)
    thumbs[2, 1, 6, 3] = 1.0
    picture = atlas(thumbs, dark=dark)
    times = picture.cell // 8
    strongest, palest, grey = (colour(c, dark) for c in (style.SEQUENTIAL[-1], style.SEQUENTIAL[0], style.EMPTY))
    for head in (Head(layer, h) for layer in range(3) for h in range(5)):
        bins = cell_of(picture, head).reshape(8, times, 8, times, 3)
        for query in range(8):
            for key in range(8):
                wanted = grey if key > query else strongest if (head, query, key) == (Head(2, 1), 6, 3) else palest
                assert (bins[query, :, key] == wanted).all()
    assert (pixels(picture)[0, 0] == colour(style.PAPER, dark)).all()


def test_a_model_that_sees_later_keys_has_no_grey():
    thumbs = np.zeros((1, 2, 4, 4), np.float32)
    thumbs[0, 1, 0, 3] = 0.5
    picture = atlas(thumbs, causal=False)
    assert not (cell_of(picture, Head(0, 1)) == colour(style.EMPTY)).all(-1).any()
    assert "grey" in atlas(thumbs * 0).caption and "grey" not in picture.caption
    with pytest.raises(ValueError, match="A bin of keys after all its queries has weight: pass causal=False"):
        atlas(thumbs)


def strengths(weights, **options):
    """Place of each weight's colour on the scale, 0 to LEVELS - 1, read from pixels of one head with a row for each weight."""
    thumbs = np.zeros((1, 1, len(weights), len(weights)), np.float32)
    thumbs[0, 0, :, 0] = weights
    picture = atlas(thumbs, causal=False, **options)
    file = Image.open(BytesIO(picture.png))
    assert file.mode == "P"
    x0, y0, _, y1 = picture.box(Head(0, 0))
    return np.asarray(file)[y0 : y1 : picture.cell // len(weights), x0]


def test_shades_follow_the_power_of_the_weight_and_never_the_largest_of_them():
    weights = np.linspace(0, 1, 40, dtype=np.float32)
    for gamma in (0.25, 0.5, 1.0, 2.0):
        np.testing.assert_array_equal(strengths(weights, gamma=gamma), np.rint(weights.astype(float) ** gamma * (LEVELS - 1)))
        np.testing.assert_array_equal(strengths(weights / 10, gamma=gamma), np.rint((weights / 10) ** gamma * (LEVELS - 1)))
    lifted, plain = strengths(weights, gamma=0.5), strengths(weights)
    assert (np.diff(lifted.astype(int)) >= 0).all() and (lifted >= plain).all() and (lifted > plain).any()
    assert lifted[0] == plain[0] == 0 and lifted[-1] == plain[-1] == LEVELS - 1
    luminance = [sum(colour) for colour in np.asarray(pixels_of_scale())]
    assert luminance == sorted(luminance, reverse=True) and len(set(luminance)) == LEVELS
    assert "weight^0.5" in atlas(np.zeros((1, 1, 2, 2), np.float32), gamma=0.5).caption


def pixels_of_scale():
    """The colours of the scale from weight 0 to 1."""
    thumbs = np.zeros((1, 1, LEVELS, LEVELS), np.float32)
    thumbs[0, 0] = np.linspace(0, 1, LEVELS)[:, None]
    picture = atlas(thumbs, causal=False)
    return cell_of(picture, Head(0, 0))[:: picture.cell // LEVELS, 0].astype(int).tolist()


@pytest.mark.parametrize(("shape", "most"), [((12, 12), 250_000), ((32, 32), 1_200_000)])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_a_picture_of_noise_keeps_the_budget_of_bytes(shape, most, gamma):
    noise = np.tril(np.random.default_rng(0).random((*shape, 48, 48), dtype=np.float32))
    assert len(atlas(noise, gamma=gamma).png) <= most


def test_the_same_thumbnails_are_the_same_bytes():
    thumbs = np.tril(np.random.default_rng(0).random((3, 5, 9, 9), np.float32))
    first, again = atlas(thumbs), atlas(thumbs.copy())
    assert first == again and isinstance(first, Atlas)
    assert len({first.png, atlas(thumbs, dark=True).png, atlas(thumbs, gamma=0.5).png}) == 3


def test_gaps_are_wider_between_heads_that_do_not_share_keys():
    thumbs = np.zeros((2, 6, 7, 7), np.float32)

    def gaps(n_kv_heads):
        picture = atlas(thumbs, n_kv_heads=n_kv_heads)
        return (np.diff(picture.lefts) - picture.cell).tolist()

    assert gaps(None) == gaps(6) == gaps(1) == [2] * 5
    assert gaps(2) == [2, 2, 8, 2, 2] and gaps(3) == [2, 8, 2, 8, 2]
    with pytest.raises(ValueError, match="6 heads do not divide into 4 groups"):
        gaps(4)


def test_very_many_heads_get_fewer_bins_by_the_largest_weight_of_neighbours():
    thumbs = np.zeros((48, 64, 45, 45), np.float32)
    thumbs[40, 60, 44, 7] = 1.0
    picture = atlas(thumbs)
    assert picture.cell == 23
    strong = (pixels(picture) == colour(style.SEQUENTIAL[-1])).all(-1)
    x0, y0, *_ = picture.box(Head(40, 60))
    assert np.argwhere(strong).tolist() == [[y0 + 22, x0 + 3]]


@pytest.mark.parametrize("wrong, said", [(np.nan, "nan"), (1.5, "1.5"), (-0.25, "-0.25")])
def test_numbers_that_are_no_weights_are_refused(wrong, said):
    thumbs = np.zeros((1, 2, 3, 3), np.float32)
    thumbs[0, 1, 2, 0] = wrong
    with pytest.raises(ValueError, match=f"An atlas shows attention weights in 0..1, not .*{said}"):
        atlas(thumbs)


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan, math.inf])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma={gamma:g} is not positive: it is the exponent of the weights"):
        atlas(np.zeros((1, 1, 2, 2), np.float32), gamma=gamma)


@pytest.mark.parametrize("n_layers, n_heads", [(12, 12), (32, 32)])
@pytest.mark.parametrize("causal", [True, False])
def test_the_hardest_picture_keeps_to_its_size(n_layers, n_heads, causal):
    noise = np.random.default_rng(0).random((n_layers, n_heads, 48, 48), np.float32)
    size = len(atlas(np.tril(noise) if causal else noise, causal=causal).png)
    assert size <= {12: 250e3, 32: 1.2e6}[n_layers]
