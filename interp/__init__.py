"""interp: which attention heads matter, what they do, and whether to believe it.

The names below are what a notebook needs; each is loaded on first use, so that ``import interp`` costs milliseconds and
never imports torch.
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from interp.ablation import ablate_heads as ablate_heads
    from interp.ablation import head_table as head_table
    from interp.circuits import faithfulness_curve as faithfulness_curve
    from interp.circuits import score_edges as score_edges
    from interp.confirmation import confirm as confirm
    from interp.detectors import detect as detect
    from interp.engine import capture as capture
    from interp.engine import run as run
    from interp.engine import sweep as sweep
    from interp.figures import show_attention as show_attention
    from interp.heads import Head as Head
    from interp.heads import HeadScores as HeadScores
    from interp.heads import TokenScores as TokenScores
    from interp.metrics import observe_attention as observe_attention
    from interp.metrics import score_task as score_task
    from interp.models import doctor as doctor
    from interp.models import load_model as load_model
    from interp.records import RunRecord as RunRecord
    from interp.store import open_run as open_run
    from interp.store import save_observation as save_observation
    from interp.tasks import make_task as make_task
    from interp.tasks import task_from_jsonl as task_from_jsonl
else:
    __all__, __getattr__, __dir__ = exports(__name__, "__version__")
