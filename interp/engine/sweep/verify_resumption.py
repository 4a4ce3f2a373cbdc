"""The proof that runs of a model can be resumed from its clean pass, against the plain model."""

from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

import torch

from interp.engine.attention.attention_interface import refusing_crashes
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.readout import logits_of
from interp.engine.sweep.resume_from_layer import resume_variants
from interp.engine.sweep.variant import Variant
from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.interventions import Intervention, scale
from interp.models.model import Model
from interp.models.plain_model_reference import outputs_of, plain_copy, rounding, unexplained_error
from interp.tasks.task import Example

_VERIFIED: WeakKeyDictionary[Model, set[tuple[int, int, int]]] = WeakKeyDictionary()


def verify_resumption(
    model: Model, examples: Sequence[Example], n_positions: Collection[int] = (), *, patterns: bool = False
) -> None:
    """Raises FastPathUnavailable unless, on the shortest and the longest of these prompts that can share a batch, attention output is
    the projection of z, and a run that is resumed without a change has the logits of the plain model on each: resumed at so many last
    positions, the smallest and the largest of ``n_positions`` (by default at all). With ``patterns``, rows of the last
    layer, and of the first above 0 with each kind of window, are computed as those of a changed pattern."""
    (_, layout), name, plain = model.known_parts, model.facts.architecture, plain_copy(model)
    unchanged: Variant = (scale([Head(0, 0)], 1.0),)
    if patterns and (top := model.facts.n_layers - 1):  # in the first layer they act on clean rows
        windows = {model.facts.sliding_windows[layer]: layer for layer in range(top, 0, -1)}
        heads = tuple(Head(layer, 0) for layer in sorted({*windows.values(), top}))
        unchanged = (*unchanged, Intervention("pattern", heads, lambda rows, context: rows, "unchanged"))
    by_class: dict[tuple[bytes, int], list[Example]] = {}
    for example in examples:
        by_class.setdefault((model.length_class(len(example.clean)), example.n_answer_tokens), []).append(example)
    for alike in by_class.values():
        ends = [min(alike, key=lambda e: len(e.clean)), max(reversed(alike), key=lambda e: len(e.clean))]  # two of one length
        shortest, longest, n_tokens = len(ends[0].clean), len(ends[1].clean), ends[0].n_answer_tokens
        sizes = sorted(
            {min(max(n, n_tokens), shortest) for n in (min(n_positions, default=shortest), max(n_positions, default=shortest))}
        )
        with refusing_crashes(f"{name}: a run cannot be resumed"):
            clean = clean_pass(model, ends, [0, 1], n_before=longest - sizes[0])
            resumed = [logits_of(model, resume_variants(model, clean.select([0, 1], n), [unchanged])[0]) for n in sizes]
        for z, out, projection in zip(clean.z, clean.attn_out, layout.outputs, strict=True):
            error = float((projection(z.flatten(-2).contiguous()) - out).abs().max())
            if error > rounding(model.dtype) * float(out.abs().max()):
                raise FastPathUnavailable(f"{name}: the output of attention is not the projection of the heads' z")
        del clean  # before the plain passes take memory
        for i, example in enumerate(ends):
            for after in range(n_tokens):
                tokens = torch.tensor([example.clean[: len(example.clean) - after]], device=model.device)
                wanted = outputs_of(plain, tokens, 2)
                for logits in resumed:
                    own = logits[i].view(n_tokens, -1)[n_tokens - 1 - after]
                    if error := unexplained_error(plain, tokens, own[None], wanted):
                        raise FastPathUnavailable(f"{name}: a resumed run differs from the model by {error:.2g} of its logits")


def verify_once(model: Model, examples: Sequence[Example], start: int = 0) -> None:
    """``verify_resumption`` of equally long prompts from position ``start`` on, once for each model, start, length and answer's length."""
    length = len(examples[0].clean)
    verified, alike = _VERIFIED.setdefault(model, set()), (length, examples[0].n_answer_tokens, start)
    if alike not in verified:
        verify_resumption(model, examples, [length - start])
        verified.add(alike)
