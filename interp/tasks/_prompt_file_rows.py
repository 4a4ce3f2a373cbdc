"""The rows of a file of prompts: JSON Lines, a JSON array, or CSV with a header.

A cell of CSV is text; an empty one is as good as none. A list of words, and marks, are written into a cell as JSON.
"""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

from interp.errors import counted

KEYS = ("clean", "corrupted", "answer", "distractor", "marks", "cluster")
FORMS = f"give JSON Lines (one object per line), a JSON array, or CSV, with the keys {', '.join(KEYS)}"
SIGNATURES = {
    b"PK": "a ZIP file or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""The first bytes of files that are taken for text."""

DELIMITERS = {",": "CSV", "\t": "TSV", ";": "CSV with semicolons"}


def prompt_rows(name: str, text: str) -> Iterator[tuple[str, str]]:
    """The place of each row, and the row as a line of JSON. Raises ValueError that says what a file of another form looks like; ``name``
    is that of the file."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    first = lines[0][1].strip() if lines else ""
    if first.startswith("["):
        yield from ((f"prompt {number}", json.dumps(row)) for number, row in enumerate(_array(name, text), 1))
    elif first == "{" or (first.startswith("{") and _is_json(text) and len(lines) > 1):
        raise ValueError(f"{name} looks like JSON with an object over several lines: {FORMS}.")
    elif first.startswith("{") or not first or _is_json(first):
        yield from ((f"line {number}", line) for number, line in lines)
    else:
        yield from _table(name, text, [line for _, line in lines])


def what_bytes_are(content: bytes) -> str | None:
    """What a file that is no text looks like, by its first bytes; None where they tell nothing."""
    return next((what for start, what in SIGNATURES.items() if content.startswith(start)), None)


def _array(name: str, text: str) -> list[Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}"
        raise ValueError(f"{name} looks like a JSON array, but {place} is not JSON ({error.msg}): {FORMS}.") from None
    except RecursionError:
        raise ValueError(f"{name} is JSON of absurd depth.") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _table(name: str, text: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    """The rows of CSV. Raises ValueError for any other file."""
    widths = {delimiter: [line.count(delimiter) for line in lines[:5]] for delimiter in DELIMITERS}
    delimiter = next((d for d in DELIMITERS if {"clean", "answer"} <= {*_cells(lines[0], d)}), None)
    if delimiter != ",":
        like = delimiter or next((d for d, n in widths.items() if len(lines) > 1 and n[0] and len({*n}) == 1), None)
        what = f"{DELIMITERS[like]} with the columns {', '.join(_cells(lines[0], like))}" if like else "plain text"
        raise ValueError(f"{name} looks like {what}: {FORMS}.")
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{name}, line {reader.line_num}: This row has {counted(len(cells), 'cell')}, and the header {len(header)}."
                )
            pairs = (f"{json.dumps(key)}: {json.dumps(_value(key, cell))}" for key, cell in zip(header, cells, strict=True))
            yield f"line {reader.line_num}", f"{{{', '.join(pairs)}}}"
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: This is not CSV ({error}).") from None


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _value(key: str, cell: str) -> Any:
    """The value in a cell: marks and lists of words as JSON, anything else as text, None for an empty cell."""
    if not cell.strip():
        return None
    written = key == "marks" or (key in ("answer", "distractor") and cell.lstrip().startswith("["))
    return json.loads(cell) if written and _is_json(cell) else cell
