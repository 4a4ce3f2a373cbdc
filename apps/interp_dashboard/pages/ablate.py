"""Ablate: the effect of every head, measured in background jobs, and manual ablation on one prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from interp.ablation.ablate_heads import ESTIMATORS
from interp.ablation.ablations import ablation_options, ablations
from interp.ablation.effect_tables import sign_meaning
from interp.experiments import AblationSpec
from interp.experiments.estimate_agreement_sentence import agreement_sentence
from interp.figures import head_map, pattern_heatmap, ranked_effects
from interp.heads import Head
from interp.models.memory import format_bytes
from interp.options_text import option_text
from interp.store import open_run
from interp.tasks import task_names
from interp_dashboard import job_status, jobs, manual_ablation, prompts
from interp_dashboard.attention_cache import PromptChoice, place_in_task
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import bullets, duration, plain, signed
from interp_dashboard.job_plan import JobPlan, find_stored_circuit, planned_job
from interp_dashboard.jobs import Job
from interp_dashboard.metric_and_outcome_selectors import OWN_METRIC, choose_outcome, outcome_field
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import Page, View, link
from interp_dashboard.selectable_figures_and_tables import effect_columns, head_from_map, head_from_table, show_figure
from interp_dashboard.settings import settings
from interp_dashboard.url import Field, State, choice, head, number, text

SWEEP, MANUAL = "sweep", "manual"
MODES = {SWEEP: "Ablate every head", MANUAL: "Manual ablation"}
COLUMNS = "label effect ci_low ci_high p_value q_value control exceeds_control sign_consistency n n_clusters".split()
SHOWN = 64
"""Tokens of the pattern on this page; more would exceed half a megabyte."""


def fields() -> tuple[Field, ...]:
    """The mode, the prompts, the ablation, the selected head, and the fields of manual ablation."""
    return (
        choice("mode", list(MODES)),
        *prompts.fields(),
        text("file"),
        number("n_prompts", 64, 2, prompts.MOST_PROMPTS),
        choice("ablation", list(ablations()), "mean", noun="ablation"),
        text("ablation_options"),
        choice("estimator", list(ESTIMATORS), "exact", noun="estimator"),
        number("top_share", 0.2, 0.01, 1.0),
        text("positions", "all"),
        outcome_field(),
        head(),
        *manual_ablation.fields(),
    )


def render(view: View) -> None:
    named: Any = {"format_func": MODES.__getitem__, "label_visibility": "collapsed"}
    st.segmented_control("Mode", list(MODES), required=True, **named, **view.state.widget_args("mode"))
    if view.state["mode"] == MANUAL:
        manual_ablation.manual_ablation_panel(view)
    else:
        _sweep(view)


def _sweep(view: View) -> None:
    here = ""
    try:
        sweep = _form(view)
        if sweep is not None:
            planned = planned_job(view, sweep)
            here = planned.folder.name
            _planned_sweep(view, planned)
    finally:
        job_status.unfinished_jobs(view.state, {here}, {"ablate"}, _show)


def _planned_sweep(view: View, planned: JobPlan) -> None:
    run = planned.run()
    job, now = job_status.job_and_status(planned.folder.name)
    figure = table = None
    if job and now and now.active:
        job_status.progress_panel(job.name, job_status.UNITS_ARE_KEPT)
    elif run is not None:
        table, figure, bars = _figures(str(run.path), run.manifest["files"]["heads.parquet"])
        assert isinstance(planned.spec, AblationSpec)
        _result(view, table, figure, bars, planned.spec)
        st.caption(plain(agreement_sentence(run)))
    else:
        _offer(planned, now)
    export_menu(planned.folder.name, cli=planned.cli, python=planned.spec.to_python(), figure=figure, table=table)


def _form(view: View) -> AblationSpec | None:
    """The requested ablation; None while its prompts are missing."""
    state = view.state
    what, count, seed = st.columns([3, 1, 1], vertical_alignment="bottom")
    named = {"format_func": lambda name: name or "Custom prompts (JSON Lines)", **state.widget_args("task")}
    what.selectbox("Prompts", [*task_names(), prompts.OWN], **named)
    if state["task"]:
        count.number_input("Number of prompts", 2, prompts.MOST_PROMPTS, **state.widget_args("n_prompts"))
        source = AblationSpec(task=state["task"], n_prompts=state["n_prompts"], seed=state["seed"])
    else:
        file = prompts.prompts_file(state)
        source = file and AblationSpec(prompts=str(file), seed=state["seed"])
    seed.number_input("Seed", 0, 10**6, help="Seed for prompts, resample pairings and bootstrap.", **state.widget_args("seed"))
    if source is None:
        return None
    marks, metric = _marks_and_metric(view.model, view.facts.weights_digest, source)
    adaptive = state["estimator"] == "adaptive"
    how, estimator, *share, where, measured = st.columns(4 + adaptive, vertical_alignment="bottom")
    how.selectbox("Ablation", list(ablations()), help=bullets(ablations()), **state.widget_args("ablation"))
    estimator.selectbox("Estimator", list(ESTIMATORS), help=bullets(ESTIMATORS), **state.widget_args("estimator"))
    if adaptive:
        share[0].number_input("Share measured exactly", 0.01, 1.0, step=0.05, **state.widget_args("top_share"))
    options = ",".join(f"{name}={option_text(p.default)}" for name, p in ablation_options(state["ablation"]).items())
    if options:
        st.text_input(f"Options of {state['ablation']}", placeholder=options, **state.widget_args("ablation_options"))
    ablation = ":".join(filter(None, (state["ablation"], options and state["ablation_options"].strip())))
    places = ["all", "end", *marks]
    if state["positions"] not in places:
        state.notices.append(f"These prompts have no position called {state['positions'][:40]!r}; all positions are used.")
        state.set(positions="all")
    about = "Positions of the prompt at which the head is ablated."
    where.selectbox("Positions", places, help=about, **state.widget_args("positions"))
    with measured:
        choose_outcome(state, f"task: {metric}")
    chosen = {name: state[name] for name in ("estimator", "positions")}
    return replace(source, **chosen, ablation=ablation, metric=state["outcome"] or None, top_share=state["top_share"])


@st.cache_resource(max_entries=64, show_spinner="Generating prompts …")
def _marks_and_metric(model: str, weights: str, source: AblationSpec) -> tuple[list[str], str]:
    """Marks and metric of the prompts."""
    with model_cache().acquire(model) as loaded:
        task = source.load_task(loaded)
    return task.marks, task.metric


def _offer(planned: JobPlan, last: jobs.JobStatus | None) -> None:
    """The estimated cost, the outcome of the last attempt, and the start button."""
    st.markdown(f"About **{duration(planned.cost.seconds)}** plus loading, **{format_bytes(planned.bytes)}**")
    refused = False
    try:
        planned.check_memory()
    except MemoryError as error:
        refused = True
        st.error(str(error), icon=":material/memory_alt:")
    job_status.start_button(planned.folder.name, planned.start, last, resumable=True, disabled=refused)


@st.cache_resource(max_entries=16, show_spinner=False)
def _figures(path: str, digest: str) -> tuple[pd.DataFrame, Any, Any]:
    """The table of a finished run, largest effect first, its map and its bars."""
    run = open_run(path)
    table = run.heads().sort_values("effect", key=abs, ascending=False, kind="stable").reset_index(drop=True)
    return table, head_map(table, shape=run.manifest["details"]["shape"]), ranked_effects(table)


def _result(view: View, table: pd.DataFrame, figure: Any, bars: Any, sweep: AblationSpec) -> None:
    metric = str(table["metric"].iloc[0])
    st.caption(f"effect = metric(ablated) − metric(clean); {sign_meaning(metric)}. Click a head to select it.")
    with st.container(horizontal=True, gap="large"):
        with st.container(width="content"):
            head_from_map(view, figure, "ablation-map", f"effect of every head on {metric}, layers down and heads across")
        with st.container(width=320):
            chosen = view.state.validated("head", view.facts.check_head, None)
            prompt = _head(view, table, sweep, chosen)
    if chosen is not None and prompt is not None:
        _tile(view, prompt, chosen)
    show_figure(view, bars, "ablation-bars", f"the heads with the largest effects on {metric}")
    heads = [Head.parse(label) for label in table["label"]]
    head_from_table(view, table.filter(items=COLUMNS), heads, "ablation-table", effect_columns())


def _head(view: View, table: pd.DataFrame, sweep: AblationSpec, chosen: Head | None) -> PromptChoice | None:
    """The result for one head and links to other pages; returns the prompt on which its pattern is shown."""
    if chosen is None:
        st.info("Click a cell of the map or a row of the table to select a head.", icon=":material/ads_click:")
        return None
    state, last = view.state, min(int(table["n"].to_numpy().max()), prompts.MOST_EXAMPLES) - 1
    st.markdown(f"##### {chosen}")
    st.markdown(_effect_text(table, chosen))
    state.set(example=min(state["example"], last), corrupted=False)
    st.number_input("Show on prompt", 0, last, **state.widget_args("example"))
    prompt = _prompt(view, sweep, state["example"])
    shown = {"task": prompt.task, "text": prompt.text or None, "seed": prompt.seed, "example": prompt.example}
    link("Attention pattern", "attention", {**shown, "corrupted": False, "head": chosen}, icon=":material/grid_on:")
    _to_circuit(view, chosen)
    st.button("Manual ablation", icon=":material/toggle_off:", on_click=_ablate_manually, args=(state, shown, chosen))
    return prompt


def _to_circuit(view: View, chosen: Head) -> None:
    """A link to the head's place in a stored circuit of the model, or else to the search for one."""
    there = find_stored_circuit(settings().root, view.facts, settings().device, view.state["task"])
    label = f"Place in the {there['task']} circuit" if there else "Find a circuit"
    request = there or {name: view.state[name] for name in ("task", "file", "seed")}
    link(label, "circuit", {**request, "head": chosen}, icon=":material/account_tree:")


def _tile(view: View, prompt: PromptChoice, chosen: Head) -> None:
    """The head's pattern on one of the prompts."""
    attention = prompts.read(view, prompt)
    first = max(0, len(attention.words) - SHOWN)
    weights = attention.cache.pattern(chosen, slice(first, None), slice(first, None)).numpy()
    part = f", its last {SHOWN} tokens" if first else ""
    title = f"Attention of {chosen} on prompt {view.state['example']}{part}"
    record = replace(attention.cache.record, task=place_in_task(prompt), seed=prompt.seed)
    figure = pattern_heatmap(weights, attention.words, chosen, record, first_query=first, first_key=first, title=title)
    show_figure(view, figure, "ablation-tile", f"attention of {chosen} on the prompt")


def _effect_text(table: pd.DataFrame, chosen: Head) -> str:
    for row in table.loc[table["label"] == str(chosen)].itertuples():
        interval = f"95% interval {signed(row.ci_low)} to {signed(row.ci_high)}, q = {row.q_value:.2g}"
        shown = f"effect **{signed(row.effect)}** {row.unit}  \n{interval}"
        return shown if row.control != row.control else f"{shown}  \nmean of the other heads {signed(row.control)}"
    return "Estimated only: not among the heads with the largest estimated effects, which were measured exactly."


def _prompt(view: View, sweep: AblationSpec, example: int) -> PromptChoice:
    if sweep.task:
        return PromptChoice(task=sweep.task, seed=sweep.seed, example=example)
    assert sweep.prompts is not None
    return PromptChoice(text=prompts.prompt_texts(view.model, view.facts.weights_digest, sweep.prompts)[example])


def _ablate_manually(state: State, shown: dict[str, Any], chosen: Head) -> None:
    state.set(**shown, corrupted=False, mode=MANUAL, ablated=[chosen])


def _show(state: State, job: Job) -> None:
    """Set the form to the request of the job."""
    sweep = job.spec
    assert isinstance(sweep, AblationSpec)
    file = "/".join(Path(sweep.prompts).with_suffix("").parts[-2:]) if sweep.prompts else ""
    request = {"task": sweep.task or prompts.OWN, "file": file, "n_prompts": sweep.n_prompts, "seed": sweep.seed}
    options = {name: getattr(sweep, name) for name in ("ablation", "estimator", "top_share", "positions")}
    model = {"model": job.model} if job.model in model_cache().known else {}
    state.set(**request, **options, **model, outcome=sweep.metric or OWN_METRIC, mode=SWEEP)


QUESTION = "How much does each head contribute to the task, and what does the model predict without it?"
PAGE = Page(
    name="ablate", icon=":material/content_cut:", order=5, question=QUESTION, fields=fields, render=render, causal_only=True
)
