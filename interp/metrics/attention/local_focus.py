"""Attention to the last ``window`` tokens, the query's own included, 0 to 1.

In bidirectional models such as BERT the window extends to both sides. The paper reports single diagonals, the differences
between neighbouring windows: ``self_attention_score`` is window 1, ``prev_token_score`` the difference of windows 2 and 1.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._near import mass_in_window


@attention_metric("query", paper="arXiv 2510.11602 (local focus)")
def local_focus(rows: AttentionRows, window: int = 8) -> Tensor:
    if window < 1:
        raise ValueError(f"local_focus:window={window} is too small: use at least 1.")
    return mass_in_window(rows, window)
