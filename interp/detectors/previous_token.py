"""Previous-token heads, which attend to the token before and which induction heads compose with.

The role is named in Wang et al. 2022 (arXiv 2211.00593). With rotary positions and sharp keys, replaced queries sometimes
attend one token back by chance, so the threshold of a trained model is high: rank before deciding.
"""

from interp.detectors.support.detection import Detection
from interp.detectors.support.detector import detector
from interp.detectors.support.induction_family import detect_roles
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model


@detector(default_task="induction", quick=True)
def previous_token(
    model: Model,
    *,
    n_prompts: int = 4,
    period: int | None = None,
    n_null_draws: int = 19,
    fwer: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detection:
    """Heads by their mean attention weight, 0 to 1, from row t to key t-1, over all rows of n random tokens repeated once.

    Options, threshold and errors are those of ``duplicate_token``.
    """
    return detect_roles(model, ["previous_token"], n_prompts, period, n_null_draws, fwer, seed, progress)["previous_token"]
