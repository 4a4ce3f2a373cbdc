"""The residual stream of a pass, layer by layer, without storing it.

It is the stream of the plain Hugging Face model after each block, before any folding or centring of weights.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from interp.engine.attention.attention_observer import verify_attention
from interp.models.model import Model


@contextmanager
def reading_residual(model: Model, read: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the context every forward pass of ``model.hf`` calls ``read(layer, x)`` with x [batch pos d_model] after each block.
    Raises ValueError where the blocks of the model are not known."""
    if model.layout is None:
        raise ValueError(
            f"The residual stream of {model.facts.name} cannot be read: the blocks of a {model.facts.architecture} model are not known. "
            f"Capture it by name with interp.engine.capture."
        )
    verify_attention(model)  # its own passes must not be read
    with ExitStack() as stack:
        for layer, block in enumerate(model.layout.blocks):
            stack.enter_context(block.register_forward_hook(partial(_hand_over, read, layer)))
        yield


def _hand_over(read: Callable[[int, Tensor], None], layer: int, module: nn.Module, args: tuple, output: Any) -> None:
    read(layer, output[0] if isinstance(output, tuple) else output)
