"""Sliding-window attention: only near keys stay visible, and the weights are normalised again."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, lags, mask


@intervention(source="Longformer, arXiv 2004.05150", neutral={"size": 1 << 30})
def window(heads: Iterable[Head], size: int = 64, positions: Positions = "all") -> Intervention:
    """The head attends to the last ``size`` tokens, the current one included; in an encoder to those nearer than ``size`` on both sides."""
    check_least("window", 1, size=size)
    return mask(heads, f"window {size}", lambda at: lags(at).abs() < size, positions)
