"""Heads: any attention metric of every head on one prompt, as a map, by layer and as a table, and the roles of heads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from interp.detectors import DETECTORS, Detection, quick_detectors
from interp.figures import detection_map, head_map, scores_by_layer
from interp.figures.style import number
from interp.head_card import head_cards
from interp.heads import Head, HeadScores
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptChoice
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain
from interp_dashboard.head_roles import role_cache
from interp_dashboard.metric_and_outcome_selectors import choose_metric
from interp_dashboard.metric_cache import measure, metric_names
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import Page, View, link, needs_causal
from interp_dashboard.score_badges import badges
from interp_dashboard.selectable_figures_and_tables import (
    head_from_map,
    head_from_table,
    number_columns,
    show_figure,
    show_table,
)
from interp_dashboard.url import Field, choice, flag, head, several, text

BY_LAYER = ("attention_distance", "entropy")
HALF = 372
"""Width in pixels of a figure of few layers, so that two fit side by side."""


def fields() -> tuple[Field, ...]:
    names = metric_names()
    return (
        *prompts.fields(),
        choice("metric", names, "attention_distance", noun="attention metric"),
        several("columns", names, [badge.metric for badge in badges()]),
        head(),
        flag("roles"),
        text("role"),
    )


def render(view: View) -> None:
    state = view.state
    prompt = prompts.choose(view)
    choose_metric(view)
    metric, wanted = state["metric"], list(dict.fromkeys([state["metric"], *state["columns"], *BY_LAYER]))

    attention = prompts.read(view, prompt)
    chosen = state.validated("head", attention.facts.check_head, None)
    with st.spinner("Measuring every head …", show_time=True):
        scores = measure(attention, prompt, view.model, wanted)
    table = _table(scores, [metric, *(name for name in state["columns"] if name != metric)])

    map_figure = head_map(scores[metric])
    with st.container(horizontal=True, gap="large"):
        with st.container(width="content"):
            head_from_map(view, map_figure, "heads-map", f"{metric} of every head, layers down and heads across")
        with st.container(width=320):
            _about(view, chosen, scores, list(table.columns[1:]))
    cli = prompts.command(prompt, view.model, list(table.columns[1:]))
    export_menu("heads", cli=cli, python=_python(view.model, prompt, metric), figure=map_figure, table=table)
    st.markdown("##### By layer")
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        for name in BY_LAYER:
            with st.container(width="content"):
                show_figure(view, scores_by_layer(scores[name], width=HALF), f"layers-{name}", f"{name} of every head by layer")
    st.markdown("##### All heads")
    st.caption("Click a column to sort, a row to select its head.")
    st.multiselect("Columns", metric_names(), placeholder="Add metrics", **state.widget_args("columns"))
    every = [Head(*divmod(place, attention.facts.n_heads)) for place in range(len(table))]
    head_from_table(view, table, every, "heads-table", _columns(scores, list(table.columns[1:])))
    _roles(view, chosen)


def _roles(view: View, chosen: Head | None) -> None:
    """A map of one role, and all roles of the selected head."""
    st.markdown("##### Roles")
    about = f"The quick detectors run once: {', '.join(quick_detectors())}."
    if not view.facts.causal:
        about = plain(needs_causal("Detectors", view))
        st.toggle("Run the quick detectors", disabled=True, help=about, key="no-roles")
        st.caption(about)
        return
    st.toggle("Run the quick detectors", help=about, **view.state.widget_args("roles"))
    if view.state["roles"]:
        with st.spinner("Running the quick detectors …", show_time=True):
            known, refused = role_cache().quick(view.model, view.facts)
    else:
        known, refused = role_cache().known(view.facts), {}
    for role, reason in refused.items():
        st.caption(plain(f"{role}: {reason}"))
    if not known:
        st.caption(
            "No detections of this model yet. Run the quick detectors here, or a retrieval detector on the Retrieval page."
        )
        return
    if view.state["role"] not in known:
        view.state.set(role=next(iter(known)))
    st.selectbox("Role", list(known), format_func=_role, width=560, **view.state.widget_args("role"))
    found = known[view.state["role"]]
    figure = detection_map(found)
    head_from_map(view, figure, "role-map", f"{found.scores.name} of every head, those above the threshold outlined")
    cli = shlex.join(["interp", "detect", found.role, "--model", view.model])
    start = f"import interp\nfrom interp.detectors import detect\n\nmodel = interp.load_model({view.model!r})\n"
    python = f"{start}found = detect(model, {found.role!r})\nfound.plot()\n"
    export_menu("roles", cli=cli, python=python, figure=figure, table=found.to_dataframe())
    _card(view, chosen, list(known.values()))


def _role(role: str) -> str:
    return f"{role}: {DETECTORS.describe(role)}"


def _card(view: View, chosen: Head | None, known: list[Detection]) -> None:
    """Every role of the selected head: score, rank, and whether it is detected."""
    if chosen is None:
        st.info("Select a head to see its roles.", icon=":material/ads_click:")
        return
    with model_cache().acquire(view.model) as loaded:
        card = head_cards(loaded, known)[chosen]
    shared = f", keys and values shared with {', '.join(map(str, card.sharing))}" if card.sharing else ""
    st.markdown(f"**{chosen}**: {plain(', '.join(card.roles)) or 'no role detected'}{shared}")
    rows: Any = card.table[card.table["kind"] == "role"]
    ranks = [f"{rank} of {of}" if rank else "" for rank, of in zip(rows["rank"], rows["n_ranked"], strict=True)]
    shown = rows[["name", "detected", "value", "threshold", "control"]].assign(rank=ranks)
    shown = shown.rename(columns={"name": "role", "value": "score"})
    show_table(shown, "role-card", column_config=number_columns(("score", "threshold", "control")))
    export_menu("role-card", table=card.table)


def _table(scores: dict[str, HeadScores], names: Sequence[str]) -> pd.DataFrame:
    """One row per head, by layer, one column per metric."""
    first = scores[names[0]]
    labels = first.to_dataframe()["label"]
    return pd.DataFrame({"head": labels, **{name: scores[name].values.ravel() for name in names}})


def _columns(scores: dict[str, HeadScores], names: Sequence[str]) -> dict[str, Any]:
    """Column formats of the table."""
    return {name: st.column_config.NumberColumn(name, help=f"in {scores[name].unit}", format="%.3f") for name in names}


def _about(view: View, chosen: Head | None, scores: dict[str, HeadScores], names: Sequence[str]) -> None:
    """Metrics of the selected head, and a link to its pattern."""
    if chosen is None:
        st.info("Click a cell of the map or a row of the table to select a head.", icon=":material/ads_click:")
        return
    st.markdown(f"##### {chosen}")
    values = [scores[name][chosen] for name in names]
    shown = ["undefined" if value != value else number(value) for value in values]
    rows = pd.DataFrame({"metric": list(names), "value": shown, "unit": [scores[name].unit for name in names]})
    show_table(rows)
    here = {field.name: view.state[field.name] for field in prompts.fields()}
    link("Attention pattern", "attention", {**here, "head": chosen}, icon=":material/grid_on:")


def _python(model: str, prompt: PromptChoice, metric: str) -> str:
    read = f'found = interp.observe_attention(model, tokens, ["{metric}"])'
    return f'{prompts.python_code(prompt, model)}{read}\nfound.heads("{metric}").plot()\n'


QUESTION = "Which heads stand out on this prompt, and which roles do they have?"
PAGE = Page(name="heads", icon=":material/apps:", order=2, question=QUESTION, fields=fields, render=render)
