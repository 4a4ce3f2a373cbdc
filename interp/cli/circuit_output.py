"""Circuits on the terminal and as JSON."""

from typing import TYPE_CHECKING, Any

from interp.cli.performance_output import print_performance
from interp.cli.terminal import Terminal
from interp.errors import counted
from interp.experiments.circuit import COUNTERFACTUAL, EXACT
from interp.experiments.estimate_agreement_sentence import agreement_sentence
from interp.records import prompts_text

if TYPE_CHECKING:
    import pandas as pd

    from interp.store import StoredRun

EDGES_SHOWN = 20
"""The number of edges shown where no other is asked for."""


def print_circuit(terminal: Terminal, run: "StoredRun", top: int = 0) -> None:
    """The size of the circuit, its faithfulness, and its ``top`` edges (0: all) by the absolute value of their effect."""
    found, record = run.manifest["details"]["circuit"], run.record
    edges, curve = edges_by_effect(run), run.table("faithfulness")
    print_performance(terminal, record)
    terminal.line(
        f"{found['method']} on {record.task}: {found['n_edges']:,} of {found['n_graph_edges']:,} edges of {record.model}, "
        f"{found['n_heads']} heads; {record.metric} {found['clean']:.3g} clean, {found['corrupted']:.3g} corrupted."
    )
    if found["n_edges"] < min(found["requested_size"], found["n_nonzero"]):
        terminal.line(
            f"The others of the {found['requested_size']:,} largest edges are on no path from the embedding to the logits."
        )
    terminal.line(_faithfulness(curve, found["requested_size"], record.arguments.get("ablation", COUNTERFACTUAL)))
    if "bisection" in found:
        terminal.line(_bisection(curve, **found["bisection"]))
    if "n_discovery_prompts" in found:
        shared = f", {found['n_shared_prompts']} of which are among the first" if found["n_shared_prompts"] else ""
        found_on, in_test = prompts_text(found["n_discovery_prompts"], record.n_clusters), found["n_test_prompts"]
        others = f" in {curve['n_clusters'].iloc[0]} clusters" if "n_clusters" in curve else ""
        terminal.line(f"Found on {found_on}, tested on {in_test} others{others}{shared}.")
    if found["n_nonzero"] < found["requested_size"]:
        hint = "; gradients vanish where attention is saturated, so --method exact finds more" * (found["method"] != EXACT)
        terminal.line(f"Only {found['n_nonzero']:,} edges have an effect above rounding ({found['noise_floor']:.2g}){hint}.")
    if sentence := agreement_sentence(run):
        terminal.line(sentence)
    terminal.line("effect = metric(corrupted edge) - metric(clean); negative = the edge helped")
    in_circuit = edges.query("in_circuit")
    kept = in_circuit.head(top) if top else in_circuit
    numbers = {"effect": "score", **({"estimate": "estimate"} if "estimate" in edges else {})}
    cells = [
        [str(i), row["edge"], *(_signed(row[column]) for column in numbers.values()), row["unit"]]
        for i, row in enumerate(_rows(kept), 1)
    ]
    terminal.table(("", "edge", *numbers, "unit"), cells, right=("", *numbers))
    if n_others := len(in_circuit) - len(kept):
        terminal.line(f"... and {counted(n_others, 'edge')} with smaller effects; `interp show DIR --top 0` prints all.")


def circuit_json(run: "StoredRun") -> dict[str, Any]:
    """The run as one JSON object: its path, its record, its edges and its faithfulness."""
    facts = {"path": str(run.path), "status": run.status, **run.manifest["details"]["circuit"], "record": run.record.to_json()}
    facts |= {name: value for name, value in run.manifest["details"].items() if name == "agreement"}
    return {**facts, "edges": _rows(edges_by_effect(run)), "faithfulness": _rows(run.table("faithfulness"))}


def edges_by_effect(run: "StoredRun") -> "pd.DataFrame":
    """The edges by the absolute value of their effect, largest first; then those only estimated, by their ``estimate``; last those
    without effect."""
    from interp.store.circuits import ESTIMATES

    edges, by = run.table("edges"), ["score"]
    if f"{ESTIMATES}.parquet" in run.manifest["files"]:
        estimates = run.table(ESTIMATES)
        known = dict(zip(estimates["edge"], estimates["effect"], strict=True))
        edges, by = edges.assign(estimate=[known[edge] for edge in edges["edge"]]), ["score", "estimate"]
    edges = edges.sort_values(by, key=abs, ascending=False, kind="stable")
    return edges.sort_values("score", key=lambda score: score == 0, kind="stable").reset_index(drop=True)


def _faithfulness(curve: "pd.DataFrame", requested_size: int, ablation: str) -> str:
    """The share of the difference that the circuit recovers, or its largest tested part, and that random circuits of this size do."""
    sizes = curve["n_edges"].tolist()
    size = max((n for n in sizes if n <= requested_size), default=min(sizes))
    of_size = curve.query("n_edges == @size")
    found, random = _rows(of_size.query("kind == 'circuit'"))[0], of_size.query("kind == 'random'")["faithfulness"]
    chance = (
        f"; {counted(len(random), 'random circuit')} of this size: {random.min():z.2f} to {random.max():z.2f}"
        if len(random)
        else ""
    )
    units = "clusters of prompts" if "n_clusters" in curve else "prompts"
    recovers = "it recovers" if size == requested_size else f"the {size:,} largest edges recover"
    return (
        f"On other prompts {recovers} {found['faithfulness']:z.2f} of the difference (95% interval {found['ci_low']:z.2f} to "
        f"{found['ci_high']:z.2f} over {units}), with all other edges corrupted ({ablation}){chance}."
    )


def _bisection(curve: "pd.DataFrame", level: float, size: int | None) -> str:
    """The size that bisection found, the next smaller one that it tried, and what both say."""
    recovered = dict(curve.query("kind == 'circuit'")[["n_edges", "faithfulness"]].itertuples(index=False))
    if size is None:
        most = max(recovered)
        return (
            f"All {most:,} edges with an effect recover {recovered[most]:z.3g}, less than {level:g}. Smaller circuits were not tried; "
            f"without --faithfulness a curve over the size is measured."
        )
    smaller = max((n for n in recovered if n < size), default=0)
    return (
        f"Bisection for {level:g}, on these prompts: the {size:,} largest edges recover {recovered[size]:z.4f}, the {smaller:,} largest "
        f"{recovered.get(smaller, 0.0):z.4f}. Faithfulness need not grow with the size: fewer edges that were not tried may reach it too."
    )


def _signed(number: float) -> str:
    """The number with its sign; empty for NaN."""
    return f"{number:+.3g}" if number == number else ""


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
