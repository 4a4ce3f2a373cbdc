"""The one model that is loaded at a time.

Loading another frees the first. Sessions use the model in turn, under a lock; the attention of prompts is cached separately
(``attention_cache``), so that exploring a prompt waits for no other session.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from interp.models import embedded_names, installed_names
from interp.models.model import Model, ModelFacts
from interp_dashboard.settings import settings


class ModelCache:
    """Models by name, at most one of them loaded; ``facts`` of all that have been."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._model: Model | None = None
        self._name = ""
        self._facts: dict[str, ModelFacts] = {}
        self._known = list(dict.fromkeys([settings().model, *embedded_names(), *installed_names()]))

    @property
    def known(self) -> list[str]:
        """Names that an address may use: the model the server was started with, embedded and installed models, and those a user has
        loaded."""
        return list(self._known)

    def add(self, name: str) -> None:
        """Load a model whose name a user typed; from now on an address may use it. Raises as ``load_model``."""
        with self.acquire(name):
            if name not in self._known:
                self._known.append(name)

    def facts(self, name: str) -> ModelFacts:
        """Sizes and other facts of a model, which is loaded the first time."""
        if name not in self._facts:
            with self.acquire(name):
                pass
        return self._facts[name]

    def known_facts(self, name: str) -> ModelFacts | None:
        """The facts of a model that has been loaded before, else None."""
        return self._facts.get(name)

    @contextmanager
    def acquire(self, name: str) -> Iterator[Model]:
        """The loaded model, for this thread alone; the page says so while it waits for another one."""
        from interp.models import load_model

        held = self._lock.acquire(blocking=False)
        try:
            if not held:
                with st.spinner("Another session uses the model: waiting for it …", show_time=True):
                    held = self._lock.acquire()
            if self._model is None or self._name != name:
                self._release()
                about = settings()
                model = load_model(name, device=about.device, dtype=about.dtype, offline=about.offline)
                self._model, self._name, self._facts[name] = model, name, model.facts
                del model  # the cache holds the only reference
            assert self._model is not None
            yield self._model
        finally:
            if held:  # a spinner may end by an exception, when the page is run again
                self._lock.release()

    def _release(self) -> None:
        self._model, self._name = None, ""
        gc.collect()
        if settings().device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


@st.cache_resource(show_spinner=False)
def model_cache() -> ModelCache:
    """The cache of this server."""
    return ModelCache()
