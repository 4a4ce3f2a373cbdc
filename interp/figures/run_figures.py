"""The pictures of a stored run: which there are, and each by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.figures.head_map import head_map
from interp.figures.layer_dots import layer_dots
from interp.figures.ranked_bars import ranked_bars
from interp.figures.token_strip import token_strip

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.store import Run

DRAWINGS = ("heads", "layers", "tokens", "ranking")


def drawings_of(run: Run) -> list[str]:
    """What can be drawn of a run: ``heads`` (layer x head) and ``layers`` (a dot for each head) where there is one number a head,
    ``tokens`` (the first text) where there is one a token, ``ranking`` (bars with intervals) of a sweep."""
    stored = {"heads": "heads.parquet", "layers": "heads.parquet", "tokens": "tokens.parquet", "ranking": "examples.parquet"}
    return [name for name in DRAWINGS if stored[name] in run.manifest["files"]]


def run_figure(run: Run, drawing: str = "heads", metric: str | None = None) -> go.Figure:
    """One of ``drawings_of`` a run, of one metric of an observation (default: the first).

    Raises LookupError for a drawing or a metric that is not there, ValueError for the ranking of an observation.
    """
    if drawing not in DRAWINGS:
        raise LookupError(f"{drawing!r} is no drawing. There are: {', '.join(DRAWINGS)}.")
    if drawing == "tokens":
        scores = run.token_scores(metric)
        return token_strip(scores, title=f"{scores.name} of each token, mean over all heads")
    if drawing == "layers":
        return layer_dots(run.scores(metric))
    if drawing == "ranking":
        if run.metrics:
            raise ValueError(f"A ranking has intervals, which only a sweep has: draw {run.path.name} as heads.")
        return ranked_bars(run.heads())
    return head_map(run.scores(metric)) if run.metrics else head_map(run.heads(), shape=run.manifest["details"]["shape"])
