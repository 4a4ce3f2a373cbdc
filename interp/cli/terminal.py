"""What a command says and where: results on stdout, everything else on stderr."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WIDTH_OF_PIPE = 140
SECONDS_BEFORE_BAR = 2.0


@dataclass(frozen=True)
class Terminal:
    """The two streams of one command. ``json``: stdout carries one JSON object and nothing else; ``quiet``: stderr only errors."""

    json: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet:
            sys.stderr.write(text + "\n")

    def fail(self, sentence: str, code: int) -> None:
        """Why the command ends without a result; with ``--json`` also as an object on stdout."""
        sys.stderr.write(sentence + "\n")
        self.emit({"error": sentence, "exit_code": code})

    def emit(self, values: dict[str, Any]) -> None:
        """The result as one JSON object on stdout, NaN as null; nothing without ``--json``."""
        if self.json:
            sys.stdout.write(json.dumps(to_json_value(values), allow_nan=False, indent=2) + "\n")

    def line(self, text: str = "") -> None:
        """A line of the result for a reader; nothing with ``--json``."""
        if not self.json:
            sys.stdout.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table on stdout, the columns named in ``right`` aligned to the right; nothing with ``--json``."""
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
        Console(width=None if sys.stdout.isatty() else WIDTH_OF_PIPE, highlight=False).print(table)

    @contextmanager
    def progress(self, what: str, forced: bool = False) -> Iterator[Callable[[int, int], None]]:
        """A function (done, total) that draws a bar with the time left on stderr, for work of over two seconds.

        Only where stderr is a terminal, or where it is forced.
        """
        from tqdm import tqdm

        hidden = self.quiet or not (forced or sys.stderr.isatty())
        delay = 0.0 if forced else SECONDS_BEFORE_BAR
        with tqdm(desc=what, unit="unit", file=sys.stderr, delay=delay, disable=hidden, leave=False) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show


def to_json_value(value: Any) -> Any:
    """The value with JSON types only: NumPy numbers as Python's, NaN as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): to_json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
