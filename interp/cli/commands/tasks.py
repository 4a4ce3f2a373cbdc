"""`interp tasks`: what can be asked."""

from interp.cli.command import command
from interp.cli.terminal import Terminal


@command
def tasks(terminal: Terminal) -> None:
    """List the tasks, with what each asks, its metric and its marks."""
    from interp.tasks import TASKS

    sources = [TASKS.get(name) for name in TASKS.names()]
    rows = [{"name": s.name, "about": s.about, "metric": s.metric, "marks": list(s.marks), "paper": s.paper} for s in sources]
    terminal.table(
        ("task", "asks", "metric", "marks", "paper"),
        [(r["name"], r["about"], r["metric"], ", ".join(r["marks"]), r["paper"]) for r in rows],
    )
    terminal.emit({"tasks": rows})
