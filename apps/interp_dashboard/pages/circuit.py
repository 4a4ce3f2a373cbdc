"""Circuit: the edges that carry a task, the faithfulness of circuits by size, and the place of a head in the graph."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.circuits import Circuit, Node
from interp.circuits.edge_method_names import EDGE_ABLATIONS
from interp.experiments import CircuitSpec
from interp.experiments.circuit import CIRCUIT_METHODS, COUNTERFACTUAL
from interp.heads import Head
from interp.tasks import task_names
from interp_dashboard import job_status, prompts
from interp_dashboard.clickable_maps import CHOSEN, CONFIG, INVISIBLE
from interp_dashboard.export import export_menu
from interp_dashboard.formatting import bullets, plain
from interp_dashboard.job_plans import JobPlan, plan_job
from interp_dashboard.jobs import Job
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page import Page, View, link
from interp_dashboard.selectors import choose_outcome, outcome_field, show_figure, table_height
from interp_dashboard.settings import settings
from interp_dashboard.url import Field, State, choice, head, number

if TYPE_CHECKING:
    import pandas as pd

    from interp.circuits import FaithfulnessCurve
    from interp.figures import Figure
    from interp.store import StoredRun

KEY = "circuit-graph"
BESIDE = 240  # pixels: the room beside a graph of four heads per layer on a screen of 1440
TASK = "ioi"
MOST_EDGES = 150


def fields() -> tuple[Field, ...]:
    """The prompts, the method, the number of edges, and the selected head."""
    return (
        choice("task", [prompts.OWN, *task_names()], TASK, noun="task"),
        prompts.file_field(),
        number("n_prompts", 32, 2, prompts.MOST_PROMPTS),
        number("seed", 0, 0, 10**6),
        choice("circuit.method", list(CIRCUIT_METHODS), "eap-ig", noun="method"),
        choice("circuit.ablation", list(EDGE_ABLATIONS), COUNTERFACTUAL, noun="ablation"),
        outcome_field(),
        number("edges", 30, 1, MOST_EDGES),
        head(),
    )


def render(view: View) -> None:
    view.facts.check_causal("Circuit")
    here: set[str] = set()
    try:
        _page(view, here)
    finally:
        job_status.unfinished_jobs(view.state, here, {"circuit"}, _show)


def _page(view: View, here: set[str]) -> None:
    request = _form(view.state)
    if request is None:
        return
    plan = _planned(view.model, view.facts.weights_digest, tuple(request.items()), str(settings().root))
    here.add(plan.folder.name)
    run = job_status.run_or_progress(view.state, plan)
    if run is None:
        st.caption(
            "Scores every edge, then measures the faithfulness of circuits of growing size, and of random circuits, on held-out prompts."
        )
        export_menu(plan.folder.name, cli=shlex.join(["interp", *plan.cli_args]))
        return
    found, curve, figure = _found(str(run.path), str(run.manifest["files"]))
    _graph(view, found, run, plan, _prompt(view, request))
    st.markdown("##### Faithfulness by circuit size")
    show_figure(view, figure, "faithfulness", "faithfulness by number of edges, of the circuits and of random ones")
    export_menu("faithfulness", python=_python(run, "faithfulness_plot(curve)"), figure=figure, table=curve.table)


def _form(state: State) -> dict[str, Any] | None:
    """The requested circuit; None while its prompts are missing."""
    what, n, seed = st.columns([3, 1, 1], vertical_alignment="bottom")
    tasks = [*task_names(), prompts.OWN]
    what.selectbox(
        "Prompts", tasks, format_func=lambda name: name or "Custom prompt pairs (JSON Lines)", **state.widget_args("task")
    )
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
    corrupted.selectbox(
        "Replace removed edges with",
        list(EDGE_ABLATIONS),
        help=bullets(EDGE_ABLATIONS),
        **state.widget_args("circuit.ablation"),
    )
    with measured:
        choose_outcome(state, "task default")
    request = {
        "task": state["task"] or None,
        "prompts": file and str(file),
        "n_prompts": state["n_prompts"],
        "seed": state["seed"],
    }
    options = {"method": state["circuit.method"], "ablation": state["circuit.ablation"], "metric": state["outcome"] or None}
    return {**request, **options}


@st.cache_resource(max_entries=64, show_spinner="Generating prompts …")
def _planned(model: str, weights: str, request: tuple[tuple[str, Any], ...], root: str) -> JobPlan:
    with model_cache().acquire(model) as loaded:
        return plan_job(CircuitSpec(**dict(request)), loaded, Path(root), offline=settings().offline)


@st.cache_resource(max_entries=16, show_spinner=False)
def _found(path: str, digest: str) -> tuple[Circuit, FaithfulnessCurve, Any]:
    """The circuit of a finished run with the scores of all edges, its faithfulness curve, and the figure of the curve."""
    from interp.figures import faithfulness_plot
    from interp.store import load_circuit_run

    circuit, curve = load_circuit_run(path)
    return circuit, curve, faithfulness_plot(curve)


def _prompt(view: View, request: dict[str, Any]) -> dict[str, Any]:
    """The first prompt, on which other pages show a head."""
    if request["prompts"]:
        return {"task": prompts.OWN, "text": prompts.prompt_texts(view.model, view.facts.weights_digest, request["prompts"])[0]}
    return {"task": request["task"], "seed": request["seed"]}


def _graph(view: View, found: Circuit, run: StoredRun, plan: JobPlan, prompt: dict[str, Any]) -> None:
    """The circuit of the edges with the largest effects, and the selected head."""
    from interp.figures import circuit_graph
    from interp.figures.circuit_graph import node_label

    state, alive = view.state, sum(score != 0 for score in found.scores.values())
    most = min(MOST_EDGES, alive)
    state.set(edges=min(state["edges"], most))
    chosen = state.validated("head", view.facts.check_head, None)
    about = "Edges by |effect|; those on no path from the embedding to the logits are pruned."
    st.slider("Edges with the largest effects", 1, max(2, most), help=about, width=560, **state.widget_args("edges"))
    circuit, least = _largest(found, state["edges"])
    st.caption(
        plain(
            f"{len(circuit)} of the {state['edges']} edges with |effect| ≥ {least:.3g} {found.unit} lie on a path from the embedding to "
            f"the logits; {alive:,} of {len(found.graph.edges):,} edges have a nonzero effect. Click a head to select it."
        )
    )
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
    _export(circuit, run, plan, lambda: circuit_graph(circuit), table)
    names = {side: [node_label(Node.parse(name)) for name in table[side]] for side in ("writer", "reader")}
    columns: Any = {"score": st.column_config.NumberColumn("effect", format="%.4g"), "qkv": "input", "edge": "name in MIB"}
    order = ["writer", "reader", "qkv", "score", "unit", "edge"]
    options: Any = {"column_config": columns, "column_order": order, "key": "circuit-table"}
    st.dataframe(table.assign(**names), hide_index=True, height=table_height(len(table)), **options)


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
    from interp.figures import to_dark_theme

    shown = to_dark_theme(figure) if view.dark else type(figure)(figure)
    traces: list[Any] = list(shown.data)
    [marks] = [trace for trace in traces if trace.mode == "markers"]
    faint = {"marker": {"opacity": 0}}
    marks.update(marker={"color": INVISIBLE, "opacity": 1}, selected=faint, unselected=faint)
    shown.update_layout(clickmode="event+select")
    named = str(Node.of(view.state["head"])) if view.state["head"] is not None else ""
    if named in marks.customdata:
        at = list(marks.customdata).index(named)
        x, y = marks.x[at], marks.y[at]
        frame = {"x0": x - 0.3, "x1": x + 0.3, "y0": y - 0.21, "y1": y + 0.21}
        shown.add_shape(type="rect", **frame, line={"color": CHOSEN, "width": 3})
    st.plotly_chart(
        shown,
        key=KEY,
        theme=None,
        width="content",
        on_select=lambda: _clicked(view.state),
        selection_mode="points",
        config=CONFIG,
        alt=f"circuit of {len(circuit)} edges, embedding at the bottom, logits at the top",
    )


def _clicked(state: State) -> None:
    for point in st.session_state[KEY].selection.points:
        node = Node.parse(_only(point["customdata"]))
        if node.kind == "head":
            state.set(head=Head(node.layer, node.head))


def _only(data: Any) -> str:
    """The value of a point's data, which Streamlit may wrap in a list."""
    return data if isinstance(data, str) else data[0]


def _head(circuit: Circuit, chosen: Head | None, prompt: dict[str, Any]) -> None:
    """The inputs and outputs of one head, and links to other pages."""
    from interp.figures.circuit_graph import node_label
    from interp.figures.style import number as format_number

    if chosen is None:
        st.info("Click a head of the graph to select it.", icon=":material/ads_click:")
        return
    st.markdown(f"##### {chosen}")
    own, edges = Node.of(chosen), sorted(circuit.edges, key=lambda edge: -abs(circuit.scores[edge]))
    reads = [f"{node_label(e.writer)} ({e.qkv}) {format_number(circuit.scores[e])}" for e in edges if e.reader == own]
    read_by = [
        f"{node_label(e.reader)}{f' ({e.qkv})' * bool(e.qkv)} {format_number(circuit.scores[e])}"
        for e in edges
        if e.writer == own
    ]
    if reads or read_by:
        st.markdown("**Input edges**  \n" + "  \n".join(map(plain, reads)))
        st.markdown("**Output edges**  \n" + "  \n".join(map(plain, read_by)))
    else:
        st.markdown("Not in the circuit at this size.")
    values = {**prompt, "head": chosen}
    link("Attention pattern", "attention", values, icon=":material/grid_on:")
    link("Manual ablation", "ablate", {**values, "mode": "manual", "ablated": [chosen]}, icon=":material/toggle_off:")
    link("Roles of this head", "heads", {**values, "roles": True}, icon=":material/badge:")


def _export(circuit: Circuit, run: StoredRun, plan: JobPlan, figure: Any, table: pd.DataFrame) -> None:
    cli = shlex.join(["interp", *plan.cli_args])
    export_menu("circuit", cli=cli, python=_python(run, "circuit_graph(found)"), figure=figure, table=table)
    st.download_button(
        "Circuit file",
        lambda: json.dumps(circuit.to_json(), allow_nan=False, indent=1),
        "circuit.json",
        "application/json",
        icon=":material/account_tree:",
        type="tertiary",
        on_click="ignore",
        help="JSON in the format of MIB and EAP-IG.",
    )


def _python(run: StoredRun, draw: str) -> str:
    """Code that loads the run and plots it."""
    return (
        f"from interp.figures import {draw.split('(')[0]}\nfrom interp.store import load_circuit_run\n\n"
        f"found, curve = load_circuit_run({str(run.path)!r})\n{draw}\n"
    )


def _show(state: State, job: Job) -> None:
    """Restore the form as it was when the job was started."""
    state.load_query(job.query)


PAGE = Page(
    name="circuit",
    title="Circuit",
    icon=":material/account_tree:",
    order=6,
    question="Which edges between heads and MLPs carry the behaviour, and how many are enough?",
    fields=fields,
    render=render,
)
