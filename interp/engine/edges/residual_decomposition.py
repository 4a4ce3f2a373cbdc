"""The residual stream of clean and corrupted prompts, decomposed into the output of every component.

A *writer* is the embedding, a head or an MLP; a *reader* (a head's query, key or value, an MLP, the logits) receives the sum of
all earlier writers and biases, before its norm. Corrupting an edge replaces the writer's output by that on the corrupted
prompt, for this reader only. Blocks are the model's own, called with fixed attention or left once it has its inputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.attention.attention_interface import (
    AttentionInputs,
    LeaveModule,
    attention_hooks,
)
from interp.engine.sweep.clean_pass import CleanPass, clean_pass
from interp.engine.sweep.outcome import Outcome
from interp.engine.sweep.readout import Readout
from interp.engine.sweep.resume_from_layer import attend_resumed, call_block, fixed_attention
from interp.engine.sweep.sweep import Progress
from interp.engine.sweep.verify_resumption import verify_once
from interp.engine.sweep.work_units import batches, gradient_memory, tokens_at_once
from interp.errors import FastPathUnavailable
from interp.graph import QKV
from interp.models.memory import ITEM_BYTES, activation_bytes
from interp.models.model import Layout, Model
from interp.models.plain_model_reference import rounding
from interp.models.value_and_output_weights import output_weights
from interp.tasks.task import Example, Task


@dataclass(eq=False)
class ResidualDecomposition:
    """Clean prompts of one length with every writer's outputs, at the last ``n`` positions: those from the first difference on.

    ``outputs`` and ``corrupted`` [n_writers batch n d_model] are the writers' outputs on either prompt, in the order embedding,
    then heads and MLP (if there is one) of each layer. Where ``corrupted`` is not a run of other prompts, ``n`` is the whole
    length. ``biases`` [n_layers d_model] are those of attention, which belong to no head.
    """

    model: Model
    clean: CleanPass
    outputs: Float[Tensor, "n_writers batch n d_model"]
    corrupted: Float[Tensor, "n_writers batch n d_model"]
    biases: Float[Tensor, "n_layers d_model"]
    weights: list[Tensor]

    @property
    def batch(self) -> int:
        """Number of prompts."""
        return len(self.clean.example_ids)

    @property
    def layout(self) -> Layout:
        return self.model.known_parts[1]

    @property
    def runs_per_batch(self) -> int:
        """Number of changed runs of the batch per pass."""
        return max(1, tokens_at_once(self.model) // self.clean.positions.numel())

    @property
    def ends(self) -> Float[Tensor, "2 batch *n_tokens d_model"]:
        """The final residual on the clean prompts, and with every edge corrupted."""
        return torch.stack([self.clean.final_residual, self.at_end(self.corrupted).sum(0) + self.biases.sum(0)])

    @property
    def n_last(self) -> int:
        """Number of last positions that predict the answer: one for each of its tokens."""
        return self.clean.n_answer_tokens

    def n_writers_before(self, layer: int) -> int:
        """Number of writers before a layer."""
        return 1 + layer * ((len(self.outputs) - 1) // self.model.facts.n_layers)

    def read_positions(self, layer: int) -> slice:
        """The positions at which a layer's output is used: in the last layer those that predict the answer."""
        return slice(-self.n_last if layer == self.model.facts.n_layers - 1 else 0, None)

    def at_end(self, x: Float[Tensor, "some batch n d_model"]) -> Float[Tensor, "some batch *n_tokens d_model"]:
        """``x`` where the answer is predicted; without the dimension of its tokens where that is one."""
        return x[:, :, -1] if self.n_last == 1 else x[:, :, -self.n_last :]

    def output_difference(self, writers: int | Sequence[int]) -> Float[Tensor, "*writers batch n d_model"]:
        """The change of a reader's input when writers, given by index, are corrupted."""
        return self.corrupted[writers] - self.outputs[writers]

    def qkv(self, layer: int, x: Float[Tensor, "rows n d_model"]) -> AttentionInputs:
        """Queries, keys and values of a layer with input ``x``, whose rows are repetitions of the batch."""

        def leave(call: AttentionInputs) -> Tensor:
            raise LeaveModule(call)

        hf, layout = self.model.known_parts
        with attention_hooks(hf, {layout.attentions[layer]: leave}):
            try:
                call_block(layout.blocks[layer], self.clean, layer, x)
            except LeaveModule as left:
                return left.found
        raise FastPathUnavailable(f"{self.model.facts.architecture}: attention of layer {layer} is never called")

    def per_query_head(self, made: AttentionInputs) -> dict[str, Float[Tensor, "rows head n d_head"]]:
        """Queries, keys and values by query head: keys and values are repeated within a group."""
        n_heads, parts = self.model.facts.n_heads, zip(QKV, (made.q, made.k, made.v), strict=True)
        return {part: t.repeat_interleave(n_heads // t.shape[1], 1) for part, t in parts}

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, like: AttentionInputs
    ) -> Float[Tensor, "rows some head d_head"]:
        """z of queries, keys and values [rows head n d_head] that may come from different inputs; scale and caps as in
        ``like``. The queries may be those of some last positions alone."""
        return attend_resumed(self.clean, layer, replace(like, q=q, k=k, v=v)).transpose(1, 2)

    def head_outputs(self, layer: int, z: Float[Tensor, "rows n head d_head"]) -> Float[Tensor, "rows n head d_model"]:
        """What each head of a layer writes."""
        return torch.einsum("bnhd,hdm->bnhm", z, self.weights[layer])

    def block(
        self, layer: int, x: Float[Tensor, "rows n d_model"], attention: Float[Tensor, "rows n d_model"]
    ) -> Float[Tensor, "rows n d_model"]:
        """The stream after a block whose input is ``x`` and whose attention writes ``attention``."""
        return _block(self.model, self.clean, layer, x, attention)

    def expand(self, x: Float[Tensor, "batch n d_model"], times: int) -> Float[Tensor, "rows n d_model"]:
        """The batch, ``times`` times over."""
        return x.expand(times, *x.shape).flatten(0, 1)


def decompose_residual(
    model: Model, examples: Sequence[Example], corrupted_outputs: Tensor | None = None
) -> ResidualDecomposition:
    """The stream of examples of one length. To be used within ``inference_mode`` and the model's lock.

    ``corrupted_outputs`` stands for the outputs on the corrupted prompts, at all positions: a tensor that can be expanded to
    [n_writers batch n_positions d_model]. Raises FastPathUnavailable where the model's parts are not known, ValueError where
    what heads and MLPs write does not add up to the residual stream (norms behind attention or MLP).
    """
    hf, layout = model.known_parts
    start = min(map(_first_difference, examples)) if corrupted_outputs is None else 0
    verify_once(model, examples, start)
    weights = _weights(model)
    clean, outputs = _decompose(model, examples, start, weights)
    with attention_hooks(hf, {}):
        _check_sum(model, clean)
    if corrupted_outputs is None:
        corrupted = _decompose(model, [e.swapped() for e in examples], start, weights)[1]
    else:
        corrupted = corrupted_outputs.to(outputs).expand_as(outputs)
    own = [getattr(projection, "bias", None) for projection in layout.outputs]
    biases = torch.stack([clean.final_residual.new_zeros(model.facts.d_model) if bias is None else bias for bias in own])
    found = ResidualDecomposition(model, clean, outputs, corrupted, biases, weights)
    written = found.at_end(outputs)
    apart = float((written.sum(0) + biases.sum(0) - clean.final_residual).abs().max())
    size = float(written.abs().sum(0).max())
    if apart > rounding(clean.final_residual.dtype) * size:  # NaN is refused where outcomes are read
        raise ValueError(
            f"{model.facts.name} has no edges: what its heads and MLPs write does not add up to the residual stream (off by {apart:.2g}; "
            f"{model.facts.architecture}). Ablate or patch heads instead."
        )
    return found


def decompose_task(
    model: Model,
    task: Task,
    outcome: Outcome,
    progress: Progress | None = None,
    corrupted_outputs: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[list[int], ResidualDecomposition, Readout]]:
    """The streams of a task, one for the examples of each length and batch, with these examples' indices and what reads the
    outcome of their last residuals; ``progress`` is told when the next one is asked for. ``corrupted_outputs`` is that of
    ``decompose_residual``, by length. To be used, and raises, as ``decompose_residual``."""
    parts = decomposed_batches(model, task)
    for done, example_ids in enumerate(parts):
        examples = [task.examples[r] for r in example_ids]
        corrupted = None if corrupted_outputs is None else corrupted_outputs[len(examples[0].clean)]
        decomposition = decompose_residual(model, examples, corrupted)
        readout = Readout(model, examples, outcome, decomposition.clean.logits)
        readout.verify(decomposition.clean.final_residual)
        yield example_ids, decomposition, readout
        if progress:
            progress(done + 1, len(parts))


def mean_outputs(model: Model, task: Task) -> dict[int, Float[Tensor, "n_writers 1 n_positions d_model"]]:
    """The mean output of every writer over the clean prompts of each length. To be used, and raises, as ``decompose_residual``."""
    lengths, parts = task.by_length(), decomposed_batches(model, task)
    verify_once(model, [task.examples[r] for r in parts[0]])
    weights = _weights(model)
    total: dict[int, Tensor] = {}
    for example_ids in parts:
        examples = [task.examples[r] for r in example_ids]
        outputs, n = _decompose(model, examples, 0, weights)[1], len(examples[0].clean)
        part = outputs.sum(1, keepdim=True) / len(lengths[n])
        total[n] = total[n] + part if n in total else part
    return total


def decomposed_batches(model: Model, task: Task) -> list[list[int]]:
    """Ids of equally long examples, in batches whose decomposition, and activations kept for a backward pass, fit into memory."""
    facts = model.facts
    n_writers = 1 + facts.n_layers * (facts.n_heads + (facts.d_mlp > 0))
    outputs = 3 * n_writers * facts.d_model * ITEM_BYTES[facts.dtype]  # clean, corrupted and their difference
    return batches(task, gradient_memory(model) // (outputs + facts.n_layers * activation_bytes(facts, 1)))


def decomposed_tokens(examples: Sequence[Example]) -> int:
    """Number of positions of all these examples from the first difference between clean and corrupted on."""
    return len(examples) * (len(examples[0].clean) - min(map(_first_difference, examples)))


def _first_difference(example: Example) -> int:
    """The first position at which clean and corrupted differ; the first that predicts the answer where they do not."""
    pairs = zip(example.clean, example.corrupted, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(example.clean) - example.n_answer_tokens)


def _weights(model: Model) -> list[Tensor]:
    return [output_weights(model, layer).to(model.dtype) for layer, _ in enumerate(model.known_parts[1].outputs)]


def _decompose(
    model: Model, examples: Sequence[Example], start: int, weights: Sequence[Tensor]
) -> tuple[CleanPass, Float[Tensor, "n_writers batch n d_model"]]:
    """The clean pass of examples from position ``start`` on, and the output of every writer."""
    example_ids, n = range(len(examples)), len(examples[0].clean) - start
    run = clean_pass(model, examples, example_ids, start).select(list(example_ids), n)
    parts = [run.residual[0]]
    with attention_hooks(model.known_parts[0], {}):
        for layer, (z, out) in enumerate(zip(run.z, run.attn_out, strict=True)):
            parts += torch.einsum("bnhd,hdm->bnhm", z, weights[layer]).unbind(-2)
            if model.facts.d_mlp:
                last = layer + 1 == len(run.residual)
                after = _block(model, run, layer, run.residual[layer], out) if last else run.residual[layer + 1]
                parts.append(after - run.residual[layer] - out)
    return run, torch.stack(parts)


def _block(model: Model, clean: CleanPass, layer: int, x: Tensor, attention: Tensor) -> Tensor:
    _, layout = model.known_parts
    with fixed_attention(layout, clean, layer, 0, attention):
        return call_block(layout.blocks[layer], clean, layer, x)


def _check_sum(model: Model, clean: CleanPass) -> None:
    """Raises ValueError unless adding to a block's input and to its attention output has the same effect (apart from the MLP's
    input in parallel blocks). A norm after attention breaks this."""
    x, attention = clean.residual[0], clean.attn_out[0]
    added = x.flip(-1)  # as large as the residual: a norm differs by far more than rounding, in any dtype
    inside = _block(model, clean, 0, x, attention + added)
    parallel = model.facts.parallel_attn_mlp
    before = _block(model, clean, 0, x, attention) + added if parallel else _block(model, clean, 0, x + added, attention)
    apart = float((inside - before).abs().max())
    if not apart <= rounding(x.dtype) * float(inside.abs().max()):
        raise ValueError(
            f"{model.facts.name} has no edges: in a {model.facts.architecture} model a norm acts on attention output before it "
            f"is added to the residual stream (difference {apart:.2g}), which is then not a sum over heads. Ablate or patch heads instead."
        )
