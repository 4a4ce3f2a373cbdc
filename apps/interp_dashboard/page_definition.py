"""The form of a page: one file in ``pages/`` that defines ``PAGE``.

``render(view)`` draws it with Streamlit from ``view.state`` (the page's fields, see ``url``) and ``view.model`` (the name of the selected
model). ValueError, LookupError and the errors of ``interp.errors`` are shown as messages while the rest of the app stays usable. A page
computes nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import streamlit as st

from interp.heads import Head
from interp.models.model import ModelFacts
from interp_dashboard.formatting import plain
from interp_dashboard.model_cache import model_cache
from interp_dashboard.settings import settings
from interp_dashboard.url import STATE_KEY, Field, State, query

MENU_KEY = "places"


@dataclass(frozen=True)
class Page:
    """``name`` is the page's address, and ``order`` its place in the menu; ``icon`` is a Material symbol. ``fields`` is called when the
    page is drawn. ``question`` is shown below the title. ``causal_only`` pages need a causal language model."""

    name: str
    icon: str
    order: int
    question: str
    fields: Callable[[], tuple[Field, ...]]
    render: Callable[[View], None]
    causal_only: bool = False

    @property
    def title(self) -> str:
        return self.name.capitalize()

    def all_fields(self) -> tuple[Field, ...]:
        """The page's fields and those that all pages share."""
        return (model_field(), *self.fields())


@dataclass(frozen=True)
class View:
    """A page being rendered."""

    page: Page
    state: State

    @property
    def model(self) -> str:
        """Name of the selected model."""
        return self.state["model"]

    @property
    def facts(self) -> ModelFacts:
        """Facts of the selected model, which is loaded if necessary."""
        with st.spinner(f"Loading {plain(self.model)} …", show_time=True):
            return model_cache().facts(self.model)

    @property
    def dark(self) -> bool:
        """Whether the browser uses the dark theme."""
        return st.context.theme.type == "dark"


def needs_causal(what: str, view: View) -> str:
    """Why ``what`` is not available for the selected model, which is not causal."""
    return f"{what} need a causal language model, and {view.model} ({view.facts.architecture}) is bidirectional."


def pages() -> dict[str, Page]:
    """All pages by name, in the order of the menu."""
    import interp_dashboard.pages as folder

    found = [import_module(f"{folder.__name__}.{module.name}").PAGE for module in iter_modules(folder.__path__)]
    return {page.name: page for page in sorted(found, key=lambda page: page.order)}


def link(label: str, name: str, values: Mapping[str, Any], *, icon: str) -> None:
    """A link to another page with these values of its fields and the same model. Nothing if a page is rendered by itself."""
    if place := st.session_state.get(MENU_KEY, {}).get(name):
        model = st.session_state[STATE_KEY].get("model", settings().model)
        address = {"model": model, **query(pages()[name].all_fields(), values)}  # never empty, as addresses from the menu are
        st.page_link(place, label=label, icon=icon, query_params=address)


def head_links(values: Mapping[str, Any], head: Head) -> None:
    """Links to a head on the other pages, with these values of the fields of the prompt."""
    link("Attention pattern", "attention", {**values, "head": head}, icon=":material/grid_on:")
    manual = {**values, "head": head, "mode": "manual", "ablated": [head]}
    link("Manual ablation", "ablate", manual, icon=":material/toggle_off:")
    link("Roles of this head", "heads", {**values, "head": head, "roles": True}, icon=":material/badge:")


def model_field() -> Field:
    """The model; an address may name only models that this server knows."""

    def read(text: str) -> str:
        known = model_cache().known
        if text not in known:
            refused = f"This address names the model {text[:80]!r}, which an address may not load: enter it in the sidebar."
            raise LookupError(f"{refused} Known models: {', '.join(known)}.")
        return text

    return Field("model", settings().model, read)
