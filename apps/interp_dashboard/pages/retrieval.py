"""Retrieval: heads that copy from the context, recall by needle position, and the causal confirmation of the heads."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.ablation.ablations import ablations
from interp.confirmation import MIN_DRAWS, NO_PAIRS
from interp.detectors import DETECTORS, Detection
from interp.experiments import ConfirmationSpec, DetectionSpec
from interp.heads import Head
from interp.tasks import task_names
from interp_dashboard import job_status, prompts
from interp_dashboard.detector_option_widgets import DetectorOptions
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import plain
from interp_dashboard.job_plans import JobPlan, plan_job
from interp_dashboard.jobs import Job
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page import Page, View, link
from interp_dashboard.selectors import head_from_map, head_from_table, show_figure, table_height
from interp_dashboard.settings import settings
from interp_dashboard.url import Field, State, choice, head, number

if TYPE_CHECKING:
    import pandas as pd

    from interp.confirmation import Confirmation
    from interp.store import StoredRun

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
    view.facts.check_causal("Retrieval")
    here: set[str] = set()
    try:
        _page(view, here)
    finally:
        job_status.unfinished_jobs(view.state, here, {"detect", "confirm"}, _show)


def _page(view: View, here: set[str]) -> None:
    state = view.state
    role = _form(state)
    values = OPTIONS[role].values(state)
    plan = _planned(view.model, view.facts.weights_digest, role, tuple(values.items()), str(settings().root))
    here.add(plan.folder.name)
    run = job_status.run_or_progress(state, plan, label="Start")
    if run is None:
        export_menu(plan.folder.name, cli=shlex.join(["interp", *plan.cli_args]))
        return
    found, figures = _found(str(run.path), str(run.manifest["files"]))
    _result(view, run, found, figures, plan)
    st.markdown("##### Causal confirmation")
    confirm_plan = _confirmation_plan(view, run)
    here.add(confirm_plan.folder.name)
    confirmation = job_status.run_or_progress(state, confirm_plan, label="Confirm", resumable=True)
    if confirmation is None:
        export_menu(confirm_plan.folder.name, cli=shlex.join(["interp", *confirm_plan.cli_args]))
        return
    _curve(view, confirmation, confirm_plan)


def _form(state: State) -> str:
    """The detector and its options."""
    st.selectbox("Detector", list(OPTIONS), format_func=_label, width=720, **state.widget_args("detector"))
    role = state["detector"]
    OPTIONS[role].choose(state)
    return role


def _label(role: str) -> str:
    return f"{role}: {DETECTORS.describe(role)}"


@st.cache_resource(max_entries=64, show_spinner=False)
def _planned(model: str, weights: str, role: str, values: tuple[tuple[str, Any], ...], root: str) -> JobPlan:
    with model_cache().acquire(model) as loaded:
        return plan_job(DetectionSpec(role=role, options=dict(values)), loaded, Path(root), offline=settings().offline)


@st.cache_resource(max_entries=16, show_spinner=False)
def _found(path: str, digest: str) -> tuple[Detection, dict[str, Any]]:
    """The detection of a finished run, and its figures."""
    from interp.figures import detection_map, needle_grid
    from interp.store import load_detection

    found = load_detection(path)
    assert isinstance(found, Detection)
    figures = {"map": detection_map(found)}
    if "cells" in found.tables:
        figures["grid"] = needle_grid(found.tables["cells"], found.record)
    return found, figures


def _result(view: View, run: StoredRun, found: Detection, figures: dict[str, Any], plan: JobPlan) -> None:
    """The detected heads, recall by needle position, and the selected head."""
    details = [
        f"{name.replace('_', ' ')} {value}" for name, value in found.details.items() if isinstance(value, str | int | float)
    ]
    named = ", ".join(map(str, found.detected)) or "none"
    st.markdown(f"**{len(found.detected)} of {found.scores.values.size} heads detected**: {named}.")
    st.caption(plain(" · ".join(details)))
    chosen = view.state.validated("head", view.facts.check_head, None)
    with st.container(horizontal=True, gap="large"):
        with st.container(width="content"):
            head_from_map(view, figures["map"], "role-map", f"{found.scores.name} of every head, layers down and heads across")
        with st.container(width=320):
            _head(found, chosen)
    table = _table(found)
    cli, python = shlex.join(["interp", *plan.cli_args]), _python(run, "load_detection", "detection_map(found)")
    export_menu(found.role, cli=cli, python=python, figure=figures["map"], table=table)
    if "grid" in figures:
        show_figure(view, figures["grid"], "needle-grid", "recall by text length across and needle depth down")
        python = _python(run, "load_detection", 'needle_grid(found.tables["cells"], found.record)')
        export_menu("needle-grid", python=python, figure=figures["grid"], table=found.tables["cells"])
    st.markdown("##### All heads")
    st.caption(
        "Click a column to sort, a row to select its head."
        + (" Columns 'at N%': the score on needles at that depth of the text." if "depths" in found.tables else "")
    )
    heads = [Head.parse(label) for label in table["head"]]
    numbers = {name: st.column_config.NumberColumn(name, format="%.3f") for name in table.select_dtypes("float").columns}
    head_from_table(view, table, heads, "role-table", numbers)


def _table(found: Detection) -> pd.DataFrame:
    """One row per head, highest score first, with its score at each depth."""
    import pandas as pd

    rows = found.to_dataframe()
    shown = pd.DataFrame({"head": rows["label"], "score": rows["score"], "null": rows["control"], "detected": rows["detected"]})
    shown = pd.concat([shown, rows[list(found.extra_scores)]], axis="columns")
    if "depths" in found.tables:
        by_depth = found.tables["depths"].pivot(index=["layer", "head"], columns="depth", values="score")
        by_depth.columns = [f"at {depth:.0f}%" for depth in by_depth.columns]
        places = pd.MultiIndex.from_arrays([rows["layer"], rows["head"]])
        shown = pd.concat([shown, by_depth.reindex(places).reset_index(drop=True)], axis="columns")
    return shown


def _head(found: Detection, chosen: Head | None) -> None:
    """The result for one head, and links to other pages."""
    from interp.figures.style import number as format_number

    if chosen is None:
        st.info("Click a cell of the map or a row of the table to select a head.", icon=":material/ads_click:")
        return
    st.markdown(f"##### {chosen}")
    score = found.scores[chosen]
    if score != score:
        st.markdown(f"No score: {plain(found.scores.nan_reason or 'not measured')}.")
    else:
        ranks = {own: place for place, own in enumerate(found.top(found.scores.values.size), 1)}
        verdict = "detected" if score > found.threshold else "not detected"
        st.markdown(
            f"**{verdict}**, rank {ranks[chosen]} of {len(ranks)}  \nscore {format_number(score)}, "
            f"threshold {format_number(found.threshold)}  \n"
            f"null score {format_number(found.control[chosen])}"
        )
    values = {"task": NEEDLE, "head": chosen}
    link("Attention pattern", "attention", values, icon=":material/grid_on:")
    link("Manual ablation", "ablate", {**values, "mode": "manual", "ablated": [chosen]}, icon=":material/toggle_off:")
    link("Roles of this head", "heads", {**values, "roles": True}, icon=":material/badge:")


def _confirmation_plan(view: View, run: StoredRun) -> JobPlan:
    """The form of the confirmation."""
    state = view.state
    st.caption(
        "Ablates the top-k detected heads together, and compares with equally many random, layer-matched and lowest-scoring heads, "
        "on held-out prompts."
    )
    on, n, seed, draws, ablation = st.columns([2, 1, 1, 1, 1], vertical_alignment="bottom")
    on.selectbox("Task", task_names(), **state.widget_args("confirm.task"))
    n.number_input("Number of prompts", 2, prompts.MOST_PROMPTS, **state.widget_args("confirm.n_prompts"))
    seed.number_input(
        "Seed", 0, 10**6, help="Seed for prompts, random heads and bootstrap.", **state.widget_args("confirm.seed")
    )
    draws.number_input(
        "Random sets",
        MIN_DRAWS,
        MOST_DRAWS,
        help="Number of random sets of heads per k.",
        **state.widget_args("confirm.n_draws"),
    )
    ablation.selectbox("Ablation", list(ablations(NO_PAIRS)), **state.widget_args("confirm.ablation"))
    request = tuple((name, state[f"confirm.{name}"]) for name in ("task", "n_prompts", "seed", "n_draws", "ablation"))
    return _plan_confirmation(view.model, str(run.path), str(run.manifest["files"]), request, str(settings().root))


@st.cache_resource(max_entries=64, show_spinner="Generating prompts …")
def _plan_confirmation(model: str, path: str, digest: str, request: tuple[tuple[str, Any], ...], root: str) -> JobPlan:
    with model_cache().acquire(model) as loaded:
        return plan_job(ConfirmationSpec(detection=path, **dict(request)), loaded, Path(root), offline=settings().offline)


@st.cache_resource(max_entries=16, show_spinner=False)
def _confirmation(path: str, digest: str) -> tuple[Confirmation, Any]:
    """The confirmation of a finished run, and its figure."""
    from interp.figures import confirmation_curve
    from interp.store import load_confirmation

    confirmation = load_confirmation(path)
    return confirmation, confirmation_curve(confirmation)


def _curve(view: View, run: StoredRun, confirm_plan: JobPlan) -> None:
    """The task without the heads, and without the controls."""
    confirmation, figure = _confirmation(str(run.path), str(run.manifest["files"]))
    if few := ", ".join(f"{n} of {k}" for k, n in confirmation.details["unmatched"].items()):
        st.caption(f"Layer-matched heads from another layer, because their own has too few others: {few}.")
    show_figure(
        view,
        figure,
        "ablation-curve",
        f"{confirmation.record.metric} by number of ablated heads, of the detected heads and three controls",
    )
    curve = confirmation.tables["curve"]
    cli, python = (
        shlex.join(["interp", *confirm_plan.cli_args]),
        _python(run, "load_confirmation", "confirmation_curve(found)"),
    )
    export_menu("ablation-curve", cli=cli, python=python, figure=figure, table=curve)
    numbers = {name: st.column_config.NumberColumn(name, format="%.3f") for name in curve.select_dtypes("float").columns}
    st.dataframe(curve, hide_index=True, height=table_height(len(curve)), column_config=numbers, key="ablation-curve-table")


def _python(run: StoredRun, load: str, draw: str) -> str:
    """Code that loads the run as ``found`` and plots it."""
    figure = draw.split("(")[0]
    return (
        f"from interp.figures import {figure}\nfrom interp.store import {load}\n\nfound = {load}({str(run.path)!r})\n{draw}\n"
    )


def _show(state: State, job: Job) -> None:
    """Restore the form as it was when the job was started."""
    state.load_query(job.query)


PAGE = Page(
    name="retrieval",
    title="Retrieval",
    icon=":material/find_in_page:",
    order=4,
    question="Which heads copy from the distant context, from which depth, and does the model need them?",
    fields=fields,
    render=render,
)
