"""The pictures that a run directory holds."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.store import Run


def save_pictures(run: "Run") -> None:
    """Writes pictures into the run directory, where missing: of a sweep ``heads.png`` (the head map) and ``ranking.png``, of an observation
    a head map for each metric, ``heads-METRIC.png``.

    The interactive form carries plotly with it, five megabytes a file: `interp show --figure x.html` makes it when it is wanted.
    """
    from interp.figures import run_figure, save_figure

    there = set(run.heads()["metric"])
    pictures = {f"heads-{name}": ("heads", name) for name in run.metrics if name in there}
    for name, what in (pictures or {"heads": ("heads",), "ranking": ("ranking",)}).items():
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(run_figure(run, *what), file)
