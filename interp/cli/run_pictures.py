"""The pictures that a run directory holds."""

from typing import TYPE_CHECKING

from interp.cli.detection_output import ROLE_RUNS

if TYPE_CHECKING:
    from interp.store import Run


def save_pictures(run: "Run") -> None:
    """Writes pictures into the run directory, where missing: of a sweep ``heads.png`` (the head map) and ``ranking.png``, of an observation
    a head map for each metric, ``heads-METRIC.png``, of detections, confirmations and circuits what there is to draw.

    The interactive form carries plotly with it, five megabytes a file: `interp show --figure x.html` makes it when it is wanted.
    """
    from interp.figures import run_figure, save_figure

    for name, what in _pictures(run).items():
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(run_figure(run, *what), file)


def _pictures(run: "Run") -> dict[str, tuple[str, ...]]:
    """The pictures of a run by file name: what is drawn, and of which metric."""
    from interp.figures.run_figures import drawings_of

    if run.manifest["details"].get("kind") in (*ROLE_RUNS, "circuit"):
        return {name: (name,) for name in drawings_of(run) if name not in ("layers", "tokens")}
    there = set(run.heads()["metric"])
    pictures = {f"heads-{name}": ("heads", name) for name in run.metrics if name in there}
    return pictures or {"heads": ("heads",), "ranking": ("ranking",)}
