"""Models whose weights stay quantised (bitsandbytes, torchao, GPTQ, AWQ ...): transformers loads and runs them; here they are named,
and their stored tensors found for the digest and the check of NaN values."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

QUANTISED = "quantised by "
"""Start of the ``weights_form`` of such a model."""


def quantised_form(config: Any) -> str:
    """``quantised by`` and the method that a configuration names; empty for plain weights."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return ""
    method = settings.get("quant_method", "") if isinstance(settings, dict) else settings.quant_method
    return f"{QUANTISED}{getattr(method, 'value', method) or 'an unnamed method'}"


def weight_tensors(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and plain tensors of all parameters. Of a quantised model also the stored buffers, which some methods keep weights in;
    tensors that pack several are taken apart."""
    if not quantised_form(getattr(hf, "config", None)):
        yield from hf.named_parameters()
        return
    for name, value in hf.state_dict().items():
        if isinstance(value, Tensor):
            yield from _parts(name, value)


def _parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    packed: Any = tensor
    if not hasattr(packed, "__tensor_flatten__"):
        yield name, tensor
        return
    for part in packed.__tensor_flatten__()[0]:
        yield from _parts(f"{name}.{part}", getattr(packed, part))
