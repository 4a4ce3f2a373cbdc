"""z of every head on every prompt of a task: the values that mean, resample and patch ablation insert."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.forward.activation_names import hook_name
from interp.engine.sweep.clean_pass import clean_pass
from interp.engine.sweep.verify_resumption import verify_once
from interp.engine.sweep.work_units import batches
from interp.errors import FastPathUnavailable
from interp.heads import Head
from interp.interventions.intervention import Positions
from interp.models.memory import ITEM_BYTES, check_budget
from interp.models.model import Model
from interp.tasks.position_names import position_mask
from interp.tasks.task import Example, Task
from interp.tasks.token_batch import as_batch


class ZCache:
    """The z of every head on every example: a ``Source`` for interventions.

    Examples may differ in length; each call of ``z`` is for equally long ones.
    """

    def __init__(self, z: dict[int, Tensor]) -> None:
        self._z = z  # example -> [n_layers pos head d_head]

    def z(
        self, head: Head, example_ids: Int[Tensor, " batch"], positions: Int[Tensor, "#batch pos"]
    ) -> Float[Tensor, "batch pos d_head"]:
        """z of one head for these examples and the positions of each."""
        where = positions.cpu().expand(len(example_ids), -1)
        found = [self._z[row][head.layer, at, head.head] for row, at in zip(example_ids.tolist(), where, strict=True)]
        return torch.stack(found).to(positions.device)

    def layer(self, layer: int) -> Float[Tensor, "pos head d_head"]:
        """z of all heads of a layer at every position of every example, in order."""
        return torch.cat([self._z[row][layer] for row in sorted(self._z)])

    def each(self, positions: Positions, examples: Sequence[Example]) -> Float[Tensor, "n_examples n_layers n_heads d_head"]:
        """Mean over the named positions of each example."""
        return torch.stack([self._z[i][:, position_mask(positions, [e])[0]].mean(1) for i, e in enumerate(examples)])

    def mean(self, positions: Positions, examples: Sequence[Example]) -> Float[Tensor, "n_layers n_heads d_head"]:
        """Mean over the named positions of all examples."""
        total, count = torch.zeros(()), 0
        for row, example in enumerate(examples):
            kept = self._z[row][:, position_mask(positions, [example])[0]]
            total, count = total + kept.double().sum(1), count + kept.shape[1]
        return (total / count).to(next(iter(self._z.values())).dtype)


def cache_z(model: Model, task: Task, side: str = "clean") -> ZCache:
    """z of the clean or corrupted prompts of a task. Raises MemoryBudgetExceeded when it exceeds the available memory."""
    facts, n_tokens = model.facts, sum(len(example.clean) for example in task)
    needed = facts.n_layers * n_tokens * facts.n_heads * facts.d_head * ITEM_BYTES[facts.dtype]
    check_budget(needed, what=f"Keeping z of all heads of {facts.name} at {n_tokens:,} positions")
    kept: dict[int, Tensor] = {}
    examples = [e if side == "clean" else e.swapped() for e in task]
    for example_ids in batches(task):
        kept.update(zip(example_ids, _all_z(model, [examples[r] for r in example_ids]).unbind(1), strict=True))
    return ZCache(kept)


def _all_z(model: Model, examples: Sequence[Example]) -> Tensor:
    """z of one batch of equally long prompts, [n_layers batch pos head d_head]."""
    with model.lock, torch.inference_mode():
        try:
            verify_once(model, examples)
            return torch.stack(clean_pass(model, examples, range(len(examples))).z).cpu()
        except FastPathUnavailable:
            names = [hook_name(f"z.{layer}") for layer in range(model.facts.n_layers)]
            cache = model.bridge.run_with_cache(as_batch(model, examples).tokens, names_filter=names)[1]
            return torch.stack([cache[name] for name in names]).cpu()
