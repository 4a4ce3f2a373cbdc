"""The pictures of a stored run: which there are, and each by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.detectors import Detection, TokenDetection
from interp.figures.ablation_curve import ablation_curve
from interp.figures.circuit_graph import circuit_graph
from interp.figures.detection_map import detection_map
from interp.figures.faithfulness_plot import faithfulness_plot
from interp.figures.head_map import head_map
from interp.figures.needle_grid import needle_grid
from interp.figures.ranked_effects import ranked_effects
from interp.figures.scores_by_layer import scores_by_layer
from interp.figures.token_scores import token_scores_text
from interp.figures.waad_fai_strips import waad_fai_strips
from interp.store import load_circuit_run, load_confirmation, load_detection

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.store import StoredRun

FIGURE_FILES = {
    "heads": "heads.parquet",
    "layers": "heads.parquet",
    "roles": "masks.safetensors",
    "tokens": "tokens.parquet",
    "ranking": "examples.parquet",
    "grid": "cells.parquet",
    "dose": "curve.parquet",
    "circuit": "circuit.json",
    "faithfulness": "faithfulness.parquet",
}
"""What a run must hold for each drawing."""

FIGURE_KINDS = tuple(FIGURE_FILES)


def available_figures(run: StoredRun) -> list[str]:
    """What can be drawn of a run: ``heads`` (layer x head) and ``layers`` (a dot for each head) where there is one number a head,
    ``tokens`` (the first text) where there is one a token, ``ranking`` (bars with intervals) of a sweep; of a detection ``roles`` (the
    text with the tokens that play one) and ``grid`` (recall by length and depth), of a confirmation ``dose``, of a circuit ``circuit`` (its
    graph) and ``faithfulness`` (by its size)."""
    return [name for name, file in FIGURE_FILES.items() if file in run.manifest["files"]]


def run_figure(run: StoredRun, drawing: str = "heads", metric: str | None = None) -> go.Figure:
    """One of ``available_figures`` a run, of one metric of an observation or detection (default: the first).

    Raises LookupError for a drawing or a metric that is not there, ValueError for the ranking of an observation.
    """
    if drawing not in FIGURE_KINDS:
        raise LookupError(f"{drawing!r} is no drawing. There are: {', '.join(FIGURE_KINDS)}.")
    if drawing == "dose":
        return ablation_curve(load_confirmation(run.path))
    if drawing == "circuit":
        return circuit_graph(load_circuit_run(run.path)[0])
    if drawing == "faithfulness":
        return faithfulness_plot(load_circuit_run(run.path)[1])
    if drawing == "grid":
        return needle_grid(run.table("cells"), run.record)
    if drawing == "tokens":
        scores = run.token_scores(metric)
        mean = "" if _is_detection(run) else ", mean over all heads"
        return token_scores_text(scores, title=f"{scores.name} of each token{mean}")
    if drawing == "layers":
        return scores_by_layer(run.scores(metric))
    if drawing == "ranking":
        if run.metrics:
            raise ValueError(f"A ranking has intervals, which only a sweep has: draw {run.path.name} as heads.")
        return ranked_effects(run.heads())
    if drawing == "roles" and isinstance(found := load_detection(run.path), TokenDetection):
        return waad_fai_strips(found)
    if _is_detection(run) and metric in (None, "score") and isinstance(found := load_detection(run.path), Detection):
        return detection_map(found)
    return head_map(run.scores(metric)) if run.metrics else head_map(run.heads(), shape=run.manifest["details"]["shape"])


def _is_detection(run: StoredRun) -> bool:
    return run.manifest["details"].get("kind") == "detection"
