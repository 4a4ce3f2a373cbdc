"""Which roles the heads of a model play, as far as it is known here: from stored detections, and from those made on this server.

Nothing is computed unless it is asked for. Of several stored detections of a role the last one counts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import streamlit as st

from interp.detectors import Detection
from interp.errors import ArtefactInvalid
from interp_dashboard.model_cache import model_cache
from interp_dashboard.settings import settings

if TYPE_CHECKING:
    from interp.models.model import ModelFacts


class RoleCache:
    """Detections made on this server, by weights and role."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Detection]] = {}
        self._refused: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def known(self, facts: ModelFacts) -> dict[str, Detection]:
        """What is known of the model with these weights, by role."""
        return dict(sorted({**_stored(facts), **self._made.get(facts.weights_digest, {})}.items()))

    def quick(self, model: str, facts: ModelFacts) -> tuple[dict[str, Detection], dict[str, str]]:
        """The same after the quick detectors of roles that were not known have run; and why there is none of some."""
        from interp.detectors import detect, quick_detectors

        known, refused = self.known(facts), self._refused.setdefault(facts.weights_digest, {})
        for role in quick_detectors():
            if role in known or role in refused:
                continue
            try:
                with model_cache().acquire(model) as loaded:
                    found = detect(loaded, role)
            except ValueError as error:  # a model that this cannot be asked of
                refused[role] = str(error)
                continue
            assert isinstance(found, Detection)
            with self._lock:
                self._made.setdefault(facts.weights_digest, {})[role] = found
        return self.known(facts), refused


def _stored(facts: ModelFacts) -> dict[str, Detection]:
    """Detections of heads in the folder of the runs."""
    from interp.store import list_runs, open_run

    found: dict[str, Detection] = {}
    for entry in reversed(list_runs(settings().root)):
        if entry.kind == "detection" and entry.status == "finished":
            try:
                run = open_run(entry.path)
                if run.record.weights_digest == facts.weights_digest and "heads.parquet" in run.manifest["files"]:
                    detection = _loaded(str(run.path), str(run.manifest["files"]))
                    found[detection.role] = detection
            except ArtefactInvalid:
                continue
    return found


@st.cache_resource(max_entries=64, show_spinner=False)
def _loaded(path: str, digest: str) -> Detection:
    from interp.store import load_detection

    found = load_detection(path)
    assert isinstance(found, Detection)
    return found


@st.cache_resource(show_spinner=False)
def role_cache() -> RoleCache:
    """Those of this server."""
    return RoleCache()
