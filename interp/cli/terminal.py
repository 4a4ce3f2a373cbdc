"""The output of a command: results on stdout, everything else on stderr."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

WIDTH_OF_PIPE = 140
SECONDS_BEFORE_BAR = 2.0
SECONDS_BEFORE_LINE = 10.0


@dataclass(frozen=True)
class Terminal:
    """The two streams of one command. ``json``: one JSON object on stdout and nothing else; ``quiet``: only errors on stderr."""

    json: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """Writes a remark to stderr."""
        if not self.quiet:
            sys.stderr.write(text + "\n")

    def fail(self, sentence: str, code: int) -> None:
        """Writes why the command ends without a result; with ``--json`` also as an object on stdout."""
        sys.stderr.write(sentence + "\n")
        self.emit({"error": sentence, "exit_code": code})

    def emit(self, values: dict[str, Any]) -> None:
        """Writes the result as one JSON object to stdout, NaN as null; nothing without ``--json``."""
        if self.json:
            sys.stdout.write(json.dumps(to_json_value(values), allow_nan=False, indent=2) + "\n")

    def line(self, text: str = "") -> None:
        """Writes a line of the result to stdout; nothing with ``--json``."""
        if not self.json:
            sys.stdout.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
        """Writes a table to stdout, the columns in ``right`` right-aligned; nothing with ``--json``."""
        if self.json:
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))  # Text: tokens and names are never read as markup
        console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_PIPE, highlight=False)
        with console.capture() as drawn:  # rich would end the process itself where the reader has closed the pipe
            console.print(table)
        sys.stdout.write(drawn.get())

    @contextmanager
    def progress(self, title: str, forced: bool = False) -> Iterator[Callable[[int, int], None]]:
        """A function (done, total) that shows the progress of work of more than two seconds on stderr, with the remaining time: as a bar
        where stderr is a terminal, or where ``forced``, and else as a line now and then."""
        from tqdm import tqdm

        if self.quiet:
            yield lambda done, total: None
        elif forced or sys.stderr.isatty():
            delay = 0.0 if forced else SECONDS_BEFORE_BAR
            with tqdm(desc=title, unit="unit", file=sys.stderr, delay=delay, leave=False, disable=False) as bar:

                def show(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                yield show
        else:
            yield _Lines(title, self.say)


class _Lines:
    """Progress as lines for a file: the first after ten seconds, then each time that the work has gone on for half as long again."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self.title, self.say = title, say
        self.start, self.next = monotonic(), SECONDS_BEFORE_LINE
        self.first: tuple[int, float] | None = None  # what a resumed run had is done within no time

    def __call__(self, done: int, total: int) -> None:
        passed = monotonic() - self.start
        if self.first is None or passed < 1:
            self.first = done, passed
        if passed >= self.next and done < total:
            self.next = 1.5 * passed
            n, seconds = done - self.first[0], passed - self.first[1]
            left = f", about {seconds / n * (total - done):.0f} s left" if n else ""
            self.say(f"{self.title}: {done:,} of {total:,} units after {passed:.0f} s{left}.")


def discard_output() -> None:
    """Sends what is left in stdout and stderr nowhere, once the reader of a pipe such as `| head -1` has closed it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def to_json_value(value: Any) -> Any:
    """The value in JSON types: NumPy numbers as Python's, NaN as None, tuples as lists, paths as text."""
    if isinstance(value, dict):
        return {str(key): to_json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
