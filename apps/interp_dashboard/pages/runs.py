"""Runs: the stored runs, and the figures, table, record and actions of one of them."""

from __future__ import annotations

import shlex
from typing import Any

import pandas as pd
import streamlit as st

from interp.errors import ArtefactInvalid
from interp.figures import available_figures, run_figure
from interp.heads import Head
from interp.store import RunSummary, StoredRun, delete_run, list_runs, open_run, zip_run
from interp_dashboard import jobs
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import duration, plain
from interp_dashboard.job_status import job_and_status
from interp_dashboard.page_definition import Page, View, link
from interp_dashboard.selectable_figures_and_tables import (
    effect_columns,
    head_from_map,
    head_from_table,
    number_columns,
    selectable_table,
    show_figure,
    show_table,
)
from interp_dashboard.settings import settings
from interp_dashboard.url import Field, choice, head, text

FIGURE_TITLES = {
    "heads": "Map",
    "layers": "By layer",
    "waad_fai": "WAAD and FAI",
    "tokens": "Tokens",
    "ranking": "Ranking",
    "needle_grid": "Needle grid",
    "confirmation_curve": "Confirmation curve",
    "circuit": "Circuit",
    "faithfulness": "Faithfulness",
}
TABLES = {
    "tokens": "tokens",
    "waad_fai": "tokens",
    "needle_grid": "cells",
    "confirmation_curve": "curve",
    "circuit": "edges",
    "faithfulness": "faithfulness",
}
"""The table behind a figure, where it is not the table of heads."""
BY_METRIC = ("heads", "layers", "tokens")
STATUS = {
    "finished": "● finished",
    "running": "◐ running",
    "interrupted": "○ interrupted",
    "failed": "✕ failed",
    "damaged": "✕ damaged",
}
COLUMNS = "label effect ci_low ci_high p_value q_value control exceeds_control baseline value n n_clusters unit".split()
"""Shown columns of a table of heads; all columns are exported."""


def fields() -> tuple[Field, ...]:
    return text("run", settings().run), choice("figure", list(FIGURE_TITLES), noun="figure"), text("figure_metric"), head()


def render(view: View) -> None:
    entries = list_runs(settings().root)
    if not entries:
        where = plain(str(settings().root))
        st.info(f"No runs yet in {where}: start one on the Ablate page or in a terminal.", icon=":material/inbox:")
        st.code("interp ablate --task induction\ninterp attention --task induction", language="bash")
        return
    _history(view, entries)
    name = view.state.validated("run", lambda name: _known(name, entries), "")
    if not name:
        st.info("Select a run in the list to open it.", icon=":material/ads_click:")
        return
    entry = next(entry for entry in entries if entry.name == name)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"##### {plain(name)}")
        st.space("stretch")
        _actions(view, entry)
    if entry.status != "finished":
        _unfinished(entry)
        return
    run = open_run(entry.path)
    _performance(run)
    _figure(view, run)
    _record(run, entry)


def _known(name: str, entries: list[RunSummary]) -> str:
    if name and name not in {entry.name for entry in entries}:
        raise LookupError(f"There is no run called {name[:80]!r}.")
    return name


def _history(view: View, entries: list[RunSummary]) -> None:
    """The list of runs; selecting a row opens the run."""
    rows = [
        {
            "run": entry.name,
            "status": STATUS[entry.status],
            "kind": entry.kind,
            "task": entry.task,
            "model": entry.model,
            "started": entry.started,
            "seconds": entry.seconds if entry.status == "finished" else None,
            "heads": f"{entry.n_layers} × {entry.n_heads}" if entry.n_heads else "",
            "size": entry.nbytes,
        }
        for entry in entries
    ]

    def choose(name: str | None) -> str:
        view.state.set(run=name or "", figure_metric="")
        return name or ""

    table = pd.DataFrame(rows)
    table["started"] = pd.to_datetime(table["started"], utc=True, errors="coerce")
    started = st.column_config.DatetimeColumn("started", format="YYYY-MM-DD HH:mm")
    columns = {"started": started, **number_columns(["seconds"], "%.1f"), **number_columns(["size"], "bytes")}
    names = [entry.name for entry in entries]  # selections are row numbers: in another list they mean another run
    options = {"watched": names, "column_config": columns}
    selectable_table(table, names, view.state["run"], choose, "runs", **options)


def _actions(view: View, entry: RunSummary) -> None:
    """Actions on a run: compare, export, delete."""
    if entry.has_heads:
        link("Compare", "compare", {"versus": "runs", "run_b": entry.name}, icon=":material/compare:")
    with st.popover("Download all", icon=":material/folder_zip:", type="tertiary"):
        st.caption("The whole run directory, which `interp show` opens.")
        file = f"{entry.name}.zip"
        st.download_button("ZIP", lambda: zip_run(entry), file, "application/zip", on_click="ignore", width="stretch")
    with st.popover("Delete", icon=":material/delete:", type="tertiary"):
        st.caption("This cannot be undone. Type the name of the run to delete it.")
        hint: Any = {"placeholder": entry.name, "label_visibility": "collapsed"}
        typed = st.text_input("Name of the run", key=f"typed-{entry.name}", **hint)
        look: Any = {"type": "primary", "width": "stretch", "disabled": typed != entry.name}
        st.button("Delete permanently", on_click=_delete, args=(view, entry.name), **look)
    if "delete-failed" in st.session_state:
        view.state.notices.append(st.session_state.pop("delete-failed"))


def _delete(view: View, name: str) -> None:
    job, now = job_and_status(name)
    try:
        if now is not None and now.active:
            raise ArtefactInvalid(f"{name} is still running: cancel it first, on the page that started it.")
        delete_run(settings().root, name)
        if job is not None:
            jobs.forget(job)
    except (ArtefactInvalid, LookupError, OSError) as error:
        st.session_state["delete-failed"] = f"Nothing was deleted: {error}"
        return
    view.state.set(run="", figure_metric="")
    st.toast(f"{plain(name)} deleted.", icon=":material/delete:")


def _unfinished(entry: RunSummary) -> None:
    """Why there is no result yet, and what to do."""
    if entry.status == "running":
        st.info("Still running; progress is shown on the page that started it.", icon=":material/hourglass:")
    elif entry.status == "interrupted":
        st.warning("Interrupted. Start the same run again: it resumes where it stopped.", icon=":material/pause_circle:")
    else:
        st.error(plain(entry.error), icon=":material/error:")


def _figure(view: View, run: StoredRun) -> None:
    """A figure of the run and its table."""
    state = view.state
    kinds = available_figures(run)
    if not kinds:
        st.info("This run has no numbers per head or token; download it for its arrays.", icon=":material/table:")
        return
    if state["figure"] not in kinds:
        state.set(figure=kinds[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        look: Any = {"format_func": FIGURE_TITLES.__getitem__, "width": "content"}
        st.segmented_control("Figure", kinds, required=True, **look, **state.widget_args("figure"))
        kind = state["figure"]
        metric = _metric(view, run, kind)
    figure = run_figure(run, kind, metric)
    table = run.table(TABLES.get(kind, "heads"))
    table = table if metric is None else table.loc[table["metric"] == metric]
    if kind == "heads":
        head_from_map(view, figure, "run-map", "One number per head, layers down and heads across")
    else:
        show_figure(view, figure, f"run-{kind}", f"{FIGURE_TITLES[kind]} of the run")
    export_menu("run", cli=_cli(run, kind, metric), python=_python(run, kind, metric), figure=figure, table=table)
    _table(view, table)


def _metric(view: View, run: StoredRun, kind: str) -> str | None:
    """The shown metric of an observation, with its selector; None if the figure is not of one metric."""
    if not run.metrics or kind not in BY_METRIC:
        return None
    there = set(run.table(TABLES.get(kind, "heads"))["metric"])
    names = [name for name in run.metrics if name in there]
    if view.state["figure_metric"] not in names:
        view.state.set(figure_metric=names[0])
    st.selectbox("Metric", names, width=320, **view.state.widget_args("figure_metric"))
    return view.state["figure_metric"]


def _table(view: View, table: pd.DataFrame) -> None:
    """The numbers behind the figure: tokens in order, heads by size."""
    if "label" not in table and "pos" not in table:
        show_table(table)
        return
    if "pos" in table:
        shown = [*(name for name in ("example", "metric") if len(set(table[name])) > 1), "pos", "token", "value"]
        tokens: Any = table[shown]
        show_table(tokens, width="content")
        return
    rows = table.sort_values("effect" if "effect" in table else "value", key=abs, ascending=False, kind="stable")
    heads = [Head(int(layer), int(index)) for layer, index in zip(rows["layer"], rows["head"], strict=True)]
    own: Any = rows[[name for name in COLUMNS if name in rows]].reset_index(drop=True)
    columns = effect_columns() if "effect" in own else {**number_columns(own.select_dtypes("float"), "%.4f"), "label": "head"}
    head_from_table(view, own, heads, "run-table", columns)


def _cli(run: StoredRun, kind: str, metric: str | None) -> str:
    chosen = ["--metric", metric] if metric else []
    return shlex.join(["interp", "show", str(run.path), "--kind", kind, *chosen, "--figure", f"{kind}.png"])


def _python(run: StoredRun, kind: str, metric: str | None) -> str:
    arguments = f"{kind!r}, {metric!r}" if metric else repr(kind)
    start = "import interp\nfrom interp.figures import run_figure\n\n"
    return f"{start}run = interp.open_run({str(run.path)!r})\nrun_figure(run, {arguments})\n"


def _performance(run: StoredRun) -> None:
    """On how many prompts the unchanged model is right; a warning where these are too few."""
    if performance := run.record.performance:
        show = st.caption if performance.does_task else st.warning
        show(plain(run.record.performance_sentence))


def _record(run: StoredRun, entry: RunSummary) -> None:
    """The record of the run."""
    record = run.record.to_json()
    packages, arguments, _ = (record.pop(name) for name in ("packages", "arguments", "baseline"))
    here = {"started": entry.started, "took": duration(entry.seconds), "folder": str(run.path)}
    facts = {**record, **arguments, **packages, **here}
    with st.expander("Provenance", icon=":material/receipt_long:"):
        rows = [(_text(name), _text(value)) for name, value in facts.items() if value not in ("", None, [])]
        show_table(pd.DataFrame(rows, columns=["field", "value"]))


def _text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.encode("utf-8", "backslashreplace").decode()


QUESTION = "Which runs are stored, and what are their results?"
PAGE = Page(name="runs", icon=":material/history:", order=8, question=QUESTION, fields=fields, render=render)
