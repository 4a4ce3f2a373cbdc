"""HeadVis trees: the attention of each head on each text, in the files that HeadVis and Neuronpedia read and write.

A tree holds ``config.json`` (model, texts, settings), ``scatter_data.json`` (six metrics per head) and ``heads/L5H1.json`` (for every text
its tokens and the 8 largest weights of each row, at least 0.005, under ``query * len(tokens) + key``). Values are rounded to four places.
The metrics have Neuronpedia's names and definitions: ``qk_distance_variance`` pools all rows of a head, ``induction_score`` drops weights
below 0.01. One differs: in layers with a sliding window ``induction_score`` excludes rows whose earlier occurrence lies outside it.
Format: Neuronpedia's ``headvis`` pipeline, after github.com/anthropics/headvis.

Neuronpedia samples the texts of a corpus, a few from each fifth of a head's peaks; here every text is written, with its fifth. Its
histograms and token tables, which follow from the rest, are neither written nor read.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from interp._short_repr import short_repr
from interp.engine.attention.qk_cache import AttentionCache
from interp.errors import ArtefactInvalid
from interp.files import TEMPORARY_SUFFIX, user_path, write_atomically
from interp.heads import Head, HeadScores
from interp.metrics.attention import attention_metrics
from interp.metrics.largest_weights_per_row import KEYS_PER_ROW, MIN_WEIGHT, SparsePattern, sparse_patterns
from interp.records import RunRecord
from interp.store.manifest import now

THRESHOLD = 0.01
INDUCTION = f"induction_score:threshold={THRESHOLD}"
METRICS = {
    "self_attention_score": ("self_attention_score", "Mean weight of a token on itself."),
    "prev_token_score": ("prev_token_score", "Mean weight of a token on the one before it."),
    "pattern_entropy": ("entropy", "Mean Shannon entropy of a row, in nats."),
    "qk_distance": ("attention_distance", "Mean distance from query to key in tokens, weighted by attention."),
    "qk_distance_variance": (
        "distance_variance",
        "Variance of that distance over all rows together, in tokens squared.",
    ),
    "induction_score": (INDUCTION, "Mean weight on the tokens that followed earlier occurrences of the query's token."),
}
"""HeadVis's name of each metric: its name and options here, and its description in the tree."""
CONFIG, SCATTER, HEADS = "config.json", "scatter_data.json", "heads"
DECIMALS = 4
FIFTHS = 5
MAX_FILE_BYTES = 1 << 23
"""Largest file that is written or read, in bytes: parsed, it may take 25 times as much memory. Neuronpedia's files have 1 to 2 MB."""
MAX_HEADS = 1 << 20


@short_repr
@dataclass(frozen=True, eq=False)
class HeadVis:
    """A loaded HeadVis tree: its ``config``, and ``scores`` with one value per head for each of the six metrics, by HeadVis's names (NaN
    where the tree has none). Patterns, the bulk of a tree, are read from their files on request."""

    path: Path
    config: dict[str, Any]
    scores: dict[str, HeadScores]

    def patterns(self, head: Head) -> tuple[SparsePattern, ...]:
        """The stored weights of a head on each text. LookupError for an unknown head, ArtefactInvalid for damage."""
        n_layers, n_heads = self.scores["qk_distance"].values.shape
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise LookupError(f"{self.path} has no head {head}: it has layers 0-{n_layers - 1} and heads 0-{n_heads - 1}.")
        with _reading(self.path / HEADS / f"{head}.json") as content:
            return tuple(_pattern(text, f"of text {i}") for i, text in enumerate(content["sequences"]))


def export_headvis(attention: AttentionCache, folder: str | Path, dataset: str) -> Path:
    """Writes cached attention (``capture_attention``) as a HeadVis tree and returns its path; ``dataset`` describes the texts.
    A failed tree leaves nothing behind. Lone surrogates are written as ``?``. Raises ArtefactInvalid when ``folder`` is not
    empty, ValueError for texts of one token, for images, and for more texts than fit a file."""
    path = user_path(folder).resolve()
    check_empty(path)
    lengths = attention.prompts.token_mask.sum(1).tolist()
    if min(lengths) < 2:
        raise ValueError(f"Text {lengths.index(1)} has one token, and HeadVis describes texts of two or more: leave it out.")
    scores = _metric_values(attention)
    shape = scores["qk_distance"].shape
    with _building(path) as tree:
        for layer in range(shape[0]):
            for head, patterns in enumerate(sparse_patterns(attention, layer)):
                _write(tree / HEADS / f"{Head(layer, head)}.json", {"sequences": _sequences(patterns)})
        rows = [{"layer": i, "head": j} | {n: _rounded(v.item(i, j)) for n, v in scores.items()} for i, j in np.ndindex(shape)]
        _write(tree / SCATTER, rows)
        _write(tree / "server_config.json", {})  # HeadVis reads these two: there is no server behind the files,
        _write(tree / "attributions" / "manifest.json", {})  # and no attribution of edges to features
        _write(tree / CONFIG, _config(attention, dataset, shape))
    return path


def check_empty(folder: Path) -> None:
    """Raises ArtefactInvalid unless the folder is empty or does not exist."""
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ArtefactInvalid(f"{folder} is not an empty folder: choose another one for the HeadVis tree.")


def load_headvis(folder: str | Path) -> HeadVis:
    """The HeadVis tree in this folder, from any source. All of its content is validated. Raises ArtefactInvalid for files that
    are missing, too large or damaged, and for impossible values."""
    path = user_path(folder)
    with _reading(path / CONFIG) as config:
        shape = [int(n) for n in _numbers([config["n_layers"], config["n_heads"]], "layers and heads", {int}, 1, MAX_HEADS)]
        if shape[0] * shape[1] > MAX_HEADS:
            raise ValueError(f"no model has {shape[0]:,} layers of {shape[1]:,} heads")
        record = _record(config)
    with _reading(path / SCATTER) as rows:
        axes = zip(("layer", "head"), shape, strict=True)
        at = tuple(_numbers([row[name] for row in rows], f"the {name}s", {int}, 0, n - 1) for name, n in axes)
        heads = {Head(*map(int, pair)) for pair in zip(*at, strict=True)}
        if len(heads) != len(rows) or not heads:
            raise ValueError("it has no head, or one twice")
        scores = {name: _scores(name, [row.get(name) for row in rows], at, shape, record) for name in METRICS}
    for head in sorted(heads):
        _check_there(path / HEADS / f"{head}.json")
    return HeadVis(path, config, scores)


def _metric_values(attention: AttentionCache) -> dict[str, np.ndarray]:
    """HeadVis's six metrics, [n_layers n_heads] each."""
    observation = attention.observe(attention_metrics([own for own, _ in METRICS.values()]))
    scores = {name: observation.heads(own.split(":")[0]).values for name, (own, _) in METRICS.items()}
    distance = observation["attention_distance"].double().cpu().numpy()
    between_rows = np.nanvar(distance, axis=(1, 3))
    return scores | {"qk_distance_variance": scores["qk_distance_variance"] + between_rows}


def _sequences(patterns: Sequence[SparsePattern]) -> list[dict[str, Any]]:
    fifths = _fifths([pattern.peak for pattern in patterns])
    return [
        {
            "sequence_id": i,
            "interval": fifth,
            "tokens": list(pattern.tokens),
            "attention_indices": pattern.cells.tolist(),
            "attention_values": [_rounded(weight) for weight in pattern.weights.tolist()],
            "seq_len": len(pattern.tokens),
            "max_activation": _rounded(pattern.peak),
        }
        for i, (pattern, fifth) in enumerate(zip(patterns, fifths, strict=True))
    ]


def _fifths(peaks: Sequence[float]) -> list[int]:
    """The quintile of each peak, 1 (lowest) to 5; a peak on a boundary belongs to the higher one."""
    edges = [sorted(peaks)[min(round(i * len(peaks) / FIFTHS), len(peaks) - 1)] for i in range(1, FIFTHS)]
    return (1 + np.searchsorted(edges, peaks, side="right")).tolist()


def _config(attention: AttentionCache, dataset: str, shape: Sequence[int]) -> dict[str, Any]:
    (n_texts, longest), names = attention.prompts.tokens.shape, {"model_name": attention.record.model, "dataset_name": dataset}
    texts = {"n_sequences": n_texts, "seq_len": longest, "n_intervals": FIFTHS, "attn_implementation": "interp"}
    rules = {"sparse_topk_per_row": KEYS_PER_ROW, "sparse_threshold": MIN_WEIGHT, "induction_attention_threshold": THRESHOLD}
    sizes = {"num_hidden_layers": shape[0], "num_attention_heads": shape[1], "created_at": now()}
    heads = {"heads": [list(at) for at in np.ndindex(*shape)], "n_layers": shape[0], "n_heads": shape[1], "n_intervals": FIFTHS}
    descriptions = {name: description for name, (_, description) in METRICS.items()}
    metrics = {"metrics": [*METRICS], "metric_descriptions": descriptions, "head_data_pattern": "L{layer}H{head}.json"}
    views = {"has_umap": False, "umap_heads": [], "custom_plots": [], "custom_tables": [], "statistics_display": {}}
    pipeline = {**attention.record.to_json(), **names, **texts, **rules, **sizes}
    return {**names, **heads, **metrics, **views, "pipeline_config": pipeline}


def _rounded(number: float) -> float | None:
    return None if np.isnan(number) else round(float(number), DECIMALS)


def _write(path: Path, value: Any) -> None:
    content = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    if len(content) > MAX_FILE_BYTES:
        size = f"{len(content):,} bytes, more than the {MAX_FILE_BYTES:,} of a file"
        raise ValueError(f"{path.name} would take {size}: give fewer texts.")
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content)


@contextmanager
def _building(path: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``path`` at the end of the block, and is removed if the block fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The JSON value of a file; errors in the block are reported as damage of this file."""
    _check_there(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ArtefactInvalid(f"{path} has {path.stat().st_size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read.")
    try:
        yield json.loads(path.read_bytes(), parse_constant=_refuse)
    except KeyError as error:
        raise ArtefactInvalid(f"{path} is damaged: it lacks {error}.") from None
    except TypeError:
        raise ArtefactInvalid(f"{path} is damaged: a value has another type than in a HeadVis tree.") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise ArtefactInvalid(f"{path} is damaged: {str(error).rstrip('.')}.") from None


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ArtefactInvalid(f"{path} is missing: this is not a complete HeadVis tree.")


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is not JSON")


def _numbers(values: Any, what: str, kinds: set[type], low: int | float, high: int | float) -> np.ndarray:
    """The values of a list, all of these types (booleans are not numbers) and from ``low`` to ``high``."""
    if type(values) is not list or not {*map(type, values)} <= kinds or not all(low <= value <= high for value in values):
        raise ValueError(f"{what} are not all {' or '.join(sorted(k.__name__ for k in kinds))} from {low:,} to {high:,}")
    return np.array(values, np.int64 if kinds == {int} else np.float64)


def _scores(name: str, found: list[Any], at: tuple[np.ndarray, ...], shape: Sequence[int], record: RunRecord) -> HeadScores:
    (own,), values, some = attention_metrics([METRICS[name][0]]), np.full(shape, np.nan), [value is not None for value in found]
    numbers = _numbers([value for value in found if value is not None], f"the {name}s", {int, float}, -np.inf, np.inf)
    values[at[0][some], at[1][some]] = numbers
    return HeadScores(name, values, own.unit, own.bounds, replace(record, metric=name), nan_reason="the tree has no number")


def _pattern(text: Any, which: str) -> SparsePattern:
    tokens = text["tokens"]
    if type(tokens) is not list:
        raise TypeError
    "".join(tokens).encode()  # refuses what is not text
    cells = _numbers(text["attention_indices"], f"the cells {which}", {int}, 0, len(tokens) ** 2 - 1)
    weights = _numbers(text["attention_values"], f"the weights {which}", {int, float}, 0, 1)
    (peak,) = _numbers([text["max_activation"]], f"the peak {which}", {int, float}, 0, 1)
    if len(cells) != len(weights) or len(np.unique(cells)) != len(cells):
        raise ValueError(f"{len(cells)} cells {which} are not different ones, or have {len(weights)} weights")
    if text.get("seq_len", len(tokens)) != len(tokens):
        raise ValueError(f"the {len(tokens)} tokens {which} are not the number that is stated")
    return SparsePattern(tuple(tokens), cells, weights.astype(np.float32), float(peak))


def _record(config: Any) -> RunRecord:
    """The record of the tree, from those fields of its config that are known here."""
    found = {**config.get("pipeline_config", {}), "model": config["model_name"], "task": config.get("dataset_name")}
    names = ("model", "revision", "weights_digest", "task", "dtype", "device", "commit")
    stated = {name: found[name] for name in names if isinstance(found.get(name), str)}
    "".join(stated.values()).encode()  # refuses what is not text
    size = {"n_prompts": found["n_sequences"]} if type(found.get("n_sequences")) is int else {}
    return RunRecord(**{"dtype": "", "device": "", "commit": "", **stated}, arguments=size, packages={}, dirty=False)
