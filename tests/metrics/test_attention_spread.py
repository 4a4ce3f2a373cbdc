"""How widely a head looks: variance of the distance, concentration, top-k mass, local focus and retained mass."""

import math

import numpy as np
import pytest
import torch

from tests.support.pattern_cases import given, golden_heads, padded, random_pattern, unpadded, visible_keys
from tests.support.tiny_models import tiny, tiny_tokens

NAMES = (
    "distance_variance",
    "concentration",
    "top_k_mass:k=3",
    "local_focus:window=2",
    "retained_mass:window=2:n_sink=4",
)
LENGTH = 9
PREVIOUS, UNIFORM, SINK, SELF = range(4)


def row_by_hand(name: str, weights: list[float], keys: list[int], query: int) -> float:
    """The number of one row: ``weights`` on the ``keys`` (places in the text) that the row of ``query`` sees."""
    pairs = list(zip(weights, keys, strict=True))
    if name == "distance_variance":
        mean = sum(w * abs(query - k) for w, k in pairs)
        return sum(w * (abs(query - k) - mean) ** 2 for w, k in pairs)
    if name == "concentration":
        return sum(w * w for w in weights)
    if name == "top_k_mass":
        return sum(sorted(weights)[-3:])
    return sum(w for w, k in pairs if abs(query - k) < 2 or (name == "retained_mass" and k < 4))


def by_hand(name: str, pattern: torch.Tensor, token_mask: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The number of every row of the whole ``pattern``, [n_layers batch head query]; NaN for padding."""
    numbers = torch.full(pattern.shape[:-1], torch.nan, dtype=torch.double)
    for layer, text, head, query in np.ndindex(*numbers.shape):
        if token_mask[text, query]:
            start = int(token_mask[text].int().argmax())
            columns = seen[text, 0, query].nonzero()[:, 0].tolist()
            weights = pattern[layer, text, head, query, columns].double().tolist()
            numbers[layer, text, head, query] = row_by_hand(name, weights, [c - start for c in columns], query - start)
    return numbers


def assert_same(found: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5, equal_nan=True)


def numbers(pattern: torch.Tensor, *names: str) -> dict[str, torch.Tensor]:
    """Values [head query] of one text's ``pattern`` [1 head query key]."""
    return {name.split(":")[0]: found[0, 0] for name, found in given(pattern, *names).values.items()}


def test_closed_forms_of_the_four_golden_heads():
    found = numbers(golden_heads(8), *NAMES)
    n = torch.arange(1, 9)  # keys that each row sees
    one, none = torch.ones(8), torch.zeros(8)
    far = (n > 2).float()
    want = {
        "distance_variance": [none, (n**2 - 1) / 12, none, none],
        "concentration": [one, 1 / n, one, one],
        "top_k_mass": [one, 3 / n.clamp(min=3), one, one],
        "local_focus": [one, 2 / n.clamp(min=2), 1 - far, one],
        "retained_mass": [one, 6 / n.clamp(min=6), one, one],
    }
    for name, rows in want.items():
        torch.testing.assert_close(found[name], torch.stack(rows), rtol=0, atol=1e-6)


def test_frobenius_norm_of_a_map_is_the_root_of_its_summed_concentration():
    found = numbers(golden_heads(8), "concentration")["concentration"].sum(-1).sqrt()
    assert found[SELF].item() == pytest.approx(math.sqrt(8))
    assert found[UNIFORM].item() == pytest.approx(math.sqrt(sum(1 / n for n in range(1, 9))))  # root of a harmonic number


@pytest.mark.parametrize("rows", range(1, LENGTH + 1))
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 3), (False, None)])
def test_numbers_are_those_of_the_full_pattern(rows, left, causal, window):
    token_mask = padded([LENGTH, 4, 1], left)
    pattern = random_pattern(2, 5, token_mask, causal, window, seed=rows)
    found = given(pattern, *NAMES, token_mask=token_mask, causal=causal, window=window, block=rows * 3 * LENGTH)
    for name, values in found.values.items():
        assert_same(values, by_hand(name, pattern, token_mask, visible_keys(token_mask, causal, window)))


def test_heads_are_ordered_by_how_widely_they_look():
    length, wide = 24, (2, 0, 3, 1)  # head wide[i] spreads its weight with temperature i
    pattern = torch.zeros(1, 5, length, length)
    for temperature, head in enumerate(wide):
        pattern[:, head] = random_pattern(1, 1, unpadded(1, length), peak=4.0 / (1 + temperature), seed=3)[0, :, 0]
    pattern[:, 4] = torch.eye(length)
    found = given(pattern, "concentration", "top_k_mass", "distance_variance")
    for name in ("concentration", "top_k_mass"):
        assert [h.head for h in found.heads(name).top(5, by="highest")] == [4, *wide]
    assert found.heads("distance_variance").top(1, by="lowest")[0].head == 4


def test_a_narrow_peak_far_back_has_the_variance_of_a_narrow_peak():
    length = 1500
    pattern = torch.eye(length)[None, None].repeat(1, 3, 1, 1)
    for head, key in enumerate((0, 700, 1490)):
        pattern[0, head, -1] = 0.0
        pattern[0, head, -1, [key, key + 1]] = 0.5
    last = numbers(pattern, "distance_variance")["distance_variance"][:, -1]
    torch.testing.assert_close(last, torch.full((3,), 0.25), rtol=0, atol=1e-5)


def test_variance_of_all_rows_together_is_the_mean_variance_plus_the_variance_of_the_distance():
    token_mask = unpadded(2, 13)
    pattern = random_pattern(1, 3, token_mask, seed=4)
    found = given(pattern, "distance_variance", "attention_distance")
    back = (torch.arange(13)[:, None] - torch.arange(13)).double()
    moments = [(pattern[0].double() * back**power).sum(-1).mean((0, 2)) for power in (1, 2)]
    pooled = moments[1] - moments[0] ** 2  # the number that HeadVis reports
    distance = found["attention_distance"][0].double()
    within = torch.from_numpy(found.heads("distance_variance").values[0])
    torch.testing.assert_close(within + distance.var((0, 2), correction=0), pooled, rtol=1e-5, atol=1e-5)


def test_single_diagonals_are_differences_of_local_focus():
    pattern = random_pattern(1, 3, unpadded(2, 7), seed=2)
    names = ["self_attention_score", "prev_token_score", "local_focus"]
    one, two = (given(pattern, *names[:2], f"local_focus:window={w}") for w in (1, 2))
    assert_same(one["local_focus"], one["self_attention_score"].double())
    rows = slice(1, None)
    difference = (two["local_focus"] - one["local_focus"]).double()
    assert_same(difference[..., rows], one["prev_token_score"][..., rows].double())


def test_retained_mass_is_how_little_the_renormalised_rows_change():
    pattern = random_pattern(1, 4, unpadded(2, 15), seed=5)
    mass = given(pattern, "retained_mass:window=4:n_sink=2")["retained_mass"]
    query, key = torch.arange(15)[:, None], torch.arange(15)
    mask = (query - key < 4) | (key < 2)
    swap = pattern * mask / (pattern * mask).sum(-1, keepdim=True)
    assert_same(1 - mass, 0.5 * (pattern - swap).abs().sum(-1).double())
    assert_same(-mass.log(), torch.xlogy(swap, swap / pattern.clamp(min=1e-30)).sum(-1).double())
    assert (mass[..., :6] - 1).abs().max() < 1e-6 and (mass[..., 6:] < 0.999).any()  # the first rows lose nothing


def test_a_mask_that_keeps_all_retains_all():
    pattern = random_pattern(1, 4, unpadded(2, 15), seed=5)
    for setting in ("window=15:n_sink=0", "window=16:n_sink=4", "window=1:n_sink=15"):
        mass = given(pattern, f"retained_mass:{setting}")["retained_mass"]
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("window", "sinks"), [(3, 2), (1, 0), (8, 8), (20, 4)])
def test_share_of_kept_keys_counts_the_cells_of_the_mask(window, sinks):
    from interp.metrics.attention.retained_mass import mask_density

    query, key = torch.arange(12)[:, None], torch.arange(12)
    mask = ((query - key < window) | (key < sinks)) & (key <= query)
    assert mask_density(12, window, sinks) == pytest.approx(mask.sum().item() / 78)  # 78 = 12 * 13 / 2
    uniform = golden_heads(12)[:, UNIFORM, None]
    rows = given(uniform, f"retained_mass:window={window}:n_sink={sinks}")["retained_mass"][0, 0, 0]
    assert_same(rows, mask.sum(-1) / torch.arange(1.0, 13).double())


def test_k_largest_weights_with_ties_and_with_fewer_keys_than_k():
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.4, 0.4, 0], [0.25, 0.25, 0.25, 0.25]])[None, None]
    for k, want in ((1, [1, 0.5, 0.4, 0.25]), (2, [1, 1, 0.8, 0.5]), (9, [1, 1, 1, 1])):
        assert given(rows, f"top_k_mass:k={k}", block=4)["top_k_mass"].flatten().tolist() == pytest.approx(want)


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("top_k_mass:k=0", "top_k_mass:k=0 is too small: use at least 1"),
        ("local_focus:window=0", "local_focus:window=0 is too small: use at least 1"),
        ("retained_mass:window=0", "retained_mass:window=0:n_sink=4 is invalid: use window >= 1 and n_sink >= 0"),
        ("retained_mass:n_sink=-1", "retained_mass:window=512:n_sink=-1 is invalid: use window >= 1 and n_sink >= 0"),
    ],
)
def test_settings_that_keep_nothing_are_refused(metric, sentence):
    with pytest.raises(ValueError, match=sentence):
        given(golden_heads(), metric)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2"])
def test_numbers_of_a_model_are_those_of_the_patterns_that_a_hook_sees(name):
    from interp.metrics.attention import observe_attention

    model, tokens = tiny(name), tiny_tokens(2, 12)
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(tokens)
    pattern = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(3)])
    token_mask = unpadded(2, 12)
    want = {name.split(":")[0]: by_hand(name.split(":")[0], pattern, token_mask, visible_keys(token_mask)) for name in NAMES}
    for block in (1, 200, 1 << 18):
        found = observe_attention(model, tokens, NAMES, block=block)
        for metric, values in want.items():
            assert_same(found[metric], values)
