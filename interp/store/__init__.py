"""Run directories on disk: atomic, resumable, content-addressed."""

from interp.store.ablations import save_ablation
from interp.store.circuits import load_circuit_run, save_circuit
from interp.store.detections import load_confirmation, load_detection, save_confirmation, save_detection
from interp.store.headvis import HeadVis, export_headvis, load_headvis
from interp.store.observations import save_observation
from interp.store.run_directory import Run, RunWriter, finished_run, open_run, start_run
from interp.store.run_index import RunSummary, delete_run, find_run, list_runs, zip_run
from interp.store.scores import load_scores, save_scores
from interp.store.unit_ledger import FileLedger

__all__ = [
    "FileLedger",
    "HeadVis",
    "Run",
    "RunSummary",
    "RunWriter",
    "delete_run",
    "export_headvis",
    "find_run",
    "finished_run",
    "list_runs",
    "load_circuit_run",
    "load_confirmation",
    "load_detection",
    "load_headvis",
    "load_scores",
    "open_run",
    "save_ablation",
    "save_circuit",
    "save_confirmation",
    "save_detection",
    "save_observation",
    "save_scores",
    "start_run",
    "zip_run",
]
