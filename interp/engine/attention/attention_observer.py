"""Metrics of attention rows, computed during a forward pass of any length: no pattern is stored.

``observe`` runs one forward pass of the plain Hugging Face model. The engine's attention computes the rows in blocks of
queries, passes them to every metric, and forms the output from the same rows. ``observing`` does this for passes of your own,
such as generation with a cache, step by step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import AttentionInputs, attention_hooks, refusing_crashes
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, check_heads, read_rows
from interp.engine.attention.metric_accumulator import MetricAccumulator
from interp.errors import FastPathUnavailable
from interp.heads import Head, HeadScores, TokenScores
from interp.interventions import Intervention, Memory
from interp.models.memory import activation_bytes, available_memory, check_budget, workspace_bytes
from interp.models.model import Model, record_of
from interp.models.plain_model_reference import outputs_of, plain_copy, unexplained_error
from interp.models.read_facts import reads_images
from interp.options_text import parse_options
from interp.records import RunRecord
from interp.registry import check_name
from interp.tasks.token_batch import Prompts, TokenBatch, as_batch, by_length_class, check_one_pass

VERIFIED_TOKENS, LONG_WINDOW = 14, 128
_VERIFIED: WeakSet[Model] = WeakSet()
WEIGHTS = ("token", "text")
"""What weighs the same in the value of a head."""
BYTES_A_WEIGHT = 24
"""Bytes for scores, weights, intermediate results of metrics, and keys in float32, per weight of a block."""


@short_repr
@dataclass(frozen=True, eq=False)
class Observation:
    """The observed metrics: ``values[name]`` is [n_layers batch head axis] in float32, NaN where undefined and for padding.

    On the axes ``query`` and ``key`` entry ``p`` belongs to column ``p`` of ``prompts.tokens``, as text in ``words``.
    """

    metrics: dict[str, AttentionMetric]
    values: dict[str, Tensor]
    prompts: TokenBatch
    words: tuple[tuple[str, ...], ...]
    record: RunRecord
    overflows: bool = False
    """Whether some rows hold NaN instead of weights."""

    def __getitem__(self, name: str) -> Tensor:
        return self._observed(name)[1]

    def heads(self, name: str, *, weight: str = "token") -> HeadScores:
        """One number for each head, [layer head], in the metric's unit.

        ``weight="token"``: the mean over all rows (columns) that have a value, of all texts together, so that a long text weighs more than
        a short one. ``weight="text"``: the mean of the means of the texts, each of which weighs the same. Metrics with ``per_head``
        (``sink_rate`` ...) average over texts by their own rule, and ``weight`` changes nothing. Texts without a value do not count.

        Raises LookupError for a metric that was not observed and for an unknown weight, ValueError for a metric without one value per head.
        """
        check_name(weight, WEIGHTS, "weight")
        metric, values = self._observed(name)
        if metric.per_head:
            per_head = metric.per_head(values)
        else:
            values = values.double()
            per_head = values.nanmean((1, 3)) if weight == "token" else values.nanmean(3).nanmean(1)
        if per_head.dim() != 2:
            raise self._not_single("head", metric)
        arguments = self.record.arguments | ({"weight": weight} if weight != "token" else {})
        scores, record = per_head.double().cpu().numpy(), replace(self.record, metric=metric.label, arguments=arguments)
        return HeadScores(metric.name, scores, metric.unit, metric.bounds, record, self.undefined(name))

    def tokens(self, name: str, heads: Sequence[Head] | None = None) -> TokenScores:
        """One number for each token: the mean over ``heads`` (default all) at its row or column; NaN for padding."""
        metric, values = self._observed(name)
        if metric.axis not in ("query", "key"):
            raise self._not_single("token", metric)
        chosen = values.transpose(1, 2).flatten(0, 1)
        if heads is not None:
            chosen = chosen[[head.layer * values.shape[2] + head.head for head in heads]]
        scores, record = chosen.double().nanmean(0).cpu().numpy(), replace(self.record, metric=metric.label)
        return TokenScores(metric.name, scores, self.words, metric.unit, metric.bounds, record, nan_reason=self.undefined(name))

    def undefined(self, name: str) -> str:
        """Why a metric is NaN where it is."""
        reason = self._observed(name)[0].undefined
        if not self.overflows:
            return reason
        where = f"{self.record.model} computes NaN or inf in {self.record.dtype}, so some rows hold no weights"
        what = f"{where}; load it in float32 or bfloat16, or check its weights with `interp doctor`"
        return f"{reason}, or {what}" if reason else what

    def to_dataframe(self) -> Any:
        """Long table of all metrics that have one number for each head: layer, head, label, metric, value, unit."""
        import pandas as pd

        frames = [self.heads(n).to_dataframe() for n, m in self.metrics.items() if m.axis in ("query", "key") or m.per_head]
        return pd.concat(frames, ignore_index=True)

    def _observed(self, text: str) -> tuple[AttentionMetric, Tensor]:
        """The metric and its values by name, or as it was requested: ``windowed_distance:window=20``."""
        name, *options = text.split(":")
        if name not in self.values:
            raise LookupError(f"{name!r} was not observed. There are: {', '.join(self.values)}.")
        metric = self.metrics[name]
        if metric.set(**parse_options(options, metric.parameters, f"Metric {name!r}")).parameters != metric.parameters:
            raise LookupError(f"{text!r} was not observed, but {metric.label}: observe each setting of a metric on its own.")
        return metric, self.values[name]

    def _not_single(self, what: str, metric: AttentionMetric) -> ValueError:
        table = f"a table over {metric.axis}: read observation[{metric.name!r}]"
        return ValueError(f"{metric.name} has no single value per {what}, but {table}.")


def observe(
    model: Model,
    prompts: Prompts,
    metrics: Sequence[AttentionMetric],
    *,
    token_mask: Tensor | None = None,
    intervene: Sequence[Intervention] = (),
    memory: int | None = None,
    block: int | None = None,
    compare: bool = False,
) -> Observation:
    """The metrics of every head on text, token ids or a task's clean prompts, in one forward pass.

    Prompts of different lengths are padded on the right; ``token_mask`` [batch pos] is False at the padding of an already
    padded batch. For image models ``prompts`` are pixels [batch channel height width]. ``intervene`` changes scores, patterns
    or z, and the metrics read the changed rows; with ``compare`` the pass stays unchanged, and metrics read the changed patterns
    beside its own (``rows.variant``). ``memory`` (bytes in addition to the loaded model) bounds the blocks; ``block`` sets the
    number of weights per block directly. Raises ValueError for empty text, text longer than the model's context and
    attention that the engine cannot see, MemoryBudgetExceeded when the results alone do not fit ``memory``.
    """
    check_heads(model, intervene)
    texts = as_batch(model, prompts, token_mask)
    groups = [] if isinstance(prompts, Tensor) or token_mask is not None else by_length_class(model, texts)
    if len(groups) > 1:
        options: dict[str, Any] = {"intervene": intervene, "memory": memory, "block": block, "compare": compare}
        return _joined(model, texts, metrics, groups, options)
    inputs = _inputs(model, texts, prompts)
    size = block or block_size(model, texts, metrics, memory)
    with observing(model, metrics, texts, intervene=intervene, block=size, compare=compare) as observer:
        observer.forward(**inputs)
    return observer.result()


def _joined(
    model: Model, texts: TokenBatch, metrics: Sequence[AttentionMetric], groups: Sequence[list[int]], options: dict[str, Any]
) -> "Observation":
    """The observation of texts that cannot share a pass, group by group."""
    values: dict[str, Tensor] = {}
    overflows = False
    for group in groups:
        part = observe(model, [texts.tokens[i, texts.token_mask[i]].tolist() for i in group], metrics, **options)
        overflows |= part.overflows
        for metric in metrics:
            table, wide = part[metric.name], metric.axis in ("query", "key")
            width = texts.tokens.shape[1] if wide else table.shape[-1]
            whole = values.setdefault(
                metric.name, table.new_full((*table.shape[:1], len(texts.tokens), table.shape[2], width), torch.nan)
            )
            whole[:, group, :, : table.shape[-1]] = table
    record = record_of(model, interventions=tuple(map(str, options["intervene"])))
    return Observation({m.name: m for m in metrics}, values, texts, words_of(model, texts), record, overflows)


@contextmanager
def observing(
    model: Model,
    metrics: Sequence[AttentionMetric],
    prompts: TokenBatch,
    *,
    intervene: Sequence[Intervention] = (),
    block: int = BLOCK,
    compare: bool = False,
) -> Iterator["AttentionObserver"]:
    """Within the context every forward pass of ``model.hf`` is observed; passes that continue from a cache add their rows.

    ``prompts`` are the complete texts, including all tokens to be generated (any id), unmasked.
    """
    verify_attention(model)
    observer = AttentionObserver(model, metrics, prompts, intervene, block, compare)
    with observer.reading():
        yield observer


def verify_attention(model: Model) -> None:
    """Raises FastPathUnavailable unless, with the engine's attention, two random texts of different lengths in one batch have the outputs
    that the plain model has on each alone, and so has one of them alone; once per model."""
    if model in _VERIFIED or model.hf is None or reads_images(model.hf):
        return
    windows = [window for window in model.facts.sliding_windows if window is not None and window < LONG_WINDOW]
    longest = max([VERIFIED_TOKENS, *(window + 3 for window in windows)])
    length = min(longest, model.facts.max_length or longest)
    draw = torch.Generator().manual_seed(0)
    padding = getattr(model.hf.config, "pad_token_id", None)  # RoBERTa counts positions without it
    ids = torch.tensor([i for i in range(model.facts.d_vocab) if i != padding])
    texts = [ids[torch.randint(len(ids), (n,), generator=draw)].tolist() for n in (length, max(1, length - 3))]
    hf, plain, refused = (
        model.hf,
        plain_copy(model),
        f"The attention of {model.facts.name} ({model.facts.architecture}) cannot be observed",
    )
    for group in (texts, texts[:1]):  # with a mask, and without one
        batch, inputs = prepare_inputs(model, group)
        with AttentionObserver(model, [], batch).reading(), refusing_crashes(refused):
            found = hf(**inputs)[0]
        for row, text in zip(found, group, strict=True):
            tokens = torch.tensor([text], device=model.device)
            if error := unexplained_error(plain, tokens, row[None, : len(text)], outputs_of(plain, tokens)):
                what = f"with the engine's attention it differs from the plain model by {error:.2g} of its outputs"
                raise FastPathUnavailable(f"{refused}: {what}.")
    _VERIFIED.add(model)


class AttentionObserver:
    """Observes the forward passes of a model."""

    def __init__(
        self,
        model: Model,
        metrics: Sequence[AttentionMetric],
        prompts: TokenBatch,
        intervene: Sequence[Intervention] = (),
        block: int = BLOCK,
        compare: bool = False,
    ) -> None:
        if model.hf is None:
            raise ValueError(f"{model.facts.name} is not a Hugging Face model: its attention cannot be observed.")
        self.model, self.hf, self.prompts = model, model.hf, prompts
        self.tables = MetricAccumulator(metrics, prompts, model.facts.n_layers, model.facts.n_heads)
        self.intervene, self.block, self.compare = intervene, block, compare
        self._layers: dict[int, int] = {}
        self._memory: dict[int, dict[tuple[Intervention, Head], Memory]] = {}  # of interventions, by layer, from step to step
        self._seen: set[tuple[int, int]] = set()  # modules, and the column after the last key of each call

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the context the hooks of all modules are called."""
        hooks = {module: partial(self.hook, module) for module in self.hf.modules()}
        with self.model.lock, torch.inference_mode(), attention_hooks(self.hf, hooks):
            yield

    def forward(self, **inputs: Any) -> Any:
        """A pass of the model without its language-model head, on which no row depends."""
        body: Any = getattr(self.hf, "base_model", self.hf)
        return body(**inputs)

    def hook(self, module: nn.Module, call: AttentionInputs) -> Tensor:
        """The attention hook of ``module``."""
        return self.read(self.layer(module, call))

    def layer(self, module: nn.Module, call: AttentionInputs) -> AttentionLayer:
        """The inputs with their layer: by the model's layout or, where that is not known, by the order of the calls."""
        layout = self.model.layout if self.model.layout and module in self.model.layout.attentions else None
        place = layout.attentions.index(module) if layout is not None else len(self._layers)
        index = self._layers.setdefault(id(module), place)
        seen = (id(module), call.first_key + call.k.shape[2])
        if layout is None and seen in self._seen:
            raise ValueError(f"{self._name()} uses one attention module for several layers, which cannot be told apart.")
        self._seen.add(seen)
        if index >= self.model.facts.n_layers:
            raise ValueError(f"{self._name()} has more attention modules than layers, which cannot be told apart.")
        if call.first_key + call.k.shape[2] == call.q.shape[2]:  # a text begins
            self._memory.pop(index, None)
        memory = self._memory.setdefault(index, {})
        return AttentionLayer(index, call, self.prompts, layout.outputs[index] if layout is not None else None, memory)

    def read(self, layer: AttentionLayer) -> Tensor:
        """The attention output of a layer, after its rows have been observed."""
        all_heads, compare = self.tables.all_heads, self.compare
        return read_rows(layer, self.tables.update, self.intervene, block=self.block, all_heads=all_heads, compare=compare)

    def check_complete(self) -> None:
        """Raises ValueError unless the attention of every layer was observed."""
        if len(self._layers) != self.model.facts.n_layers:
            raise ValueError(
                f"{self._name()} computes attention in only {len(self._layers)} of {self.model.facts.n_layers} layers through "
                f"transformers' attention interface: it cannot be observed."
            )

    def result(self) -> Observation:
        """The observation so far. Raises ValueError as ``check_complete`` does."""
        self.check_complete()
        tables, record = self.tables, record_of(self.model, interventions=tuple(map(str, self.intervene)))
        words = words_of(self.model, self.prompts)
        return Observation({m.name: m for m in tables.metrics}, tables.compute(), self.prompts, words, record, tables.overflows)

    def _name(self) -> str:
        return f"{self.model.facts.name} ({self.model.facts.architecture})"


def words_of(model: Model, prompts: TokenBatch) -> tuple[tuple[str, ...], ...]:
    """The tokens as text, or their ids where there is no tokenizer."""
    rows = prompts.tokens.tolist()
    return tuple(tuple(model.to_str_tokens(row) if model.tokenizer is not None else map(str, row)) for row in rows)


def prepare_inputs(model: Model, prompts: Prompts, token_mask: Tensor | None = None) -> tuple[TokenBatch, dict[str, Tensor]]:
    """The prompts as a batch, and the arguments of the model's forward pass. Raises ValueError as ``as_batch`` does."""
    batch = as_batch(model, prompts, token_mask)
    return batch, _inputs(model, batch, prompts)


def _inputs(model: Model, batch: TokenBatch, prompts: Prompts) -> dict[str, Tensor]:
    """The arguments of the model's forward pass; ``prompts``, of which the batch was made, holds the pixels of images."""
    check_one_pass(model, batch)
    if batch.grid is not None:
        assert isinstance(prompts, Tensor)
        return {"pixel_values": prompts.to(model.device, model.dtype)}
    inputs: dict[str, Any] = {"input_ids": batch.tokens} | ({"use_cache": False} if model.facts.causal else {})
    if batch.padded:
        inputs["attention_mask"] = batch.token_mask.long()
        body: Any = getattr(model.hf, "base_model", model.hf)
        if "position_ids" in signature(body.forward).parameters:
            inputs["position_ids"] = batch.positions.clamp(min=0) + _first_position(model)
        elif bool((batch.positions < 0).any()) and model.facts.positions not in ("rotary", "alibi"):
            takes = (
                f"{model.facts.name} ({model.facts.architecture}) takes no position_ids and would count padding as positions"
            )
            raise ValueError(f"{takes}: pad these prompts on the right, or give them as lists of tokens.")
    return inputs


def _first_position(model: Model) -> int:
    """Index of the first position: above 0 for RoBERTa, which has as many positions fewer than its configuration states."""
    config, limit = getattr(model.hf, "config", None), model.facts.max_length
    return 0 if model.facts.causal or limit is None else getattr(config, "max_position_embeddings", limit) - limit


def block_size(model: Model, texts: TokenBatch, metrics: Sequence[AttentionMetric], memory: int | None) -> int:
    """Number of weights per block that keeps a pass within ``memory`` bytes in addition to the loaded model.

    Raises MemoryBudgetExceeded when the results and one row per head exceed it.
    """
    facts, (batch, length) = model.facts, texts.token_mask.shape
    tables = sum(2 if m.axis == "key" else 1 for m in metrics) * 4 * facts.n_layers * facts.n_heads * batch * length
    fixed = tables + activation_bytes(facts, batch * length) + workspace_bytes(facts)
    least = batch * length * (facts.n_heads if any(m.all_heads for m in metrics) else facts.group_size)
    allowed = available_memory(str(model.device)) if memory is None else memory
    check_budget(fixed + BYTES_A_WEIGHT * least, allowed, f"Observing {length} tokens of {facts.name}")
    return max(least, min(BLOCK, (allowed - fixed) // BYTES_A_WEIGHT))
