"""Ablations by name: a registered intervention with its options as text, supplied with what it needs from a model and a task.

``streaming:n_sink=4,n_recent=64`` is the intervention ``streaming`` with two options. The choice changes the numbers: ``zero`` leaves the
distribution of a head's outputs, ``mean`` and ``resample`` stay within it, ``uniform`` keeps the values and removes the pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import Head
from interp.interventions import INTERVENTIONS
from interp.options_text import parse_options, settable
from interp.registry import check_name

if TYPE_CHECKING:
    import torch

    from interp.engine.sweep.variant import Variant
    from interp.engine.sweep.z_cache import ZCache
    from interp.interventions import Intervention
    from interp.models.model import Model
    from interp.tasks.task import Task


class Supplies:
    """What an intervention may need: a method for each need; further parameters of the method are options of the ablation."""

    def __init__(self, model: Model, task: Task, positions: str, seed: int) -> None:
        self.model, self.task, self.positions, self.seed = model, task, positions, seed
        self.n_pos = max(len(example.clean) for example in task)

    def clean(self) -> ZCache:
        from interp.engine.sweep.z_cache import cache_z

        return cache_z(self.model, self.task)

    def corrupted(self) -> ZCache:
        from interp.engine.sweep.z_cache import cache_z

        return cache_z(self.model, self.task, "corrupted")

    def means(self) -> torch.Tensor:
        return self.clean().mean(self.positions, self.task.examples)

    def sinks(self, alpha: float = 5.0, min_rows: int = 8) -> torch.Tensor:
        from interp.metrics.sink_calibration_effects import sink_columns

        return sink_columns(self.model, self.task, alpha=alpha, min_rows=min_rows).is_sink

    def source_ids(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(resample_source_ids(self.task, self.seed))

    def targets(self, targets: str = "first") -> torch.Tensor:
        """True at the targets of each example, [n_examples pos]: ``first`` (token) or positions of the task, such as a mark."""
        import torch

        from interp.tasks.position_names import resolve_positions

        marked = torch.zeros(len(self.task), self.n_pos, dtype=torch.bool)
        for row, example in zip(marked, self.task, strict=True):
            row[resolve_positions((0,) if targets == "first" else targets, len(example.clean), example.marks)] = True
        return marked


class StandIns(Supplies):
    """Objects of the same shapes, without a run of the model: for estimates of cost."""

    def clean(self) -> ZCache:
        from interp.engine.sweep.z_cache import ZCache

        return ZCache({})

    corrupted = clean

    def means(self) -> torch.Tensor:
        import torch

        facts = self.model.facts
        return torch.zeros(facts.n_layers, facts.n_heads, facts.d_head)

    def sinks(self, alpha: float = 5.0, min_rows: int = 8) -> torch.Tensor:
        import torch

        facts = self.model.facts
        return torch.zeros(facts.n_layers, len(self.task), facts.n_heads, self.n_pos, dtype=torch.bool)


NEEDS = frozenset(name for name in vars(Supplies) if not name.startswith("_"))


def ablations(without: Collection[str] = ()) -> dict[str, str]:
    """What each ablation replaces, by name: the interventions whose needs a task can supply, but for those that need one of ``without``."""
    allowed = NEEDS - set(without)
    known = INTERVENTIONS.entries()
    return {name: INTERVENTIONS.describe(name) for name, constructor in known.items() if set(_needs(constructor)) <= allowed}


def ablation_options(name: str) -> dict[str, Parameter]:
    """The options of an ablation that can be written as text, by name: its own and those of what it needs."""
    constructor = INTERVENTIONS.get(name)
    needs, (_, *parameters) = _needs(constructor), signature(constructor).parameters.values()
    own = {p.name: p for p in parameters if p.name not in (*needs, "positions")}
    return settable(own) | {option: p for need in needs for option, p in _options_of(need).items()}


def check_ablation(text: str, task: Task | None = None, without: Collection[str] = ()) -> None:
    """Raises LookupError for an unknown ablation or option, ValueError for a wrong value and for a task that lacks what is needed."""
    name, _ = _parse(text, without)
    if task is not None and "corrupted" in _needs(INTERVENTIONS.get(name)) and not task.has_corrupted:
        raise ValueError(f"Task {task.name!r} has no corrupted prompts, which {name} needs: add them or use mean or resample.")


def build_variants(
    model: Model,
    task: Task,
    ablation: str,
    positions: str,
    groups: Sequence[tuple[Head, ...]],
    seed: int,
    supplies: type[Supplies] = Supplies,
) -> list[Variant]:
    """One variant for each group of heads, whose heads are ablated together; the same kind of ablation for all groups."""
    name, options = _parse(ablation)
    constructor, supplier, supplied = INTERVENTIONS.get(name), supplies(model, task, positions, seed), {}
    for need in _needs(constructor):
        supplied[need] = getattr(supplier, need)(**{o: options.pop(o) for o in _options_of(need) if o in options})
    return [(replace(constructor(group, positions=positions, **supplied, **options), label=ablation),) for group in groups]


def build_variant(text: str, heads: Sequence[Head]) -> Intervention:
    """The attention variant ``text``, such as ``window:size=64``, on some heads.

    Raises LookupError for what is no attention variant and for unknown options, ValueError for wrong values and for a variant that needs
    a task.
    """
    known = [name for name, constructor in INTERVENTIONS.entries().items() if getattr(constructor, "source", "")]
    check_name(text.partition(":")[0], known, "attention variant")
    name, options = _parse(text)
    constructor = INTERVENTIONS.get(name)
    if needs := _needs(constructor):
        raise ValueError(
            f"{name} needs {' and '.join(needs)} of a task's prompts: measure it with `interp ablate --ablation {text}`."
        )
    return replace(constructor(heads, **options), label=text)


def resample_source_ids(task: Task, seed: int) -> np.ndarray:
    """For each example the id of another one of equal length, also of its answer, its resample source: a random cycle within each.

    Raises ValueError when an example is the only one of its length.
    """
    source_ids = np.arange(len(task))
    rng = np.random.default_rng(seed)
    for length, example_ids in task.by_length().items():
        answer_lengths = {i: task.examples[i].n_answer_tokens for i in example_ids}
        sizes = sorted(set(answer_lengths.values()))
        for n in sizes:
            alike = [i for i in example_ids if answer_lengths[i] == n]
            if len(alike) == 1:
                size = f"{length} tokens" + (f" and an answer of {n}" if len(sizes) > 1 else "")
                alone = f"example {alike[0]} is the only one with {size}: add prompts or use mean"
                raise ValueError(f"resample needs another prompt of equal length for each example, and {alone}.")
            order = rng.permutation(alike)
            source_ids[order] = np.roll(order, 1)
    return source_ids


def _options_of(need: str) -> dict[str, Parameter]:
    _, *parameters = signature(getattr(Supplies, need)).parameters.values()
    return {p.name: p for p in parameters}


def _parse(text: str, without: Collection[str] = ()) -> tuple[str, dict[str, Any]]:
    """Name and options of an ablation."""
    name, _, items = text.partition(":")
    check_name(name, ablations(without), "ablation")
    known = ablation_options(name)
    options = parse_options(items.split(",") if items else [], known, f"Ablation {name!r}")
    missing = [p.name for p in known.values() if p.default is Parameter.empty and p.name not in options]
    if missing:
        raise ValueError(f"Ablation {name!r} needs a value of {missing[0]}: write {name}:{missing[0]}=VALUE.")
    return name, options


def _needs(constructor: Callable[..., Intervention]) -> tuple[str, ...]:
    return getattr(constructor, "needs", ())
