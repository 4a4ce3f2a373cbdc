"""What the first token would get of every head if its key were another one: the null of first-token sinks.

Two draws of a key that is as far from the mean of the other keys as the first token's own, but in a random direction: any direction of
the head's space (a rotation), and that of a random mixture of the other keys of all texts. Each is the same for all rows and
texts, as the first token is. Before training the key projection has no direction of its own, and the first token's key is one such draw.

Each is blind where the other is not: rotations where a key holds much that this head's queries do not read, as keys shared by several
heads do, and mixtures where later tokens are sinks, whose keys they contain. A head is found when it passes either; both have half
the rate.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention.attention_interface import apply_softcap
from interp.engine.attention.attention_observer import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows, QueryBlock

Turns = Float[np.ndarray, "n d_head d_head"]
Mixtures = Float[np.ndarray, "n batch others"]


def draw_keys(shape: tuple[int, ...], d_head: int, n: int, rng: np.random.Generator) -> tuple[Turns, Mixtures]:
    """``n`` random rotations, and as many random mixtures of all keys but the first of texts of ``shape`` (batch, pos)."""
    q, r = np.linalg.qr(rng.standard_normal((n, d_head, d_head)))
    turns = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]  # all rotations alike
    return turns, rng.standard_normal((n, shape[0], shape[1] - 1))


def importance_of_other_keys(turns: Turns, mixtures: Mixtures) -> AttentionMetric:
    """alpha_0 of every text and head with each drawn key in place of the first token's, [n_layers batch head 2n]: rotations, then mixtures.

    The score of one key changes, by some c: its weight ``a`` becomes a e^c / (a e^c + the weight of the others). Texts are equally long.
    """

    def read(rows: AttentionRows) -> tuple[Tensor, Tensor]:
        call, pattern = rows.layer.call, rows.pattern
        count = pattern.new_full((1, 1, 1), pattern.shape[2])
        if rows.keys.start > 0:  # the first key is beyond a sliding window
            return pattern.new_zeros(*pattern.shape[:2], len(turns) + len(mixtures)), count
        if "other keys" not in rows.made:
            rows.made["other keys"] = _changes_of_key(rows.query_block, turns, mixtures)
        own = torch.arange(rows.heads.start, rows.heads.stop, device=pattern.device) // call.group_size
        start = rows.queries.start - rows.layer.first_query
        queries = call.q[:, rows.heads, start : start + pattern.shape[2]].float() * call.scale
        score = torch.einsum("bhqd,bhd->bhq", queries, call.k[:, own, 0].float())
        change = torch.einsum("bhqd,bhnd->bhnq", queries, rows.made["other keys"][:, own])
        change = apply_softcap(score[:, :, None] + change, call.softcap) - apply_softcap(score, call.softcap)[:, :, None]
        first, others = pattern[..., 0], pattern[..., 1:].sum(-1)
        weight = torch.sigmoid((first.log() - others.log())[:, :, None] + change)
        return weight.where((others > 0)[:, :, None], first[:, :, None]).sum(-1), count

    return AttentionMetric("importance_of_other_keys", "draw", "weight", (0.0, 1.0), read, "")


def _changes_of_key(query_block: QueryBlock, turns: Turns, mixtures: Mixtures) -> Float[Tensor, "batch kv_head draws d_head"]:
    """The drawn keys minus the first token's own."""
    key = query_block.layer.call.k.float()
    mean = key[:, :, 1:].mean((0, 2))
    apart = key[:, :, 0] - mean
    turned = torch.einsum("nij,bkj->bkni", torch.from_numpy(turns).to(apart), apart)
    mixed = torch.einsum("nbs,bksd->knd", torch.from_numpy(mixtures).to(apart), key[:, :, 1:] - mean[:, None])
    mixed = torch.nn.functional.normalize(mixed, dim=-1) * apart.norm(dim=-1)[:, :, None, None]
    return torch.cat([turned, mixed], 2) - apart[:, :, None]
