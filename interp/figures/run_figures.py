"""The figures of a stored run, by name."""

from __future__ import annotations

from interp.detectors import Detection, TokenDetection
from interp.figures.circuit_graph import circuit_graph
from interp.figures.confirmation_curve import confirmation_curve
from interp.figures.detection_map import detection_map
from interp.figures.faithfulness_plot import faithfulness_plot
from interp.figures.figure_with_png import Figure
from interp.figures.head_map import head_map
from interp.figures.needle_grid import needle_grid
from interp.figures.ranked_effects import ranked_effects
from interp.figures.scores_by_layer import scores_by_layer
from interp.figures.token_scores import token_scores_text
from interp.figures.waad_fai_strips import waad_fai_strips
from interp.store import StoredRun, load_circuit_run, load_confirmation, load_detection

FIGURE_FILES = {
    "heads": "heads.parquet",
    "layers": "heads.parquet",
    "waad_fai": "masks.safetensors",
    "tokens": "tokens.parquet",
    "ranking": "examples.parquet",
    "needle_grid": "cells.parquet",
    "confirmation_curve": "curve.parquet",
    "circuit": "circuit.json",
    "faithfulness": "faithfulness.parquet",
}
"""The file that a run must hold for each figure."""

FIGURE_KINDS = tuple(FIGURE_FILES)


def available_figures(run: StoredRun) -> list[str]:
    """Names of the figures of a run: ``heads`` (layer x head) and ``layers`` (a dot per head) of runs with one number per head, ``tokens``
    (the first text) of runs with one per token, ``ranking`` (bars with intervals) of ablations, ``waad_fai`` (the text with its preplan
    and anchor tokens) and ``needle_grid`` (recall by length and depth) of detections, ``confirmation_curve`` of confirmations, ``circuit``
    (the graph) and ``faithfulness`` (by circuit size) of circuits."""
    return [name for name, file in FIGURE_FILES.items() if file in run.manifest["files"]]


def run_figure(run: StoredRun, kind: str = "heads", metric: str | None = None) -> Figure:
    """One of ``available_figures``, of one metric of an observation or detection (default: the first).

    Raises LookupError for an unknown kind or metric, ValueError for the ranking of an observation.
    """
    if kind not in FIGURE_KINDS:
        raise LookupError(f"{kind!r} is no figure. There are: {', '.join(FIGURE_KINDS)}.")
    if kind == "confirmation_curve":
        return confirmation_curve(load_confirmation(run.path))
    if kind == "circuit":
        return circuit_graph(load_circuit_run(run.path)[0])
    if kind == "faithfulness":
        return faithfulness_plot(load_circuit_run(run.path)[1])
    if kind == "needle_grid":
        return needle_grid(run.table("cells"), run.record)
    if kind == "tokens":
        scores = run.token_scores(metric)
        mean = "" if _is_detection(run) else ", mean over all heads"
        return token_scores_text(scores, title=f"{scores.name} of each token{mean}")
    if kind == "layers":
        if metric in (None, "score") and _is_detection(run) and isinstance(found := load_detection(run.path), Detection):
            return scores_by_layer(found.scores, title=f"Role {found.role}: {found.scores.name} by layer")
        return scores_by_layer(run.scores(metric))
    if kind == "ranking":
        if run.metrics:
            raise ValueError(f"{run.path.name} is no ablation: a ranking needs the intervals of one. Use the figure `heads`.")
        return ranked_effects(run.heads())
    if kind == "waad_fai" and isinstance(found := load_detection(run.path), TokenDetection):
        return waad_fai_strips(found)
    if _is_detection(run) and metric in (None, "score") and isinstance(found := load_detection(run.path), Detection):
        return detection_map(found)
    return head_map(run.scores(metric)) if run.metrics else head_map(run.heads(), shape=run.manifest["details"]["shape"])


def _is_detection(run: StoredRun) -> bool:
    return run.manifest["details"].get("kind") == "detection"
