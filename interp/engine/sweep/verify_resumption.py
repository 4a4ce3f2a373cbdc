"""The proof that runs of a model can be resumed from its clean pass, against the plain model."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch

from interp.engine.attention.attention_interface import refusing_crashes
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.readout import logits_of
from interp.engine.sweep.resume_from_layer import resume_variants
from interp.engine.sweep.variant import Variant
from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.interventions import scale
from interp.models.model import Model
from interp.models.plain_model_reference import outputs_of, plain_copy, rounding, unexplained_error
from interp.tasks.task import Example

_VERIFIED: WeakKeyDictionary[Model, set[tuple[int, int]]] = WeakKeyDictionary()


def verify_resumption(model: Model, examples: Sequence[Example]) -> None:
    """Raises FastPathUnavailable unless, on the shortest and the longest of these prompts that can share a batch, attention output is
    the projection of z, and a run that is resumed without a change has the logits of the plain model on each."""
    (_, layout), name, plain = model.known_parts, model.facts.architecture, plain_copy(model)
    unchanged: Variant = (scale([Head(0, 0)], 1.0),)
    by_class: dict[tuple[bytes, int], list[Example]] = {}
    for example in examples:
        by_class.setdefault((model.length_class(len(example.clean)), example.n_answer_tokens), []).append(example)
    for alike in by_class.values():
        ends = [min(alike, key=lambda e: len(e.clean)), max(alike, key=lambda e: len(e.clean))]
        shortest, longest = (len(e.clean) for e in ends)
        with refusing_crashes(f"{name}: a run cannot be resumed"):
            clean = clean_pass(model, ends, [0, 1], n_before=longest - shortest).select([0, 1], shortest)
            residual = resume_variants(model, clean, [unchanged])
        for z, out, projection in zip(clean.z, clean.attn_out, layout.outputs, strict=True):
            error = float((projection(z.flatten(-2).contiguous()) - out).abs().max())
            if error > rounding(model.dtype) * float(out.abs().max()):
                raise FastPathUnavailable(f"{name}: the output of attention is not the projection of the heads' z")
        for logits, example in zip(logits_of(model, residual[0]), ends, strict=True):
            for after, own in enumerate(logits.view(-1, logits.shape[-1]).flip(0)):
                tokens = torch.tensor([example.clean[: len(example.clean) - after]], device=model.device)
                if error := unexplained_error(plain, tokens, own[None], outputs_of(plain, tokens, 2)):
                    raise FastPathUnavailable(f"{name}: a resumed run differs from the model by {error:.2g} of its logits")


def verify_once(model: Model, examples: Sequence[Example]) -> None:
    """``verify_resumption`` of equally long prompts, once for each model and length, also of the answer."""
    verified, alike = _VERIFIED.setdefault(model, set()), (len(examples[0].clean), examples[0].n_answer_tokens)
    if alike not in verified:
        verify_resumption(model, examples)
        verified.add(alike)
