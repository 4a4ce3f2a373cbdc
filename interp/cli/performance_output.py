"""How well the unchanged model does the task of a run, before any effect of it."""

from typing import TYPE_CHECKING

from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.records import RunRecord


def print_performance(terminal: Terminal, record: "RunRecord", control_tasks: list[str] | None = None) -> None:
    """On how many prompts the model is right, with a warning where these are too few; nothing for runs without answers."""
    for sentence in filter(None, [record.performance_sentence, *(control_tasks or ())]):
        terminal.line(sentence)
