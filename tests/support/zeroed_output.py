"""The other road to a zero ablation: the rows of W_O that a head writes through are zero for a while (the bias stays)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from interp.heads import Head
from interp.models.model import Model
from interp.models.value_and_output_weights import output_rows


@contextmanager
def zeroed_output(model: Model, head: Head) -> Iterator[torch.nn.Module]:
    """The plain module of ``model``, without gradients, while the output weights of ``head`` are zero."""
    weights = output_rows(model.layout.outputs[head.layer], head.head, model.facts.d_head)
    with torch.no_grad():
        saved = weights.clone()
        weights.zero_()
        try:
            yield model.hf
        finally:
            weights.copy_(saved)
