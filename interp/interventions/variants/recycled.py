"""Recycled attention (arXiv 2411.05787): a full row every ``stride`` tokens; the rows between attend to what it found important.

Between two full rows the head attends to the ``k`` keys of largest weight of the last full row and to the tokens since. Each row of a
text counts as one step of decoding. The paper pools over the heads of a key/value group and can also refresh by the similarity of
queries; neither is here.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, keep_keys


@intervention(source="Recycled Attention, arXiv 2411.05787", neutral={"stride": 1})
def recycled(heads: Iterable[Head], k: int = 32, stride: int = 16, positions: Positions = "all") -> Intervention:
    """Every ``stride``-th row is complete; the next ones attend to its ``k`` largest keys and to newer tokens."""
    check_least("recycled", 1, k=k, stride=stride)

    def rows(x, at):
        import torch
        from torch.nn.functional import pad

        start, (batch, n, n_keys) = at.key_slice.start or 0, x.shape
        full = (at.positions % stride == 0).expand(batch, -1)
        largest = torch.zeros_like(x, dtype=torch.bool).scatter_(-1, x.topk(min(k, n_keys), -1).indices, True) & (x > 0)
        before = at.memory.get("largest", torch.zeros(batch, 0, dtype=torch.bool, device=x.device))
        before = pad(before, (0, start + n_keys - before.shape[1]))[:, start:]
        table = torch.cat([before[:, None], largest], 1)  # the last full row of earlier blocks, then the rows of this one
        order = torch.arange(1, n + 1, device=x.device).expand(batch, -1)
        last = torch.where(full, order, 0).cummax(-1).values
        kept = table.gather(1, last[..., None].expand(-1, -1, n_keys))
        newer = at.keys[:, None] >= (at.positions // stride * stride)[..., None]
        at.memory["largest"] = pad(table[torch.arange(batch, device=x.device), last[:, -1]], (start, 0))
        return keep_keys(x, kept | newer | full[..., None], at.visible, at.sink_share)

    return Intervention("pattern", tuple(heads), rows, f"recycled {k}/{stride}", positions, uses_inputs=True, in_order=True)
