"""Looks at where its token stood before: a head that knows a duplicate.

The role is named in Wang et al. 2022 (arXiv 2211.00593).
"""

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.induction_family import detections
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model


@detector(default_task="induction", quick=True)
def duplicate_token(
    model: Model,
    *,
    n_prompts: int = 4,
    period: int | None = None,
    n_null_draws: int = 19,
    rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by their mean weight, 0 to 1, on the key t-n, over the rows t of the second time that n random words are said.

    ``period`` is n: by default 50, or as many as fit. ``literature`` is 0.4, a habit of demonstrations, not a paper's constant.

    In 5% (``rate``) of untrained models at least one head lies above the threshold, which is what heads reach with the queries of
    ``n_null_draws`` strangers (``_stripes.py``); 19 are the fewest for 5%. Raises ValueError for an encoder, where the words do not fit
    the context, the vocabulary or any window, and for too few strangers.
    """
    return detections(model, ["duplicate_token"], n_prompts, period, n_null_draws, rate, seed, progress)["duplicate_token"]
