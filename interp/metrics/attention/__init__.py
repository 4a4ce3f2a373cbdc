"""Attention metrics, one per file, computed from blocks of attention rows so that each works at any length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.options_text import parse_options
from interp.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.attention.attention_metric import AttentionMetric
    from interp.engine.attention.attention_observer import Observation
    from interp.interventions import Intervention
    from interp.models.model import Model

ATTENTION_METRICS = Registry("interp.metrics.attention", "attention metric", group="interp.metrics", kind="AttentionMetric")


def observe_attention(
    model: "Model",
    prompts: Any,
    metrics: "Sequence[str | AttentionMetric]",
    *,
    token_mask: "Tensor | None" = None,
    intervene: "Sequence[Intervention]" = (),
    memory: int | None = None,
    block: int | None = None,
) -> "Observation":
    """The metrics, by name (``entropy``, ``windowed_distance:window=20``) or as objects, of every head on ``prompts``, and the other
    arguments, as in ``interp.engine.observe``; ``memory`` is in bytes. Raises ExtensionError for a metric from outside this project whose
    values depend on what else is observed."""
    from interp.engine.attention.attention_observer import observe

    chosen = attention_metrics(metrics)
    return observe(model, prompts, chosen, token_mask=token_mask, intervene=intervene, memory=memory, block=block)


def attention_metrics(metrics: "Sequence[str | AttentionMetric]") -> "list[AttentionMetric]":
    """The metrics, those called by name with their own parameters or, written ``windowed_distance:window=20``, with others. Raises
    LookupError for unknown names and parameters, ValueError for a value of another kind than the default."""
    return [_parse_metric(metric) if isinstance(metric, str) else metric for metric in metrics]


def _parse_metric(text: str) -> "AttentionMetric":
    name, *options = text.split(":")
    metric = ATTENTION_METRICS.get(name)
    return metric.set(**parse_options(options, metric.parameters, f"Metric {name!r}"))
