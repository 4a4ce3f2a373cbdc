"""Streaming attention: only the first and the most recent tokens stay visible, and the weights are normalised again.

``strength`` mixes the patterns, hence the head's outputs: at strength ``1 - a`` it is the gate ``a * full + (1 - a) * streaming`` that
DuoAttention learns (arXiv 2410.10819).
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import keep_keys


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
        kept = (keys < n_sink) | (context.positions[:, :, None] - keys < n_recent)
        return keep_keys(x, kept, context.visible, context.sink_share)

    return Intervention("pattern", tuple(heads), rows, f"streaming {n_sink}+{n_recent}", positions, alike=True)
