"""The pictures of a run: those that its directory holds, and those that are drawn when they are wanted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.exits import UsageError

if TYPE_CHECKING:
    from interp.store import Run

DRAWINGS = ("heads", "layers", "tokens")


def draw(run: "Run", drawing: str = "heads", metric: str | None = None, minus: Path | None = None) -> Any:
    """A plotly figure: ``heads`` (layer x head), ``layers`` (a dot for each head) or ``tokens`` (the first text), of one metric (default:
    the first); with ``minus`` the difference to the same metric of that run."""
    from interp.figures import difference_map, head_map, layer_dots, token_strip
    from interp.store import open_run

    if drawing not in DRAWINGS:
        raise UsageError(f"--draw {drawing!r} is no drawing. There are: {', '.join(DRAWINGS)}.")
    if minus is not None:
        if drawing != "heads":
            raise UsageError(f"A difference is drawn as heads, not as {drawing}: leave out --draw or --minus.")
        return difference_map(run.scores(metric), open_run(minus).scores(metric))
    if drawing == "tokens":
        scores = run.token_scores(metric)
        return token_strip(scores, title=f"{scores.name} of each token, mean over all heads")
    if drawing == "layers":
        return layer_dots(run.scores(metric))
    return head_map(run.scores(metric)) if run.metrics else head_map(run.heads(), shape=run.manifest["details"]["shape"])


def save_pictures(run: "Run") -> None:
    """Writes pictures into the run directory, where missing: of a sweep ``heads.png`` (the head map) and ``ranking.png``, of an observation
    a head map for each metric, ``heads-METRIC.png``.

    The interactive form carries plotly with it, five megabytes a file: `interp show --figure x.html` makes it when it is wanted.
    """
    from interp.figures import ranked_bars, save_figure

    there = set(run.heads()["metric"])
    pictures = {f"heads-{name}": lambda name=name: draw(run, metric=name) for name in run.metrics if name in there}
    for name, make in (pictures or {"heads": lambda: draw(run), "ranking": lambda: ranked_bars(run.heads())}).items():
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(make(), file)
