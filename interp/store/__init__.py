"""Run directories on disk: atomic, resumable, content-addressed."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.store.circuits import load_circuit_run as load_circuit_run
    from interp.store.circuits import save_circuit as save_circuit
    from interp.store.circuits import write_circuit as write_circuit
    from interp.store.confirmations import load_confirmation as load_confirmation
    from interp.store.confirmations import save_confirmation as save_confirmation
    from interp.store.detections import load_detection as load_detection
    from interp.store.detections import save_detection as save_detection
    from interp.store.detections import write_detection as write_detection
    from interp.store.headvis_files import HeadVis as HeadVis
    from interp.store.headvis_files import export_headvis as export_headvis
    from interp.store.headvis_files import load_headvis as load_headvis
    from interp.store.list_delete_zip_runs import RunSummary as RunSummary
    from interp.store.list_delete_zip_runs import delete_run as delete_run
    from interp.store.list_delete_zip_runs import find_run as find_run
    from interp.store.list_delete_zip_runs import list_runs as list_runs
    from interp.store.list_delete_zip_runs import zip_run as zip_run
    from interp.store.run_directory import RunWriter as RunWriter
    from interp.store.run_directory import StoredRun as StoredRun
    from interp.store.run_directory import finished_run as finished_run
    from interp.store.run_directory import open_run as open_run
    from interp.store.run_directory import start_run as start_run
    from interp.store.scores import load_scores as load_scores
    from interp.store.scores import save_observation as save_observation
    from interp.store.scores import save_scores as save_scores
    from interp.store.unit_ledger import FileLedger as FileLedger
    from interp.store.write_ablation import save_ablation as save_ablation
    from interp.store.write_ablation import write_ablation as write_ablation
else:
    __all__, __getattr__, __dir__ = exports(__name__)
