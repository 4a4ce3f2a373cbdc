"""interp: ablate every attention head of a language model, measure what it does, and see how far the result can be trusted.

Models       ``load_model`` by name, folder or Hub id; ``doctor`` checks the identities that results rest on.
Tasks        ``make_task`` writes clean and corrupted prompts; ``task_from_jsonl`` reads yours; ``check_task`` says whether the model does
             the task, ``score_task`` gives its outcome on every prompt.
Runs         ``run`` with interventions; ``capture`` activations; ``sweep`` many interventions over a task.
Attention    ``observe_attention`` computes metrics of attention rows at any length.
Ablation     ``ablate_heads`` of a model one by one; ``AblationResult`` holds effects, intervals, p- and q-values. ``build_variant`` of
             attention by name; ``fidelity`` of heads under it.
Detectors    ``detect`` the heads or tokens of a role; ``confirm`` by ablation that the task depends on them.
Circuits     ``score_edges`` of the model's graph; ``faithfulness_curve`` of the circuits they give.
Experiments  ``AblationSpec``, ``AttentionSpec``, ``DetectionSpec``, ``ConfirmationSpec``, ``CircuitSpec``: stored runs.
Figures      ``show_attention`` of a prompt in a notebook; results draw themselves with ``plot``.
Storage      ``open_run`` reads a run directory; ``save_observation`` writes one; results store themselves with ``save``.
Values       ``Head``, ``HeadScores`` (one number per head), ``TokenScores`` (one per token), ``RunRecord`` (how a number was made).

Effects are ``metric(changed) - metric(clean)``: negative means that the head helped. Each name is loaded on first use, so that
``import interp`` takes milliseconds and imports no torch. The rooms hold more: ``help("interp.circuits")``.
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from interp.ablation import AblationResult as AblationResult
    from interp.ablation import ablate_heads as ablate_heads
    from interp.ablation import build_variant as build_variant
    from interp.ablation import fidelity as fidelity
    from interp.circuits import faithfulness_curve as faithfulness_curve
    from interp.circuits import score_edges as score_edges
    from interp.confirmation import confirm as confirm
    from interp.detectors import detect as detect
    from interp.engine import capture as capture
    from interp.engine import run as run
    from interp.engine import sweep as sweep
    from interp.experiments import AblationSpec as AblationSpec
    from interp.experiments import AttentionSpec as AttentionSpec
    from interp.experiments import CircuitSpec as CircuitSpec
    from interp.experiments import ConfirmationSpec as ConfirmationSpec
    from interp.experiments import DetectionSpec as DetectionSpec
    from interp.figures import show_attention as show_attention
    from interp.heads import Head as Head
    from interp.heads import HeadScores as HeadScores
    from interp.heads import TokenScores as TokenScores
    from interp.metrics import check_task as check_task
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
