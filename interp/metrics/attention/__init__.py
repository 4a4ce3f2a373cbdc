"""Attention metrics, one per file, computed from blocks of attention rows so that each works at any length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.options_text import parse_options
from interp.registry import Registry

if TYPE_CHECKING:
    from interp.engine.attention.attention_metric import AttentionMetric
    from interp.engine.attention.attention_observer import Observation
    from interp.models.model import Model

ATTENTION_METRICS = Registry("interp.metrics.attention", "attention metric", group="interp.metrics", kind="AttentionMetric")


def observe_attention(
    model: "Model", prompts: Any, metrics: "Sequence[str | AttentionMetric]", **options: Any
) -> "Observation":
    """The metrics, by name (``entropy``, ``windowed_distance:window=20``) or as objects, of every head on
    ``prompts``; see ``interp.engine.observe``."""
    from interp.engine.attention.attention_observer import observe

    return observe(model, prompts, attention_metrics(metrics), **options)


def attention_metrics(metrics: "Sequence[str | AttentionMetric]") -> "list[AttentionMetric]":
    """The metrics, those called by name with their own parameters or, written ``windowed_distance:window=20``, with others. Raises
    LookupError for unknown names and parameters, ValueError for a value of another kind than the default."""
    return [_parse_metric(metric) if isinstance(metric, str) else metric for metric in metrics]


def _parse_metric(text: str) -> "AttentionMetric":
    name, *options = text.split(":")
    metric = ATTENTION_METRICS.get(name)
    return metric.set(**parse_options(options, metric.parameters, f"Metric {name!r}"))
