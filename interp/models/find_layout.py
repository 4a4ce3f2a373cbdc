"""Locates blocks, attention modules and output projections in a plain Hugging Face model, so that the engine can resume from a layer.

Nothing is read off the name of an architecture. Blocks are the list of as many modules as there are layers. In two passes over a few
random tokens, the second with one position of every block's input changed, the attention of a block is the module that carries the
change to other positions, its output projection the matrix whose output it returns, and the final norm the module between the last
block and the unembedding. Where one of them cannot be found, or the logits are not a multiple of the unembedded norm (apart from the soft
cap of Gemma 2), there is no layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.model import Layout

LENGTH = 6
NEARLY = 1 - 1e-9
CARRIED = 1e-3
"""Change at other positions, relative to that at the changed one, above which a module mixes positions: rounding is far smaller."""


def layout_of(hf: nn.Module) -> Layout | None:
    """The layout of a causal language model, or None where a part is missing or ambiguous."""
    model: Any = hf
    unembed = model.get_output_embeddings()
    n_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = {name: m for name, m in hf.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers}
    outermost = [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    if getattr(getattr(unembed, "weight", None), "dim", int)() != 2:
        return None
    return next((found for blocks in outermost if (found := _with_blocks(model, tuple(blocks), unembed))), None)


def _with_blocks(hf: Any, blocks: tuple[nn.Module, ...], unembed: nn.Module) -> Layout | None:
    clean = _record(hf)
    if any(len(clean.get(part, ())) != 1 for part in (*blocks, unembed)):
        return None
    changed = _record(hf, {block: clean[block][0][0] for block in blocks})
    found = [_attention(block, clean, changed) for block in blocks]
    (last,), (head,) = clean[blocks[-1]], clean[unembed]
    inside = {module for block in blocks for module in block.modules()}
    norms = [m for m, calls in clean.items() if m not in inside and m is not unembed and _equal(calls[-1][0], last[1])]
    norm = next((m for m in norms if _equal(clean[m][-1][1], head[0])), nn.Identity() if _equal(last[1], head[0]) else None)
    scale = _logit_scale(hf, head[1], clean[hf][0][1])
    if None in found or norm is None or scale is None:
        return None
    attentions, outputs = zip(*[pair for pair in found if pair], strict=True)
    return Layout(blocks, attentions, outputs, norm, unembed, scale)


Calls = dict[nn.Module, list[tuple[Any, Any]]]
"""Hidden states that entered and left each module, call by call."""


def _record(hf: Any, entering: Mapping[nn.Module, Tensor] = MappingProxyType({})) -> Calls:
    """Calls of one pass over random tokens; with ``entering`` every block is entered by these hidden states, changed at one position."""
    draw = torch.Generator().manual_seed(0)
    n_tokens = hf.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(n_tokens, (1, LENGTH), generator=draw).to(hf.device)
    calls: Calls = {}

    def enter(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        x = entering[block].clone()
        x[:, LENGTH // 2] += torch.randn(x.shape[-1], generator=draw).to(x) * x.abs().mean()
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    def leave(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        first = output[0] if isinstance(output, tuple | list) else getattr(output, "logits", output)
        kept = first.clone() if isinstance(first, Tensor) else first  # Falcon adds to what its MLP returned
        calls.setdefault(module, []).append((given, kept))

    with torch.no_grad(), ExitStack() as stack:
        for block in entering:
            stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for module in hf.modules():
            stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        hf(input_ids=tokens, use_cache=False)
    return calls


def _attention(block: nn.Module, clean: Calls, changed: Calls) -> tuple[nn.Module, nn.Module] | None:
    """The innermost module of a block that mixes positions and returns the output of a matrix, with this matrix; where it returns
    another sum, as Bloom's attention adds the residual stream itself, the last matrix of its width that it calls. None where another module
    mixes positions beside it, as Mamba does in Falcon-H1."""
    found = None
    called = [module for module in block.modules() if module is not block and len(clean.get(module, ())) == 1]
    mixing = [module for module in called if _mixes(*clean[module][0], *changed[module][0])]
    for module in mixing:
        inside, output = {*module.modules()} - {module}, clean[module][0][1]
        matrices = [part for part, calls in clean.items() if part in inside and _is_matrix(part) and len(calls) == 1]
        returned = [part for part in matrices if _equal(clean[part][0][1], output)]
        wide = [part for part in matrices if clean[part][0][1].shape == output.shape]
        if len(returned) == 1 or (found is None and wide and not returned):
            found = module, (returned or wide)[-1]
    beside = [m for m in mixing if found and m not in {*found[0].modules()} and found[0] not in {*m.modules()}]
    return None if beside else found


def _mixes(given: Any, output: Any, given_after: Any, output_after: Any) -> bool:
    """Whether output changed at positions at which the input did not."""
    if not all(isinstance(x, Tensor) and x.dim() == 3 and x.shape[1] == LENGTH for x in (given, output)):
        return False
    here = torch.arange(LENGTH, device=given.device) == LENGTH // 2
    change = (output_after - output).float().abs().amax((0, 2))
    return torch.equal(given[:, ~here], given_after[:, ~here]) and bool(change[~here].max() > CARRIED * change[here].max())


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)


def _logit_scale(hf: Any, unembedded: Tensor, logits: Tensor) -> float | None:
    """The factor between what the unembedding returns and the logits before their soft cap; None where it is not one number."""
    cap = getattr(hf.config.get_text_config(), "final_logit_softcapping", None)
    raw, wanted = unembedded.double(), logits.double()
    factor = float(
        (raw * (wanted if cap is None else torch.atanh((wanted / cap).clamp(-NEARLY, NEARLY)) * cap)).sum() / raw.square().sum()
    )
    factor = 1.0 if abs(factor - 1) < 1e-4 else factor
    given = raw * factor if cap is None else torch.tanh(raw * factor / cap) * cap
    tolerance = 512 * torch.finfo(logits.dtype).eps * float(wanted.abs().max())
    return factor if float((given - wanted).abs().max()) <= tolerance else None
