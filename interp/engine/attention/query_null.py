"""Heads with the queries of strangers: what the heads of a model would look at if they had not learned what to look for.

A stranger keeps a head's keys, its positions, its window and all else that makes its scores. Its queries are made by a head of another
group, where there is one, from a residual whose coordinates are shuffled and have random signs, and take a random sign themselves.
None of this changes how likely untrained weights are, in any architecture: heads of an untrained model differ from strangers by
chance alone. Against wrong keys they do not: the first ALiBi head looks at the token before more than at other keys, and so does every
second head whose queries have a part that all tokens share; and a query matches the key of its own token in one way at all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.attention.attention_interface import AttentionInputs, attention_hooks
from interp.engine.attention.attention_observer import (
    AttentionMetric,
    AttentionObserver,
    MetricAccumulator,
    Observation,
    block_size,
    prepare_inputs,
)
from interp.engine.attention.attention_rows import AttentionLayer, read_rows
from interp.models.model import Model
from interp.tasks.token_batch import TokenBatch

QueryNullScores = dict[str, Float[Tensor, "n_null_draws n_layers n_heads"]]


def observe_query_null(
    model: Model,
    prompts: Sequence[Sequence[int]],
    metrics: Sequence[AttentionMetric],
    n_null_draws: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Observation, QueryNullScores]:
    """What ``observe`` gives for metrics of the axis ``query``, and beside every head what ``n_null_draws`` strangers have in its place.

    One pass, in which each attention module is asked ``n_null_draws`` more times for queries. Raises ValueError as ``observe`` does.
    """
    texts, inputs = prepare_inputs(model, prompts)
    observer = _Watch(model, metrics, texts, block_size(model, texts, metrics, None), n_null_draws, seed, progress)
    hooks = {module: observer.hook(module) for module in observer.hf.modules()}
    with model.lock, torch.inference_mode(), attention_hooks(observer.hf, hooks), observer.listening():
        observer.forward(**inputs)
    return observer.result(), observer.null_scores


class _Watch(AttentionObserver):
    """A pass in which strangers are read beside the heads, layer by layer."""

    def __init__(
        self,
        model: Model,
        metrics: Sequence[AttentionMetric],
        texts: TokenBatch,
        block: int,
        n_null_draws: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        super().__init__(model, metrics, texts, (), block)
        facts = model.facts
        self.null_scores: QueryNullScores = {
            m.name: torch.empty(n_null_draws, facts.n_layers, facts.n_heads).double() for m in metrics
        }
        self._n, self._random, self._progress = n_null_draws, torch.Generator().manual_seed(seed), progress
        self._given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._asking = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keeps what the modules are called with, until the next attention module has been read."""
        hooks = [module.register_forward_pre_hook(self._keep, with_kwargs=True) for module in self.hf.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def hook(self, module: nn.Module) -> Callable[[AttentionInputs], Tensor]:
        """What attention asks in place of ``module``: its output, once the strangers of the layer have been read."""

        def read(call: AttentionInputs) -> Tensor:
            if self._asking:
                raise _Queries(call.q)
            layer, given = self.layer(module, call), self._given.pop(module)
            self._given.clear()
            for at in range(self._n):
                stranger = replace(call, q=self._queries(module, call, *given))
                tables = MetricAccumulator(self.tables.metrics, self.prompts, 1, call.q.shape[1])
                read_rows(
                    AttentionLayer(0, stranger, self.prompts), tables.update, block=self.block, all_heads=self.tables.all_heads
                )
                for name, values in tables.compute().items():
                    self.null_scores[name][at, layer.index] = values[0].double().nanmean((0, 2)).cpu()
            if self._progress:
                self._progress(len(self._layers), self.model.facts.n_layers)
            return self.read(layer)

        return read

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._given[module] = args, kwargs

    def _queries(
        self, module: nn.Module, call: AttentionInputs, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Float[Tensor, "batch head query d_head"]:
        """The queries of one stranger for each head."""
        kwargs = dict(kwargs)
        residual, *rest = args or (kwargs.pop("hidden_states"),)
        drawn = QueryNull.draw(residual.shape[-1], call.q.shape[1], call.k.shape[1], self._random)
        self._asking = True
        try:
            module.forward(drawn.residual(residual), *rest, **kwargs)
        except _Queries as found:
            return drawn.queries(found.q)
        finally:
            self._asking = False
        raise ValueError(f"{self._name()} answers from its attention modules without calling attention.")


@dataclass(frozen=True, eq=False)
class QueryNull:
    """What makes strangers of the heads of a layer: coordinates of the residual in another ``order`` and with random ``signs`` [d_model],
    queries from ``shift`` heads away and with random ``turns`` [head]."""

    order: Int[Tensor, " d_model"]
    signs: Float[Tensor, " d_model"]
    shift: int
    turns: Float[Tensor, " head"]

    @classmethod
    def draw(cls, d_model: int, n_heads: int, n_kv_heads: int, random: torch.Generator) -> QueryNull:
        def signs(n: int) -> Tensor:
            return torch.randint(2, (n,), generator=random) * 2.0 - 1

        order, groups = torch.randperm(d_model, generator=random), torch.randint(1, max(2, n_kv_heads), (), generator=random)
        return cls(order, signs(d_model), int(groups) * (n_heads // n_kv_heads), signs(n_heads))

    def residual(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return x[..., self.order.to(x.device)] * self.signs.to(x)

    def queries(self, q: Float[Tensor, "batch head query d_head"]) -> Float[Tensor, "batch head query d_head"]:
        return q.roll(self.shift, 1) * self.turns.to(q)[:, None, None]


class _Queries(Exception):
    """Ends a call of an attention module as soon as its queries are there."""

    def __init__(self, q: Tensor) -> None:
        super().__init__()
        self.q = q
