"""Circuit: the edges that carry a task, the faithfulness of circuits by size, and the place of a head in the graph."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from interp.circuits import Circuit, FaithfulnessCurve, Node
from interp.circuits.edge_method_and_ablation_names import EDGE_ABLATIONS
from interp.experiments import CircuitSpec
from interp.experiments.circuit import CIRCUIT_METHODS, COUNTERFACTUAL
from interp.figures import Figure, circuit_graph, faithfulness_plot
from interp.figures.circuit_graph import node_label
from interp.figures.style import number as format_number
from interp.heads import Head
from interp.store import StoredRun, load_circuit_run
from interp.tasks import TASKS, task_names
from interp_dashboard import job_status, prompts
from interp_dashboard.clickable_maps import FAINT, INVISIBLE, add_frame, show_clickable
from interp_dashboard.export import export_menu, run_code
from interp_dashboard.formatting import bullets, plain
from interp_dashboard.job_plan import JobPlan, planned_job
from interp_dashboard.metric_and_outcome_selectors import choose_outcome, outcome_field
from interp_dashboard.page_definition import Page, View, head_links
from interp_dashboard.selectable_figures_and_tables import show_figure, show_table, themed
from interp_dashboard.url import Field, State, choice, head, number, text

KEY = "circuit-graph"
BESIDE = 240  # pixels: the room beside a graph of four heads per layer on a screen of 1440
TASK = "ioi"
MOST_EDGES = 150


def fields() -> tuple[Field, ...]:
    """The prompts, the method, the number of edges, and the selected head."""
    return (
        choice("task", [prompts.OWN, *task_names()], TASK, noun="task"),
        text("file"),
        number("n_prompts", 32, 2, prompts.MOST_PROMPTS),
        number("seed", 0, 0, 10**6),
        choice("circuit.method", list(CIRCUIT_METHODS), "eap-ig", noun="method"),
        choice("circuit.ablation", list(EDGE_ABLATIONS), COUNTERFACTUAL, noun="ablation"),
        outcome_field(),
        number("edges", 30, 1, MOST_EDGES),
        head(),
    )


def render(view: View) -> None:
    here: set[str] = set()
    try:
        _page(view, here)
    finally:
        job_status.unfinished_jobs(view.state, here, {"circuit"})


def _page(view: View, here: set[str]) -> None:
    request = _form(view.state)
    if request is None:
        return
    plan = planned_job(view, request)
    here.add(plan.folder.name)
    about = "Scores every edge, then measures the faithfulness of circuits of growing size, and of random circuits, on held-out prompts."
    run = job_status.run_or_progress(view.state, plan, resumable=plan.total is not None, about=about)
    if run is None:
        return
    found, curve, figure = _found(str(run.path), str(run.manifest["files"]))
    _graph(view, found, run, plan, _prompt(view, request))
    show_figure(view, figure, "faithfulness", "faithfulness by number of edges, of the circuits and of random ones")
    export_menu("faithfulness", python=_code(run, "faithfulness_plot(curve)"), figure=figure, table=curve.table)


def _form(state: State) -> CircuitSpec | None:
    """The requested circuit; None while its prompts are missing."""
    what, n, seed = st.columns([3, 1, 1], vertical_alignment="bottom")
    tasks = [*task_names(), prompts.OWN]
    named = {"format_func": lambda name: name or "Custom prompt pairs (JSON Lines)", **state.widget_args("task")}
    what.selectbox("Prompts", tasks, **named)
    if state["task"]:
        n.number_input("Number of prompts", 2, prompts.MOST_PROMPTS, **state.widget_args("n_prompts"))
    about = "Seed for the prompts; the held-out prompts use the next seed. Custom prompts are split into two random halves, one to find "
    about += "the circuit and one to test it."
    seed.number_input("Seed", 0, 10**6, help=about, **state.widget_args("seed"))
    file = None if state["task"] else prompts.prompts_file(state, "clean, corrupted and answer")
    if not state["task"] and file is None:
        return None
    how, corrupted, measured = st.columns(3, vertical_alignment="bottom")
    how.selectbox("Method", list(CIRCUIT_METHODS), help=bullets(CIRCUIT_METHODS), **state.widget_args("circuit.method"))
    known: Any = {"help": bullets(EDGE_ABLATIONS), **state.widget_args("circuit.ablation")}
    corrupted.selectbox("Replace removed edges with", list(EDGE_ABLATIONS), **known)
    with measured:
        choose_outcome(state, f"task: {TASKS.get(state['task']).metric}" if state["task"] else "the task's own")
    source: dict[str, Any] = {"task": state["task"] or None, "prompts": file and str(file), "metric": state["outcome"] or None}
    options = {"method": state["circuit.method"], "ablation": state["circuit.ablation"]}
    return CircuitSpec(**source, **options, n_prompts=state["n_prompts"], seed=state["seed"])


@st.cache_resource(max_entries=16, show_spinner=False)
def _found(path: str, digest: str) -> tuple[Circuit, FaithfulnessCurve, Any]:
    """The circuit of a finished run with the scores of all edges, its faithfulness curve, and the figure of the curve."""
    circuit, curve = load_circuit_run(path)
    return circuit, curve, faithfulness_plot(curve)


def _prompt(view: View, request: CircuitSpec) -> dict[str, Any]:
    """The first prompt, on which other pages show a head."""
    if request.prompts:
        return {"task": prompts.OWN, "text": prompts.prompt_texts(view.model, view.facts.weights_digest, request.prompts)[0]}
    return {"task": request.task, "seed": request.seed}


def _graph(view: View, found: Circuit, run: StoredRun, plan: JobPlan, prompt: dict[str, Any]) -> None:
    """The circuit of the edges with the largest effects, and the selected head."""
    state, alive = view.state, sum(score != 0 for score in found.scores.values())
    most = min(MOST_EDGES, alive)
    state.set(edges=min(state["edges"], most))
    chosen = state.validated("head", view.facts.check_head, None)
    about = "Edges by |effect|; those on no path from the embedding to the logits are pruned."
    st.slider("Edges with the largest effects", 1, max(2, most), help=about, width=560, **state.widget_args("edges"))
    circuit, least = _largest(found, state["edges"])
    drawn = f"{len(circuit)} of the {state['edges']} edges with |effect| ≥ {least:.3g} {found.unit}"
    nonzero = f"{alive:,} of {len(found.graph.edges):,} edges have a nonzero effect"
    st.caption(plain(f"{drawn} lie on a path from the embedding to the logits; {nonzero}. Click a head to select it."))
    if not circuit.edges:
        st.info("No edge is left at this size: increase the number of edges.", icon=":material/filter_alt:")
        _head(circuit, chosen, prompt)
        return
    figure, table = circuit_graph(circuit, threshold=False), _edges(circuit)
    with st.container(horizontal=True, gap="small"):
        with st.container(width="content"):
            _clickable(view, figure, circuit)
        with st.container(width=BESIDE):
            _head(circuit, chosen, prompt)
    python = _code(run, "circuit_graph(found)")
    export_menu("circuit", cli=plan.cli, python=python, figure=lambda: circuit_graph(circuit), table=table)
    _download(circuit)
    names = {side: [node_label(Node.parse(name)) for name in table[side]] for side in ("writer", "reader")}
    columns = {"score": st.column_config.NumberColumn("effect", format="%.4g"), "qkv": "input", "edge": "name in MIB"}
    order = ["writer", "reader", "qkv", "score", "unit", "edge"]
    show_table(table.assign(**names), "circuit-table", column_config=columns, column_order=order)


def _largest(whole: Circuit, k: int) -> tuple[Circuit, float]:
    """The ``k`` edges of largest effect, pruned to paths from embedding to logits, and the smallest effect among the ``k``."""
    alive = [edge for edge in whole.graph.edges if whole.scores.get(edge)]
    top = sorted(alive, key=lambda edge: -abs(whole.scores[edge]))[:k]
    cut = replace(whole, edges=frozenset(top), metadata={**whole.metadata, "k": len(top)})
    return cut.pruned(), abs(whole.scores[top[-1]])


def _edges(circuit: Circuit) -> pd.DataFrame:
    """The edges of the circuit, largest effect first."""
    table: Any = circuit.to_dataframe()
    table = table[table["in_circuit"]].drop(columns="in_circuit")
    return table.sort_values("score", key=abs, ascending=False, kind="stable").reset_index(drop=True)


def _clickable(view: View, figure: Figure, circuit: Circuit) -> None:
    """The graph in the browser's theme; a click on a head sets the field ``head``, and the selected head is framed."""
    shown = themed(view, figure)
    traces: list[Any] = list(shown.data)
    [marks] = [trace for trace in traces if trace.mode == "markers"]
    marks.update(marker={"color": INVISIBLE, "opacity": 1}, selected=FAINT, unselected=FAINT)
    shown.update_layout(clickmode="event+select")
    named = str(Node.of(view.state["head"])) if view.state["head"] is not None else ""
    if named in marks.customdata:
        at = list(marks.customdata).index(named)
        add_frame(shown, marks.x[at], marks.y[at], 0.3, 0.21)
    alt = f"circuit of {len(circuit)} edges, embedding at the bottom, logits at the top"
    show_clickable(shown, lambda: _clicked(view.state), KEY, alt)


def _clicked(state: State) -> None:
    for point in st.session_state[KEY].selection.points:
        data = point["customdata"]
        node = Node.parse(data if isinstance(data, str) else data[0])  # Streamlit may wrap it in a list
        if node.kind == "head":
            state.set(head=Head(node.layer, node.head))


def _head(circuit: Circuit, chosen: Head | None, prompt: dict[str, Any]) -> None:
    """The inputs and outputs of one head, and links to other pages."""
    if chosen is None:
        st.info("Click a head of the graph to select it.", icon=":material/ads_click:")
        return
    st.markdown(f"##### {chosen}")
    own, edges = Node.of(chosen), sorted(circuit.edges, key=lambda edge: -abs(circuit.scores[edge]))
    effects = {edge: f"{f' ({edge.qkv})' * bool(edge.qkv)} {format_number(circuit.scores[edge])}" for edge in edges}
    reads = [f"{node_label(edge.writer)}{effect}" for edge, effect in effects.items() if edge.reader == own]
    read_by = [f"{node_label(edge.reader)}{effect}" for edge, effect in effects.items() if edge.writer == own]
    if reads or read_by:
        of = plain(f"effect in {circuit.unit}") if circuit.unit else "effect"
        st.markdown(f"**Input edges**, {of}  \n" + ("  \n".join(map(plain, reads)) or "none"))
        st.markdown(f"**Output edges**, {of}  \n" + ("  \n".join(map(plain, read_by)) or "none"))
    else:
        st.markdown("Not in the circuit at this size.")
    head_links(prompt, chosen)


def _download(circuit: Circuit) -> None:
    look: Any = {"icon": ":material/account_tree:", "type": "tertiary", "help": "JSON in the format of MIB and EAP-IG."}

    def content() -> str:
        return json.dumps(circuit.to_json(), allow_nan=False, indent=1)

    st.download_button("Circuit file", content, "circuit.json", "application/json", on_click="ignore", **look)


def _code(run: StoredRun, draw: str) -> str:
    return run_code(run, "load_circuit_run", draw, "found, curve")


QUESTION = "Which edges between heads and MLPs carry the behaviour, and how many are enough?"
PAGE = Page(
    name="circuit", icon=":material/account_tree:", order=6, question=QUESTION, fields=fields, render=render, causal_only=True
)
