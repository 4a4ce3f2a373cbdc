"""The state of a page, mirrored in its address: copying the address reproduces the view.

A page declares ``Field``s. ``State`` fills them from the address when a link is opened, keeps them while the user switches pages, and
writes those that differ from the default back. Addresses are untrusted: an invalid value is replaced by the default, with a notice.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from interp.heads import Head

STATE_KEY, LAST_QUERY_KEY = "state", "last_query"
PLAIN = 600
"""Longer texts are compressed in the address."""
LONGEST = 1 << 20
"""Maximum length of a text from an address, in characters."""
COMPRESSED = "~"


@dataclass(frozen=True)
class Field:
    """A named value of a page. ``read`` parses the text in the address and raises ValueError or LookupError for invalid text; ``write``
    is its inverse."""

    name: str
    default: Any
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def choice(name: str, options: Sequence[Any], default: Any = None, noun: str = "choice") -> Field:
    """One of some options, by default the first."""
    known = {str(option): option for option in options}

    def read(text: str) -> Any:
        if text not in known:
            raise LookupError(f"No {noun} is called {text[:40]!r}. There are: {', '.join(known)}.")
        return known[text]

    return Field(name, options[0] if default is None else default, read)


def several(name: str, options: Sequence[str], default: Sequence[str] = ()) -> Field:
    """Some of the options, in the order given, separated by commas."""
    one = choice(name, options)
    return Field(name, list(default), lambda text: [one.read(part) for part in text.split(",") if part], ",".join)


def number(name: str, default: float, low: float, high: float) -> Field:
    """A number from ``low`` to ``high``, an integer if the default is one."""
    kind = type(default)

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {text[:40]!r}.") from None
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, not {text[:40]}.")
        return value

    return Field(name, default, read)


def flag(name: str, default: bool = False) -> Field:
    """Yes or no."""
    one = choice(name, ["yes", "no"])
    return Field(name, default, lambda text: one.read(text) == "yes", lambda value: "yes" if value else "no")


def head(name: str = "head", default: Head | None = None) -> Field:
    """A head, written L5H1."""
    return Field(name, default, Head.parse)


def heads(name: str) -> Field:
    """Heads, written L5H1,L2H3."""

    def read(text: str) -> list[Head]:
        return list(dict.fromkeys(Head.parse(part) for part in text[:LONGEST].split(",") if part))

    return Field(name, [], read, lambda found: ",".join(map(str, found)))


def numbers(name: str, n: int) -> Field:
    """``n`` non-negative integers, separated by commas, or None."""

    def read(text: str) -> tuple[int, ...] | None:
        parts = text.split(",")
        if len(parts) != n or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise ValueError(f"{name} must be {n} non-negative integers separated by commas, not {text[:40]!r}.")
        return tuple(map(int, parts))

    return Field(name, None, read, lambda found: ",".join(map(str, found)))


def text(name: str, default: str = "") -> Field:
    """Any text; long ones are compressed."""
    return Field(name, default, _unpacked, _packed)


def _packed(value: str) -> str:
    if len(value) <= PLAIN and not value.startswith(COMPRESSED):
        return value
    raw = zlib.compress(value.encode("utf-8", "surrogatepass"), 9)
    return COMPRESSED + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpacked(value: str) -> str:
    if not value.startswith(COMPRESSED):
        return value
    try:
        raw = base64.b64decode(value[1:] + "=" * (-len(value[1:]) % 4), altchars=b"-_", validate=True)
        packed = zlib.decompressobj()
        found = packed.decompress(raw, LONGEST)
        if packed.unconsumed_tail or not packed.eof:
            raise ValueError("too long or cut")
        return found.decode("utf-8", "replace")  # a lone surrogate can be neither shown nor encoded
    except (ValueError, zlib.error):
        raise ValueError("The text in this address is damaged or cut: copy the whole address.") from None


class State:
    """The values of a page's fields in this session; ``notices`` lists the values of the address that were rejected, and ``opened``
    is whether this run opened an address or link that states them."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields = {field.name: field for field in fields}
        self.notices: list[str] = []
        st.session_state.setdefault(STATE_KEY, {})
        current = st.query_params.to_dict()
        # An opened address or link states every field; only links of the menu are empty.
        self.opened = bool(current) and current != st.session_state.get(LAST_QUERY_KEY)
        if self.opened:
            self.load_query(current)

    def __getitem__(self, name: str) -> Any:
        return st.session_state[STATE_KEY].get(name, self.fields[name].default)

    def set(self, **values: Any) -> None:
        """Set fields; in a callback, so that the page is rendered once."""
        st.session_state[STATE_KEY].update(values)

    def load_query(self, current: Mapping[str, str]) -> None:
        """Set all fields from the parameters of an address; missing ones become the default."""
        for name, field in self.fields.items():
            self.set(**{name: self._read(field, current[name]) if name in current else field.default})

    def widget_args(self, name: str, unset: Any = None) -> dict[str, Any]:
        """Arguments that bind a Streamlit widget to this field: ``st.toggle("Dark", **state.widget_args("dark"))``. ``unset`` is shown
        while the field is None."""
        key = f"field:{name}"
        st.session_state[key] = unset if self[name] is None else self[name]
        return {"key": key, "on_change": _changed, "args": (name, key)}

    def validated(self, name: str, check: Callable[[Any], Any], otherwise: Any) -> Any:
        """The field's value as returned by ``check``, or ``otherwise`` and a notice if that raises ValueError or LookupError."""
        try:
            return check(self[name]) if self[name] is not None else otherwise
        except (ValueError, LookupError) as error:
            self.notices.append(f"{error} {f'{otherwise} is shown.' if otherwise is not None else ''}".strip())
            return otherwise

    def query(self, **changes: Any) -> dict[str, str]:
        """The address parameters of this view, optionally with changes: every field that differs from its default."""
        values = {name: changes.get(name, self[name]) for name in self.fields}
        return query(self.fields.values(), values)

    def write_query(self) -> None:
        """Write the address if it differs: each write adds a step to the browser's history."""
        wanted, current = self.query(), st.query_params.to_dict()
        if {name: text for name, text in current.items() if not self._is_default(name, text)} != wanted:
            st.query_params.from_dict(wanted)
        st.session_state[LAST_QUERY_KEY] = st.query_params.to_dict()

    def _is_default(self, name: str, text: str) -> bool:
        field = self.fields.get(name)
        return field is not None and field.default is not None and text == field.write(field.default)

    def _read(self, field: Field, value: str) -> Any:
        try:
            return field.read(value)
        except (ValueError, LookupError) as error:
            self.notices.append(str(error))
            return field.default


def query(fields: Iterable[Field], values: Mapping[str, Any]) -> dict[str, str]:
    """Address parameters of the values that differ from their field's default."""
    return {f.name: f.write(values[f.name]) for f in fields if f.name in values and values[f.name] != f.default}


def _changed(name: str, key: str) -> None:
    st.session_state[STATE_KEY][name] = st.session_state[key]
