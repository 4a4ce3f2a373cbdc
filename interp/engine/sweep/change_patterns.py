"""Changed patterns and scores of runs that are already changed in lower layers: their rows are computed anew, in blocks of queries."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, read_rows
from interp.engine.attention.head_changes import changes_in_layer
from interp.engine.sweep.clean_pass import CleanPass
from interp.engine.sweep.variant import Variant


def change_patterns(
    z: Float[Tensor, "rows head n d_value"],
    clean: CleanPass,
    layer: int,
    active_variants: Sequence[Variant],
    call: AttentionInputs,
) -> None:
    """Replaces ``z``, the output at the last ``n`` positions, of the heads whose rows an active variant changes in this layer; ``call``
    holds the inputs of all rows at the positions of the clean pass."""
    size, n = len(clean.example_ids), z.shape[2]
    for v, variant in enumerate(active_variants):
        changes = [(i, head) for i, head in changes_in_layer(variant, layer) if i.inside_attention]
        if changes:
            rows = slice(v * size, (v + 1) * size)
            inputs = _aligned_inputs(clean, layer, call, rows)
            for intervention, head in changes:
                own = AttentionLayer(layer, inputs if intervention.needs_whole_text else inputs.last(n), clean.left_padded)
                found = read_rows(own, None, [intervention], clean.example_ids, block=BLOCK, head_index=head.head)
                z[rows, head.head] = found[:, 0, -n:]


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
