"""Compare: one number per head, and one head's pattern, on two prompts, in two models or two runs; always B minus A."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from interp.figures import head_difference_map, pattern_difference
from interp.heads import Head, HeadScores
from interp.store import StoredRun, find_run, list_runs, open_run
from interp_dashboard import prompts
from interp_dashboard.attention_cache import PromptAttention, PromptChoice
from interp_dashboard.export import export_menu
from interp_dashboard.metric_and_outcome_selectors import choose_metric
from interp_dashboard.metric_cache import measure, metric_names
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import Page, View, model_field
from interp_dashboard.selectable_figures_and_tables import head_from_map, head_from_table, number_columns, show_figure
from interp_dashboard.settings import settings
from interp_dashboard.url import Field, choice, head, number, text

COMPARISONS = {"prompts": "Two prompts", "models": "Two models", "runs": "Two runs"}
B = "_b"
TILE = 48
"""Queries and keys of a difference pattern: each is labelled, and the hover texts stay below half a megabyte."""


@dataclass(frozen=True)
class Side:
    """A model, a prompt, and the attention of the model on it."""

    model: str
    prompt: PromptChoice
    attention: PromptAttention


def fields() -> tuple[Field, ...]:
    return (
        choice("versus", list(COMPARISONS), noun="comparison"),
        *prompts.fields(),
        *(replace(f, default=True) if f.name == f"corrupted{B}" else f for f in prompts.fields(B)),
        replace(model_field(), name=f"model{B}"),
        choice("metric", metric_names(), "attention_distance", noun="attention metric"),
        head(),
        number("first_query", 0, 0, 10**6),
        number("first_key", 0, 0, 10**6),
        text("run_a"),
        text("run_b"),
        text("run_metric"),
    )


def render(view: View) -> None:
    named: Any = {"format_func": COMPARISONS.__getitem__, "label_visibility": "collapsed"}
    st.segmented_control("Compare", list(COMPARISONS), required=True, **named, **view.state.widget_args("versus"))
    if view.state["versus"] == "runs":
        _runs(view)
    else:
        _compare_attention(view)


def _compare_attention(view: View) -> None:
    a, b = _sides(view)
    metric = view.state["metric"]
    _check_shapes(a, b)
    with st.spinner("Measuring every head …", show_time=True):
        before, after = (measure(side.attention, side.prompt, side.model, [metric])[metric] for side in (a, b))
    _show_difference(view, before, after, cli=_cli(a, b, metric), python=_python(a, b, metric))
    chosen = view.state.validated("head", a.attention.facts.check_head, None)
    if chosen is None:
        st.info("Click a cell of the map or a row of the table to compare the head's pattern.", icon=":material/ads_click:")
    else:
        _show_patterns(view, a.attention, b.attention, chosen)


def _sides(view: View) -> tuple[Side, Side]:
    """Both sides as selected, with their attention."""
    state = view.state
    if state["versus"] == "models":
        prompt = prompts.choose(view)
        left, right = st.columns([1, 3])
        about = "Model A is the model selected in the sidebar."
        left.selectbox("Model B", model_cache().known, help=about, **state.widget_args(f"model{B}"))
        with right:
            choose_metric(view)
        models, chosen = (view.model, state[f"model{B}"]), (prompt, prompt)
    else:
        first, second = _lettered(view, "A"), _lettered(view, "B", B)
        choose_metric(view)
        models, chosen = (view.model, view.model), (first, second)
    a, b = (Side(name, prompt, prompts.read(view, prompt, name)) for name, prompt in zip(models, chosen, strict=True))
    if a.attention.digest == b.attention.digest:
        same = {"prompts": "prompt", "models": "model"}[state["versus"]]
        other = " Load another model, or the folder of a checkpoint, in the sidebar." if same == "model" else ""
        st.info(f"A and B are the same {same}: all differences are 0.{other}", icon=":material/equal:")
    return a, b


def _lettered(view: View, letter: str, suffix: str = "") -> PromptChoice:
    """The prompt selector of one side, with its letter."""
    before, beside = st.columns([1, 30], vertical_alignment="center")
    before.markdown(f"**{letter}**")
    with beside:
        return prompts.choose(view, suffix)


def _check_shapes(a: Side, b: Side) -> None:
    shapes = [f"has {side.attention.facts.n_layers} layers x {side.attention.facts.n_heads} heads" for side in (a, b)]
    if shapes[0] != shapes[1]:
        found = f"{a.model} {shapes[0]} and {b.model} {shapes[1]}"
        raise ValueError(f"Heads are matched by layer and index, but {found}: choose models of the same shape.")


def _show_difference(view: View, before: HeadScores, after: HeadScores, *, cli: str, python: str) -> None:
    """The map and the table of ``after - before``."""
    figure = head_difference_map(after, before, title=f"{after.name}: B minus A")
    table, heads = _table(before, after)
    with st.container(horizontal=True, gap="medium"):
        with st.container(width="content"):
            head_from_map(view, figure, "difference-map", f"Change of {after.name} of every head, layers down and heads across")
        with st.container(width=340):
            st.caption(f"{after.name} in {after.unit}. Click a column to sort, a row to select its head.")
            head_from_table(view, table, heads, "difference-table", number_columns(("A", "B", "B − A")))
    export_menu("difference", cli=cli, python=python, figure=figure, table=table)


def _table(before: HeadScores, after: HeadScores) -> tuple[pd.DataFrame, list[Head]]:
    """Both numbers of every head and their difference, largest change first, and the heads of the rows."""
    change = after.values - before.values
    order = np.argsort(-np.abs(change), axis=None, kind="stable")  # heads without a number come last
    heads = [Head(*divmod(place, change.shape[1])) for place in order.tolist()]
    numbers = {name: values.ravel()[order] for name, values in (("A", before.values), ("B", after.values), ("B − A", change))}
    return pd.DataFrame({"head": list(map(str, heads)), **numbers}), heads


def _show_patterns(view: View, a: PromptAttention, b: PromptAttention, chosen: Head) -> None:
    length = len(a.tokens)
    if length != len(b.tokens):
        st.info(
            f"Patterns are compared cell by cell, but A has {length:,} tokens and B has {len(b.tokens):,}: choose prompts of equal "
            f"length to compare the pattern of {chosen}.",
            icon=":material/grid_off:",
        )
        return
    first_query, first_key = _window(view, length)
    queries, keys = (slice(first, first + TILE) for first in (first_query, first_key))
    before, after = (attention.cache.pattern(chosen, queries, keys).numpy() for attention in (a, b))
    causal = a.cache.calls[chosen.layer].causal
    other = f" by {a.cache.record.model}" if a.cache.record.model != b.cache.record.model else ""
    record = replace(b.cache.record, task=f"B minus A{other}")
    place: dict[str, Any] = {"first_query": first_query, "first_key": first_key, "causal": causal}
    tile = pattern_difference(after, before, b.words, a.words, chosen, record, **place)
    show_figure(view, tile, "difference-tile", f"Change of the attention of {chosen}, queries down and keys across")
    export_menu("difference-pattern", figure=tile, table=_tile_table(after, before, b.words, a.words, **place))


def _window(view: View, length: int) -> tuple[int, int]:
    """First query and first key of the tile, with their widgets if the text does not fit one."""
    most = length - TILE
    if most <= 0:
        return 0, 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for name, label in (("first_query", "First query"), ("first_key", "First key")):
            if view.state[name] > most:
                view.state.set(**{name: most})
            st.number_input(label, 0, most, step=TILE // 2, width=160, **view.state.widget_args(name))
        st.caption(f"{TILE} x {TILE} of {length:,} x {length:,} tokens shown.")
    return view.state["first_query"], view.state["first_key"]


def _tile_table(
    after: np.ndarray,
    before: np.ndarray,
    words: Sequence[str],
    words_a: Sequence[str],
    *,
    first_query: int,
    first_key: int,
    causal: bool,
) -> pd.DataFrame:
    """One row per query and visible key."""
    rows, columns = (side.ravel() for side in np.indices(after.shape))
    visible = (columns + first_key <= rows + first_query) | (not causal)
    rows, columns = rows[visible], columns[visible]
    queries, keys = rows + first_query, columns + first_key
    named = {"query": queries, "key": keys}
    for side, own in (("A", words_a), ("B", words)):
        named |= {f"query token {side}": [own[i] for i in queries], f"key token {side}": [own[i] for i in keys]}
    weights = {"A": before[rows, columns], "B": after[rows, columns]}
    return pd.DataFrame({**named, **weights, "B − A": weights["B"] - weights["A"]})


def _runs(view: View) -> None:
    state = view.state
    kinds = {entry.name: entry.kind for entry in list_runs(settings().root) if entry.has_heads}
    if len(kinds) < 2:
        stored = f"{settings().root} holds {len(kinds)}"
        raise ValueError(
            f"Comparing needs two finished runs with numbers per head, and {stored}: start some on the Ablate page."
        )
    left, right = st.columns(2)
    for name in ("run_b", "run_a"):
        if state[name] not in kinds:
            usual = _default_run(kinds, state["run_b"] if name == "run_a" else "")
            if state[name]:
                state.notices.append(f"There is no finished run called {state[name][:80]!r}. Showing {usual}.")
            state.set(**{name: usual})
    left.selectbox("Run A", list(kinds), **state.widget_args("run_a"))
    right.selectbox("Run B", list(kinds), **state.widget_args("run_b"))
    a, b = (open_run(find_run(settings().root, state[name]).path) for name in ("run_a", "run_b"))
    both = [name for name in _metrics(b) if name in _metrics(a)]
    if not both:
        found = f"A has {', '.join(_metrics(a))}, B has {', '.join(_metrics(b))}"
        raise ValueError(f"These runs share no metric: {found}. Choose two runs of one kind and metric.")
    if state["run_metric"] not in both:
        state.set(run_metric=both[0])
    st.selectbox("Metric", both, width=560, **state.widget_args("run_metric"))
    metric = state["run_metric"] if b.metrics else None
    _show_difference(view, a.scores(metric), b.scores(metric), cli=_runs_cli(a, b, metric), python=_runs_python(a, b, metric))


def _default_run(kinds: dict[str, str], beside: str) -> str:
    """The default run: of the newest that another one is like in kind, or the newest other one of the kind of ``beside``."""
    others = [name for name in kinds if name != beside]
    alike = {kinds[beside]} if beside in kinds else {kind for kind in kinds.values() if [*kinds.values()].count(kind) > 1}
    return next((name for name in others if kinds[name] in alike), others[0])


def _metrics(run: StoredRun) -> list[str]:
    """The per-head numbers of a run: metrics of an observation, or the effect on an outcome."""
    if not run.metrics:
        return [f"effect on {run.record.metric}"]
    there = set(run.heads()["metric"])
    return [name for name in run.metrics if name in there]


def _cli(a: Side, b: Side, metric: str) -> str:
    reads = [prompts.command(side.prompt, side.model, [metric]) for side in (a, b)]
    if not all(reads):
        return ""
    shows = f"interp show runs/b --minus runs/a --metric {metric} --figure difference.png"
    return f"{reads[0]} --out runs/a\n{reads[1]} --out runs/b\n{shows}"


def _python(a: Side, b: Side, metric: str) -> str:
    read = f'{{}} = interp.observe_attention(model, tokens, ["{metric}"]).heads("{metric}")\n'
    first, second = (prompts.python_code(side.prompt, side.model) + read.format(name) for side, name in ((a, "a"), (b, "b")))
    second = second.removeprefix("import interp\n\n")
    return f"{first}\n{second}\nfrom interp.figures import head_difference_map\n\nhead_difference_map(b, a)\n"


def _runs_cli(a: StoredRun, b: StoredRun, metric: str | None) -> str:
    chosen = f" --metric {metric}" if metric else ""
    folders = [shlex.quote(str(run.path)) for run in (b, a)]
    return f"interp show {folders[0]} --minus {folders[1]}{chosen} --figure difference.png"


def _runs_python(a: StoredRun, b: StoredRun, metric: str | None) -> str:
    scores = [f"interp.open_run({str(run.path)!r}).scores({repr(metric) if metric else ''})" for run in (b, a)]
    return f"import interp\nfrom interp.figures import head_difference_map\n\nhead_difference_map({scores[0]}, {scores[1]})\n"


QUESTION = "What changes between two prompts, models, checkpoints or runs?"
PAGE = Page(name="compare", icon=":material/compare:", order=7, question=QUESTION, fields=fields, render=render)
