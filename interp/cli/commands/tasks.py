"""`interp tasks`: the tasks that supply prompts."""

from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal


@command
def tasks(terminal: Terminal) -> None:
    """List the tasks with their description, metric and marks."""
    from interp.tasks import TASKS

    known = TASKS.entries().values()
    rows = [{"name": t.name, "about": t.about, "metric": t.metric, "marks": list(t.marks), "paper": t.paper} for t in known]
    terminal.table(
        ("task", "description", "metric", "marks", "paper"),
        [(r["name"], r["about"], r["metric"], ", ".join(r["marks"]), r["paper"]) for r in rows],
    )
    terminal.emit({"tasks": rows})
