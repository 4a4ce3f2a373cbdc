"""Rotated queries and keys of one pass, from which any tile of any head's pattern is recomputed on demand.

A pattern takes length / (2 d_head) times the memory of its queries and keys: 4 times at 512 tokens and d_head 64, 256 times at
32768 tokens. With a folder, each layer is written during the pass and read back memory-mapped.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp._short_repr import short_repr
from interp.engine.attention.attention_interface import AttentionInputs, Mask, attention_hooks
from interp.engine.attention.attention_observer import (
    AttentionMetric,
    AttentionObserver,
    MetricAccumulator,
    Observation,
    prepare_inputs,
    verify_attention,
    words_of,
)
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, AttentionRows, read_rows
from interp.errors import ArtefactInvalid, first_line
from interp.files import atomic_path, remove_temporary_files, user_path, write_atomically
from interp.heads import Head
from interp.models.memory import ITEM_BYTES, available_memory, check_budget
from interp.models.model import Model, ModelFacts
from interp.records import RunRecord
from interp.tasks.token_batch import TokenBatch

MANIFEST = "attention.json"
VERSION = 2


@short_repr
@dataclass(frozen=True, eq=False)
class AttentionCache:
    """Queries and keys of every layer (``calls``, on the CPU), the texts they belong to, and the record of the pass.

    ``calls[l].q`` and ``.k`` are those of the scores: after rotary embedding and norms; ``.v`` is empty unless values were
    captured. ``value_norms[l]`` [batch head key], if captured, is the norm of each head's output from each key at weight 1,
    |v W_O|. ``folder`` is where the cache is stored, if it is.
    """

    calls: tuple[AttentionInputs, ...]
    prompts: TokenBatch
    words: tuple[tuple[str, ...], ...]
    record: RunRecord
    folder: Path | None = None
    value_norms: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all queries, keys, values and norms."""
        return sum(t.nbytes for t in (*(t for call in self.calls for t in (call.q, call.k, call.v)), *self.value_norms))

    def one(self, example: int) -> "AttentionCache":
        """The cache of one text, with its padding; nothing is copied. Raises LookupError for an unknown text."""
        if not 0 <= example < len(self.prompts.tokens):
            raise LookupError(f"No text {example}: the texts are 0-{len(self.prompts.tokens) - 1}.")
        own = slice(example, example + 1)
        calls, norms = tuple(_of_text(call, own) for call in self.calls), tuple(n[own] for n in self.value_norms)
        return replace(self, calls=calls, prompts=self.prompts.prompt(example), words=self.words[own], value_norms=norms)

    def pattern(
        self,
        head: Head,
        queries: slice = slice(None),
        keys: slice = slice(None),
        *,
        example: int = 0,
        memory: int | None = None,
    ) -> Float[Tensor, "some_queries some_keys"]:
        """A tile of one head's attention weights in float32; rows are normalised over all keys before the cut. Positions are those
        of the text's own tokens, without padding.

        ``memory`` (bytes, default: the available memory) bounds the rows. Raises LookupError for an unknown head or example,
        IndexError for an empty tile, MemoryBudgetExceeded when the rows exceed ``memory``.
        """
        n_layers, n_heads = len(self.calls), self.calls[0].q.shape[1]
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise LookupError(f"Head {head} does not exist: there are layers 0-{n_layers - 1} and heads 0-{n_heads - 1}.")
        alone = self.one(example)
        call, own = alone.calls[head.layer], alone.prompts.token_mask[0]
        first, length = int(own.int().argmax()), int(own.sum())
        rows, columns = (range(*part.indices(length)) for part in (queries, keys))
        if not rows or not columns:
            raise IndexError(f"The tile [{_text(queries)}, {_text(keys)}] of a text of {length} tokens is empty.")
        what = f"{len(rows)} rows of {call.k.shape[2]} keys of {head}"
        check_budget(3 * 4 * len(rows) * call.k.shape[2], available_memory() if memory is None else memory, what)
        kept = [slice(first + part.start, first + part.stop, part.step) for part in (rows, columns)]
        return call.pattern(head.head, kept[0])[0][:, kept[1]]

    def observe(self, metrics: Sequence[AttentionMetric], *, block: int = BLOCK) -> Observation:
        """Metrics of the cached attention, without the model. Raises ValueError for a metric that needs values."""
        moving = [m.name for m in metrics if "values" in m.needs]
        if moving:
            raise ValueError(f"{moving[0]} needs values, and only queries and keys are cached: observe the model instead.")
        tables = MetricAccumulator(metrics, self.prompts, len(self.calls), self.calls[0].q.shape[1])
        for layer in range(len(self.calls)):
            self.read(layer, tables.update, block=block, all_heads=tables.all_heads)
        found = {m.name: m for m in metrics}
        return Observation(found, tables.compute(), self.prompts, self.words, self.record, tables.overflows)

    def read(self, layer: int, read: Callable[[AttentionRows], None], *, block: int = BLOCK, all_heads: bool = False) -> None:
        """Passes the rows of one layer to ``read``, block by block."""
        bare = replace(self.calls[layer], v=self.calls[layer].v[..., :0])
        with torch.inference_mode():
            read_rows(AttentionLayer(layer, bare, self.prompts), read, block=block, all_heads=all_heads)


def capture_attention(
    model: Model,
    prompts: Any,
    *,
    values: bool = False,
    value_norms: bool = False,
    store: str | os.PathLike | None = None,
    token_mask: Tensor | None = None,
) -> AttentionCache:
    """Queries and keys of one pass over ``prompts`` (as in ``observe``), and on demand values and |v W_O| of each key.

    With ``store`` each layer is written to that folder during the pass (``layer-L.safetensors``; ``attention.json`` last), and
    read back memory-mapped. Raises ValueError for texts and models that cannot be observed and for masks that cannot be stored;
    MemoryBudgetExceeded when the cache exceeds the available memory; OSError when writing fails.
    """
    texts, inputs = prepare_inputs(model, prompts, token_mask)
    verify_attention(model)
    if store is None:
        needed = attention_bytes(model.facts, *texts.token_mask.shape, values=values, value_norms=value_norms)
        check_budget(needed, available_memory(), f"Keeping queries and keys of {texts.token_mask.shape[1]} tokens")
    observer, folder = AttentionObserver(model, [], texts), _prepared(store)
    kept: dict[int, dict[str, Tensor]] = {}
    entries: dict[int, dict[str, Any]] = {}

    def read(module: Any, call: AttentionInputs) -> Tensor:
        layer = observer.layer(module, call)
        entries[layer.index] = _entry(model, layer.index, call)
        norms = layer.value_norms if value_norms else None
        found = {
            "q": call.q,
            "k": call.k,
            "v": call.v if values else call.v[..., :0],
            "slopes": call.slopes,
            "sinks": call.sinks,
            "norms": norms,
        }
        tensors = {name: t.detach().clone().cpu() for name, t in found.items() if t is not None}
        if folder is None:
            kept[layer.index] = tensors
        else:
            write_tensors(folder / f"layer-{layer.index}.safetensors", tensors)
        return observer.read(layer)

    hooks = {module: partial(read, module) for module in observer.hf.modules()}
    with model.lock, torch.inference_mode(), attention_hooks(observer.hf, hooks):
        observer.forward(**inputs)
    observer.check_complete()
    words, record = words_of(model, texts), observer.result().record
    if folder is None:
        return _cache([kept[i] for i in sorted(kept)], [entries[i] for i in sorted(kept)], texts.cpu(), words, record)
    manifest = {"version": VERSION, "layers": [entries[i] for i in sorted(entries)], "words": words, "record": record.to_json()}
    manifest |= {"tokens": texts.tokens.tolist(), "token_mask": texts.token_mask.tolist()}
    manifest |= {"marks": list(texts.marks), "grid": texts.grid, "unknown_id": texts.unknown_id}
    write_atomically(folder / MANIFEST, json.dumps(manifest, allow_nan=False).encode())
    return load_attention(folder)


def attention_bytes(facts: ModelFacts, batch: int, length: int, *, values: bool = False, value_norms: bool = False) -> int:
    """Bytes of ``capture_attention`` for ``batch`` texts of ``length`` tokens."""
    heads = facts.n_heads + (2 if values else 1) * facts.n_kv_heads
    each = heads * facts.d_head * ITEM_BYTES[facts.dtype] + (4 * facts.n_heads if value_norms else 0)
    return facts.n_layers * batch * length * each


def load_attention(folder: str | os.PathLike) -> AttentionCache:
    """A stored cache, memory-mapped. Raises ArtefactInvalid when a part is missing, damaged, or of another version."""
    from safetensors import safe_open

    path = user_path(folder)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']} where {VERSION} is read")
        marks = tuple({name: (a, b) for name, (a, b) in row.items()} for row in manifest["marks"])
        grid = tuple(manifest["grid"]) if manifest["grid"] else None
        tokens, token_mask = torch.tensor(manifest["tokens"]), torch.tensor(manifest["token_mask"])
        texts = TokenBatch(tokens, token_mask, marks, grid, manifest.get("unknown_id"))
        layers = []
        for index in range(len(manifest["layers"])):
            with safe_open(path / f"layer-{index}.safetensors", "pt") as file:
                layers.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        words = tuple(map(tuple, manifest["words"]))
        return _cache(layers, manifest["layers"], texts, words, RunRecord.from_json(manifest["record"]), path)
    except Exception as error:
        raise ArtefactInvalid(
            f"{path} holds no readable attention cache ({first_line(error)}): capture the attention again."
        ) from error


def _cache(
    layers: Sequence[dict[str, Tensor]],
    entries: Sequence[dict[str, Any]],
    texts: TokenBatch,
    words: tuple[tuple[str, ...], ...],
    record: RunRecord,
    folder: Path | None = None,
) -> AttentionCache:
    calls = tuple(_restored(tensors, entry, texts) for tensors, entry in zip(layers, entries, strict=True))
    return AttentionCache(calls, texts, words, record, folder, tuple(t["norms"] for t in layers if "norms" in t))


def _of_text(call: AttentionInputs, own: slice) -> AttentionInputs:
    mask = call.mask
    if isinstance(mask, Mask) and mask.padding is not None:
        mask = replace(mask, padding=mask.padding[own])
    return replace(call, q=call.q[own], k=call.k[own], v=call.v[own], mask=mask)


def _prepared(store: str | os.PathLike | None) -> Path | None:
    if store is None:
        return None
    folder = user_path(store)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # no manifest until the new cache is complete
    return folder


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as one safetensors file, atomically. Raises OSError when the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path, sum(t.nbytes for t in tensors.values())) as temporary:
        try:
            save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _entry(model: Model, layer: int, call: AttentionInputs) -> dict[str, Any]:
    """The parts of a call that are not tensors, as JSON; the mask as the name of the known rule that gives the same table."""
    rule = None
    if call.mask is not None:
        facts, last = model.facts, call.q.shape[2] - 1
        window = facts.sliding_windows[layer]
        known = [*([["window", window]] if window else []), ["causal", None], ["all", None]]
        probes = [slice(p, p + 1) for p in {0, (last + 1) // 2, last, min(window or 0, last)}]
        padding, device = call.mask.padding if isinstance(call.mask, Mask) else None, call.q.device
        masks = ((r, _mask(r, call, padding)) for r in known)
        rule = next((r for r, m in masks if all((call.visible(p) == m.block(p, device)).all() for p in probes)), None)
        if rule is None:
            raise ValueError(f"Layer {layer} of {facts.name} hides keys by a rule that cannot be stored: use observe instead.")
    return {"scale": call.scale, "softcap": call.softcap, "causal": call.causal, "rule": rule}


def _mask(rule: Sequence[Any], call: AttentionInputs, padding: Tensor | None) -> Mask:
    from transformers import masking_utils as known

    name, window = rule
    rules = {"causal": known.causal_mask_function, "all": known.bidirectional_mask_function}
    function: Any = known.sliding_window_causal_mask_function(window) if name == "window" else rules[name]
    return Mask(function, call.q.shape[2], call.k.shape[2], call.k.shape[2] - call.q.shape[2], 0, padding)


def _restored(tensors: dict[str, Tensor], entry: dict[str, Any], texts: TokenBatch) -> AttentionInputs:
    q, k, v = (tensors[name] for name in ("q", "k", "v"))
    call = AttentionInputs(
        q, k, v, None, entry["scale"], entry["softcap"], entry["causal"], tensors.get("slopes"), tensors.get("sinks")
    )
    if entry["rule"] is None:
        return call
    return replace(call, mask=_mask(entry["rule"], call, texts.token_mask.cpu() if texts.padded else None))


def _text(part: slice) -> str:
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
