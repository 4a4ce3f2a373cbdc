"""Marks written into the text itself, so that they cannot drift from the words they name.

``mark("io", "Mary")`` wraps a text in control characters, ``read_marks`` removes them and says where each lies. Marks nest.
"""

import re

from interp.tasks.task import Span

_OPEN, _NAMED, _CLOSE = "\x01", "\x02", "\x03"
_PIECE = re.compile(f"{_OPEN}([^{_NAMED}]*){_NAMED}|({_CLOSE})")


def mark(name: str, text: str) -> str:
    """The text, marked with a name."""
    return f"{_OPEN}{name}{_NAMED}{text}{_CLOSE}"


def read_marks(text: str) -> tuple[str, dict[str, Span]]:
    """The text without marks, and the half-open character span of each mark in it."""
    plain, place, opened, spans = "", 0, [], {}
    for piece in _PIECE.finditer(text):
        plain += text[place : piece.start()]
        place = piece.end()
        if piece[2]:
            name, start = opened.pop()
            spans[name] = (start, len(plain))
        else:
            opened.append((piece[1], len(plain)))
    return plain + text[place:], spans


def after(text: str, span: Span) -> Span:
    """The first character after a span that is not a space, as a mark of the token that follows. ValueError at the end."""
    found = re.compile(r"\S").search(text, span[1])
    if not found:
        raise ValueError(f"Nothing follows {text[slice(*span)]!r} in {text!r}.")
    return found.span()
