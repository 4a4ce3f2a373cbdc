"""Token positions by name: ``all``, ``end``, a mark of the prompt, or indices."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.tasks.task import END, Example


def position_mask(positions: str | tuple[int, ...], examples: Sequence[Example]) -> Bool[Tensor, "batch pos"]:
    """True at the positions named, [batch pos], in the clean prompts of equally long examples."""
    length = len(examples[0].clean)
    mask = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in enumerate(examples):
        mask[row, resolve_positions(positions, length, example.marks)] = True
    return mask


def resolve_positions(positions: str | tuple[int, ...], length: int, marks: Mapping[str, tuple[int, int]]) -> list[int]:
    """Indices of the positions named, in a prompt of ``length`` tokens with half-open spans ``marks``. ``positions`` is
    ``all``, ``end`` (the position that predicts the answer; of an answer of several tokens those that predict each), the name
    of a mark, or token indices, where negative ones count from the end. Raises LookupError for an unknown mark and IndexError
    for an index outside the prompt."""
    indices = range(length)
    if isinstance(positions, tuple):
        outside = [p for p in positions if not -length <= p < length]
        if outside:
            raise IndexError(f"Position {outside[0]} does not exist in a prompt of {length} tokens.")
        return [indices[p] for p in positions]
    if positions == "all":
        return list(indices)
    if positions == END:
        return list(indices[slice(*marks.get(END, (length - 1, length)))])
    if positions in marks:
        return list(indices[slice(*marks[positions])])
    known = ", ".join(["all", END, *sorted({*marks} - {END})])
    raise LookupError(f"No position is called {positions!r} in these prompts. There are: {known}.")
