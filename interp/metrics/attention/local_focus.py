"""How much a token looks at its neighbourhood: the mass on the last ``window`` tokens, itself included.

Where rows look ahead, as in BERT, the keys less than ``window`` tokens away on both sides. The paper reports single diagonals, which
are differences of this number at neighbouring windows: ``self_attention_score`` at 1, ``prev_token_score`` between 1 and 2.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._near import mass_in_window


def _local(rows: AttentionRows, window: int) -> Tensor:
    if window < 1:
        raise ValueError(f"local_focus:window={window} looks at no token: take 1 or more.")
    return mass_in_window(rows, window)


local_focus = AttentionMetric(
    name="local_focus",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_local,
    paper="arXiv 2510.11602 (local focus)",
    parameters={"window": 8},
)
