"""`interp tasks`: what can be asked."""

from interp.cli.command import command
from interp.cli.terminal import Terminal


@command
def tasks(terminal: Terminal) -> None:
    """List the tasks, with what each asks, its metric and its marks."""
    from interp.tasks import TASKS

    known = TASKS.entries().values()
    rows = [{"name": t.name, "about": t.about, "metric": t.metric, "marks": list(t.marks), "paper": t.paper} for t in known]
    terminal.table(
        ("task", "asks", "metric", "marks", "paper"),
        [(r["name"], r["about"], r["metric"], ", ".join(r["marks"]), r["paper"]) for r in rows],
    )
    terminal.emit({"tasks": rows})
