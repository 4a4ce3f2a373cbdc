"""The options of a detector that can be written as text: as fields of the address and as widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, formatannotation
from typing import Any

import streamlit as st

from interp.experiments.detection import detector_options
from interp.options_text import parse_options
from interp_dashboard.url import Field, State, choice, flag, number, text

MOST = 10**9
"""The largest number of a field."""
ACROSS = 4
NONE = "none"


@dataclass(frozen=True)
class DetectorOptions:
    """The options of the detector ``role`` without those in ``exclude``; ``choices`` are the allowed values of a text.

    The field of an option is called ``ROLE.OPTION``; that of an option that may be none is a text, then empty.
    """

    role: str
    exclude: Sequence[str] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Parameter]:
        return {name: option for name, option in detector_options(self.role).items() if name not in self.exclude}

    def fields(self) -> tuple[Field, ...]:
        return tuple(self._field(name, option.default) for name, option in self.known.items())

    def values(self, state: State) -> dict[str, Any]:
        """The values that differ from their default. Raises ValueError for a text that is not a value of the option."""
        known = self.known
        read = {name: self._read(name, state[f"{self.role}.{name}"]) for name in known}
        return {name: value for name, value in read.items() if value != known[name].default}

    def choose(self, state: State) -> None:
        """Widgets for all options in a closed expander, which names the first of them."""
        names = list(self.known)
        named = ", ".join(name.removeprefix("n_").replace("_", " ") for name in names[:ACROSS])
        with st.expander(f"Options: {named} …", icon=":material/tune:"):
            for first in range(0, len(names), ACROSS):
                columns = st.columns(ACROSS, vertical_alignment="bottom")
                for column, name in zip(columns, names[first : first + ACROSS], strict=False):
                    with column:
                        self._widget(state, name)

    def _field(self, name: str, default: Any) -> Field:
        own = f"{self.role}.{name}"
        if name in self.choices:
            return choice(own, list(self.choices[name]), default, noun=name)
        if self._may_be_none(name):
            return text(own, "" if default is None else str(default))
        if isinstance(default, bool):
            return flag(own, default)
        return text(own, default) if isinstance(default, str) else number(own, default, -MOST, MOST)

    def _widget(self, state: State, name: str) -> None:
        default, label = self.known[name].default, name.replace("_", " ")
        widget_args: Any = state.widget_args(f"{self.role}.{name}")
        if name in self.choices:
            st.selectbox(label, list(self.choices[name]), **widget_args)
        elif self._may_be_none(name):
            st.text_input(label, placeholder=NONE, **widget_args)
        elif isinstance(default, bool):
            st.toggle(label, **widget_args)
        elif isinstance(default, str):
            st.text_input(label, **widget_args)
        else:
            kind = type(default)
            st.number_input(label, kind(-MOST), kind(MOST), format="%d" if kind is int else "%g", **widget_args)

    def _read(self, name: str, value: Any) -> Any:
        if not self._may_be_none(name):
            return value
        return parse_options([f"{name}={value.strip() or NONE}"], self.known, self.role)[name]

    def _may_be_none(self, name: str) -> bool:
        return "None" in formatannotation(self.known[name].annotation)
