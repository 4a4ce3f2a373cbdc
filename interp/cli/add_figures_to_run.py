"""The figures that a run directory holds."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.store import StoredRun


def save_run_figures(run: "StoredRun") -> None:
    """Writes the missing figures into the run directory: of an ablation ``heads.png`` (the head map) and ``ranking.png``, of an observation
    a head map for each metric, ``heads-METRIC.png``, of detections, confirmations and circuits every available figure.

    An interactive file carries five megabytes of plotly: `interp show --figure x.html` writes one on demand.
    """
    from interp.figures import run_figure, save_figure

    for name, arguments in _figures_to_save(run).items():
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(run_figure(run, *arguments), file)


def _figures_to_save(run: "StoredRun") -> dict[str, tuple[str, ...]]:
    """The figures of a run by file name: their kind, and the metric."""
    from interp.figures.run_figures import available_figures

    if run.manifest["details"].get("kind") in ("detection", "confirmation", "circuit"):
        return {name: (name,) for name in available_figures(run) if name not in ("layers", "tokens")}
    stored = set(run.heads()["metric"])
    figures = {f"heads-{name}": ("heads", name) for name in run.metrics if name in stored}
    return figures or {"heads": ("heads",), "ranking": ("ranking",)}
