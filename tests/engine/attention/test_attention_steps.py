"""Every attention metric of a text that is read in steps with a cache, and of a single token."""

import pytest
import torch

from interp.engine import TokenBatch, observing
from interp.engine.attention.attention_observer import observe
from interp.metrics.attention import ATTENTION_METRICS, attention_metrics
from tests.support.reference_metrics import same
from tests.support.tiny_models import tiny, tiny_tokens

OF_TEXTS = [name for name in ATTENTION_METRICS.names() if "grid" not in ATTENTION_METRICS.get(name).needs]
STEPS = (6, 1, 1, 4, 1)
AT_THIS_LENGTH = {"future_attention": ":horizon_min=2", "sink_mass": ":from_row=5", "column_sinks": ":min_rows=3"}


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_every_metric_is_the_same_in_steps_with_a_cache(name):
    model, tokens = tiny(name), tiny_tokens(2, sum(STEPS)) % 5 + 4  # five words, so that tokens come again
    metrics = attention_metrics([name + AT_THIS_LENGTH.get(name, "") for name in OF_TEXTS])
    whole, cache = observe(model, tokens, metrics), None
    with observing(model, metrics, TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool)), block=300) as observer:
        for step in tokens.split(STEPS, dim=1):
            cache = observer.forward(input_ids=step, past_key_values=cache, use_cache=True).past_key_values
        steps = observer.result()
    for metric in metrics:
        assert same(steps[metric.name], whole[metric.name]), metric.name


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_single_token_has_a_finite_number_or_a_reason_for_none(name):
    seen = observe(tiny("gpt2"), torch.tensor([[5]]), attention_metrics([name]))
    values, reason = seen[name], seen.metrics[name].undefined
    assert values.isfinite().all() or (values.isnan().any() and reason)
