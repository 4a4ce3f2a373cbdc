"""Norm of what a head writes per query, summed over keys as weight times the norm of the projected value, |a v W_O|.

A weight says little where the value is small: sinks hold most of the weight and write little. With ``summed`` it is the norm of
the sum over keys, |sum a v W_O|, at most as large; their ratio shows how much the terms cancel. The output bias and any norm a
block applies afterwards are left out. For encoders the norm is that of v alone: compare rows there, not heads.
"""

import torch
from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.models.value_and_output_weights import output_rows


@attention_metric("query", "residual norm", (0.0, None), paper="arXiv 2004.10102 (norm-based analysis)", needs=("values",))
def value_weighted_norm(rows: AttentionRows, summed: bool = False) -> Tensor:
    layer = rows.layer
    here = slice(rows.keys.start - layer.call.first_key, rows.keys.stop - layer.call.first_key)
    if not summed:
        return rows.weighted_mean(layer.value_norms[:, rows.heads, here])
    norms = []
    for i, head in enumerate(range(rows.heads.start, rows.heads.stop)):
        z = rows.pattern[:, i] @ layer.call.head_value(head)[:, here].float()
        output = z if layer.output is None else z @ output_rows(layer.output, head, z.shape[-1]).float()
        norms.append(output.norm(dim=-1))
    return torch.stack(norms, 1)
