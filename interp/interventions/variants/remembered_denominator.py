"""Sparse attention with a remembered denominator (Re-ttention, arXiv 2505.22918): rows are not normalised to 1, but to a remembered mass.

A row on its ``size`` last keys and first ``sinks`` is scaled so that its sum is the share of the complete row's mass that these keys had in
the last complete row, one in every ``stride`` rows; with ``stride=1`` the kept weights are exactly those of the complete row. The paper
remembers the ratio from an earlier denoising step; here a row is a step.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import FAINT, check_least, lags


@intervention(source="Re-ttention, arXiv 2505.22918", neutral={"size": 1 << 30})
def remembered_denominator(
    heads: Iterable[Head], size: int = 64, sinks: int = 4, stride: int = 16, positions: Positions = "all"
) -> Intervention:
    """The head attends to its last ``size`` and first ``sinks`` tokens with the total weight that they had in the last complete row."""
    check_least("remembered_denominator", 1, size=size, stride=stride)
    check_least("remembered_denominator", 0, sinks=sinks)

    def rows(x, at):
        import torch

        batch, n, _ = x.shape
        kept = ((lags(at) < size) | (at.keys[:, None] < sinks)) & at.visible
        weights, cut = x * kept, (at.visible & ~kept).any(-1, keepdim=True)
        mass = weights.sum(-1)
        full = (at.positions % stride == 0).expand(batch, -1)
        before = at.memory.get("mass", mass[:, :1])
        order = torch.arange(1, n + 1, device=x.device).expand(batch, -1)
        last = torch.where(full, order, 0).cummax(-1).values
        remembered = torch.cat([before, mass], 1).gather(1, last)
        at.memory["mass"] = remembered[:, -1:]
        return (weights * (remembered / mass.clamp(min=FAINT))[..., None]).where(cut, x)

    label = f"remembered denominator {sinks}+{size}/{stride}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, in_order=True)
