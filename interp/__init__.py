"""interp: which attention heads matter, what they do, and whether to believe it.

The names below are what a notebook needs; each is loaded on first use, so that ``import interp`` costs milliseconds and
never imports torch.
"""

from interp._lazy import exports

__version__ = "0.1.0"

_HOMES = {
    "Head": "interp.heads",
    "HeadScores": "interp.heads",
    "TokenScores": "interp.heads",
    "RunRecord": "interp.records",
    "load_model": "interp.models",
    "doctor": "interp.models",
    "make_task": "interp.tasks",
    "task_from_jsonl": "interp.tasks",
    "run": "interp.engine",
    "capture": "interp.engine",
    "sweep": "interp.engine",
    "ablate_heads": "interp.ablation",
    "observe_attention": "interp.metrics",
    "head_table": "interp.ablation",
    "detect": "interp.detectors",
    "confirm": "interp.confirmation",
    "score_edges": "interp.circuits",
    "faithfulness_curve": "interp.circuits",
    "show_attention": "interp.figures",
    "score_task": "interp.metrics",
    "open_run": "interp.store",
    "save_observation": "interp.store",
}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


__getattr__, __dir__ = exports(__name__, _HOMES)
