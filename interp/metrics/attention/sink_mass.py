"""Attention to the first ``n_sink`` tokens, in rows from ``from_row`` on, 0 to 1.

Earlier rows have few other keys. A uniform head has n_sink/(t+1) in row t. Rows beyond a sliding window have 0.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_rows import QueryBlock
from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric


@attention_metric("query", paper="arXiv 2309.17453 (four initial tokens)", undefined="rows before from_row do not count")
def sink_mass(rows: AttentionRows, n_sink: int = 4, from_row: int = 16) -> Tensor:
    columns, wanted = rows.shared(_first_keys, n_sink)
    weight = (rows.pattern[..., columns] * wanted[:, None, None]).sum(-1)
    return weight.masked_fill((rows.query_positions < from_row)[:, None], torch.nan)


def _first_keys(block: QueryBlock, n: int) -> tuple[Tensor, Tensor]:
    """The columns of the span with a key at one of the first ``n`` positions of a text, and in which texts it is, [batch column]."""
    wanted = (block.key_positions >= 0) & (block.key_positions < n)
    columns = wanted.any(0).nonzero()[:, 0]
    return columns, wanted[:, columns].float()
