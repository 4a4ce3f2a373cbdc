"""Dilated sliding-window attention (Dilated Neighborhood Attention, arXiv 2209.15001): every ``dilation``-th of the near keys."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, lags, mask


@intervention(source="Dilated Neighborhood Attention, arXiv 2209.15001", neutral={"size": 1 << 30, "dilation": 1})
def dilated(heads: Iterable[Head], size: int = 16, dilation: int = 2, positions: Positions = "all") -> Intervention:
    """The head attends to ``size`` tokens at distances that are multiples of ``dilation``, the current one included."""
    check_least("dilated", 1, size=size, dilation=dilation)

    def keep(at):
        lag = lags(at).abs()
        return (lag % dilation == 0) & (lag < size * dilation)

    return mask(heads, f"dilated {size}x{dilation}", keep, positions)
