"""The attention viewer for notebooks, from a model and a prompt: the one figure of this room that runs a model."""

from __future__ import annotations

from typing import Any

from interp.figures.attention_viewer import AttentionViewer, attention_viewer
from interp.figures.head_atlas import atlas
from interp.heads import Head
from interp.models.model import Model


def show_attention(model: Model, prompt: Any, head: Head | str | None = None, *, dark: bool = False) -> AttentionViewer:
    """An interactive view of every head of ``model`` on one prompt (text or token ids), for notebooks or ``.save("attention.html")``.

    ``head`` is shown first (default L0H0). Raises LookupError for an unknown head, ValueError for several prompts or more than 4,096
    tokens, and otherwise as ``capture_attention``.
    """
    from interp.engine import capture_attention
    from interp.metrics import thumbnails

    facts = model.facts
    first = facts.check_head(Head.parse(head) if isinstance(head, str) else head or Head(0, 0))
    cache = capture_attention(model, prompt)
    if len(cache.words) != 1:
        raise ValueError(f"The viewer shows one prompt, not {len(cache.words)}: pass one of them.")
    return attention_viewer(
        lambda selected: cache.pattern(selected).numpy(),
        cache.words[0],
        heads=facts.heads(),
        first_head=first,
        atlas=atlas(thumbnails(cache), causal=facts.causal, n_kv_heads=facts.n_kv_heads, dark=dark),
        caption=cache.record.caption(),
        causal=facts.causal,
        dark=dark,
    )
