"""Roles of the heads of a model: from stored detections and from those made on this server.

Nothing is computed unless requested. Of several stored detections of a role the most recent counts.
"""

from __future__ import annotations

import threading

import streamlit as st

from interp.detectors import Detection, quick_detectors
from interp.errors import ArtefactInvalid
from interp.head_card import detection_or_reason
from interp.models.model import ModelFacts
from interp.store import list_runs, load_detection, open_run
from interp_dashboard.model_cache import model_cache
from interp_dashboard.settings import settings


class RoleCache:
    """Detections made on this server, by digest of the weights and role."""

    def __init__(self) -> None:
        self._detections: dict[str, dict[str, Detection]] = {}
        self._refused: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def known(self, facts: ModelFacts) -> dict[str, Detection]:
        """The available detections of the model with these weights, by role."""
        return dict(sorted({**_stored(facts), **self._detections.get(facts.weights_digest, {})}.items()))

    def quick(self, model: str, facts: ModelFacts) -> tuple[dict[str, Detection], dict[str, str]]:
        """The same after running the missing quick detectors, and the reasons of those that refused."""
        known, refused = self.known(facts), self._refused.setdefault(facts.weights_digest, {})
        for role in quick_detectors():
            if role in known or role in refused:
                continue
            with model_cache().acquire(model) as loaded:
                detection = detection_or_reason(loaded, role)
            if isinstance(detection, str):
                refused[role] = detection
                continue
            with self._lock:
                self._detections.setdefault(facts.weights_digest, {})[role] = detection
        return self.known(facts), refused


def _stored(facts: ModelFacts) -> dict[str, Detection]:
    """Stored detections of heads."""
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
    found = load_detection(path)
    assert isinstance(found, Detection)
    return found


@st.cache_resource(show_spinner=False)
def role_cache() -> RoleCache:
    """The cache of this server."""
    return RoleCache()
