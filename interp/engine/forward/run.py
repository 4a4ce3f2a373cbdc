"""One TransformerLens forward pass with hooks: slower than resuming, and correct for every model that has a bridge.

``run`` is the call for a single pass in a notebook; sweeps use this backend where resuming is not verified.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import AttentionHook, attention_hooks
from interp.engine.attention.attention_observer import verify_attention
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, check_heads, read_rows
from interp.engine.attention.head_changes import changes_in_layer
from interp.engine.attention.intervening_observer import plain_logits_with
from interp.engine.forward.activation_names import hook_name
from interp.heads import Head
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model, record_of
from interp.models.value_and_output_weights import output_weights
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

    ``capture`` lists activations by TransformerLens name or short address (``pattern.3``, ``resid_pre.0``); values are those of the
    changed run. ``result.3`` is what each head adds to the residual stream, z @ W_O [batch pos head d_model]. Raises LookupError
    for a name or a head that the model does not have, ValueError for captures under interventions that read more than patterns.
    """
    batch = as_batch(model, prompts)
    if batch.padded:
        lengths = sorted(set(batch.lengths))
        raise ValueError(f"Prompts of one run must have equally many tokens, not {lengths}: run each length by itself.")
    check_heads(model, intervene)
    example_ids, record = (
        torch.arange(len(batch.tokens), device=model.device),
        record_of(model, interventions=tuple(map(str, intervene))),
    )
    if need_engine(model, intervene, capture):
        return ForwardRun(batch.tokens, plain_logits_with(model, batch, intervene, example_ids), {}, record)
    names = [hook_name(name) for name in capture]
    sources = {name: name.replace(".attn.hook_result", ".attn.hook_z") for name in names}
    kept: dict[str, Tensor] = {}
    with model.lock, torch.inference_mode(), intervention_hooks(model, intervene, batch, example_ids) as hooks:
        unknown = [name for name, source in sources.items() if source not in model.bridge.hook_dict]
        if unknown:
            raise LookupError(
                f"{model.facts.name} has no activation called {unknown[0]!r}; names are, for example, z.0 or pattern.1."
            )
        keepers = [(source, _keeper(kept, source)) for source in dict.fromkeys(sources.values())]
        logits = model.bridge.run_with_hooks(batch.tokens, fwd_hooks=[*hooks, *keepers])
        missing = [name for name, source in sources.items() if source not in kept]
        if missing:
            raise LookupError(f"{missing[0]!r} exists but is never computed by a {model.facts.architecture} model.")
        found = {
            name: kept[name] if name == source else _by_head(model, name, kept[source]) for name, source in sources.items()
        }
    return ForwardRun(batch.tokens, logits, found, record)


def need_engine(model: Model, intervene: Sequence[Intervention], capture: Sequence[str] = ()) -> bool:
    """Whether the engine's own attention must apply the interventions. Raises ValueError where it cannot: in a model of TransformerLens's
    own, and in a pass that captures activations by TransformerLens's hooks."""
    label = next((i.label for i in intervene if i.needs_engine), None)
    if label is None:
        return False
    if model.hf is None:
        raise ValueError(
            f"{label!r} reads more than patterns, for which a Hugging Face model is needed, and {model.facts.name} is none."
        )
    if capture:
        raise ValueError(
            f"Activations cannot be captured under {label!r}: leave out capture, or observe the attention with a metric."
        )
    return True


def at_answer(x: Float[Tensor, "batch pos *d"], n_tokens: int) -> Float[Tensor, "batch ..."]:
    """``x`` at the last position, [batch ...]; for answers of several tokens at that many last positions, [batch n_tokens ...]."""
    return x[:, -1] if n_tokens == 1 else x[:, -n_tokens:]


def answer_logits(
    model: Model, batch: TokenBatch, example_ids: Int[Tensor, " batch"], intervene: Sequence[Intervention], n_tokens: int = 1
) -> Float[Tensor, "batch *n_tokens d_vocab"]:
    """Logits that predict the answer under the interventions, by one hooked pass, in float32; ``n_tokens`` as in ``at_answer``."""
    if need_engine(model, intervene):
        return at_answer(plain_logits_with(model, batch, intervene, example_ids, n_tokens), n_tokens).float()
    with intervention_hooks(model, intervene, batch, example_ids) as hooks:
        return at_answer(model.bridge.run_with_hooks(batch.tokens, fwd_hooks=hooks), n_tokens).float()


def plain_logits(model: Model, examples: Sequence[Example]) -> Float[Tensor, "batch *n_tokens d_vocab"]:
    """Logits of the unchanged model that predict the answers, which have equally many tokens, float32."""
    tokens, n_tokens = as_batch(model, examples).tokens, examples[0].n_answer_tokens
    if model.hf is None:
        return at_answer(model.bridge(tokens), n_tokens).float()
    return at_answer(model.hf(input_ids=tokens, use_cache=False, logits_to_keep=n_tokens).logits, n_tokens).float()


@contextmanager
def intervention_hooks(
    model: Model, intervene: Sequence[Intervention], batch: TokenBatch, example_ids: Tensor
) -> Iterator[list[Hook]]:
    """TransformerLens hooks that apply the interventions to a pass over ``batch``, whose example indices are ``example_ids``.

    Bridges that call Hugging Face's own attention ignore a changed pattern; there the engine's attention applies the change, once it is
    proven for the model.
    """
    hooks: list[Hook] = []
    readers: dict[nn.Module, AttentionHook] = {}
    changes = [i for i in intervene if i.site != "z"]
    for layer in sorted({head.layer for i in intervene for head in i.heads}):
        here = changes_in_layer(intervene, layer)
        visible = visible_keys(model, layer, batch.tokens.shape[1]).to(example_ids.device)
        sink = has_learned_sinks(model, layer)
        through_hooks = all(i.site == "z" for i, _ in here) or pattern_is_writable(model, layer)
        for i, head in here:
            at = batch.position_mask(i.positions)[:, :, None]
            if i.site == "z":
                hooks.append((hook_name(f"z.{layer}"), partial(_edit_z, i, head, example_ids, at)))
            elif through_hooks:
                name = hook_name(f"{'attn_scores' if i.site == 'scores' else 'pattern'}.{layer}")
                hooks.append((name, partial(_edit_pattern, i, head, example_ids, at & visible, visible, sink)))
        if not through_hooks:
            readers[model.bridge.blocks[layer].attn.original_component] = lambda call, layer=layer: read_rows(
                AttentionLayer(layer, call, batch), None, changes, example_ids, block=BLOCK
            )
    if readers:
        verify_attention(model)
    with attention_hooks(model.bridge.original_model, readers) if readers else nullcontext():
        yield hooks


@contextmanager
def quiet_inference() -> Iterator[None]:
    """No gradients; TransformerLens's warning of a discarded edit becomes an error: the result would be silently wrong."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*discarded.*")
        yield


def _edit_z(change: Intervention, head: Head, ids: Tensor, at: Tensor, z: Tensor, hook: Any) -> Tensor:
    place = InterventionContext(head, ids, torch.arange(z.shape[1], device=z.device)[None])
    old, z = z[:, :, head.head], z.clone()
    z[:, :, head.head] = torch.where(at, change.apply(old, place), old)
    return z


def _edit_pattern(
    change: Intervention, head: Head, ids: Tensor, at: Tensor, visible: Tensor, sink: bool, x: Tensor, hook: Any
) -> Tensor:
    """Scores or patterns ``x`` [batch head query key] after a change of one head."""
    old, x = x[:, head.head], x.clone()
    queries, keys = (torch.arange(n, device=x.device)[None] for n in old.shape[1:])
    rows = old.float()
    share = 1 - rows.sum(-1, keepdim=True) if sink and change.site == "pattern" else None
    place = InterventionContext(head, ids, queries, visible, keys, share)
    x[:, head.head] = torch.where(at, change.apply(rows, place).to(old.dtype), old)
    return x


def pattern_is_writable(model: Model, layer: int) -> bool:
    """Whether a change of ``hook_pattern`` reaches the output: bridges that call Hugging Face's own attention ignore it."""
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    return model.hf is None or type(model.bridge.blocks[layer].attn) is not AttentionBridge


def has_learned_sinks(model: Model, layer: int) -> bool:
    """Whether every row of this layer has a learned sink beside its keys."""
    attention = getattr(model.bridge.blocks[layer].attn, "original_component", None)
    return getattr(attention, "sinks", None) is not None


def visible_keys(model: Model, layer: int, length: int) -> Bool[Tensor, "1 query key"]:
    """Which keys each query of a full-length pass may see in this layer."""
    everything = torch.ones(length, length, dtype=torch.bool)
    if not model.facts.causal:
        return everything[None]
    window = model.facts.sliding_windows[layer]
    seen = everything.tril()
    return (seen if window is None else seen & everything.triu(1 - window))[None]


def _by_head(model: Model, name: str, z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head d_model"]:
    """What each head of the layer in ``name`` adds to the residual stream. (TransformerLens computes it for some architectures only.)"""
    return torch.einsum("bphd,hdm->bphm", z, output_weights(model, int(name.split(".")[1])))


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    return lambda x, hook: kept.__setitem__(name, x.detach().clone())
