"""A null for attention metrics: the pattern of each head with queries that are unrelated to its keys.

The null keeps a head's keys, positions, window and everything else that its scores depend on, and replaces its queries by those
of a head of another key/value group, where there is one, computed from a permuted, sign-flipped residual stream and given a
random sign. None of this changes the probability of untrained weights, in any architecture, so that heads of an untrained model
differ from the null by chance alone. Replacing keys does not have this property: the first ALiBi head attends to the previous
token more than to other keys, and so does every second head whose queries share a component over all tokens; and a query
matches the key of its own token alike in all rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.attention.attention_interface import AttentionInputs, LeaveModule
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
    """The observation of metrics with axis ``query``, and every head's scores under ``n_null_draws`` draws of the query null.

    One pass, in which each attention module computes its queries once more per draw. Raises ValueError as ``observe`` does.
    """
    texts, inputs = prepare_inputs(model, prompts)
    observer = QueryNullObserver(model, metrics, texts, block_size(model, texts, metrics, None), n_null_draws, seed, progress)
    with observer.reading(), observer.recording_arguments():
        observer.forward(**inputs)
    return observer.result(), observer.null_scores


class QueryNullObserver(AttentionObserver):
    """Observes the heads and their query nulls, layer by layer."""

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
        shape = (n_null_draws, model.facts.n_layers, model.facts.n_heads)
        self.null_scores: QueryNullScores = {m.name: torch.empty(shape).double() for m in metrics}
        self._n, self._random, self._progress = n_null_draws, torch.Generator().manual_seed(seed), progress
        self._arguments: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._queries_only = False

    @contextmanager
    def recording_arguments(self) -> Iterator[None]:
        """Within the context the arguments of modules are recorded until the next attention module has been observed."""
        with ExitStack() as stack:
            for module in self.hf.modules():
                stack.enter_context(module.register_forward_pre_hook(self._keep, with_kwargs=True))
            yield

    def hook(self, module: nn.Module, call: AttentionInputs) -> Tensor:
        """The attention hook of ``module``, which observes the null draws of the layer first."""
        if self._queries_only:
            raise LeaveModule(call.q)
        layer, arguments = self.layer(module, call), self._arguments.pop(module)
        self._arguments.clear()
        for draw in range(self._n):
            null = AttentionLayer(0, replace(call, q=self._queries(module, call, *arguments)), self.prompts)
            tables = MetricAccumulator(self.tables.metrics, self.prompts, 1, call.q.shape[1])
            read_rows(null, tables.update, block=self.block, all_heads=tables.all_heads)
            for name, values in tables.compute().items():
                self.null_scores[name][draw, layer.index] = values[0].double().nanmean((0, 2)).cpu()
        if self._progress:
            self._progress(len(self._layers), self.model.facts.n_layers)
        return self.read(layer)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._arguments[module] = args, kwargs

    def _queries(
        self, module: nn.Module, call: AttentionInputs, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Float[Tensor, "batch head query d_head"]:
        """The queries of one null draw for each head."""
        residual, *rest = args or (kwargs["hidden_states"],)
        named = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        null = QueryNull.draw(residual.shape[-1], call.q.shape[1], call.k.shape[1], self._random)
        self._queries_only = True
        try:
            module.forward(null.residual(residual), *rest, **named)
        except LeaveModule as left:
            return null.queries(left.found)
        finally:
            self._queries_only = False
        raise ValueError(f"{self._name()} has attention modules that do not call the attention function.")


@dataclass(frozen=True, eq=False)
class QueryNull:
    """One null draw of a layer: residual coordinates in another ``order`` with random ``signs`` [d_model], queries from
    ``shift`` heads away with random ``query_signs`` [head]."""

    order: Int[Tensor, " d_model"]
    signs: Float[Tensor, " d_model"]
    shift: int
    query_signs: Float[Tensor, " head"]

    @classmethod
    def draw(cls, d_model: int, n_heads: int, n_kv_heads: int, random: torch.Generator) -> "QueryNull":
        def signs(n: int) -> Tensor:
            return torch.randint(2, (n,), generator=random) * 2.0 - 1

        order, groups = torch.randperm(d_model, generator=random), torch.randint(1, max(2, n_kv_heads), (), generator=random)
        return cls(order, signs(d_model), int(groups) * (n_heads // n_kv_heads), signs(n_heads))

    def residual(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return x[..., self.order.to(x.device)] * self.signs.to(x)

    def queries(self, q: Float[Tensor, "batch head query d_head"]) -> Float[Tensor, "batch head query d_head"]:
        return q.roll(self.shift, 1) * self.query_signs.to(q)[:, None, None]
