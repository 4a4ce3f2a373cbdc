"""Mean distance from image patch to image patch, weighted by attention, in patches.

Euclidean on the patch grid; times the patch size it is in pixels. Other tokens (CLS, registers) are dropped and the rows
renormalised, which common code omits. A uniform head has the mean distance of all pairs of patches.
"""

from torch import Tensor

from interp.metrics.attention._attention_metric_decorator import AttentionRows, attention_metric
from interp.metrics.attention._patch_attention import patch_attention


@attention_metric(
    "query",
    "patches",
    (0.0, None),
    paper="arXiv 2010.11929, Fig. 11",
    needs=("grid",),
    undefined="not a patch, or no weight on patches",
)
def spatial_distance(rows: AttentionRows) -> Tensor:
    weights, offsets = patch_attention(rows, "spatial_distance")
    return (weights * offsets.float().norm(dim=0)).sum(-1)
