"""Previous-token heads, which attend to the token before and which induction heads compose with.

The role is named in Wang et al. 2022 (arXiv 2211.00593). With rotary positions and sharp keys, replaced queries sometimes
attend one token back by chance, so its threshold may be high: rank before deciding.
"""

from interp.detectors.support.dataclass_as_keywords import keyword_options
from interp.detectors.support.detection import Detection
from interp.detectors.support.detector_declaration import detector
from interp.detectors.support.induction_family import RepeatedTokenOptions, detect_roles
from interp.engine.sweep.sweep import Progress
from interp.models.model import Model


@detector(default_task="induction", quick=True)
@keyword_options(RepeatedTokenOptions)
def previous_token(model: Model, options: RepeatedTokenOptions, *, progress: Progress | None = None) -> Detection:
    """Heads by their mean attention weight, 0 to 1, from row t to key t-1, over all rows of n random tokens repeated once.

    Options, threshold and errors are those of ``duplicate_token``.
    """
    return detect_roles(model, ["previous_token"], options, progress)["previous_token"]
