"""The attention viewer for a notebook, straight from a model and a prompt: the one figure of this room that asks the engine."""

from __future__ import annotations

from typing import Any

from interp.figures.attention_viewer import AttentionViewer, attention_view
from interp.figures.head_atlas import atlas
from interp.heads import Head
from interp.models.model import Model


def show_attention(model: Model, prompt: Any, head: Head | str | None = None, *, dark: bool = False) -> AttentionViewer:
    """Every head of ``model`` on one prompt (text or token ids), to explore in a notebook or to ``.save("attention.html")``.

    ``head`` is shown first, by default L0H0. Raises LookupError for a head that is not there, ValueError for several prompts and for more
    than 4,096 tokens, and otherwise as ``capture_attention``.
    """
    from interp.engine import capture_attention
    from interp.metrics import thumbnails

    facts = model.facts
    first = facts.check_head(Head.parse(head) if isinstance(head, str) else head or Head(0, 0))
    cache = capture_attention(model, prompt)
    if len(cache.words) != 1:
        raise ValueError(f"The viewer shows one prompt, and was given {len(cache.words)}: choose one of them.")
    return attention_view(
        lambda one: cache.pattern(one).numpy(),
        cache.words[0],
        heads=facts.heads(),
        chosen=first,
        atlas=atlas(thumbnails(cache), causal=facts.causal, n_kv_heads=facts.n_kv_heads, dark=dark),
        caption=cache.record.caption(),
        causal=facts.causal,
        dark=dark,
    )
