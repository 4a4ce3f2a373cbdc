"""The pictures that a run directory holds."""

from typing import TYPE_CHECKING

from interp.cli.detection_output import ROLE_RUN_KINDS

if TYPE_CHECKING:
    from interp.store import StoredRun


def save_run_figures(run: "StoredRun") -> None:
    """Writes pictures into the run directory, where missing: of a sweep ``heads.png`` (the head map) and ``ranking.png``, of an observation
    a head map for each metric, ``heads-METRIC.png``, of detections, confirmations and circuits what there is to draw.

    The interactive form carries plotly with it, five megabytes a file: `interp show --figure x.html` makes it when it is wanted.
    """
    from interp.figures import run_figure, save_figure

    for name, what in _figures_to_save(run).items():
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(run_figure(run, *what), file)


def _figures_to_save(run: "StoredRun") -> dict[str, tuple[str, ...]]:
    """The pictures of a run by file name: what is drawn, and of which metric."""
    from interp.figures.run_figures import available_figures

    if run.manifest["details"].get("kind") in (*ROLE_RUN_KINDS, "circuit"):
        return {name: (name,) for name in available_figures(run) if name not in ("layers", "tokens")}
    there = set(run.heads()["metric"])
    pictures = {f"heads-{name}": ("heads", name) for name in run.metrics if name in there}
    return pictures or {"heads": ("heads",), "ranking": ("ranking",)}
