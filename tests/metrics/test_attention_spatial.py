"""Attention across the patches of an image: mean distance, and mass by hops."""

import math
from itertools import product

import pytest
import torch

from tests.support.pattern_cases import given, random_pattern, unpadded
from tests.support.tiny_models import tiny, tiny_images, tiny_tokens

GRID, BEFORE = (3, 5), 2  # CLS and one register
N_PATCHES, LENGTH, N_HOPS = 15, 17, 5
PLACES = list(product(range(GRID[0]), range(GRID[1])))


def observed(patches: torch.Tensor, *metrics: str, grid: tuple[int, int] = GRID, before: int = 0, **options) -> dict:
    """What the metrics read from ``patches`` [batch head query key] of an image."""
    return given(patches, *metrics, causal=False, grid=(*grid, before), **options).values


def with_others(patches: torch.Tensor, share: float = 0.3) -> torch.Tensor:
    """The same rows, with ``share`` of each on the two tokens before the patches; those look at the last patch."""
    full = torch.zeros(*patches.shape[:2], LENGTH, LENGTH)
    full[..., BEFORE:, BEFORE:] = patches * (1 - share)
    full[..., BEFORE:, :BEFORE] = share / BEFORE
    full[..., :BEFORE, -1] = 1.0
    return full


def uniform(n: int) -> torch.Tensor:
    return torch.full((1, 1, n, n), 1 / n)


def distance_by_hand(weights: list[float], patch: int, places: list[tuple[int, int]]) -> float:
    return sum(w * math.dist(places[patch], place) for w, place in zip(weights, places, strict=True)) / sum(weights)


def rings_by_hand(weights: list[list[float]], places: list[tuple[int, int]], density: bool) -> list[float]:
    """The profile of one head whose rows between patches are ``weights``."""
    profile = []
    for hop in range(1 + max(max(place) for place in places)):
        shares = []
        for (row, column), given_to in zip(places, weights, strict=True):
            ring = [i for i, (r, c) in enumerate(places) if max(abs(r - row), abs(c - column)) == hop]
            if ring or not density:
                shares.append(sum(given_to[i] for i in ring) / sum(given_to) / (len(ring) if density else 1))
        profile.append(sum(shares) / len(shares) if shares else math.nan)
    return profile


def assert_same(found: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), want.double(), rtol=1e-5, atol=1e-5, equal_nan=True)


def test_a_uniform_head_has_the_mean_distance_of_all_pairs_of_patches():
    places = list(product(range(14), range(14)))
    pairs = [math.dist(a, b) for a in places for b in places]
    found = given(uniform(196), "spatial_distance", causal=False, grid=(14, 14, 0)).heads("spatial_distance")
    assert found[0, 0] == pytest.approx(sum(pairs) / len(pairs)) and found.unit == "patches"


@pytest.mark.parametrize("grid", [GRID, GRID[::-1]])
def test_a_uniform_head_has_a_flat_density_and_the_mass_of_its_rings(grid):
    mass = observed(uniform(N_PATCHES), "patch_ring_mass", grid=grid)["patch_ring_mass"][0, 0, 0]
    density = observed(uniform(N_PATCHES), "patch_ring_mass:density=true", grid=grid)["patch_ring_mass"][0, 0, 0]
    torch.testing.assert_close(density, torch.full((N_HOPS,), 1 / N_PATCHES))
    # Of the 225 ordered pairs of a 3 x 5 grid: 15 at 0 hops; 7 x 13 = 91 within one; 9 x 19 = 171 within two; 9 x 23 = 207, all.
    torch.testing.assert_close(mass, torch.tensor([15, 76, 80, 36, 18]) / 225)
    assert mass.sum().item() == pytest.approx(1)


def test_heads_that_step_a_fixed_way_by_hand():
    step = torch.zeros(1, 3, 6, 6)  # on a 2 x 3 grid: stay; one to the right, wrapping to the row's start; to the other row
    for patch, (row, column) in enumerate(product(range(2), range(3))):
        for head, (r, c) in enumerate([(row, column), (row, (column + 1) % 3), (1 - row, column)]):
            step[0, head, patch, 3 * r + c] = 1
    found = observed(step, "spatial_distance", "patch_ring_mass", grid=(2, 3))
    assert found["spatial_distance"][0, 0].tolist() == [[0] * 6, [1, 1, 2, 1, 1, 2], [1] * 6]
    torch.testing.assert_close(found["patch_ring_mass"][0, 0], torch.tensor([[1, 0, 0], [0, 2 / 3, 1 / 3], [0, 1, 0]]))
    density = observed(step, "patch_ring_mass:density=true", grid=(2, 3))["patch_ring_mass"][0, 0]
    # One hop: 3 patches around a corner, 5 around the middle. Two hops: 2 patches from a corner, none from the middle.
    torch.testing.assert_close(density[1], torch.tensor([0, (2 / 3 + 2 / 5) / 6, (2 / 2) / 4]))


def test_other_tokens_are_dropped_and_the_rows_normalised_again():
    patches = random_pattern(1, 3, unpadded(2, N_PATCHES), causal=False)[0]
    names = ("spatial_distance", "patch_ring_mass")
    alone, among = observed(patches, *names), observed(with_others(patches), *names, before=BEFORE)
    assert among["spatial_distance"][..., :BEFORE].isnan().all()
    assert_same(among["spatial_distance"][..., BEFORE:], alone["spatial_distance"])
    assert_same(among["patch_ring_mass"], alone["patch_ring_mass"])


@pytest.mark.parametrize("leak", [0.0, 1e-8])
def test_a_row_that_looks_at_no_patch_has_no_number_and_is_not_counted(leak):
    patches = random_pattern(1, 2, unpadded(1, N_PATCHES), causal=False)[0]
    full = with_others(patches)
    full[0, :, BEFORE + 4] = torch.eye(LENGTH)[0]
    full[0, :, BEFORE + 4, -1] = leak
    found = observed(full, "spatial_distance", "patch_ring_mass", before=BEFORE)
    assert found["spatial_distance"][0, 0].isnan().nonzero()[:, 1].tolist() == [0, 1, 6] * 2
    kept = [p for p in range(N_PATCHES) if p != 4]
    rows = [
        [sum(patches[0, h, p, i].item() for i in range(N_PATCHES) if hop(p, i) == k) for k in range(5)]
        for h in (0, 1)
        for p in kept
    ]
    assert_same(found["patch_ring_mass"][0, 0], torch.tensor(rows).view(2, 14, 5).mean(1))


def hop(a: int, b: int) -> int:
    return max(abs(x - y) for x, y in zip(PLACES[a], PLACES[b], strict=True))


@pytest.mark.parametrize("rows", range(1, LENGTH + 1))
def test_any_block_size_gives_the_numbers_of_the_full_pattern(rows):
    pattern = random_pattern(2, 4, unpadded(3, LENGTH), causal=False, seed=rows)
    block = rows * 3 * LENGTH
    found = observed(pattern, "spatial_distance", "patch_ring_mass", before=BEFORE, block=block)
    density = observed(pattern, "patch_ring_mass:density=true", before=BEFORE, block=block)["patch_ring_mass"]
    patches = pattern[..., BEFORE:, BEFORE:].double().tolist()
    for layer, text, head in product(range(2), range(3), range(4)):
        weights = patches[layer][text][head]
        distances = [distance_by_hand(row, patch, PLACES) for patch, row in enumerate(weights)]
        assert_same(found["spatial_distance"][layer, text, head, BEFORE:], torch.tensor(distances))
        assert_same(found["patch_ring_mass"][layer, text, head], torch.tensor(rings_by_hand(weights, PLACES, False)))
        assert_same(density[layer, text, head], torch.tensor(rings_by_hand(weights, PLACES, True)))


def test_local_heads_are_found_among_random_ones():
    for seed in range(5):
        planted = seed % 4
        pattern = random_pattern(1, 4, unpadded(2, N_PATCHES), causal=False, seed=seed)
        near = torch.tensor([[-3.0 * math.dist(a, b) for b in PLACES] for a in PLACES]).softmax(-1)
        pattern[0, :, planted] = near
        found = given(pattern, "spatial_distance", "patch_ring_mass", causal=False, grid=(*GRID, 0))
        assert found.heads("spatial_distance").top(1, by="lowest")[0].head == planted
        within_one = found["patch_ring_mass"][0, ..., :2].sum(-1).mean(0)
        assert int(within_one.argmax()) == planted and within_one[planted] > 0.9


@pytest.mark.parametrize("metric", ["spatial_distance", "patch_ring_mass"])
def test_text_has_no_patches(metric):
    from interp.metrics.attention import observe_attention

    with pytest.raises(ValueError, match=f"{metric} needs image patches, but the prompts are text: use images"):
        observe_attention(tiny("gpt2"), tiny_tokens(1, 7), [metric])


def test_numbers_of_a_vision_model_are_those_of_its_attention_weights():
    from interp.metrics.attention import observe_attention
    from tests.support.tiny_models import tiny_hf

    eager, images = tiny_hf("vit"), tiny_images(2)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = eager(pixel_values=images, output_attentions=True).attentions
    places = list(product(range(4), range(5)))
    for block in (1, 100, 1 << 18):
        found = observe_attention(tiny("vit"), images, ["spatial_distance", "patch_ring_mass"], block=block)
        for layer, image, head in product(range(3), range(2), range(5)):
            weights = attentions[layer][image, head, 1:, 1:].double().tolist()
            distances = [distance_by_hand(row, patch, places) for patch, row in enumerate(weights)]
            assert_same(found["spatial_distance"][layer, image, head, 1:], torch.tensor(distances))
            assert_same(found["patch_ring_mass"][layer, image, head], torch.tensor(rings_by_hand(weights, places, False)))
    assert found["spatial_distance"][..., 0].isnan().all()
