"""Attention: thumbnails of all heads, the pattern of one head, and the text with the attention of each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.components import v2 as components

from interp.figures import Figure, pattern_heatmap, tile_data, view_assets, view_data
from interp.heads import Head
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptAttention, PromptChoice
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain
from interp_dashboard.head_roles import role_cache
from interp_dashboard.page_definition import Page, View, link
from interp_dashboard.score_badges import badges, role_badges
from interp_dashboard.url import Field, flag, head, number, numbers

KEY = "attention-viewer"
EXACT = 256
"""Largest tile of exact weights; a longer text is shown in this many bins, and a window of it exactly."""

SCRIPT, LOOK = view_assets()
viewer = components.component("interp.attention_viewer", js=SCRIPT, css=LOOK)


def fields() -> tuple[Field, ...]:
    return (*prompts.fields(), head(), numbers("window", 4), number("gamma", 1.0, 0.1, 1.0), flag("value_weighted"))


def render(view: View) -> None:
    state = view.state
    prompt = prompts.choose(view)
    attention = prompts.read(view, prompt)
    chosen = state.validated("head", attention.facts.check_head, attention.first)
    window = _window(state["window"], len(attention.words))

    with st.container(horizontal=True, vertical_alignment="center"):
        for badge in badges():
            value = attention.badge(badge, chosen)
            if value is not None:
                text, about = f"{badge.label} {value:,.{0 if value >= 100 else 2}f}", f"On this prompt: {badge.about}"
                strong = badge.threshold is not None and value >= badge.threshold
                st.badge(text, color="blue" if strong else "gray", help=about)
        if attention.facts.group_size > 1:
            shared = f"Keys and values are shared with {attention.facts.group_size - 1} other heads of the layer"
            st.badge(f"KV group {attention.facts.kv_head(chosen)}", color="gray", help=shared)
        st.space("stretch")
        about = "Multiplies each weight by ‖vW_O‖, the norm of what the head would write if it attended to that key alone."
        st.toggle("Scale by value norm (weight × ‖vW_O‖)", help=about, **state.widget_args("value_weighted"))

    _role_badges(attention, chosen)
    with st.spinner("Rendering every head …", show_time=True):
        data = _data(view, attention, chosen, window)
    viewer(
        key=KEY,
        data=data,
        on_head_change=lambda: _store(state, "head", lambda pair: Head(*map(int, pair))),
        on_window_change=lambda: _store(state, "window", lambda ends: tuple(map(int, ends))),
        on_gamma_change=lambda: _store(state, "gamma", float),
    )
    st.caption(f"{plain(view.model)} · {len(attention.words)} tokens · digest {attention.digest}")
    here = {field.name: state[field.name] for field in prompts.fields()}
    with st.container(horizontal=True):
        link("Metrics of all heads", "heads", {**here, "head": chosen}, icon=":material/apps:")
        link("Roles of this head", "heads", {**here, "head": chosen, "roles": True}, icon=":material/badge:")
    _export(view, prompt, attention, chosen, _exact(window))


def _role_badges(attention: PromptAttention, chosen: Head) -> None:
    """Badges of the detectors whose results are available."""
    roles = role_badges(role_cache().known(attention.facts), chosen)
    if roles:
        with st.container(horizontal=True, vertical_alignment="center", key="role-badges"):
            for label, detected, about in roles:
                icon = ":material/check:" if detected else None
                st.badge(label, icon=icon, color="blue" if detected else "gray", help=about)


def _store(state: Any, name: str, make: Any) -> None:
    """Store a value that the viewer reports, unless it is malformed."""
    value = st.session_state[KEY].get(name)
    try:
        state.set(**{name: make(value)})
    except (TypeError, ValueError):
        return


def _window(requested: tuple[int, ...] | None, length: int) -> tuple[int, int, int, int]:
    """The window, clipped to the text; by default the whole text."""
    q0, q1, k0, k1 = requested or (0, length, 0, length)
    return (*_cut(q0, q1, length), *_cut(k0, k1, length))


def _cut(start: int, end: int, length: int) -> tuple[int, int]:
    start = min(start, length - 1)
    return start, min(max(end, start + 1), length)


def _exact(window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The part of a window with exact weights: its first 256 queries and keys."""
    q0, q1, k0, k1 = window
    return q0, min(q1, q0 + EXACT), k0, min(k1, k0 + EXACT)


def _data(view: View, attention: PromptAttention, chosen: Head, window: tuple[int, int, int, int]) -> dict[str, Any]:
    """The data of the viewer: the atlas, the selected head's tile and, for a long text, its overview."""
    state, value_weighted = view.state, view.state["value_weighted"]
    top = attention.max_value_norm(chosen) if value_weighted else 1.0
    long = len(attention.words) > EXACT
    tiles = []
    if long:
        every = (0, len(attention.words)) * 2
        tiles.append(tile_data(attention.overview(chosen, EXACT, value_weighted=value_weighted), every, top=top))
    if window == _exact(window):
        tiles.append(tile_data(attention.weights(chosen, window, value_weighted=value_weighted), window, top=top))
    notes = [f"colour: weight × ‖vW_O‖, strongest = {top:.3g}; the thumbnails show weights"] if value_weighted else []
    return view_data(
        attention.words,
        tiles={chosen: tiles},
        head=chosen,
        window=window,
        atlas=attention.atlas(state["gamma"], view.dark),
        labels=attention.labels,
        notes=notes,
        causal=attention.facts.causal,
        gamma=state["gamma"],
        top=top,
        dark=view.dark,
    )


def _export(
    view: View, prompt: PromptChoice, attention: PromptAttention, chosen: Head, window: tuple[int, int, int, int]
) -> None:
    q0, q1, k0, k1 = window

    def figure() -> Figure:
        about = {"first_query": q0, "first_key": k0, "causal": attention.facts.causal}
        return pattern_heatmap(attention.weights(chosen, window), attention.words, chosen, attention.record, **about)

    code = (
        f"{prompts.python_code(prompt, view.model)}"
        f"from interp.engine import capture_attention\n\n"
        f"cache = capture_attention(model, tokens)\n"
        f"weights = cache.pattern(interp.Head({chosen.layer}, {chosen.head}), slice({q0}, {q1}), slice({k0}, {k1}))  # [query key]\n"
    )
    cli = prompts.command(prompt, view.model, [badge.metric for badge in badges()])
    export_menu(f"attention-{chosen}", cli=cli, python=code, figure=figure, table=lambda: _table(attention, chosen, window))


def _table(attention: PromptAttention, chosen: Head, window: tuple[int, int, int, int]) -> pd.DataFrame:
    """The window as a long table: query and key positions, their tokens, weight."""
    tile = attention.weights(chosen, window)
    query, key = (place.ravel() for place in np.indices(tile.shape))
    words = np.array(attention.words, dtype=object)
    query, key = query + window[0], key + window[2]
    visible = key <= query if attention.facts.causal else np.ones(len(key), bool)
    columns = {"query": query, "query_token": words[query], "key": key, "key_token": words[key], "weight": tile.ravel()}
    return pd.DataFrame(columns).loc[visible]


QUESTION = "Which tokens does each head attend to?"
PAGE = Page(name="attention", icon=":material/grid_view:", order=1, question=QUESTION, fields=fields, render=render)
