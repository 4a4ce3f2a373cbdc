"""Tokens: preplan and anchor tokens of a response, by windowed average attention distance (WAAD) and future attention influence (FAI)."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from interp.detectors import TokenDetection, detect
from interp.experiments import DetectionSpec
from interp.figures import waad_fai_html, waad_fai_strips
from interp.figures.waad_fai_strips import MAX_TOKENS
from interp.heads import Head
from interp.tasks import task_names
from interp_dashboard.detector_option_widgets import DetectorOptions
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain, visible
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import Page, View, link
from interp_dashboard.selectable_figures_and_tables import head_from_table, show_table
from interp_dashboard.suggested_texts_and_unknown_words import name_unknown, suggested_prompt, unknown_in, warn_of_unknown
from interp_dashboard.url import Field, choice, head, number, text

ROLE = "preplan_anchor"
OWN = ""
MOST_TEXTS = 64
OPTIONS = DetectorOptions(
    ROLE,
    exclude=("task", "n_prompts", "prompt", "response", "seed"),
    choices={"layers": ("all", "middle"), "exclude": ("none", "first", "detected")},
)
STATISTICS = {
    "entropy_at_waad_peaks": "entropy at WAAD peaks",
    "receiver_peaks_at_fai_peaks": "receiver peak at FAI peak",
    "fai_peak_at_or_after_waad_peak": "FAI peak at WAAD peak",
}
ABOUT_STATISTICS = (
    "entropy at WAAD peaks: of the next token, in nats. Receiver peak at FAI peak: FAI peaks of receiver heads that are FAI peaks of the "
    "global group. FAI peak at WAAD peak: WAAD peaks with a FAI peak at the same or the next token."
)


def fields() -> tuple[Field, ...]:
    """The texts, the options of the detector, and the shown part."""
    return (
        choice("texts", [OWN, *task_names()], "plan_following", noun="task"),
        replace(text("prompt"), default=None),
        text("response"),
        number("n_texts", 4, 1, MOST_TEXTS),
        number("texts_seed", 0, 0, 10**6),
        *OPTIONS.fields(),
        number("text_index", 0, 0, MOST_TEXTS - 1),
        replace(number("first_token", 0, 0, 10**6), default=None),
        head(),
    )


def render(view: View) -> None:
    state = view.state
    texts = _texts(view)
    OPTIONS.choose(state)
    values = {**texts, **OPTIONS.values(state)}
    with st.spinner(f"{plain(view.model)} processes the response …", show_time=True):
        found = _found(view.model, view.facts.weights_digest, tuple(values.items()))
    figure, table, example = _strips(view, found)
    chosen = state.validated("head", view.facts.check_head, None)
    cli = shlex.join(["interp", *DetectionSpec(model=view.model, role=ROLE, options=values).to_argv()])
    export_menu("tokens", cli=cli, python=_python(view.model, values, example), figure=figure, table=table)
    _statistics(found)
    _heads(view, found, chosen, texts, example)
    st.markdown("##### All tokens")
    shown = table.assign(token=table["token"].map(visible))
    show_table(shown, "tokens-table", column_config=_token_columns())


def _texts(view: View) -> dict[str, Any]:
    """The texts, as non-default options of the detector."""
    state = view.state
    what, where = st.columns([2, 3], vertical_alignment="bottom")
    what.selectbox("Texts", [OWN, *task_names()], format_func=lambda name: name or "Custom text", **state.widget_args("texts"))
    if state["texts"]:
        with where:
            count, seed = st.columns(2)
            count.number_input("Number of texts", 1, MOST_TEXTS, **state.widget_args("n_texts"))
            seed.number_input("Seed", 0, 10**6, **state.widget_args("texts_seed"))
        return {"task": state["texts"], "n_prompts": state["n_texts"], "seed": state["texts_seed"]}
    suggested = suggested_prompt(view.model, view.facts.weights_digest)
    with where:
        st.text_area("Prompt", height=80, placeholder="Any text", **state.widget_args("prompt", suggested))
    st.text_area("Response", height=80, placeholder="Leave empty to let the model generate it", **state.widget_args("response"))
    prompt, response = suggested if state["prompt"] is None else state["prompt"], state["response"]
    if not prompt.strip():
        raise ValueError("The prompt is empty: enter the text that precedes the response.")
    written = {"prompt": prompt} | ({"response": response} if response.strip() else {})
    warn_of_unknown(view.model, unknown_in(view.model, view.facts.weights_digest, *written.values()))
    return written


@st.cache_resource(max_entries=16, show_spinner=False)
def _found(model: str, weights: str, values: tuple[tuple[str, Any], ...]) -> TokenDetection:
    with model_cache().acquire(model) as loaded:
        found = detect(loaded, ROLE, **dict(values))
        assert isinstance(found, TokenDetection)
        if "prompt" in dict(values):
            texts = [text for name, text in values if name in ("prompt", "response")]
            words = (name_unknown(loaded, texts, found.words[0]),)
            found = replace(found, scores={name: replace(scores, tokens=words) for name, scores in found.scores.items()})
    return found


def _strips(view: View, found: TokenDetection) -> tuple[Any, pd.DataFrame, int]:
    """Draws one text; a function that makes its figure, its table, and its index."""
    state, last = view.state, len(found.words) - 1
    state.set(text_index=min(state["text_index"], last))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if last:
            st.number_input("Text", 0, last, width=160, **state.widget_args("text_index"))
        example = state["text_index"]
        length = max(place + 1 for place, word in enumerate(found.words[example]) if word)  # padding is ""
        if length > MAX_TOKENS:
            if state["first_token"] is not None and state["first_token"] >= length:
                state.set(first_token=None)
            shown: Any = {"value": None, "placeholder": "of the response", "step": MAX_TOKENS // 2, "width": 200}
            st.number_input("First token shown", 0, length - 1, **shown, **state.widget_args("first_token"))
            st.caption(f"{MAX_TOKENS} of {length:,} tokens shown.")
    first = state["first_token"] if length > MAX_TOKENS else None
    span = None if first is None else (first, min(first + MAX_TOKENS, length))
    st.html(waad_fai_html(found, example=example, span=span, dark=view.dark))
    table = found.to_dataframe().query("example == @example and pos < @length")
    return partial(waad_fai_strips, found, example=example, span=span), table, example


def _token_columns() -> dict[str, Any]:
    number, box = st.column_config.NumberColumn, st.column_config.CheckboxColumn
    return {
        "example": None,  # one text is shown
        "pos": number("position"),
        "waad": number("WAAD", format="%.2f", help="windowed average attention distance of the local heads, in tokens"),
        "fai": number("FAI", format="%.3f", help="mean attention from later tokens of the global heads, a weight"),
        "delta": number("ΔWAAD", format="%.2f", help="in tokens: WAAD of the token minus that of the next"),
        "entropy": number("entropy", format="%.2f", help="entropy of the next token, in nats"),
        "waad_peak": box("WAAD peak"),
        "fai_peak": box("FAI peak"),
    }


def _statistics(found: TokenDetection) -> None:
    """Whether the marks coincide more often than by chance."""
    table = found.tables["statistics"]
    st.markdown("##### Compared with chance")
    st.caption(
        "Observed over all texts, and under three nulls: equally many marks at random positions, circular shifts of the series "
        "(stricter), and random heads instead of the groups. p: share of null samples at least as large as observed."
    )
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {
        "statistic": st.column_config.TextColumn(help=ABOUT_STATISTICS, pinned=True),
        "heads": st.column_config.TextColumn(help="the groups of heads, or all heads"),
        "observed": number(format="%.3f", help="over all texts, in nats or as a share"),
        "expected": number(format="%.3f", help="mean of the null samples"),
        "null_low": number("null low", format="%.3f", help="lower end of the central 95% of the null samples"),
        "null_high": number("null high", format="%.3f", help="upper end of the central 95% of the null samples"),
        "p_value": number("p", format="%.3f", help="share of null samples at least as large as observed"),
        "lift": number(format="%.3f", help="observed / expected − 1"),
        "n": number(format="%d", help="number of peaks"),
        "waad_peak_rate": number("WAAD peaks", format="%.3f", help="share of the tokens that are WAAD peaks"),
        "fai_peak_rate": number("FAI peaks", format="%.3f", help="share of the tokens that are FAI peaks"),
    }
    shown = table.assign(statistic=table["statistic"].map(lambda name: STATISTICS.get(name, name)))
    show_table(shown, "statistics-table", column_config=columns)
    export_menu("statistics", table=table)


def _heads(view: View, found: TokenDetection, chosen: Head | None, texts: dict[str, Any], example: int) -> None:
    """The groups of heads behind WAAD and FAI."""
    st.markdown("##### Heads")
    st.caption("  \n".join(f"**{group}**: {', '.join(map(str, heads)) or 'none'}" for group, heads in found.heads.items()))
    if chosen is not None:
        prompt = {"task": "", "text": texts["prompt"]} if "prompt" in texts else {"example": example, **texts}
        with st.container(horizontal=True):
            link(f"Attention pattern of {chosen}", "attention", {**prompt, "head": chosen}, icon=":material/grid_on:")
            link("Roles of this head", "heads", {**prompt, "head": chosen, "roles": True}, icon=":material/badge:")
    table = found.tables["groups"]
    heads = [Head(*map(int, place)) for place in zip(table["layer"], table["head"], strict=True)]
    shown = table.drop(columns=["layer", "head"]).rename(columns={"label": "head"})
    number, column = st.column_config.NumberColumn, st.column_config.Column
    columns: dict[str, Any] = {
        "distance": number("distance (tokens)", format="%.2f", help="mean distance from query to key, weighted by attention"),
        "group_other": column("group, other sinks", help="the group when sinks are treated the other way: excluded, or kept"),
        "distance_other": number(
            "distance, other sinks", format="%.2f", help="in tokens, when sinks are treated the other way"
        ),
        "kurtosis": number(format="%.2f", help="of the head's FAI over tokens; receiver heads have the highest"),
    }
    head_from_table(view, shown, heads, "groups-table", columns)


def _python(model: str, values: dict[str, Any], example: int) -> str:
    given = "".join(f", {name}={value!r}" for name, value in values.items())
    return (
        f"import interp\nfrom interp.detectors import detect\nfrom interp.figures import waad_fai_strips\n\n"
        f"model = interp.load_model({model!r})\nfound = detect(model, {ROLE!r}{given})\nwaad_fai_strips(found, example={example})\n"
    )


QUESTION = "At which tokens does attention jump far back (WAAD), and which tokens do later ones keep attending to (FAI)?"
PAGE = Page(
    name="tokens", icon=":material/segment:", order=3, question=QUESTION, fields=fields, render=render, causal_only=True
)
