"""Hierarchically pruned attention (HiP, arXiv 2406.09827): the top keys of a query, found by halving chunks that one key stands for.

The keys that a query sees are cut into ``k`` chunks; again and again each chunk is halved, each half is scored by its first key, and the
``k`` best halves stay, until every chunk is one key. This finds the true top keys where neighbouring keys score alike. Queries are taken
one by one; the published kernel shares a search among 32 queries and adds a sliding window.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least


@intervention(source="HiP, arXiv 2406.09827", neutral={"k": 1 << 20})
def hip(heads: Iterable[Head], k: int = 64, positions: Positions = "all") -> Intervention:
    """The head attends to ``k`` tokens of each row that a search by halved chunks finds."""
    check_least("hip", 1, k=k)

    def scores(s, at):
        import torch

        n = (at.positions + 1).clamp(min=1)[..., None].expand(len(s), -1, 1)
        if k >= int(n.max()):
            return s
        padding = (at.keys < 0).sum(-1)[:, None, None]
        edges = torch.arange(k + 1, device=s.device) * n // k
        start, stop = edges[..., :-1], edges[..., 1:]
        while int((stop - start).max()) > 1:
            middle = (start + stop + 1) // 2
            start, stop = torch.cat([start, middle], -1), torch.cat([middle, stop], -1)
            score = s.gather(-1, (start + padding).clamp(max=s.shape[-1] - 1)).masked_fill(stop <= start, -torch.inf)
            best = score.topk(k, -1).indices
            start, stop = start.gather(-1, best), stop.gather(-1, best)
        kept = torch.zeros_like(s, dtype=torch.int)
        kept.scatter_add_(-1, (start + padding).clamp(max=s.shape[-1] - 1), (stop > start).int())
        return s.masked_fill((kept == 0) & at.visible, -1e30)

    return Intervention("scores", tuple(heads), scores, f"hip {k}", positions, alike=True)
