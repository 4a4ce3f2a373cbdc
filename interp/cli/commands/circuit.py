"""`interp circuit`: which edges carry a behaviour, and how far they do alone; the answer is stored in a run directory.

Nothing is written before everything is measured: a wrong argument leaves no run directory behind.
"""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.circuits.methods import EDGE_ABLATIONS
from interp.circuits.methods import METHODS as SCORES
from interp.cli.circuit_output import COUNTERFACTUAL, EDGES_SHOWN, EXACT, circuit_json, print_circuit
from interp.cli.command import command
from interp.cli.exit_codes import UsageError, usage_errors
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bar,
    Device,
    Dtype,
    Fresh,
    Metric,
    ModelName,
    Offline,
    TaskName,
    load,
)
from interp.cli.prompts import check_task_options, discovery_and_test_tasks
from interp.cli.run_directory import find_finished_run, move_aside
from interp.cli.run_pictures import save_run_figures
from interp.cli.terminal import Terminal
from interp.registry import check_name

if TYPE_CHECKING:
    from interp.circuits import Circuit, EdgeScores
    from interp.models.model import Model
    from interp.store import StoredRun
    from interp.tasks.task import Task

ACDC, IG_METHOD = "acdc", "eap-ig"
METHODS = {**SCORES, ACDC: "edges corrupted for good one after another, as long as that does little harm"}
DEFAULT_SHARE = 0.1
"""Of all edges, where neither a size nor a threshold is given."""


@command
def circuit(
    terminal: Terminal,
    comparison: Annotated[
        list[str] | None,
        typer.Argument(metavar="[compare A B]", help="Compare two circuits, run directories or circuit files, instead."),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    task: TaskName = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Your own pairs of prompts instead: a JSON Lines file. Found on one half of them, tested on the other."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}.")] = "eap-ig",
    size: Annotated[int | None, typer.Option(min=1, help="Edges of the circuit; by default a tenth of all.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Smallest effect of an edge, in the metric's unit, instead of --size; of acdc by default 1% of the gap."
        ),
    ] = None,
    ablation: Annotated[str, typer.Option(help=f"What corrupted edges show: {', '.join(EDGE_ABLATIONS)}.")] = COUNTERFACTUAL,
    steps: Annotated[int, typer.Option(min=1, help="eap-ig: points between the corrupted and the clean embedding.")] = 10,
    metric: Metric = None,
    n_prompts: Annotated[int, typer.Option("--n-prompts", "-n", help="Prompts to find it on, and others to test it on.")] = 32,
    draws: Annotated[int, typer.Option(min=1, help="Random circuits of each size.")] = 5,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Of prompts, halves and draws; of a task it is tested on the prompts of the next one."),
    ] = 0,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/circuit-TASK-MODEL-METHOD-DIGEST.")] = None,
    fresh: Fresh = False,
    offline: Offline = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    progress: Bar = False,
) -> None:
    """Score every edge of the model's graph, keep the largest, and say how much of the behaviour they carry alone.

    effect = metric(corrupted edge) - metric(clean). `interp circuit compare A B` says what two circuits share.
    """
    if comparison:
        return _compare(terminal, comparison)
    _check(task, prompts, method, ablation, metric, size, threshold)
    loaded = load(model, device, dtype, offline)
    with usage_errors():
        question, other = discovery_and_test_tasks(loaded, task, prompts, n_prompts, seed, paired=ablation == COUNTERFACTUAL)
        how = {"size": size, "threshold": threshold, "draws": draws, "seed": seed}
        asked = asked_of(loaded, (question, other), method, ablation, metric, steps, **how)
    spec = spec_of(loaded, question, other, asked)
    folder = out or Path("runs") / folder_name(spec)
    if dry_run:
        return _say_plan(terminal, spec, loaded, folder)
    run = find_finished_run(terminal, folder, spec, fresh)
    if run is None:
        run = _search(terminal, loaded, question, other, asked, folder, spec, fresh, progress)
    save_run_figures(run)
    print_circuit(terminal, run, EDGES_SHOWN)
    terminal.line(f"Stored in {run.path}. `interp show {shlex.quote(str(run.path))}` prints all its edges and draws them.")
    terminal.emit(circuit_json(run))
    return None


def _check(
    task: str | None,
    prompts: Path | None,
    method: str,
    ablation: str,
    metric: str | None,
    size: int | None,
    threshold: float | None,
) -> None:
    """Raises for everything that can be known to be wrong before a model is loaded."""
    from interp.metrics.outcomes import OUTCOMES

    check_task_options(task, prompts)
    if metric is not None:
        check_name(metric, OUTCOMES.names(), "metric")
    check_method(method, ablation)
    if size is not None and threshold is not None:
        raise UsageError("--size and --threshold both say which edges are kept: give one of them.")
    if size is not None and method == ACDC:
        raise UsageError("--method acdc decides itself how many edges are kept: give --threshold instead of --size.")
    if threshold is not None and not threshold > 0:
        raise UsageError(f"--threshold {threshold:g} is no size of an effect: give a number above 0.")


def check_method(method: str, ablation: str) -> None:
    """Raises LookupError for what is not known, UsageError for what does not go together."""
    check_name(method, METHODS, "method")
    check_name(ablation, EDGE_ABLATIONS, "ablation of edges")
    if method == ACDC and ablation != COUNTERFACTUAL:
        raise UsageError(f"acdc corrupts edges by the corrupted prompt, not by {ablation}: leave out --ablation.")


def asked_of(
    model: "Model", tasks: "tuple[Task, Task]", method: str, ablation: str, metric: str | None, steps: int, **how: Any
) -> dict[str, Any]:
    """What is asked of the model and the two tasks, with ``how`` (size, threshold, draws, seed). Raises ValueError for a model without
    edges, prompts without what the ablation or the metric needs, and a metric without a gradient where one is needed."""
    import torch

    from interp.circuits.edge_ablation import check_edge_ablation
    from interp.engine.edges.edge_patching import graph_of
    from interp.engine.edges.residual_decomposition import decompose_residual
    from interp.engine.gradients.attribution_patching import check_gradient
    from interp.engine.sweep.sweep import check_outcome
    from interp.metrics.outcomes import OUTCOMES

    measured = metric or tasks[0].metric
    graph_of(model)
    with model.lock, torch.inference_mode():
        decompose_residual(model, tasks[0].examples[:1])  # refuses a residual stream that is no sum of parts
    for task in tasks:
        check_edge_ablation(task, ablation)
        check_outcome(task, OUTCOMES.get(measured))
    if method not in (EXACT, ACDC):
        check_gradient(OUTCOMES.get(measured))
    stepped = {"steps": steps} if method.startswith(IG_METHOD) else {}
    return {"method": method, "ablation": ablation, "metric": measured, **how, **stepped}


def spec_of(model: "Model", task: "Task", other: "Task", asked: dict[str, Any]) -> dict[str, Any]:
    """What determines the numbers: two runs of the same spec are the same run."""
    facts = model.facts
    where = {"model": facts.name, "weights": facts.weights_digest, "dtype": facts.dtype, "device": str(model.device)}
    what = {"task": task.name, "arguments": task.arguments, "examples": task.digest(), "test_examples": other.digest()}
    return {"kind": "circuit", **where, **what, **asked}


def folder_name(spec: dict[str, Any]) -> str:
    from interp.records import digest

    return f"circuit-{spec['task']}-{Path(spec['model']).name}-{spec['method']}-{digest(spec)[:8]}"


def _say_plan(terminal: Terminal, spec: dict[str, Any], model: "Model", folder: Path) -> None:
    from interp.engine.edges.edge_patching import graph_of

    n_edges = len(graph_of(model).edges)
    terminal.line(
        f"{spec['method']} of the {n_edges:,} edges of {spec['model']} by {spec['metric']} on {spec['task']}, ablation "
        f"{spec['ablation']}, to be stored in {folder}. Nothing was run."
    )
    terminal.emit({"dry_run": True, **spec, "n_edges": n_edges, "out": str(folder)})


def _search(
    terminal: Terminal,
    model: "Model",
    task: "Task",
    other: "Task",
    asked: dict[str, Any],
    folder: Path,
    spec: dict[str, Any],
    fresh: bool,
    bar: bool,
) -> "StoredRun":
    """The finished run, of what is found on ``task`` and tested on ``other``."""
    from interp.circuits import faithfulness_curve
    from interp.store import save_circuit

    began = time.perf_counter()
    with usage_errors():
        with terminal.progress(f"{asked['method']} on {task.name}", bar) as progress:
            scores = _scores(model, task, asked, progress)
        k = _size(scores, asked)
        found = scores.circuit(k)
        with terminal.progress(f"circuits on {other.name}", bar) as progress:
            shares = _shares(scores, min(k, scores.n_nonzero))
            given = {"shares": shares, "draws": asked["draws"], "seed": asked["seed"]}
            curve = faithfulness_curve(model, other, scores, **given, progress=progress)
    terminal.say(f"Scored {len(scores.graph.edges):,} edges and tested circuits in {time.perf_counter() - began:.1f} s.")
    if fresh:
        move_aside(terminal, folder)
    seen = {example.clean for example in task}
    said: dict[str, Any] = {"n_discovery_prompts": len(task), "n_test_prompts": len(other)}
    said["n_shared_prompts"] = sum(example.clean in seen for example in other)
    if shares[-1] == 1:
        said |= {"cpr": curve.cpr, "cmd": curve.cmd, "size_at_85": curve.size_at()}
    return save_circuit(found, scores, curve, folder, spec, **said)


def _scores(model: "Model", task: "Task", asked: dict[str, Any], progress: Any) -> "EdgeScores":
    from interp.circuits import acdc, score_edges

    if asked["method"] == ACDC:
        return acdc(model, task, threshold=asked["threshold"], metric=asked["metric"], absolute=True, progress=progress)
    options = {name: asked[name] for name in ("method", "metric", "ablation", "seed", "steps") if name in asked}
    return score_edges(model, task, **options, progress=progress)


def _size(scores: "EdgeScores", asked: dict[str, Any]) -> int:
    """How many edges are kept. Raises ValueError where none is."""
    if asked["size"] is not None:
        return min(asked["size"], len(scores.graph.edges))
    smallest = asked["threshold"]
    if asked["method"] != ACDC and smallest is None:
        return max(1, int(DEFAULT_SHARE * len(scores.graph.edges)))
    sizes = abs(scores.effects)
    kept = scores.n_nonzero if asked["method"] == ACDC else int((sizes >= smallest).sum())
    if not kept:
        largest = "" if asked["method"] == ACDC else f" The largest effect is {sizes.max():.3g} {scores.unit}."
        raise ValueError(
            f"The threshold {scores.record.arguments.get('threshold', smallest):.3g} leaves no edge: give a lower one.{largest}"
        )
    return kept


def _shares(scores: "EdgeScores", k: int) -> list[float]:
    """The sizes of MIB and the circuit's own, as shares of all edges; acdc does not rank the edges that it removes."""
    from interp.circuits.faithfulness import MIB_EDGE_SHARES

    n_edges = len(scores.graph.edges)
    own = min(1.0, (k + 0.5) / n_edges)
    return sorted({own, *(s for s in MIB_EDGE_SHARES if int(s * n_edges) != k and (scores.method != ACDC or s < own))})


def _compare(terminal: Terminal, comparison: list[str]) -> None:
    from interp.circuits import compare_circuits, score_agreement

    if len(comparison) != 3 or comparison[0] != "compare":
        raise UsageError(
            f"{' '.join(comparison)!r} is no comparison: write `interp circuit compare A B`, or options alone to find a circuit."
        )
    paths = [Path(word) for word in comparison[1:]]
    first, second = (_read(path) for path in paths)
    with usage_errors():
        table, agreement = compare_circuits(first, second), score_agreement(first, second)
    found = [_provenance(read) for read in (first, second)]
    weights = {facts["weights_digest"] for facts in found}
    if first.model != second.model:
        terminal.say(f"Note: the circuits are of two models, {first.model or 'unnamed'} and {second.model or 'unnamed'}.")
    elif len(weights - {""}) > 1:
        terminal.say(f"Note: the circuits are of two models, which are both called {first.model} and have other weights.")
    terminal.table(("", *found[0]), [(letter, *facts.values()) for letter, facts in zip("AB", found, strict=True)])
    names = ("what", "pool", "n_first", "n_second", "shared", "expected", "p_value")
    titles = ("", "of", "A", "B", "shared", "by chance", "p")
    rows = [[f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names] for row in table.to_dict("records")]
    terminal.table(titles, rows, right=titles[1:])
    terminal.line(f"Spearman correlation of the sizes of all scores: {agreement:.3f}.")
    said = {"first": str(paths[0]), "second": str(paths[1]), "found": found}
    terminal.emit({**said, "overlap": table.to_dict("records"), "spearman": agreement})


def _provenance(read: "Circuit") -> dict[str, str]:
    """Model, weights, task, method, metric and ablation of a circuit, empty where its file does not say."""
    record = read.about.get("record") or {}
    ablation = record.get("arguments", {}).get("ablation", COUNTERFACTUAL) if record else ""
    facts = {"model": read.model, "weights_digest": record.get("weights_digest", ""), "task": record.get("task", "")}
    return {**facts, "method": read.about.get("method", ""), "metric": record.get("metric", ""), "ablation": ablation}


def _read(path: Path) -> "Circuit":
    from interp.circuits import load_circuit
    from interp.store import load_circuit_run

    return load_circuit_run(path)[0] if path.is_dir() else load_circuit(path)
