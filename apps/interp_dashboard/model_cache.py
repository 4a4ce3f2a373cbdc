"""The one model that this server holds at a time.

Loading another frees the first. A model is used under its lock by one session after the other; what is read of it is kept elsewhere
(``attention_cache``), so that looking around waits for nobody.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import streamlit as st

from interp_dashboard.settings import settings

if TYPE_CHECKING:
    from interp.models.model import Model, ModelFacts


class ModelCache:
    """Models by name, at most one of them loaded; ``facts`` of all that were."""

    def __init__(self) -> None:
        from interp.models import embedded_names

        self._lock = threading.RLock()
        self._model: Model | None = None
        self._name = ""
        self._facts: dict[str, ModelFacts] = {}
        self._known = list(dict.fromkeys([settings().model, *embedded_names()]))

    @property
    def known(self) -> list[str]:
        """Names that an address may ask for: what the server was started with, the embedded models, and those that somebody loaded."""
        return list(self._known)

    def add(self, name: str) -> None:
        """Loads a model that somebody typed the name of; from now on an address may ask for it. Raises as ``load_model``."""
        with self.acquire(name):
            if name not in self._known:
                self._known.append(name)

    def facts(self, name: str) -> ModelFacts:
        """What is known of a model, which is loaded the first time."""
        if name not in self._facts:
            with self.acquire(name):
                pass
        return self._facts[name]

    @contextmanager
    def acquire(self, name: str) -> Iterator[Model]:
        """The loaded model, for this thread alone."""
        from interp.models import load_model

        with self._lock:
            if self._model is None or self._name != name:
                self._release()
                about = settings()
                model = load_model(name, device=about.device, dtype=about.dtype, offline=about.offline)
                self._model, self._name, self._facts[name] = model, name, model.facts
                del model  # nobody but the holder keeps it
            assert self._model is not None
            yield self._model

    def _release(self) -> None:
        self._model, self._name = None, ""
        gc.collect()
        if settings().device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


@st.cache_resource(show_spinner=False)
def model_cache() -> ModelCache:
    """The holder of this server."""
    return ModelCache()
