"""How far a head looks across an image: the mean distance from patch to patch, weighted by attention, in patches.

Euclidean on the patch grid; times the patch size it is in pixels. Columns of other tokens (CLS, registers) are dropped and the rows
normalised again, which common code leaves out. A uniform head has the mean distance of all pairs of patches.
"""

from torch import Tensor

from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows
from interp.metrics.attention._patches import patch_attention


def _spatial(rows: AttentionRows) -> Tensor:
    weights, apart = patch_attention(rows, "spatial_distance")
    return (weights * apart.float().norm(dim=0)).sum(-1)


spatial_distance = AttentionMetric(
    name="spatial_distance",
    axis="query",
    unit="patches",
    bounds=(0.0, None),
    function=_spatial,
    paper="arXiv 2010.11929, Fig. 11",
    needs=("grid",),
    undefined="a token that is no patch, or a row that looks at no patch",
)
