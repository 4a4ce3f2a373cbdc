"""Which token positions an intervention touches, example by example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.tasks.task import Example


def touched(positions: str | tuple[int, ...], examples: Sequence[Example]) -> Bool[Tensor, "batch pos"]:
    """True where the intervention applies, [batch pos]; all examples have the same number of tokens.

    ``positions`` is ``all``, ``end`` (the position that predicts the answer), the name of a mark, or token indices (negative ones
    count from the end). Raises LookupError for an unknown mark and IndexError for an index outside the prompt.
    """
    length = len(examples[0].clean)
    mask = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in enumerate(examples):
        if isinstance(positions, tuple):
            outside = [p for p in positions if not -length <= p < length]
            if outside:
                raise IndexError(f"Position {outside[0]} does not exist in a prompt of {length} tokens.")
            mask[row, list(positions)] = True
        elif positions == "all":
            mask[row] = True
        elif positions == "end":
            mask[row, -1] = True
        elif positions in example.marks:
            mask[row, slice(*example.marks[positions])] = True
        else:
            known = ", ".join(["all", "end", *sorted(example.marks)])
            raise LookupError(f"No position is called {positions!r} in these prompts. There are: {known}.")
    return mask
