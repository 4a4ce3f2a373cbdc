"""The menu, the model selector, and the current page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.errors import ArtefactInvalid, MemoryBudgetExceeded, ModelUnavailable
from interp_dashboard.formatting import plain
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import MENU_KEY, Page, View, needs_causal, pages
from interp_dashboard.settings import settings
from interp_dashboard.url import STATE_KEY, State

if TYPE_CHECKING:
    from streamlit.navigation.page import StreamlitPage

ICON = Path(__file__).parent / "icon.png"
LOOK = """
.stMainBlockContainer { padding-top: 3rem }
h1 { padding-top: 0; font-size: 2rem !important }
@media (max-width: 1200px) { .stMainBlockContainer { padding-left: 2rem; padding-right: 2rem } }
"""
SENTENCES = (ValueError, LookupError, ArtefactInvalid, ModelUnavailable, MemoryBudgetExceeded)


def main() -> None:
    """One run of the Streamlit script."""
    _warm()
    st.set_page_config(page_title="interp", page_icon=str(ICON), layout="wide")
    st.html(f"<style>{LOOK}</style>")
    known = pages()
    first = "runs" if settings().run else next(iter(known))
    places = {name: _place(page, "start" if name == first else name, default=name == first) for name, page in known.items()}
    by_name = _place(
        known[first], first, visibility="hidden"
    )  # Streamlit serves the first page at / only, but a link may name it
    st.session_state[MENU_KEY] = places
    st.navigation([*places.values(), by_name]).run()


def show(name: str) -> None:
    """Render one page."""
    page = pages()[name]
    state = State(page.all_fields())
    view = View(page, state)
    _model_menu(state)
    st.title(page.title)
    st.caption(page.question)
    notices = st.container()
    try:
        if page.causal_only and not view.facts.causal:
            st.info(
                plain(f"{needs_causal('Pages of this kind', view)} Choose a causal model in the sidebar."),
                icon=":material/block:",
            )
        else:
            page.render(view)
        _grey_out(view)
    except (KeyError, IndexError):  # a bug, not bad input
        raise
    except SENTENCES as error:
        st.error(_one_line(error), icon=":material/error:")
    for notice in state.notices:
        notices.warning(plain(notice), icon=":material/info:")
    state.write_query()


def _grey_out(view: View) -> None:
    """Greys out the pages of the menu that the loaded model cannot have."""
    facts = model_cache().known_facts(view.model)
    if facts is None or facts.causal:
        return
    off = [page.name for page in pages().values() if page.causal_only]
    links = ", ".join(f'[data-testid="stSidebarNav"] a[href$="/{name}"]' for name in off)
    st.html(f"<style>{links} {{ opacity: 0.4; pointer-events: none }}</style>")
    st.sidebar.caption(plain(needs_causal(", ".join(map(str.capitalize, off)), view)))


def _place(page: Page, address: str, **options: Any) -> StreamlitPage:
    def run() -> None:
        show(page.name)

    run.__name__ = page.name
    return st.Page(run, title=page.title, icon=page.icon, url_path=address, **options)


@st.cache_resource(show_spinner=False)
def _warm() -> None:
    """Load the first model while the browser renders the first page."""
    Thread(target=_load_first, daemon=True).start()


def _load_first() -> None:
    with suppress(*SENTENCES):  # the page that needs the model reports it
        model_cache().facts(settings().model)


def _model_menu(state: State) -> None:
    with st.sidebar:
        st.selectbox("Model", model_cache().known, **state.widget_args("model"))
        with st.popover("Another model", icon=":material/add:", width="stretch"), st.form("another", border=False):
            name = st.text_input("Local folder or Hub name", placeholder="gpt2", key="another-name")
            if st.form_submit_button("Load", on_click=_add) and "another-failed" in st.session_state:
                st.error(plain(st.session_state.pop("another-failed")))
            elif not name:
                st.caption("Replaces the current model. Code that comes with a model is never executed.")


def _add() -> None:
    name = st.session_state["another-name"].strip()
    if not name:
        return
    try:
        model_cache().add(name)
        st.session_state.setdefault(STATE_KEY, {})["model"] = name
    except SENTENCES as error:
        st.session_state["another-failed"] = _one_line(error)


def _one_line(error: Exception) -> str:
    return plain(" ".join(str(error).split()))
