"""FlexPrefill (arXiv 2502.20766): each head chooses between vertical and slash lines and a block map, from its last queries.

The last ``size`` queries of the text give the mean attention to each key and to each distance. If the attention that mean queries and keys
of blocks predict agrees with it (root of the Jensen-Shannon divergence below ``tau``), the head keeps the entries of the block map that
make up ``gamma`` of it; otherwise the blocks of keys and of distances that hold ``gamma`` of the attention. The first block and the
diagonal stay. Texts of at most two blocks stay whole. Blocks of 128 tokens in the paper; no minimum budget here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention
from interp.interventions.variants._rows import check_least, check_share, keep_keys

if TYPE_CHECKING:
    import torch


@intervention(source="FlexPrefill, arXiv 2502.20766", neutral={"gamma": 1.0})
def flex_prefill(
    heads: Iterable[Head], gamma: float = 0.9, tau: float = 0.1, size: int = 16, positions: Positions = "all"
) -> Intervention:
    """The head keeps blocks of ``size`` keys that hold ``gamma`` of the attention of the text's last queries."""
    check_share("flex_prefill", gamma=gamma)
    check_least("flex_prefill", 1, size=size)

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        import torch

        width = -(-int(inputs.key_positions.max() + 1) // size)
        memory["blocks"] = torch.ones(len(inputs.k), width, width, dtype=torch.bool, device=inputs.k.device)
        for row, tokens in enumerate(inputs.token_mask.expand(len(inputs.k), -1)):
            found = block_mask(inputs.q[row, tokens], inputs.k[row, tokens], inputs.scale, gamma, tau, size)
            memory["blocks"][row, : len(found), : len(found)] = found

    def rows(x, at):
        blocks = at.memory["blocks"]
        query, key = (t.clamp(min=0, max=blocks.shape[1] * size - 1) // size for t in (at.positions, at.keys))
        kept = blocks.gather(1, query.expand(len(x), -1)[..., None].expand(-1, -1, blocks.shape[2]))
        return keep_keys(x, kept.gather(2, key.expand(len(x), -1)[:, None].expand_as(x)), at.visible, at.sink_share)

    label = f"flex prefill {gamma:g}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, prepare=prepare, reads_to_end=True)


def block_mask(q: torch.Tensor, k: torch.Tensor, scale: float, gamma: float, tau: float, size: int) -> torch.Tensor:
    """The blocks that one head keeps of one text, [block block]; all of them in texts of at most two blocks."""
    import torch

    n, n_blocks = len(k), -(-len(k) // size)
    index = torch.arange(n, device=k.device)
    blocks = torch.arange(n_blocks, device=k.device)
    if n <= 2 * size or gamma == 1:
        return torch.ones(n_blocks, n_blocks, dtype=torch.bool, device=k.device)
    lag = index[-size:, None] - index
    rows = (q[-size:] @ k.T * scale).masked_fill(lag < 0, -torch.inf).softmax(-1) / size
    by_key = rows.sum(0)
    by_lag = torch.zeros_like(by_key).scatter_add(0, lag.clamp(min=0).flatten(), rows.flatten())
    key_blocks, lag_blocks = (torch.zeros(n_blocks).to(k).scatter_add(0, index // size, t) for t in (by_key, by_lag))
    mean_k = torch.zeros(n_blocks, k.shape[1]).to(k).index_add(0, index // size, k) / torch.bincount(index // size)[:, None]
    mean_q = torch.zeros(n_blocks, q.shape[1]).to(q).index_add(0, index // size, q) / torch.bincount(index // size)[:, None]
    pooled = (q[-size:].mean(0) @ mean_k.T * scale).softmax(-1)
    middle = (pooled + key_blocks) / 2
    divergence = torch.stack([torch.xlogy(p, p).sum() - torch.xlogy(p, middle).sum() for p in (pooled, key_blocks)]).mean()
    causal = blocks[:, None] >= blocks
    if divergence.clamp(min=0).sqrt() < tau:
        shares = (mean_q @ mean_k.T * scale).masked_fill(~causal, -torch.inf).softmax(-1).flatten()
        order = shares.argsort(descending=True)
        kept = torch.zeros_like(shares, dtype=torch.bool)
        kept[order] = shares[order].cumsum(0) - shares[order] < gamma * n_blocks
        kept = kept.view(n_blocks, n_blocks)
    else:

        def largest(tokens: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
            count = int((tokens.sort(descending=True).values.cumsum(0) < gamma).sum()) + 1
            chosen = torch.zeros(n_blocks, dtype=torch.bool, device=k.device)
            chosen[sums.topk(min(n_blocks, count // size + 1)).indices] = True
            return chosen

        keys, distances = largest(by_key, key_blocks), largest(by_lag, lag_blocks)
        back = blocks[:, None] - blocks
        kept = keys | distances[back.clamp(min=0)] | distances[(back - 1).clamp(min=0)] & (back > 0)
    return (kept | (blocks == 0) | (blocks[:, None] == blocks)) & causal
