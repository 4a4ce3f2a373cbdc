"""The plain road: one TransformerLens forward pass with hooks. Slow, and right for every model that has a bridge.

``run`` is what a notebook calls for a single pass; sweeps fall back to this road where restarting is not proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import AttentionHook, attention_hooks
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, batch_of_examples, read_rows
from interp.engine.forward.activation_names import hook_name
from interp.engine.forward.positions import position_mask
from interp.heads import Head
from interp.interventions import Intervention, InterventionContext
from interp.models.model import Model
from interp.records import RunRecord
from interp.tasks.task import Example

Hook = tuple[str, Callable[..., Any]]


@short_repr
@dataclass(frozen=True, eq=False)
class ForwardRun:
    """One pass: ``tokens`` [batch pos], ``logits`` [batch pos d_vocab], and the activations that were asked for by name."""

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


def run(
    model: Model,
    prompts: str | Sequence[int] | Tensor | Sequence[Example],
    *,
    capture: Sequence[str] = (),
    intervene: Sequence[Intervention] = (),
) -> ForwardRun:
    """One forward pass of text, token ids [pos] or [batch pos], or equally long examples (their clean prompts).

    ``capture`` lists activations by TransformerLens name or short address (``pattern.3``, ``resid_pre.0``); they are returned as the
    changed run had them. Raises LookupError for a name or a head that the model does not have.
    """
    examples = _examples(model, prompts)
    for intervention in intervene:
        for head in intervention.heads:
            model.facts.check_head(head)
    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    names = [hook_name(name) for name in capture]
    kept: dict[str, Tensor] = {}
    example_ids = torch.arange(len(examples), device=model.device)
    with model.lock, torch.inference_mode(), intervention_hooks(model, intervene, examples, example_ids) as hooks:
        unknown = [name for name in names if name not in model.bridge.hook_dict]
        if unknown:
            raise LookupError(
                f"{model.facts.name} has no activation called {unknown[0]!r}; write for instance z.0 or pattern.1."
            )
        logits = model.bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, *((name, _keeper(kept, name)) for name in names)])
    missing = [name for name in names if name not in kept]
    if missing:
        raise LookupError(f"{missing[0]!r} exists but is never computed by a {model.facts.architecture} model.")
    return ForwardRun(tokens, logits, kept, record_of(model, interventions=tuple(map(str, intervene))))


def record_of(model: Model, **entries: Any) -> RunRecord:
    """The record of a run of this model; ``entries`` are the remaining fields of ``RunRecord``."""
    facts = model.facts
    device = str(model.device)
    return RunRecord(facts.name, facts.revision, facts.weights_digest, dtype=facts.dtype, device=device, **entries)


def answer_logits(
    model: Model, examples: Sequence[Example], example_ids: Int[Tensor, " batch"], intervene: Sequence[Intervention]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits that predict the answer under the interventions, by one hooked pass; [batch d_vocab], float32."""
    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    with intervention_hooks(model, intervene, examples, example_ids) as hooks:
        return model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1].float()


def plain_logits(model: Model, examples: Sequence[Example]) -> Float[Tensor, "batch d_vocab"]:
    """Logits of the unchanged model that predict the answer, float32."""
    tokens = torch.tensor([e.clean for e in examples], device=model.device)
    if model.hf is None:
        return model.bridge(tokens)[:, -1].float()
    return model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].float()


@contextmanager
def intervention_hooks(
    model: Model, intervene: Sequence[Intervention], examples: Sequence[Example], example_ids: Tensor
) -> Iterator[list[Hook]]:
    """TransformerLens hooks that carry out the interventions on a pass over ``examples``; ``example_ids`` are their indices.

    Bridges that call Hugging Face's own attention throw a changed pattern away; there the engine's attention makes the change.
    """
    hooks: list[Hook] = []
    readers: dict[nn.Module, AttentionHook] = {}
    for layer in sorted({head.layer for i in intervene for head in i.heads}):
        here = [(i, head) for i in intervene for head in i.heads if head.layer == layer]
        hooks += [(hook_name(f"z.{layer}"), _z_hook(examples, example_ids, i, head)) for i, head in here if i.site == "z"]
        inside = [(i, head) for i, head in here if i.site != "z"]
        if inside and pattern_is_writable(model, layer):
            visible = visible_keys(model, layer, len(examples[0].clean)).to(example_ids.device)
            hooks += [
                (
                    hook_name(f"{'attn_scores' if i.site == 'scores' else 'pattern'}.{layer}"),
                    _pattern_hook(examples, example_ids, visible, i, head),
                )
                for i, head in inside
            ]
        elif inside:
            changes = [i for i in intervene if i.site != "z"]
            readers[model.bridge.blocks[layer].attn.original_component] = _pattern_reader(examples, example_ids, changes, layer)
    with attention_hooks(model.bridge.original_model, readers) if readers else nullcontext():
        yield hooks


def _z_hook(examples: Sequence[Example], example_ids: Tensor, intervention: Intervention, head: Head) -> Callable[..., Tensor]:
    here = position_mask(intervention.positions, examples)[:, :, None].to(example_ids.device)

    def edit(z: Tensor, hook: Any) -> Tensor:
        old = z[:, :, head.head]
        new = intervention.apply(old, InterventionContext(head, example_ids, torch.arange(z.shape[1], device=z.device)[None]))
        z = z.clone()
        z[:, :, head.head] = torch.where(here, new, old)
        return z

    return edit


def _pattern_hook(
    examples: Sequence[Example], example_ids: Tensor, visible: Tensor, intervention: Intervention, head: Head
) -> Callable[..., Tensor]:
    here = position_mask(intervention.positions, examples)[:, :, None].to(example_ids.device) & visible

    def write(table: Tensor, hook: Any) -> Tensor:
        old = table[:, head.head]
        queries, keys = (torch.arange(n, device=old.device)[None] for n in old.shape[1:])
        place = InterventionContext(head, example_ids, queries, visible, keys)
        new = torch.where(here, intervention.apply(old.float(), place).to(old.dtype), old)
        table = table.clone()
        table[:, head.head] = new
        return table

    return write


def _pattern_reader(
    examples: Sequence[Example], example_ids: Tensor, changes: Sequence[Intervention], layer: int
) -> AttentionHook:
    texts = batch_of_examples(examples, example_ids.device)
    return lambda call: read_rows(AttentionLayer(layer, call, texts), None, changes, example_ids, block=BLOCK)


def pattern_is_writable(model: Model, layer: int) -> bool:
    """Whether a change of ``hook_pattern`` reaches the output: bridges that call Hugging Face's own attention throw it away."""
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    return model.hf is None or type(model.bridge.blocks[layer].attn) is not AttentionBridge


def visible_keys(model: Model, layer: int, length: int) -> Bool[Tensor, "1 query key"]:
    """Which keys each query of a full-length pass may see in this layer, [1 query key]."""
    everything = torch.ones(length, length, dtype=torch.bool)
    if not model.facts.causal:
        return everything[None]
    window = model.facts.sliding_windows[layer]
    seen = everything.tril()
    return (seen if window is None else seen & everything.triu(1 - window))[None]


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    return lambda x, hook: kept.__setitem__(name, x.detach().clone())


def _examples(model: Model, prompts: str | Sequence[int] | Tensor | Sequence[Example]) -> list[Example]:
    if isinstance(prompts, str):
        prompts = model.to_tokens(prompts)
    if isinstance(prompts, Tensor):
        prompts = prompts.tolist()
    items: list[Any] = list(prompts)
    if not items:
        raise ValueError("There is no prompt to run: give text, token ids or examples.")
    if isinstance(items[0], int):
        items = [items]
    found = [i if isinstance(i, Example) else Example(tuple(i), tuple(i), (0,), ()) for i in items]
    lengths = {len(e.clean) for e in found}
    if len(lengths) != 1:
        raise ValueError(f"Prompts of one run must have equally many tokens, not {sorted(lengths)}: run each length by itself.")
    return found
