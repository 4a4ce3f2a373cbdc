"""Strided attention: a window and every ``stride``-th token before it (Sparse Transformers, arXiv 1904.10509)."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, lags, mask


@intervention(source="Sparse Transformers, arXiv 1904.10509", neutral={"stride": 1})
def strided(heads: Iterable[Head], stride: int = 16, size: int = 8, positions: Positions = "all") -> Intervention:
    """The head attends to the last ``size`` tokens and to those at distances that are multiples of ``stride``."""
    check_least("strided", 1, stride=stride, size=size)
    return mask(heads, f"strided {size}+{stride}", lambda at: (lags(at).abs() < size) | (lags(at) % stride == 0), positions)
