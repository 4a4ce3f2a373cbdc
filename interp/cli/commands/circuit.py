"""`interp circuit`: the edges that carry a behaviour, and the faithfulness of the circuit, stored in a run directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.circuits.edge_method_and_ablation_names import EDGE_ABLATIONS, IG_RULES
from interp.cli.circuit_output import EDGES_SHOWN, circuit_json, print_circuit
from interp.cli.command_from_spec import Request, print_location, run_command
from interp.cli.options import Settings
from interp.cli.terminal import Terminal
from interp.experiments.circuit import CIRCUIT_METHODS, COUNTERFACTUAL, CircuitSpec
from interp.experiments.usage_error import UsageError, usage_errors
from interp.files import user_path

if TYPE_CHECKING:
    from interp.circuits import Circuit

OPTIONS = {
    "method": typer.Option(help=f"{', '.join(CIRCUIT_METHODS)}."),
    "size": typer.Option(min=1, help="Number of edges to keep; default: a tenth of all."),
    "threshold": typer.Option(
        help="Keep edges of at least this effect, in the metric's unit, instead of --size; default of acdc: 1% of the gap."
    ),
    "faithfulness": typer.Option(
        help="Keep as many of the largest edges as recover this share (such as 0.85) of the difference between clean and corrupted test "
        "prompts, found by bisection."
    ),
    "ablation": typer.Option(help=f"What replaces removed edges: {', '.join(EDGE_ABLATIONS)}."),
    "steps": typer.Option(min=1, help="Methods with eap-ig: interpolation steps between corrupted and clean outputs."),
    "exact_top": typer.Option(
        min=0, help="Patch this many edges exactly, those with the largest estimates; the others rank below."
    ),
    "rule": typer.Option(help=f"Methods with eap-ig: {' or '.join(f'{name} ({what})' for name, what in IG_RULES.items())}."),
    "n_draws": typer.Option(min=1, help="Random circuits of each size, for comparison."),
}


@run_command(CircuitSpec, OPTIONS, skip=("memory",))
def circuit(
    terminal: Terminal,
    request: Request,
    comparison: Annotated[
        list[str] | None,
        typer.Argument(metavar="compare A B", help="Compare two circuits instead: run directories or circuit files."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Score every edge of the computational graph, keep the largest, and measure how faithful they alone are on other prompts.

    effect = metric(corrupted edge) - metric(clean). The test prompts of a task are those of the next seed; a file of prompts is halved.
    `interp circuit compare A B` compares two circuits.
    """
    if comparison:
        _compare(terminal, comparison)
    elif (run := request.run(request.prepare_task(settings))) is not None:
        print_circuit(terminal, run, EDGES_SHOWN)
        print_location(terminal, run, "prints its edges and draws them")
        terminal.emit(circuit_json(run))


def _compare(terminal: Terminal, comparison: list[str]) -> None:
    from interp.circuits import compare_circuits, score_agreement

    if len(comparison) != 3 or comparison[0] != "compare":
        is_comparison = comparison[0] == "compare"
        wrong = "`compare` needs two circuits" if is_comparison else f"`interp circuit` has no action {comparison[0]!r}"
        raise UsageError(f"{wrong}: write `interp circuit compare A B`, or only options to find a circuit.")
    paths = [user_path(word) for word in comparison[1:]]
    first, second = (_load(path) for path in paths)
    with usage_errors():
        table, agreement = compare_circuits(first, second), score_agreement(first, second)
    provenance = [_provenance(circuit) for circuit in (first, second)]
    weights = {facts["weights_digest"] for facts in provenance}
    if first.model != second.model:
        terminal.say(f"Note: the circuits are of two models, {first.model or 'unnamed'} and {second.model or 'unnamed'}.")
    elif len(weights - {""}) > 1:
        terminal.say(f"Note: the circuits are of two models, which are both called {first.model} and have other weights.")
    terminal.table(("", *provenance[0]), [(letter, *facts.values()) for letter, facts in zip("AB", provenance, strict=True)])
    names = ("what", "pool", "n_first", "n_second", "shared", "expected", "p_value")
    titles = ("", "of", "A", "B", "shared", "by chance", "p")
    rows = [[_cell(name, row[name]) for name in names] for row in table.to_dict("records")]
    terminal.table(titles, rows, right=titles[1:])
    terminal.line(f"Spearman correlation of the absolute scores of all edges: {agreement:.3f}.")
    inputs = {"first": str(paths[0]), "second": str(paths[1]), "provenance": provenance}
    terminal.emit({**inputs, "overlap": table.to_dict("records"), "spearman": agreement})


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return "< 0.001" if name == "p_value" and value < 0.001 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _provenance(circuit: "Circuit") -> dict[str, str]:
    """Model, weights, task, method, metric and ablation of a circuit, empty where its file does not say."""
    record = circuit.metadata.get("record") or {}
    ablation = record.get("arguments", {}).get("ablation", COUNTERFACTUAL) if record else ""
    facts = {"model": circuit.model, "weights_digest": record.get("weights_digest", ""), "task": record.get("task", "")}
    return {**facts, "method": circuit.metadata.get("method", ""), "metric": record.get("metric", ""), "ablation": ablation}


def _load(path: Path) -> "Circuit":
    from interp.circuits import load_circuit
    from interp.store import load_circuit_run

    return load_circuit_run(path)[0] if path.is_dir() else load_circuit(path)
