"""Generalized neighborhood attention (arXiv 2504.16922): one family of masks between a sliding window and separate blocks.

Queries are taken in groups of ``stride``; all queries of a group share the window of their last one (causal models; the centre elsewhere is
not implemented). ``stride=1`` is a sliding window, ``stride=size`` is blocked attention. ``dilation`` keeps every so-many-th key of each
query's own class, as in ``dilated``.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, lags, mask


@intervention(source="Generalized Neighborhood Attention, arXiv 2504.16922", neutral={"size": 1 << 30, "stride": 1})
def neighborhood(
    heads: Iterable[Head], size: int = 64, stride: int = 8, dilation: int = 1, positions: Positions = "all"
) -> Intervention:
    """The head attends to a window of ``size`` tokens that all queries of a group of ``stride`` share. ``stride`` is at most ``size``."""
    check_least("neighborhood", 1, size=size, stride=stride, dilation=dilation)
    if stride > size:
        raise ValueError(
            f"neighborhood: stride={stride} is above size={size}, and the first queries of a group would see no key."
        )

    def keep(at):
        last = (at.positions // stride * stride + stride - 1)[..., None] if stride > 1 else at.positions[..., None]
        return (last - at.keys[:, None] < size * dilation) & (lags(at) % dilation == 0)

    return mask(heads, f"neighborhood {size}/{stride}x{dilation}", keep, positions)
