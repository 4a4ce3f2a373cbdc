"""Streaming attention: only the first and the most recent tokens stay visible, and the weights are normalised again.

``strength`` mixes the patterns, hence the head's outputs: at strength ``1 - a`` it is the gate ``a * full + (1 - a) * streaming`` that
DuoAttention learns (arXiv 2410.10819).
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention

FAINT = 1e-37
"""Added to every weight that is kept, so that a row without weight on the kept keys becomes uniform, not NaN."""

ROUNDING = 1e-5
"""How far the sum of a row may be from 1 by rounding alone."""


@intervention()
def streaming(heads: Iterable[Head], n_sink: int = 4, n_recent: int = 256, positions: Positions = "all") -> Intervention:
    """The head attends only to the first ``n_sink`` tokens and the last ``n_recent``, the current one included.

    A row that sees no other token stays as it is, bit for bit. Tokens keep their positions; a cache that drops tokens may renumber them.
    Source: arXiv 2309.17453. Raises ValueError for a window without the current token.
    """
    if n_sink < 0 or n_recent < 1:
        raise ValueError(
            f"n_sink={n_sink}, n_recent={n_recent}: a streaming head keeps at least 0 first tokens and 1 recent one."
        )

    def rows(x, context):
        keys = context.keys[:, None]
        kept = context.visible & ((keys < n_sink) | (context.positions[:, :, None] - keys < n_recent))
        weights = (x + FAINT) * kept
        cut = (context.visible & ~kept).any(-1, keepdim=True)
        sink = 1 - x.sum(-1, keepdim=True)  # the share of a learned sink, which stays in the sum
        return (weights / (weights.sum(-1, keepdim=True) + sink.where(sink > ROUNDING, 0))).where(cut, x)

    return Intervention("pattern", tuple(heads), rows, f"streaming {n_sink}+{n_recent}", positions)
