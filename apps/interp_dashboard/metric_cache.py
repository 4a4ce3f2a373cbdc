"""Attention metrics of prompts, one number per head, cached by the digest of weights and tokens."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import streamlit as st

from interp.heads import HeadScores
from interp.metrics.attention import ATTENTION_METRICS, attention_metrics, observe_attention
from interp_dashboard.attention_cache import PromptAttention, PromptChoice, place_in_task
from interp_dashboard.model_cache import model_cache
from interp_dashboard.score_badges import badges

MAX_CACHED_METRICS = 512
"""Number of cached metrics, each one number per head."""


@cache
def metric_names() -> tuple[str, ...]:
    """The attention metrics with one number per head of a text, those of the badges first."""
    shown = [badge.metric for badge in badges()]
    metrics = ATTENTION_METRICS.entries()
    others = [n for n, m in metrics.items() if "grid" not in m.needs and (m.per_head or m.axis in ("query", "key", "text"))]
    return tuple(dict.fromkeys([*shown, *others]))


def about_metric(name: str) -> str:
    """One sentence on a metric, and its unit if the sentence does not name it."""
    (metric,) = attention_metrics([name])
    about = ATTENTION_METRICS.describe(metric.name)
    return about if re.search(rf"\b{re.escape(metric.unit)}\b", about) else f"{about} ({metric.unit})"


def measure(attention: PromptAttention, prompt: PromptChoice, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
    """These metrics of the attention of ``model`` on the prompt, with a record that names the prompt."""
    cached = _metric_cache().get(attention, model, names)
    size = {"n_tokens": len(attention.tokens)}
    about = {"task": place_in_task(prompt), "arguments": size, "seed": prompt.seed}
    return {name: replace(scores, record=replace(scores.record, **about)) for name, scores in cached.items()}


class MetricCache:
    """Metrics computed on this server."""

    def __init__(self) -> None:
        self._scores: OrderedDict[tuple[str, str], HeadScores] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, attention: PromptAttention, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
        """The scores by requested name. Raises LookupError for unknown metrics."""
        with self._lock:
            cached = {name: self._scores[attention.digest, name] for name in names if (attention.digest, name) in self._scores}
        new = _observed(attention, model, [name for name in names if name not in cached])
        with self._lock:
            for name in names:
                self._scores[attention.digest, name] = (cached | new)[name]
                self._scores.move_to_end((attention.digest, name))
            while len(self._scores) > MAX_CACHED_METRICS:
                self._scores.popitem(last=False)
        return {name: (cached | new)[name] for name in names}


def _observed(attention: PromptAttention, model: str, names: Sequence[str]) -> dict[str, HeadScores]:
    """Metrics computed from the cached queries and keys, or in another forward pass if they need values."""
    metrics = dict(zip(names, attention_metrics(names), strict=True))
    found: dict[str, HeadScores] = {}
    for needs_values in (False, True):
        if not (wanted := {name: metric for name, metric in metrics.items() if ("values" in metric.needs) is needs_values}):
            continue
        if needs_values:
            with model_cache().acquire(model) as loaded:
                observed = observe_attention(loaded, list(attention.tokens), list(wanted.values()))
        else:
            observed = attention.cache.observe(list(wanted.values()))
        found |= {name: observed.heads(metric.name) for name, metric in wanted.items()}
    return found


@st.cache_resource(show_spinner=False)
def _metric_cache() -> MetricCache:
    return MetricCache()
