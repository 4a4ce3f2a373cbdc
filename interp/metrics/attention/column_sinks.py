"""Tokens that attract a head's attention, as 1 where the mean weight of a column exceeds a limit and 0 elsewhere.

``rule="ratio"`` uses ``alpha`` times the uniform share, alpha / text length; ``rule="abs"`` uses ``threshold``, as the
authors' code does (0.1; the two meet at 50 tokens). Undefined for tokens seen by fewer than ``min_rows`` rows and, unless
``keep_first=false``, for the first token, whose sink every model keeps. A head's value is the share of texts in which it has
such a token. ``received_attention`` gives the mean weights themselves.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention.received_attention import received_attention
from interp.tasks.token_batch import TokenBatch

RULES = ("ratio", "abs")


def sink_flags(
    weight: Tensor, prompts: TokenBatch, rule: str, alpha: float, threshold: float, min_rows: int, keep_first: bool
) -> Tensor:
    """1 where ``weight`` [... batch head key], as ``received_attention`` gives it, exceeds the limit, else 0; NaN where undefined."""
    if rule not in RULES:
        raise ValueError(f"column_sinks:rule={rule} is unknown. There are: {', '.join(RULES)}.")
    length = prompts.token_mask.sum(-1)[:, None, None]
    limit = alpha / length if rule == "ratio" else threshold
    flags = torch.where(weight.isnan(), weight, (weight > limit).float())
    return flags.masked_fill((prompts.positions == 0)[:, None], torch.nan) if keep_first else flags


def _share_of_texts(flags: Tensor) -> Tensor:
    return flags.masked_fill(flags.isnan(), -1).amax(-1).masked_fill(flags.isnan().all(-1), torch.nan).nanmean(1)


@attention_metric(
    "key",
    "share of texts",
    paper="arXiv 2406.15765 (ACT)",
    undefined="the first token, or one seen by fewer than min_rows rows",
    per_head=_share_of_texts,
    finish=sink_flags,
)
def column_sinks(
    rows: AttentionRows,
    rule: str = "ratio",
    alpha: float = 5.0,
    threshold: float = 0.1,
    min_rows: int = 8,
    keep_first: bool = True,
) -> tuple[Tensor, Tensor]:
    return received_attention.function(rows, min_rows)
