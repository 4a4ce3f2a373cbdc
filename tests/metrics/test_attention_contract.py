"""What every attention metric promises, whoever writes it: the streamed number is that of the whole pattern, in every architecture."""

import pytest
import torch

from interp.engine import capture_attention
from interp.engine.attention.attention_observer import observe
from interp.metrics.attention import ATTENTION_METRICS, attention_metrics
from interp.models.value_and_output_weights import output_weights
from tests.support.pattern_cases import given
from tests.support.reference_metrics import eager_pattern, hooked_pattern, same
from tests.support.tiny_models import ENCODERS, TINY, tiny, tiny_hf, tiny_tokens

T = 19
ARGUMENTS = {
    "sink_mass": ":from_row=5",
    "retained_mass": ":window=4:n_sink=2",
    "future_attention": ":horizon_min=1:horizon_max=6",
    "column_sinks": ":min_rows=3",
}
"""Metrics whose defaults are for longer texts than these."""


def asked(*missing: str) -> list[str]:
    """Every metric that needs nothing of what is ``missing``, as a user would write it."""
    names = [n for n in ATTENTION_METRICS.names() if not set(ATTENTION_METRICS.get(n).needs) & set(missing)]
    return [name + ARGUMENTS.get(name, "") for name in names]


def inputs(name: str) -> torch.Tensor:
    if name == "vit":
        config = tiny("vit").hf.config
        return torch.randn(2, config.num_channels, *_image_size(), generator=torch.Generator().manual_seed(3))
    tokens = tiny_tokens(2, T)
    tokens[:, 11:17] = tokens[:, 3:9]  # repeats, for induction and its kin
    return tokens


def _image_size() -> tuple[int, int]:
    size = tiny("vit").hf.config.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def whole_patterns(name: str, batch: torch.Tensor) -> torch.Tensor:
    """[n_layers batch head query key] from the bridge's hooks or, for encoders, Hugging Face's eager attention."""
    if name in TINY:
        return hooked_pattern(tiny(name), batch)
    return eager_pattern(tiny_hf(name), **{"pixel_values" if name == "vit" else "input_ids": batch})


@pytest.mark.parametrize("n_rows", [(2, 7), pytest.param((), marks=pytest.mark.slow, id="every")])
@pytest.mark.parametrize("name", [*TINY, *ENCODERS])
def test_every_metric_streamed_equals_itself_on_the_whole_pattern_at_every_block_size(name, n_rows):
    model, batch = tiny(name), inputs(name)
    metrics = attention_metrics(asked("tokens" if name == "vit" else "grid"))
    pattern, cache = whole_patterns(name, batch), capture_attention(model, batch, values=True)
    texts = cache.prompts
    want = {metric.name: [] for metric in metrics}
    for layer, call in enumerate(cache.calls):  # a layer at a time, since windows differ
        w_o = output_weights(model, layer)[None] if model.layout is not None else None
        with torch.inference_mode():
            one = given(
                pattern[layer], *metrics, tokens=texts.tokens, causal=model.facts.causal, window=model.facts.sliding_windows[layer],
                grid=texts.grid, n_kv_heads=model.facts.n_kv_heads, values=call.v[None], w_o=w_o,
            )  # fmt: skip
        for metric in metrics:
            want[metric.name].append(one[metric.name][0])
    length = texts.tokens.shape[1]
    least = 2 * length * model.facts.group_size
    for block in [1, *(least * rows for rows in n_rows or range(1, length + 1)), 1 << 19]:
        seen = observe(model, batch, metrics, block=block)
        for metric in metrics:
            assert same(seen[metric.name], torch.stack(want[metric.name])), metric.name


@pytest.mark.parametrize("name", ATTENTION_METRICS.names())
def test_every_metric_says_what_it_is_and_keeps_its_bounds(name):
    metric = attention_metrics([name + ARGUMENTS.get(name, "")])[0]
    assert metric.name == name and metric.unit and metric.paper
    model = "vit" if "grid" in metric.needs else "llama"
    values = observe(tiny(model), inputs(model), [metric])[name]
    low, high = metric.bounds
    kept = values[~torch.isnan(values)]
    assert len(kept) and (low is None or kept.min() >= low - 1e-5) and (high is None or kept.max() <= high + 1e-5)
    assert not torch.isnan(values).any() or metric.undefined


@pytest.mark.parametrize("name", [n for n in ATTENTION_METRICS.names() if "grid" not in ATTENTION_METRICS.get(n).needs])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_metric_of_a_padded_batch_is_that_of_its_members(name, side):
    metric, model = attention_metrics([name + ARGUMENTS.get(name, "")])[0], tiny("mistral")
    long, short = inputs("mistral")[0], inputs("mistral")[1, :14]
    gap = torch.zeros(T - 14, dtype=torch.long)
    tokens = torch.stack([long, torch.cat([gap, short] if side == "left" else [short, gap])])
    token_mask = torch.arange(T) >= T - 14 if side == "left" else torch.arange(T) < 14
    together = observe(
        model, tokens, [metric], token_mask=torch.stack([torch.ones(T, dtype=torch.bool), token_mask]), block=333
    )[name]
    alone = observe(model, short[None], [metric])[name]
    kept = together[:, 1][..., token_mask] if together.shape[-1] == T and metric.axis in ("query", "key") else together[:, 1]
    assert same(kept[..., : alone.shape[-1]], alone[:, 0])
