"""The attention of models on prompts, cached: showing another head needs no second forward pass.

An entry holds rotated queries and keys (from which any tile of any pattern is recomputed), the value norms ‖vW_O‖ of each key, and the
scores of the badges. All sessions share one memory budget; the least recently used entry is evicted first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from interp.figures import Atlas, atlas
from interp.heads import Head, HeadScores
from interp.metrics.attention import attention_metrics
from interp.models import memory
from interp.models.model import Model, ModelFacts
from interp.records import RunRecord, digest
from interp.tasks import make_task
from interp_dashboard.model_cache import model_cache
from interp_dashboard.score_badges import Badge, badges
from interp_dashboard.suggested_texts_and_unknown_words import name_unknown

if TYPE_CHECKING:
    from interp.engine import AttentionCache, Observation  # importing torch, which takes seconds, waits for the model

SHARE = 8
"""The cache may use this fraction (1/8) of the free memory."""


@dataclass(frozen=True)
class PromptChoice:
    """A prompt typed by the user, or prompt number ``example`` of a task with this seed, clean or corrupted."""

    text: str = ""
    task: str = ""
    seed: int = 0
    example: int = 0
    corrupted: bool = False

    def tokens(self, model: Model) -> list[int]:
        """Its token ids. Raises ValueError for an empty text, LookupError for an unknown task."""
        if not self.task:
            if not self.text.strip():
                raise ValueError("The prompt is empty: enter a text.")
            return model.to_tokens(self.text)
        example = make_task(self.task, model, n_prompts=self.example + 1, seed=self.seed).examples[self.example]
        return list(example.corrupted if self.corrupted else example.clean)


def place_in_task(prompt: PromptChoice) -> str:
    """The prompt in a caption that gives its seed: task, example and side; the same for all own texts."""
    if not prompt.task:
        return "own text"
    return f"{prompt.task}, {'corrupted ' if prompt.corrupted else ''}example {prompt.example}"


@dataclass(eq=False)
class PromptAttention:
    """The attention of one model on one prompt."""

    facts: ModelFacts
    cache: AttentionCache
    observed: Observation
    tokens: tuple[int, ...]
    _atlases: dict[tuple[float, bool], Atlas] = field(default_factory=dict, repr=False)

    @property
    def words(self) -> Sequence[str]:
        """The tokens as text, unknown ones with the word that they stand for."""
        return self.cache.words[0]

    @cached_property
    def digest(self) -> str:
        """Identifies weights and tokens: entries with the same digest are equal."""
        return digest([self.facts.weights_digest, self.facts.dtype, list(self.tokens)])[:12]

    @cached_property
    def thumbnails(self) -> np.ndarray:
        """Every pattern, max-pooled, [n_layers n_heads size size]."""
        from interp.metrics import thumbnails

        return thumbnails(self.cache)

    @cached_property
    def scores(self) -> dict[str, HeadScores]:
        """The scores of the badges by name."""
        return {badge.name: self.observed.heads(badge.name) for badge in badges()}

    @cached_property
    def first(self) -> Head:
        """The head shown by default: the one with the highest score of the last badge that names a role."""
        best = [self.scores[badge.name].top(1, by="highest") for badge in badges() if badge.threshold is not None]
        return next((scored[0] for scored in reversed(best) if scored), Head(0, 0))

    @cached_property
    def labels(self) -> dict[Head, str]:
        """The roles of every head with their scores, largest first, of badges that name a role."""
        return {head: self._label(head) for head in self.facts.heads()}

    @property
    def record(self) -> RunRecord:
        return self.cache.record

    def badge(self, badge: Badge, head: Head) -> float | None:
        """The score of a badge, or None if it is undefined for the head."""
        value = self.scores[badge.name][head]
        return None if value != value else value

    def atlas(self, gamma: float, dark: bool) -> Atlas:
        """Thumbnails of all heads."""
        if (gamma, dark) not in self._atlases:
            self._atlases.clear()
            model = {"causal": self.facts.causal, "n_kv_heads": self.facts.n_kv_heads}
            self._atlases[gamma, dark] = atlas(self.thumbnails, gamma=gamma, dark=dark, **model)
        return self._atlases[gamma, dark]

    def tile(self, head: Head, window: tuple[int, int, int, int], size: int, *, value_weighted: bool = False) -> np.ndarray:
        """Weights of a window (first query, end, first key, end), [query key], in at most ``size`` bins a side with the largest
        weight of each; ``value_weighted`` multiplies them by ‖vW_O‖ of the key."""
        from interp.metrics import overview

        scale = self._value_norms(head) if value_weighted else None
        return overview(self.cache, head, size, scale=scale, window=window)

    def max_value_norm(self, head: Head) -> float:
        """The largest ‖vW_O‖ of any key."""
        return float(self._value_norms(head).max())

    def _value_norms(self, head: Head) -> np.ndarray:
        return self.cache.value_norms[head.layer][0, head.head].numpy()

    def _label(self, head: Head) -> str:
        roles = [(self.badge(badge, head), badge.label) for badge in badges() if badge.threshold is not None]
        scored = sorted(((value, label) for value, label in roles if value is not None and value >= 0.1), reverse=True)
        return " · ".join(f"{label} {value:.2f}" for value, label in scored[:3])

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes + sum(v.nbytes for v in self.observed.values.values())


class PromptAttentionCache:
    """The attention of recent prompts, for all sessions of this server."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Any, PromptAttention] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, prompt: PromptChoice) -> PromptAttention:
        """The attention of the model ``name`` on a prompt, computed if it is not cached.

        Raises ModelUnavailable, ValueError for a prompt that cannot be tokenised, and MemoryBudgetExceeded for one that does not fit.
        """
        key = (name, prompt)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        entry = read(name, prompt)
        with self._lock:
            self._entries[key] = entry
            self._evict()
        return entry

    def _evict(self) -> None:
        budget = memory.available_memory() // SHARE
        while len(self._entries) > 1 and sum(entry.nbytes for entry in self._entries.values()) > budget:
            self._entries.popitem(last=False)


def read(name: str, prompt: PromptChoice) -> PromptAttention:
    """One forward pass over the prompt."""
    from interp.engine import capture_attention

    with model_cache().acquire(name) as model:
        tokens = prompt.tokens(model)
        cache = capture_attention(model, tokens, value_norms=True)
        if not prompt.task:
            cache = replace(cache, words=(name_unknown(model, [prompt.text], cache.words[0]),))
        facts = model.facts
    del model  # observing may take long, and another session may load another model meanwhile
    return PromptAttention(facts, cache, cache.observe(attention_metrics([badge.metric for badge in badges()])), tuple(tokens))


@st.cache_resource(show_spinner=False)
def attention_cache() -> PromptAttentionCache:
    """The cache of this server."""
    return PromptAttentionCache()
