"""The null of first-token sinks: the first token's attention if its key were another one.

Two kinds of keys are drawn, each as far from the mean of the other keys as the first token's own but in a random direction: any
direction of the head's space (a rotation), or that of a random mixture of the other keys of all texts. Each draw is shared by
all rows and texts, as the first token is. Without training no direction is preferred, and the first key is one such draw.

Rotations miss keys with large components that the head's queries do not read, as shared keys have; mixtures miss heads with
sinks at later tokens, whose keys they contain. Either detects.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention.attention_interface import apply_softcap
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_rows import AttentionRows, QueryBlock

Rotations = Float[np.ndarray, "n d_head d_head"]
Mixtures = Float[np.ndarray, "n batch others"]


def draw_keys(shape: tuple[int, ...], d_head: int, n: int, rng: np.random.Generator) -> tuple[Rotations, Mixtures]:
    """``n`` random rotations, and ``n`` random mixtures of all keys but the first in texts of ``shape`` (batch, pos)."""
    q, r = np.linalg.qr(rng.standard_normal((n, d_head, d_head)))
    rotations = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]  # uniform over rotations
    return rotations, rng.standard_normal((n, shape[0], shape[1] - 1))


def redrawn_key_importance(rotations: Rotations, mixtures: Mixtures) -> AttentionMetric:
    """alpha_0 with each drawn key as the first token's, [n_layers batch head 2n]: rotations, then mixtures.

    The key's score changes by some c, its weight ``a`` to a e^c / (a e^c + weight of the others). Texts are equally long.
    """

    def read(rows: AttentionRows) -> tuple[Tensor, Tensor]:
        call, pattern = rows.layer.call, rows.pattern
        count = pattern.new_full((1, 1, 1), pattern.shape[2])
        if rows.keys.start > 0:  # the first key is outside a sliding window
            return pattern.new_zeros(*pattern.shape[:2], len(rotations) + len(mixtures)), count
        if "redrawn keys" not in rows.cache:
            rows.cache["redrawn keys"] = _key_changes(rows.query_block, rotations, mixtures)
        own = torch.arange(rows.heads.start, rows.heads.stop, device=pattern.device) // call.group_size
        start = rows.queries.start - rows.layer.first_query
        queries = call.q[:, rows.heads, start : start + pattern.shape[2]].float() * call.scale
        score = torch.einsum("bhqd,bhd->bhq", queries, call.k[:, own, 0].float())
        change = torch.einsum("bhqd,bhnd->bhnq", queries, rows.cache["redrawn keys"][:, own])
        change = apply_softcap(score[:, :, None] + change, call.softcap) - apply_softcap(score, call.softcap)[:, :, None]
        first, others = pattern[..., 0], pattern[..., 1:].sum(-1)
        weight = torch.sigmoid((first.log() - others.log())[:, :, None] + change)
        return weight.where((others > 0)[:, :, None], first[:, :, None]).sum(-1), count

    return AttentionMetric("redrawn_key_importance", "draw", "weight", (0.0, 1.0), read, "")


def _key_changes(
    query_block: QueryBlock, rotations: Rotations, mixtures: Mixtures
) -> Float[Tensor, "batch kv_head draws d_head"]:
    """The drawn keys minus the first token's own."""
    key = query_block.layer.call.k.float()
    mean = key[:, :, 1:].mean((0, 2))
    deviation = key[:, :, 0] - mean
    rotated = torch.einsum("nij,bkj->bkni", torch.from_numpy(rotations).to(deviation), deviation)
    mixed = torch.einsum("nbs,bksd->knd", torch.from_numpy(mixtures).to(deviation), key[:, :, 1:] - mean[:, None])
    mixed = torch.nn.functional.normalize(mixed, dim=-1) * deviation.norm(dim=-1)[:, :, None, None]
    return torch.cat([rotated, mixed], 2) - deviation[:, :, None]
