"""How much a head moves: the sum over keys of weight times the length of what the key's value writes, |a v W_O|, for each query.

A weight alone says nothing where the value is small: sinks hold most of the weight and move little. With ``summed`` it is the length
of what all keys write together, |sum a v W_O|, which is at most as large; their ratio says how far the parts cancel each other.
Lengths are those of the output projection without its bias, before any norm that a block puts after it. Where a model's output
projection is not known (encoders) they are those of v alone, in units of its values: heads of such a model differ by what their
part of the projection does to them, so compare rows of one head, not heads.
"""

import torch
from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.models.weights import output_rows


def _moved(rows: AttentionRows, summed: bool) -> Tensor:
    layer = rows.layer
    here = slice(rows.keys.start - layer.call.first_key, rows.keys.stop - layer.call.first_key)
    if not summed:
        return rows.weighted_mean(layer.value_norms[:, rows.heads, here])
    lengths = []
    for i, head in enumerate(range(rows.heads.start, rows.heads.stop)):
        z = rows.pattern[:, i] @ layer.call.head_value(head)[:, here].float()
        written = z if layer.output is None else z @ output_rows(layer.output, head, z.shape[-1]).float()
        lengths.append(written.norm(dim=-1))
    return torch.stack(lengths, 1)


moved_norm = AttentionMetric(
    name="moved_norm",
    axis="query",
    unit="residual norm",
    bounds=(0.0, None),
    function=_moved,
    paper="arXiv 2004.10102 (norm-based analysis)",
    parameters={"summed": False},
    needs=("values",),
)
