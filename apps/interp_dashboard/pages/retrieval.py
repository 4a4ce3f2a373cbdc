"""Retrieval: heads that copy from the context, recall by needle position, and the causal confirmation of the heads."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from interp.ablation.ablations import ablations
from interp.confirmation import MIN_DRAWS, NO_PAIRS, Confirmation
from interp.confirmation.head_sets import unmatched_sentence
from interp.detectors import DETECTORS, Detection
from interp.experiments import ConfirmationSpec, DetectionSpec
from interp.figures import confirmation_curve, detection_map, needle_grid
from interp.figures.style import number as format_number
from interp.heads import Head
from interp.store import StoredRun, load_confirmation, load_detection
from interp.tasks import task_names
from interp_dashboard import job_status, prompts
from interp_dashboard.detector_option_widgets import DetectorOptions
from interp_dashboard.export import export_menu, run_code
from interp_dashboard.formatting import plain
from interp_dashboard.job_plan import JobPlan, planned_job
from interp_dashboard.page_definition import Page, View, head_links
from interp_dashboard.selectable_figures_and_tables import (
    head_from_map,
    head_from_table,
    number_columns,
    show_figure,
    show_table,
)
from interp_dashboard.url import Field, choice, head, number

OPTIONS = {
    "retrieval": DetectorOptions(
        "retrieval",
        exclude=("haystack", "mark"),
        choices={"mode": ("teacher", "greedy"), "needles": ("auto", "texts", "secrets", "repeats")},
    ),
    "query_retrieval": DetectorOptions("query_retrieval"),
    "write_retrieval": DetectorOptions("write_retrieval"),
    "far_context": DetectorOptions("far_context"),
}
NEEDLE = "needle"
MOST_DRAWS = 50


def fields() -> tuple[Field, ...]:
    """The detector and its options, the selected head, and the confirmation."""
    return (
        choice("detector", list(OPTIONS), noun="detector"),
        *(field for options in OPTIONS.values() for field in options.fields()),
        head(),
        choice("confirm.task", task_names(), NEEDLE, noun="task"),
        number("confirm.n_prompts", 64, 2, prompts.MOST_PROMPTS),
        number("confirm.seed", 1, 0, 10**6),
        number("confirm.n_draws", MIN_DRAWS, MIN_DRAWS, MOST_DRAWS),
        choice("confirm.ablation", list(ablations(NO_PAIRS)), "mean", noun="ablation"),
    )


def render(view: View) -> None:
    here: set[str] = set()
    try:
        _page(view, here)
    finally:
        job_status.unfinished_jobs(view.state, here, {"detect", "confirm"})


def _page(view: View, here: set[str]) -> None:
    state = view.state
    st.selectbox("Detector", list(OPTIONS), format_func=_label, width=720, **state.widget_args("detector"))
    role = state["detector"]
    OPTIONS[role].choose(state)
    plan = planned_job(view, DetectionSpec(role=role, options=OPTIONS[role].values(state)))
    here.add(plan.folder.name)
    run = job_status.run_or_progress(state, plan)
    if run is None:
        return
    found, figures = _found(str(run.path), str(run.manifest["files"]))
    _result(view, run, found, figures, plan)
    st.markdown("##### Causal confirmation")
    confirm_plan = _confirmation_plan(view, run)
    here.add(confirm_plan.folder.name)
    confirmation = job_status.run_or_progress(state, confirm_plan, label="Confirm", resumable=True)
    if confirmation is not None:
        _curve(view, confirmation, confirm_plan)


def _label(role: str) -> str:
    return f"{role}: {DETECTORS.describe(role)}"


@st.cache_resource(max_entries=16, show_spinner=False)
def _found(path: str, digest: str) -> tuple[Detection, dict[str, Any]]:
    """The detection of a finished run, and its figures."""
    found = load_detection(path)
    assert isinstance(found, Detection)
    figures = {"map": detection_map(found)}
    if "cells" in found.tables:
        figures["grid"] = needle_grid(found.tables["cells"], found.record)
    return found, figures


def _result(view: View, run: StoredRun, found: Detection, figures: dict[str, Any], plan: JobPlan) -> None:
    """The detected heads, recall by needle position, and the selected head."""
    details = {name: value for name, value in found.details.items() if isinstance(value, str | int | float)}
    named = ", ".join(map(str, found.detected)) or "none"
    st.markdown(f"**{len(found.detected)} of {found.scores.values.size} heads detected**: {named}.")
    st.caption(plain(" · ".join(f"{name.replace('_', ' ')}: {_detail(value)}" for name, value in details.items())))
    chosen = view.state.validated("head", view.facts.check_head, None)
    with st.container(horizontal=True, gap="large"):
        with st.container(width="content"):
            head_from_map(view, figures["map"], "role-map", f"{found.scores.name} of every head, layers down and heads across")
        with st.container(width=320):
            _head(found, chosen)
    table = _table(found)
    python = run_code(run, "load_detection", "detection_map(found)")
    export_menu(found.role, cli=plan.cli, python=python, figure=figures["map"], table=table)
    if "grid" in figures:
        show_figure(view, figures["grid"], "needle-grid", "recall by text length across and needle depth down")
        python = run_code(run, "load_detection", 'needle_grid(found.tables["cells"], found.record)')
        export_menu("needle-grid", python=python, figure=figures["grid"], table=found.tables["cells"])
    st.markdown("##### All heads")
    depths = " Columns 'at N%': the score on needles at that depth of the text." if "depths" in found.tables else ""
    st.caption(f"Click a column to sort, a row to select its head.{depths}")
    heads = [Head.parse(label) for label in table["head"]]
    head_from_table(view, table, heads, "role-table", number_columns(table.select_dtypes("float")))


def _detail(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else format_number(float(value))


def _table(found: Detection) -> pd.DataFrame:
    """One row per head, highest score first, with its score at each depth."""
    rows: Any = found.to_dataframe()
    names = {"label": "head", "score": "score", "threshold": "threshold", "control": "null", "detected": "detected"}
    shown = rows[list(names)].rename(columns=names)
    shown = pd.concat([shown, rows[list(found.extra_scores)]], axis="columns")
    if "depths" in found.tables:
        by_depth = found.tables["depths"].pivot(index=["layer", "head"], columns="depth", values="score")
        by_depth.columns = [f"at {depth:.0f}%" for depth in by_depth.columns]
        places = pd.MultiIndex.from_arrays([rows["layer"], rows["head"]])
        shown = pd.concat([shown, by_depth.reindex(places).reset_index(drop=True)], axis="columns")
    return shown


def _head(found: Detection, chosen: Head | None) -> None:
    """The result for one head, and links to other pages."""
    if chosen is None:
        st.info("Click a cell of the map or a row of the table to select a head.", icon=":material/ads_click:")
        return
    st.markdown(f"##### {chosen}")
    score = found.scores[chosen]
    if score != score:
        st.markdown(f"No score: {plain(found.scores.nan_reason or 'not measured')}.")
    else:
        ranks = {own: place for place, own in enumerate(found.top(found.scores.values.size), 1)}
        verdict = "detected" if found.above_threshold[chosen] else "not detected"
        numbers = f"score {format_number(score)}, threshold {format_number(found.threshold[chosen])}"
        null = f"null score {format_number(found.control[chosen])}"
        st.markdown(f"**{verdict}**, rank {ranks[chosen]} of {len(ranks)}  \n{numbers}  \n{null}")
    head_links({"task": NEEDLE}, chosen)


def _confirmation_plan(view: View, run: StoredRun) -> JobPlan:
    """The form of the confirmation."""
    state = view.state
    st.caption(
        "Ablates the k highest-scoring heads together, and compares with equally many random, layer-matched and lowest-scoring heads, "
        "on held-out prompts."
    )
    on, n, seed, draws, ablation = st.columns([2, 1, 1, 1, 1], vertical_alignment="bottom")
    on.selectbox("Task", task_names(), **state.widget_args("confirm.task"))
    n.number_input("Number of prompts", 2, prompts.MOST_PROMPTS, **state.widget_args("confirm.n_prompts"))
    about = "Seed for prompts, random heads and bootstrap."
    seed.number_input("Seed", 0, 10**6, help=about, **state.widget_args("confirm.seed"))
    about = "Number of random sets of heads per k."
    draws.number_input("Random sets", MIN_DRAWS, MOST_DRAWS, help=about, **state.widget_args("confirm.n_draws"))
    ablation.selectbox("Ablation", list(ablations(NO_PAIRS)), **state.widget_args("confirm.ablation"))
    request = {name: state[f"confirm.{name}"] for name in ("task", "n_prompts", "seed", "n_draws", "ablation")}
    return planned_job(view, ConfirmationSpec(detection=str(run.path), **request), str(run.manifest["files"]))


@st.cache_resource(max_entries=16, show_spinner=False)
def _confirmation(path: str, digest: str) -> tuple[Confirmation, Any]:
    """The confirmation of a finished run, and its figure."""
    confirmation = load_confirmation(path)
    return confirmation, confirmation_curve(confirmation)


def _curve(view: View, run: StoredRun, confirm_plan: JobPlan) -> None:
    """The task without the heads, and without the controls."""
    confirmation, figure = _confirmation(str(run.path), str(run.manifest["files"]))
    if sentence := unmatched_sentence(confirmation.details["unmatched"]):
        st.caption(sentence)
    alt = f"{confirmation.record.metric} by number of ablated heads, of the detected heads and three controls"
    show_figure(view, figure, "ablation-curve", alt)
    curve = confirmation.tables["curve"]
    python = run_code(run, "load_confirmation", "confirmation_curve(found)")
    export_menu("ablation-curve", cli=confirm_plan.cli, python=python, figure=figure, table=curve)
    labels = {
        "ci_low": "95% low",
        "ci_high": "95% high",
        "effect_ci_low": "effect 95% low",
        "effect_ci_high": "effect 95% high",
    }
    columns = number_columns(curve.select_dtypes("float"))
    columns |= {name: st.column_config.NumberColumn(label, format="%.3f") for name, label in labels.items()}
    show_table(curve, "ablation-curve-table", column_config=columns)


QUESTION = "Which heads copy from the distant context, from which depth, and does the model need them?"
PAGE = Page(
    name="retrieval", icon=":material/find_in_page:", order=4, question=QUESTION, fields=fields, render=render, causal_only=True
)
