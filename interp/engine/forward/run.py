"""One TransformerLens forward pass with hooks: slower than resuming, and correct for every model that has a bridge.

``run`` is the call for a single pass in a notebook; sweeps use this backend where resuming is not verified.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import AttentionHook, attention_hooks
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, changes_in_layer, check_heads, read_rows
from interp.engine.forward.activation_names import hook_name
from interp.heads import Head
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model, record_of
from interp.records import RunRecord
from interp.tasks.task import Example
from interp.tasks.token_batch import Prompts, TokenBatch, as_batch

Hook = tuple[str, Callable[..., Any]]


@short_repr
@dataclass(frozen=True, eq=False)
class ForwardRun:
    """One pass: ``tokens`` [batch pos], ``logits`` [batch pos d_vocab], and the captured activations by name."""

    tokens: Int[Tensor, "batch pos"]
    logits: Float[Tensor, "batch pos d_vocab"]
    activations: dict[str, Tensor]
    record: RunRecord

    def __getitem__(self, name: str) -> Tensor:
        """An activation by TransformerLens name or short address (``z.5``). Raises LookupError if it was not captured."""
        full = hook_name(name)
        if full not in self.activations:
            raise LookupError(f"{name!r} was not captured. This run holds: {', '.join(self.activations) or 'no activations'}.")
        return self.activations[full]


def run(model: Model, prompts: Prompts, *, capture: Sequence[str] = (), intervene: Sequence[Intervention] = ()) -> ForwardRun:
    """One forward pass of text, token ids [pos] or [batch pos], or equally long examples (their clean prompts).

    ``capture`` lists activations by TransformerLens name or short address (``pattern.3``, ``resid_pre.0``); values are those of
    the changed run. Raises LookupError for a name or a head that the model does not have.
    """
    batch = as_batch(model, prompts)
    if batch.padded:
        lengths = sorted(set(batch.lengths))
        raise ValueError(f"Prompts of one run must have equally many tokens, not {lengths}: run each length by itself.")
    check_heads(model, intervene)
    names = [hook_name(name) for name in capture]
    kept: dict[str, Tensor] = {}
    example_ids = torch.arange(len(batch.tokens), device=model.device)
    with model.lock, torch.inference_mode(), intervention_hooks(model, intervene, batch, example_ids) as hooks:
        unknown = [name for name in names if name not in model.bridge.hook_dict]
        if unknown:
            raise LookupError(
                f"{model.facts.name} has no activation called {unknown[0]!r}; names are, for example, z.0 or pattern.1."
            )
        logits = model.bridge.run_with_hooks(batch.tokens, fwd_hooks=[*hooks, *((name, _keeper(kept, name)) for name in names)])
    missing = [name for name in names if name not in kept]
    if missing:
        raise LookupError(f"{missing[0]!r} exists but is never computed by a {model.facts.architecture} model.")
    return ForwardRun(batch.tokens, logits, kept, record_of(model, interventions=tuple(map(str, intervene))))


def answer_logits(
    model: Model, batch: TokenBatch, example_ids: Int[Tensor, " batch"], intervene: Sequence[Intervention]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits that predict the answer under the interventions, by one hooked pass, in float32."""
    with intervention_hooks(model, intervene, batch, example_ids) as hooks:
        return model.bridge.run_with_hooks(batch.tokens, fwd_hooks=hooks)[:, -1].float()


def plain_logits(model: Model, examples: Sequence[Example]) -> Float[Tensor, "batch d_vocab"]:
    """Logits of the unchanged model that predict the answer, float32."""
    tokens = as_batch(model, examples).tokens
    if model.hf is None:
        return model.bridge(tokens)[:, -1].float()
    return model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].float()


@contextmanager
def intervention_hooks(
    model: Model, intervene: Sequence[Intervention], batch: TokenBatch, example_ids: Tensor
) -> Iterator[list[Hook]]:
    """TransformerLens hooks that apply the interventions to a pass over ``batch``, whose example indices are ``example_ids``.

    Bridges that call Hugging Face's own attention ignore a changed pattern; there the engine's attention applies the change.
    """
    hooks: list[Hook] = []
    readers: dict[nn.Module, AttentionHook] = {}
    for layer in sorted({head.layer for i in intervene for head in i.heads}):
        here = changes_in_layer(intervene, layer)
        hooks += [(hook_name(f"z.{layer}"), _z_hook(batch, example_ids, i, head)) for i, head in here if i.site == "z"]
        inside = [(i, head) for i, head in here if i.site != "z"]
        if inside and pattern_is_writable(model, layer):
            visible = visible_keys(model, layer, batch.tokens.shape[1]).to(example_ids.device)
            for i, head in inside:
                name = hook_name(f"{'attn_scores' if i.site == 'scores' else 'pattern'}.{layer}")
                hooks.append((name, _pattern_hook(batch, example_ids, visible, i, head)))
        elif inside:
            changes = [i for i in intervene if i.site != "z"]
            readers[model.bridge.blocks[layer].attn.original_component] = _pattern_reader(batch, example_ids, changes, layer)
    with attention_hooks(model.bridge.original_model, readers) if readers else nullcontext():
        yield hooks


@contextmanager
def quiet_inference() -> Iterator[None]:
    """No gradients; TransformerLens's warning of a discarded edit becomes an error: the result would be silently wrong."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*discarded.*")
        yield


def _z_hook(batch: TokenBatch, example_ids: Tensor, intervention: Intervention, head: Head) -> Callable[..., Tensor]:
    here = batch.position_mask(intervention.positions)[:, :, None]

    def edit(z: Tensor, hook: Any) -> Tensor:
        old = z[:, :, head.head]
        new = intervention.apply(old, InterventionContext(head, example_ids, torch.arange(z.shape[1], device=z.device)[None]))
        z = z.clone()
        z[:, :, head.head] = torch.where(here, new, old)
        return z

    return edit


def _pattern_hook(
    batch: TokenBatch, example_ids: Tensor, visible: Tensor, intervention: Intervention, head: Head
) -> Callable[..., Tensor]:
    here = batch.position_mask(intervention.positions)[:, :, None] & visible

    def write(table: Tensor, hook: Any) -> Tensor:
        old = table[:, head.head]
        queries, keys = (torch.arange(n, device=old.device)[None] for n in old.shape[1:])
        place = InterventionContext(head, example_ids, queries, visible, keys)
        new = torch.where(here, intervention.apply(old.float(), place).to(old.dtype), old)
        table = table.clone()
        table[:, head.head] = new
        return table

    return write


def _pattern_reader(batch: TokenBatch, example_ids: Tensor, changes: Sequence[Intervention], layer: int) -> AttentionHook:
    return lambda call: read_rows(AttentionLayer(layer, call, batch), None, changes, example_ids, block=BLOCK)


def pattern_is_writable(model: Model, layer: int) -> bool:
    """Whether a change of ``hook_pattern`` reaches the output: bridges that call Hugging Face's own attention ignore it."""
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    return model.hf is None or type(model.bridge.blocks[layer].attn) is not AttentionBridge


def visible_keys(model: Model, layer: int, length: int) -> Bool[Tensor, "1 query key"]:
    """Which keys each query of a full-length pass may see in this layer."""
    everything = torch.ones(length, length, dtype=torch.bool)
    if not model.facts.causal:
        return everything[None]
    window = model.facts.sliding_windows[layer]
    seen = everything.tril()
    return (seen if window is None else seen & everything.triu(1 - window))[None]


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    return lambda x, hook: kept.__setitem__(name, x.detach().clone())
