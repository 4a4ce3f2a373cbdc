"""Changed patterns and scores of runs that are already changed in lower layers: their rows are computed anew, in blocks of queries."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, changes_in_layer, read_rows
from interp.engine.sweep.clean_pass import CleanPass
from interp.engine.sweep.variant import Variant


def change_patterns(
    z: Float[Tensor, "rows head n d_value"],
    clean: CleanPass,
    layer: int,
    active_variants: Sequence[Variant],
    call: AttentionInputs,
) -> None:
    """Replaces ``z`` of the heads whose pattern or scores an active variant changes in this layer; ``call`` holds the inputs of all rows,
    keys and values at the positions of the clean pass, queries at the last ``n`` of them."""
    size = len(clean.example_ids)
    for v, variant in enumerate(active_variants):
        changes = [(i, head) for i, head in changes_in_layer(variant, layer) if i.site != "z"]
        if changes:
            rows = slice(v * size, (v + 1) * size)
            own = AttentionLayer(layer, _aligned_inputs(clean, layer, call, rows), clean.left_padded)
            for intervention, head in changes:
                found = read_rows(own, None, [intervention], clean.example_ids, block=BLOCK, head_index=head.head)
                z[rows, head.head] = found[:, 0]


def _aligned_inputs(clean: CleanPass, layer: int, call: AttentionInputs, rows: slice) -> AttentionInputs:
    """Inputs of some rows with keys and values at all positions, in the columns of ``left_padded``."""
    k, v, mask, n = call.k[rows], call.v[rows], clean.mask[layer], call.q.shape[2]
    mask = None if mask is None else mask[:, :, -n:]
    if clean.n_before:
        assert mask is not None
        copies = k.shape[1] // clean.k_before[layer].shape[1]
        columns = _columns(clean)
        k, v = (
            torch.cat([_taken(old, columns).repeat_interleave(copies, 1), new], 2)
            for old, new in ((clean.k_before[layer], k), (clean.v_before[layer], v))
        )
        mask = mask.expand(len(columns), -1, -1, -1)
        here = (columns >= 0)[:, None, None]
        earlier = mask[..., : clean.n_before].gather(-1, columns.clamp(min=0)[:, None, None].expand(-1, 1, n, -1)) & here
        mask = torch.cat([earlier, mask[..., clean.n_before :]], -1)
    return replace(call, q=call.q[rows], k=k, v=v, mask=mask)


def _columns(clean: CleanPass) -> Int[Tensor, "batch before"]:
    """For each column before the positions of the clean pass, which of the prompt's positions stands there; negative for padding."""
    lengths = torch.tensor([len(e.clean) for e in clean.examples], device=clean.example_ids.device)
    return torch.arange(clean.n_before, device=lengths.device) - (lengths.max() - lengths)[:, None]


def _taken(x: Tensor, columns: Int[Tensor, "batch before"]) -> Tensor:
    """Keys or values [batch kv_head before d] in these columns."""
    where = columns.clamp(min=0)[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])
    return x.gather(2, where)
