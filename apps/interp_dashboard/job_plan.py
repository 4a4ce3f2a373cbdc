"""Runs that a page can start: a specification bound to the model, its folder, its cost, and the finished run where there is one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import streamlit as st

from interp.ablation.ablate_heads import CostEstimate
from interp.experiments import CircuitSpec, Spec
from interp.models import memory
from interp.models.model import Model, ModelFacts
from interp.records import digest
from interp.store import StoredRun, finished_run, list_runs, open_run
from interp_dashboard import jobs
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import View
from interp_dashboard.settings import settings


@dataclass(frozen=True)
class JobPlan:
    """A run that can be started. ``identity`` is what its run.json will hold as ``spec``.

    ``cost.bytes`` are those in addition to the loaded model, ``bytes`` those of the whole process; ``total`` is the number of units that
    will be stored, None where the progress bar of the process counts them.
    """

    spec: Spec
    model: str
    device: str
    identity: dict[str, Any]
    folder: Path
    cost: CostEstimate
    bytes: int
    total: int | None

    @property
    def cli(self) -> str:
        """The command that makes the run."""
        return shlex.join(["interp", *self.spec.to_argv()])

    def check_memory(self) -> None:
        """Raises MemoryBudgetExceeded when its process would not fit beside all that is loaded now."""
        memory.check_budget(self.bytes, memory.available_memory(self.device), f"A second {self.model} with this run")

    def run(self) -> StoredRun | None:
        """The finished run, in its folder or under another name beside it; None where it is still to be computed.

        Raises ArtefactInvalid when its folder holds something else.
        """
        if (own := finished_run(self.folder, self.identity)) is not None:
            return own
        others = (open_run(entry.path) for entry in list_runs(self.folder.parent) if entry.status == "finished")
        return next((run for run in others if run.manifest["spec_digest"] == digest(self.identity)), None)

    def start(self, query: Mapping[str, str] | None = None) -> jobs.Job:
        """The started job; one that was interrupted in this folder is resumed. ``query`` is the address of the page that starts it.

        Raises ValueError when the run is finished or another job computes it, ArtefactInvalid when its folder holds something else, and
        MemoryBudgetExceeded when it would not fit the memory.
        """
        if self.run() is not None:
            raise ValueError(f"{self.folder.name} is measured already: open it.")
        self.check_memory()
        return jobs.start(jobs.Job(self.folder, self.model, self.spec, self.total, self.cost.seconds, query=dict(query or {})))


def plan_job(spec: Spec, model: Model, root: Path, *, offline: bool = False) -> JobPlan:
    """The run of this specification on a loaded model, in a folder of ``root``; nothing is started or stored.

    Raises LookupError and ValueError for what cannot be computed, and MemoryBudgetExceeded for what would not fit the memory.
    """
    experiment = spec.on(model, offline=offline).prepare(model)
    cost, facts = experiment.plan(), model.facts
    total = experiment.n_stored_units()
    n_bytes = facts.n_parameters * memory.ITEM_BYTES[facts.dtype] + cost.bytes
    folder = root.resolve() / experiment.folder_name()
    return JobPlan(experiment.spec, facts.name, str(model.device), experiment.identity, folder, cost, n_bytes, total)


def planned_job(view: View, spec: Spec, source: str = "") -> JobPlan:
    """``plan_job`` of the selected model, cached; ``source`` is the content of a file or run that the specification names."""
    return _planned(view.model, view.facts.weights_digest, spec, source, settings().root)


@st.cache_resource(max_entries=256, show_spinner="Estimating …")
def _planned(model: str, weights: str, spec: Spec, source: str, root: Path) -> JobPlan:
    with model_cache().acquire(model) as loaded:
        return plan_job(spec, loaded, root, offline=settings().offline)


def find_stored_circuit(root: Path, facts: ModelFacts, device: str, task: str) -> dict[str, Any] | None:
    """The address fields with which the page Circuit shows a stored circuit of this model on this device: the last one of this task, else
    of any; None where there is none."""
    entries = [entry for entry in list_runs(root) if entry.kind == "circuit" and entry.status == "finished"]
    stored = (open_run(entry.path).spec for entry in entries)
    circuits = [identity for identity in stored if _same_model(identity, facts, device) and _is_page_circuit(identity)]
    found = next((identity for identity in circuits if identity["task"] == task), circuits[0] if circuits else None)
    if found is None:
        return None
    prompts = {"task": found["task"], "n_prompts": found["arguments"]["n_prompts"], "seed": found["seed"]}
    return {**prompts, "outcome": found["metric"], "circuit.method": found["method"], "circuit.ablation": found["ablation"]}


def _same_model(identity: dict[str, Any], facts: ModelFacts, device: str) -> bool:
    model = {"model": facts.name, "weights_digest": facts.weights_digest, "dtype": facts.dtype}
    same = all(identity.get(name) == value for name, value in model.items())
    return same and identity.get("device") in (device, f"{device}:0")


def _is_page_circuit(identity: dict[str, Any]) -> bool:
    """Whether the page can show this circuit: one of a task, with defaults in whatever the page does not ask for."""
    named = {"task", "arguments", "seed", "metric", "method", "ablation"} <= identity.keys()
    defaults = {
        f.name: f.default
        for f in fields(CircuitSpec)
        if f.name in ("size", "threshold", "faithfulness", "n_draws", "steps", "rule", "exact_top")
    }
    usual = all(identity.get(name, value) == value for name, value in defaults.items())
    return named and "n_prompts" in identity["arguments"] and usual
