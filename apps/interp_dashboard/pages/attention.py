"""Attention: thumbnails of all heads, the pattern of one head, and the text with the attention of each token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.components import v2 as components

from interp.figures import tile_data, view_assets, view_data
from interp.heads import Head
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptAttention
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain
from interp_dashboard.head_roles import role_cache
from interp_dashboard.page_definition import Page, View, link
from interp_dashboard.pattern_export import ShownPattern
from interp_dashboard.score_badges import badges, role_badges
from interp_dashboard.url import Field, State, flag, head, number, numbers

KEY, WINDOW_OF = "attention-viewer", "window-of"

SCRIPT, LOOK = view_assets()
viewer = components.component("interp.attention_viewer", js=SCRIPT, css=LOOK)


def fields() -> tuple[Field, ...]:
    return (*prompts.fields(), head(), numbers("window", 4), number("gamma", 1.0, 0.1, 1.0), flag("value_weighted"))


def render(view: View) -> None:
    state = view.state
    prompt = prompts.choose(view)
    attention = prompts.read(view, prompt)
    chosen = state.validated("head", attention.facts.check_head, attention.first)
    window = _window(state, attention)
    shown = ShownPattern(view.model, prompt, attention, chosen, window, state["gamma"], state["value_weighted"])

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
        data = _data(view, shown)
    viewer(
        key=KEY,
        data=data,
        on_head_change=lambda: _store(state, "head", lambda pair: Head(*map(int, pair))),
        on_window_change=lambda: _store(state, "window", lambda ends: tuple(map(int, ends))),
        on_gamma_change=lambda: _store(state, "gamma", float),
    )
    st.caption(plain(shown.caption))
    here = {field.name: state[field.name] for field in prompts.fields()}
    with st.container(horizontal=True):
        link("Metrics of all heads", "heads", {**here, "head": chosen}, icon=":material/apps:")
        if attention.facts.causal:
            link("Roles of this head", "heads", {**here, "head": chosen, "roles": True}, icon=":material/badge:")
    cli = prompts.command(prompt, view.model, [badge.metric for badge in badges()])
    export_menu(f"attention-{chosen}", cli=cli, python=shown.python(), figure=shown.figure, table=shown.table)


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


def _data(view: View, shown: ShownPattern) -> dict[str, Any]:
    """The data of the viewer: the atlas, and the selected head's tile, of a long text its overview and the tile of the window."""
    attention, whole = shown.attention, _whole(len(shown.attention.words))
    parts = [replace(shown, window=whole)]
    if parts[0].binned and shown.window != whole:
        parts.append(shown)
    tiles = [tile_data(part.tile(), part.window, top=shown.top) for part in parts]
    scaled = f"colour: weight × ‖vW_O‖, strongest = {shown.top:.3g}; the thumbnails show weights"
    return view_data(
        attention.words,
        tiles={shown.head: tiles},
        head=shown.head,
        window=shown.window,
        atlas=attention.atlas(shown.gamma, view.dark),
        labels=attention.labels,
        notes=[scaled] if shown.value_weighted else [],
        causal=attention.facts.causal,
        gamma=shown.gamma,
        top=shown.top,
        dark=view.dark,
    )


def _whole(length: int) -> tuple[int, int, int, int]:
    return 0, length, 0, length


def _window(state: State, attention: PromptAttention) -> tuple[int, int, int, int]:
    """The window, by default the whole text. It belongs to a text: that of another one is dropped, as is one of the whole text."""
    length, text = len(attention.words), hash(attention.tokens)
    requested, of = state["window"], st.session_state.get(WINDOW_OF, text)
    st.session_state[WINDOW_OF] = text
    if requested is None or (of != text and not state.opened):
        window = _whole(length)
    else:
        q0, q1, k0, k1 = requested
        window = (*_cut(q0, q1, length), *_cut(k0, k1, length))
    state.set(window=None if window == _whole(length) else window)
    return window


def _cut(start: int, end: int, length: int) -> tuple[int, int]:
    start = min(start, length - 1)
    return start, min(max(end, start + 1), length)


QUESTION = "Which tokens does each head attend to?"
PAGE = Page(name="attention", icon=":material/grid_view:", order=1, question=QUESTION, fields=fields, render=render)
