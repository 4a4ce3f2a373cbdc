"""How much a head parks on the first tokens: the weight of the first ``sinks`` positions, in rows from ``from_row`` on.

AttentionRows near the beginning have little else to look at. A uniform head has sinks/(t+1) in row t. The number of a row beyond a sliding
window is 0: it cannot look there.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows


def _share(rows: AttentionRows, sinks: int, from_row: int) -> Tensor:
    wanted = (rows.key_positions >= 0) & (rows.key_positions < sinks)
    columns = wanted.any(0).nonzero()[:, 0]
    weight = (rows.pattern[..., columns] * wanted[:, None, None, columns]).sum(-1)
    return weight.masked_fill((rows.query_positions < from_row)[:, None], torch.nan)


sink_share = AttentionMetric(
    name="sink_share",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_share,
    paper="arXiv 2309.17453 (four initial tokens)",
    parameters={"sinks": 4, "from_row": 16},
    undefined="rows before from_row are not counted",
)
