"""Numbers per head of a prompt, kept by what was read: a metric that was asked for once costs nothing again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import streamlit as st

from interp_dashboard.attention_cache import PromptAttention, PromptChoice
from interp_dashboard.model_cache import model_cache
from interp_dashboard.role_badges import badges

if TYPE_CHECKING:
    from interp.engine import Observation
    from interp.heads import HeadScores

MAX_CACHED_METRICS = 512
"""Metrics of readings that are kept, one number a head each."""


@cache
def metric_names() -> tuple[str, ...]:
    """The attention metrics that give one number per head of a text: those of the badges first."""
    from interp.metrics.attention import ATTENTION_METRICS

    shown = [badge.metric for badge in badges()]
    metrics = ATTENTION_METRICS.entries()
    others = [n for n, m in metrics.items() if "grid" not in m.needs and (m.per_head or m.axis in ("query", "key", "text"))]
    return tuple(dict.fromkeys([*shown, *others]))


def about_metric(name: str) -> str:
    """What a metric is, in a sentence, and its unit."""
    from interp.metrics.attention import ATTENTION_METRICS, attention_metrics

    (metric,) = attention_metrics([name])
    return f"{ATTENTION_METRICS.describe(metric.name)} ({metric.unit})"


def measure(reading: PromptAttention, prompt: PromptChoice, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
    """These metrics of a reading of the prompt by the model called ``model``, with a record that says which prompt."""
    found = _metric_cache().get(reading, model, names)
    size = {"n_tokens": len(reading.tokens)}
    about = {"task": prompt.task or "own text", "arguments": size, "seed": prompt.seed}
    return {name: replace(scores, record=replace(scores.record, **about)) for name, scores in found.items()}


class MetricCache:
    """What this server measured."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], HeadScores] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, reading: PromptAttention, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
        """The scores by the names as they were asked for. Raises LookupError for unknown metrics."""
        with self._lock:
            kept = {name: self._kept[reading.digest, name] for name in names if (reading.digest, name) in self._kept}
        new = _observed(reading, model, [name for name in names if name not in kept])
        with self._lock:
            for name in names:
                self._kept[reading.digest, name] = (kept | new)[name]
                self._kept.move_to_end((reading.digest, name))
            while len(self._kept) > MAX_CACHED_METRICS:
                self._kept.popitem(last=False)
        return {name: (kept | new)[name] for name in names}


def _observed(reading: PromptAttention, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
    """Metrics read anew: from what is kept of the pass, or in a pass of their own where they need what heads move."""
    from interp.metrics.attention import attention_metrics, observe_attention

    metrics = dict(zip(names, attention_metrics(names), strict=True))
    found: dict[str, HeadScores] = {}
    for moving in (False, True):
        wanted = {name: metric for name, metric in metrics.items() if ("values" in metric.needs) is moving}
        if not wanted:
            continue
        observed: Observation
        if moving:
            with model_cache().acquire(model) as loaded:
                observed = observe_attention(loaded, list(reading.tokens), list(wanted.values()))
        else:
            observed = reading.cache.observe(list(wanted.values()))
        found |= {name: observed.heads(metric.name) for name, metric in wanted.items()}
    return found


@st.cache_resource(show_spinner=False)
def _metric_cache() -> MetricCache:
    return MetricCache()
