"""Every registered attention metric, on every architecture: in blocks, in steps with a cache, padded, and from whole patterns."""

import math

import numpy as np
import pytest
import torch

from interp.engine import Prompts, observing
from interp.engine.observation import observe
from interp.heads import HeadScores
from interp.metrics.attention import ATTENTION_METRICS
from tests.full_patterns import eager_pattern
from tests.given_rows import given
from tests.tiny_models import ENCODERS, TINY, tiny, tiny_hf, tiny_images, tiny_tokens

T = 13
AT_THIS_LENGTH = {
    "column_sinks": {"alpha": 1.5, "min_rows": 3},
    "future_attention": {"low": 2, "high": 5},
    "local_focus": {"window": 3},
    "sink_share": {"from_row": 5},
    "windowed_distance": {"window": 4},
}
EVERY = [ATTENTION_METRICS.get(name).set(**AT_THIS_LENGTH.get(name, {})) for name in ATTENTION_METRICS.names()]
OF_TEXTS = [metric for metric in EVERY if "grid" not in metric.needs]
OF_IMAGES = [metric for metric in EVERY if metric.name not in ("duplicate_token_score", "induction_score")]
OF_PATTERNS = [metric for metric in OF_TEXTS if "values" not in metric.needs]


def text(seed: int = 0, n: int = T) -> torch.Tensor:
    """Two texts in which tokens come again."""
    return tiny_tokens(2, n, seed=seed) % 5 + 4


def close(found, wanted, what) -> None:
    """Equal to 1e-5 of 1 + the value, with numbers in the same places."""
    assert found.shape == wanted.shape, what
    assert torch.equal(found.isnan(), wanted.isnan()), what
    assert float(((found - wanted).abs() / (1 + wanted.abs())).nan_to_num().max()) <= 1e-5, what


@pytest.mark.parametrize("name", [*TINY, *ENCODERS])
def test_every_metric_is_the_same_at_every_block_size(name):
    model, metrics = tiny(name), OF_IMAGES if name == "vit" else OF_TEXTS
    inputs = tiny_images() if name == "vit" else text()
    whole = observe(model, inputs, metrics, block=1 << 18)
    length = whole.prompts.real.shape[1]
    for rows in (1, 2, 3, 5, 8, length):
        blocks = observe(model, inputs, metrics, block=2 * model.facts.group_size * length * rows)
        for metric in metrics:
            close(blocks[metric.name], whole[metric.name], (metric.name, rows))


@pytest.mark.parametrize("name", [*TINY, "bert"])
def test_every_metric_of_a_pattern_equals_that_of_the_eager_pattern_handed_over(name):
    model, tokens = tiny(name), text()
    seen, hf = observe(model, tokens, OF_PATTERNS, block=300), tiny_hf(name)
    for layer, pattern in enumerate(eager_pattern(hf, input_ids=tokens)):
        window = model.facts.windows[layer]
        alone = given(pattern, *OF_PATTERNS, tokens=tokens, causal=model.facts.causal, window=window)
        for metric in OF_PATTERNS:
            close(seen[metric.name][layer], alone[metric.name][0], (metric.name, layer))


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_every_metric_is_the_same_in_steps_with_a_cache(name):
    model, tokens = tiny(name), text()
    whole = observe(model, tokens, OF_TEXTS)
    with observing(model, OF_TEXTS, Prompts(tokens, torch.ones_like(tokens, dtype=torch.bool)), block=300) as watch:
        cache, first = None, 0
        for n in (6, 1, 1, 4, 1):
            cache = watch.forward(input_ids=tokens[:, first : first + n], past_key_values=cache, use_cache=True).past_key_values
            first += n
        steps = watch.result()
    for metric in OF_TEXTS:
        close(steps[metric.name], whole[metric.name], metric.name)


@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name in ("gpt2", "qwen3", "gemma2") for side in ("left", "right")] + [("bert", "right")]
)
def test_every_metric_of_a_padded_text_is_that_of_the_text_alone(name, side):
    model, long, short = tiny(name), text()[:1], text(seed=1, n=9)[:1]
    pad = (T - 9, 0) if side == "left" else (0, T - 9)
    real = torch.ones(2, T, dtype=torch.bool)
    real[1] = torch.nn.functional.pad(torch.ones(9), pad).bool()
    tokens = torch.cat([long, torch.nn.functional.pad(short, pad)])
    together, alone = observe(model, tokens, OF_TEXTS, real=real, block=400), observe(model, short, OF_TEXTS)
    for metric in OF_TEXTS:
        found = together[metric.name][:, 1:]
        if metric.axis in ("query", "key"):
            assert found[..., ~real[1]].isnan().all(), metric.name
            found = found[..., real[1]]
        width = alone[metric.name].shape[-1]
        close(found[..., :width], alone[metric.name], metric.name)


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
def test_a_metric_is_named_bounded_and_in_its_bounds(metric):
    assert metric.unit
    assert metric.paper
    assert all(bound is None or isinstance(bound, float) for bound in metric.bounds)
    model = tiny("vit" if "grid" in metric.needs else "llama")
    seen = observe(model, tiny_images() if "grid" in metric.needs else text(), [metric])
    values = seen[metric.name].numpy()
    low, high = metric.bounds
    assert np.isfinite(values).any()
    assert np.nanmin(values) >= (-math.inf if low is None else low - 1e-6)
    assert np.nanmax(values) <= (math.inf if high is None else high + 1e-6)
    assert not np.isnan(values).any() or metric.undefined
    if metric.axis in ("query", "key") or metric.per_head:
        assert isinstance(seen.heads(metric.name), HeadScores)


@pytest.mark.parametrize("metric", OF_TEXTS, ids=lambda m: m.name)
def test_one_token_gives_no_number_or_a_true_one(metric):
    found = observe(tiny("gpt2"), torch.tensor([[5]]), [metric])[metric.name]
    assert metric.undefined or found.isfinite().all()
    assert not found.isinf().any()
