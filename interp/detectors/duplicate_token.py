"""Duplicate-token heads, which attend from a token to its earlier occurrence.

The role is named in Wang et al. 2022 (arXiv 2211.00593).
"""

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.induction_family import detect_roles
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model


@detector(default_task="induction", quick=True)
def duplicate_token(
    model: Model,
    *,
    n_prompts: int = 4,
    period: int | None = None,
    n_null_draws: int = 19,
    fwer: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by their mean attention weight, 0 to 1, from row t to key t-n, over the second copy of n repeated random tokens.

    ``period`` is n, by default 50 or the most that fit. ``literature_threshold`` is 0.4, a convention. The threshold comes
    from ``n_null_draws`` draws of other queries (``induction_family``) and holds the family-wise error rate ``fwer``; 0.05
    needs 19 draws. Raises ValueError for an encoder, for a period that does not fit the context, vocabulary or window, and
    for too few draws.
    """
    return detect_roles(model, ["duplicate_token"], n_prompts, period, n_null_draws, fwer, seed, progress)["duplicate_token"]
