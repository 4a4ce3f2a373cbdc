"""Windowed average attention distance (WAAD) of one head: how far back a token looks while it is processed, at most ``window`` tokens.

Near 0-1 inside a chunk of text that is written on from the last tokens, near ``window`` where a head looks past it for what comes
next. The number belongs to the row of the token itself, which prepares the next one. The WAAD of a group of heads is their mean.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _windowed(rows: AttentionRows, window: int) -> Tensor:
    if window < 1:
        raise ValueError(f"windowed_distance:window={window} looks at no token: take 1 or more.")
    first, last = (at - rows.keys.start for at in (rows.queries.start, rows.queries.stop))
    near = slice(max(first - window + 1, 0), last if rows.causal else last + window - 1)
    short = (window - rows.lag[:, near].abs()).clamp(min=0)  # what keys inside the window are closer than it
    return window * rows.pattern.sum(-1) - (rows.pattern[..., near] * short).sum(-1)


windowed_distance = AttentionMetric(
    name="windowed_distance",
    axis="query",
    unit="tokens",
    bounds=(0.0, None),
    function=_windowed,
    paper="arXiv 2510.13554 §3 (WAAD)",
    parameters={"window": 10},
)
