"""PowerAttention (arXiv 2503.03588): keys at distances that are powers of two, so that any token is reached in log2 N layers.

A distance takes as many layers as it has binary ones. The published kernel works on blocks of 256 tokens and adds window and sink blocks;
here offsets are of tokens (the paper's definition), and ``size`` and ``sinks`` add a window and first tokens.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, lags, mask


@intervention(source="PowerAttention, arXiv 2503.03588", neutral={"size": 1 << 30})
def power_attention(heads: Iterable[Head], size: int = 1, sinks: int = 0, positions: Positions = "all") -> Intervention:
    """The head attends to tokens 1, 2, 4, 8, ... back, to the last ``size`` and to the first ``sinks``."""
    check_least("power_attention", 1, size=size)
    check_least("power_attention", 0, sinks=sinks)

    def keep(at):
        lag = lags(at).abs()
        return ((lag & (lag - 1)) == 0) | (lag < size) | (at.keys[:, None] < sinks)

    return mask(heads, f"powers of two, {sinks}+{size}", keep, positions)
