"""Tables of attention metrics, accumulated block by block, and the proof that a metric's values do not depend on the blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_rows import BLOCK, AttentionLayer, AttentionRows, read_rows
from interp.errors import ExtensionError, shape_or_type
from interp.tasks.token_batch import TokenBatch

LENGTHS, TOLERANCE = (29, 17), 1e-4
_VERIFIED: set[tuple[object, str]] = set()


class MetricAccumulator:
    """The tables of several metrics, accumulated block by block. Raises ExtensionError as ``verify_metric`` does."""

    def __init__(self, metrics: Sequence[AttentionMetric], prompts: TokenBatch, n_layers: int, n_heads: int) -> None:
        for metric in metrics:
            verify_metric(metric)
        names = [m.name for m in metrics]
        if len(set(names)) != len(names):
            raise ValueError(f"Metric {next(n for n in names if names.count(n) > 1)!r} is given twice.")
        self.metrics, self.prompts = list(metrics), prompts
        self.all_heads = any(m.all_heads for m in metrics)
        self._shape = (n_layers, len(prompts.token_mask), n_heads)
        self._values: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._overflow: Tensor | None = None

    @property
    def overflows(self) -> bool:
        """Whether some rows of tokens were NaN."""
        return self._overflow is not None and bool(self._overflow)

    def update(self, rows: AttentionRows) -> None:
        """Adds a block of rows."""
        broken = (rows.mass.isnan() & rows.token_mask[:, None]).any()
        self._overflow = broken if self._overflow is None else self._overflow.to(broken.device) | broken
        for metric in self.metrics:
            try:
                found = metric.function(rows, **metric.parameters)
            except Exception as error:
                error.add_note(f"It was raised in the attention metric {metric.name!r}.")
                raise
            if metric.axis == "query":
                if not (isinstance(found, Tensor) and found.shape == rows.pattern.shape[:3]):
                    wanted, given = tuple(rows.pattern.shape[:3]), shape_or_type(found)
                    raise ExtensionError(f"Metric {metric.name!r} must return [batch head query] {wanted}, not {given}.")
                found = found.masked_fill(~rows.token_mask[:, None], torch.nan) if self.prompts.padded else found
                self._table(self._values, metric, found, torch.nan)[rows.layer.index, :, rows.heads, rows.queries] = found
                continue
            if not (isinstance(found, tuple | list) and len(found) == 2):
                returns = f"must return (sum, count), each [batch head {metric.axis}], not {type(found).__name__}"
                raise ExtensionError(f"Metric {metric.name!r} (axis={metric.axis!r}) {returns}.")
            where = rows.keys if metric.axis == "key" else slice(None)
            for tables, part in zip((self._values, self._counts), found, strict=True):
                self._table(tables, metric, part, 0.0)[rows.layer.index, :, rows.heads, where].add_(part)

    def compute(self) -> dict[str, Tensor]:
        """[n_layers batch head axis] of each metric."""
        return {metric.name: self._finished(metric) for metric in self.metrics}

    def _finished(self, metric: AttentionMetric) -> Tensor:
        table = self._values[metric.name]
        if metric.axis != "query":
            count = self._counts[metric.name]
            table = torch.where(count > 0, table / count, torch.nan)
        if metric.axis == "key":
            table = table.masked_fill(~self.prompts.token_mask[None, :, None], torch.nan)
        return metric.finish(table, self.prompts, **metric.parameters) if metric.finish else table

    def _table(self, tables: dict[str, Tensor], metric: AttentionMetric, part: Tensor, empty: float) -> Tensor:
        if metric.name not in tables:
            width = self.prompts.token_mask.shape[1] if metric.axis in ("query", "key") else part.shape[-1]
            tables[metric.name] = torch.full((*self._shape, width), empty, device=part.device)
        return tables[metric.name]


def verify_metric(metric: AttentionMetric) -> None:
    """Raises ExtensionError for a metric from outside this project that gives a text other values beside another text, or in blocks of few
    queries, than alone: it reads keys that a row does not see, or padding.

    Once for each function and setting, on random attention of two texts of few different tokens. A metric that fails there, for want of
    marks or of a grid, is not compared.
    """
    key, module = (metric.function, repr(metric.parameters)), getattr(metric.function, "__module__", None) or ""
    if module.partition(".")[0] == "interp" or key in _VERIFIED:
        return
    _VERIFIED.add(key)
    draw, longest = torch.Generator().manual_seed(0), max(LENGTHS)
    q, k, v = (torch.randn(len(LENGTHS), 2, longest, 4, generator=draw) for _ in range(3))
    tokens = torch.randint(5, 12, (len(LENGTHS), longest), generator=draw)
    real = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    visible = torch.ones(longest, longest, dtype=torch.bool).tril() & real[:, None, None]
    try:
        together = _values(metric, q, k, v, visible, TokenBatch(tokens.where(real, 0), real), BLOCK)
        alone = []
        for i, n in enumerate(LENGTHS):
            one = slice(i, i + 1)
            text = TokenBatch(tokens[one, :n], real[one, :n])
            alone.append(_values(metric, q[one, :, :n], k[one, :, :n], v[one, :, :n], None, text, 1))
    except Exception:
        return
    for i, (n, values) in enumerate(zip(LENGTHS, alone, strict=True)):
        beside = together[:, i : i + 1, :, : n if metric.axis in ("query", "key") else None]
        if beside.shape != values.shape:  # a table whose size depends on the texts
            return
        size = float(values.nan_to_num().abs().max())
        if not torch.allclose(beside, values, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True):
            apart = float((beside - values).abs().nan_to_num(nan=torch.inf).max())
            _VERIFIED.discard(key)
            raise ExtensionError(
                f"Metric {metric.name!r} gives a text other values beside another text, or in larger blocks, than alone (up to {apart:.2g} "
                f"apart): the value of a row may depend on the keys that it sees alone. Use rows.visible, and rows.token_mask for padding."
            )


def _values(
    metric: AttentionMetric, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, prompts: TokenBatch, block: int
) -> Tensor:
    """The metric of one layer, [1 batch head axis], in blocks of at most ``block`` weights."""
    tables = MetricAccumulator([metric], prompts, 1, q.shape[1])
    layer = AttentionLayer(0, AttentionInputs(q, k, v, visible, 1.0, None), prompts)
    read_rows(layer, tables.update, block=block, all_heads=tables.all_heads)
    return tables.compute()[metric.name]
