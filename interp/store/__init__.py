"""Run directories on disk: atomic, resumable, content-addressed."""

from interp.store.ablations import save_sweep
from interp.store.circuits import load_found_circuit, save_circuit
from interp.store.detections import load_confirmation, load_detection, save_confirmation, save_detection
from interp.store.headvis import HeadVis, export_headvis, load_headvis
from interp.store.observations import save_observation
from interp.store.run_directory import Run, Writer, finished_run, open_run, start_run
from interp.store.run_index import Entry, delete_run, find_run, pack_run, run_history
from interp.store.scores import load_scores, save_scores
from interp.store.unit_ledger import Ledger

__all__ = [
    "Entry",
    "HeadVis",
    "Ledger",
    "Run",
    "Writer",
    "delete_run",
    "export_headvis",
    "find_run",
    "finished_run",
    "load_confirmation",
    "load_detection",
    "load_found_circuit",
    "load_headvis",
    "load_scores",
    "open_run",
    "pack_run",
    "run_history",
    "save_circuit",
    "save_confirmation",
    "save_detection",
    "save_observation",
    "save_scores",
    "save_sweep",
    "start_run",
]
