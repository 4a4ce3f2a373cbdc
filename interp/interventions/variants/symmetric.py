"""A head with the symmetric part of its W_QK (Reducing the Transformer Architecture to a Minimum, arXiv 2410.13732).

The score of query i and key j becomes the mean of ``q_i . k_j`` and ``q_j . k_i``; with ``part=antisymmetric`` half their difference. The
two parts add up to the head's own scores. Rotary embedding stays that of each token's position, and soft caps and ALiBi are left out of
the change. There is no neutral setting.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention


@intervention(source="Reducing the Transformer Architecture to a Minimum, arXiv 2410.13732")
def symmetric(heads: Iterable[Head], part: str = "symmetric", positions: Positions = "all") -> Intervention:
    """Scores become those of the symmetric (or antisymmetric) ``part`` of the head's query-key matrix."""
    if part not in ("symmetric", "antisymmetric"):
        raise ValueError(f"symmetric: part={part!r} is neither symmetric nor antisymmetric.")
    sign = 1 if part == "symmetric" else -1

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        import torch

        before = memory.get("queries", inputs.q[:, :0])  # of the tokens that earlier steps read
        memory["queries"] = torch.cat([before, inputs.q], 1)

    def scores(s, at):
        q, k, first = at.memory["queries"], at.inputs.k, at.inputs.k.shape[1] - at.inputs.q.shape[1]
        own = k[:, first + at.query_slice.start : first + at.query_slice.stop]
        other = own @ q[:, at.key_slice].mT * at.inputs.scale
        this = at.inputs.q[:, at.query_slice] @ k[:, at.key_slice].mT * at.inputs.scale
        return s + (sign * other - this) / 2

    return Intervention("scores", tuple(heads), scores, part, positions, uses_inputs=True, prepare=prepare)
