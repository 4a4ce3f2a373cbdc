"""The work units of a sweep: examples x variants that fit the memory budget, and their estimated cost.

A unit holds a few prompts, recomputed at the same number of last positions, and a few variants. The plan depends only on the
arguments and the budget, never on the clock or on earlier units, so that a resumed sweep repeats it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.engine.sweep.outcome import Outcome
from interp.engine.sweep.variants import Variant, first_layer
from interp.errors import MemoryBudgetExceeded
from interp.models.memory import ITEM_BYTES, activation_bytes, available_memory, check_budget, format_bytes, workspace_bytes
from interp.models.model import Model, ModelFacts
from interp.records import digest
from interp.tasks.position_names import position_mask
from interp.tasks.task import Task

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
LEAST_MEMORY = {"cpu": 64 << 20, "cuda": 2 << 30}


@dataclass(frozen=True)
class CleanPassPlan:
    """One clean pass over the examples ``example_ids``: activations are kept from position ``start`` on, keys and values of the
    first ``n_before`` positions."""

    example_ids: tuple[int, ...]
    start: int
    n_before: int


@dataclass(frozen=True)
class WorkUnit:
    """Variants ``variants`` (indices) on examples ``example_ids`` (indices), recomputed at the last ``n`` positions of each
    prompt; ``clean`` is their clean pass, shared with other units."""

    example_ids: tuple[int, ...]
    variants: tuple[int, ...]
    n_positions: int
    clean: CleanPassPlan
    key: str


@dataclass(frozen=True)
class WorkPlan:
    """The units in order, the largest memory of any of them in addition to the loaded model (bytes), and the work in
    token-layers.

    ``clean_work`` is the work of the clean passes alone: with the time of one of them it gives the time of the sweep.
    """

    units: tuple[WorkUnit, ...]
    bytes: int
    work: int
    clean_work: int

    @property
    def n_units(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class UnitMemory:
    """Estimated bytes, in addition to the loaded model ``name``, that the passes of a unit take; made once from facts and
    outcome.

    ``per_token`` is alive at once inside a block, ``residual``, ``z`` and ``kv`` are kept of one token in all layers,
    ``workspace`` is taken by matrix products, ``logits`` by one row of logits.
    """

    name: str
    n_heads: int
    d_vocab: int
    per_token: int
    kept: int
    kv: int
    logits: int
    workspace: int
    all_logits: bool

    @classmethod
    def of(cls, facts: ModelFacts, outcome: Outcome) -> UnitMemory:
        item = ITEM_BYTES[facts.dtype]
        return cls(
            facts.name,
            facts.n_heads,
            facts.d_vocab,
            per_token=activation_bytes(facts, 1),
            kept=facts.n_layers * (2 * facts.d_model + facts.n_heads * facts.d_head) * item,
            kv=facts.n_layers * 2 * facts.n_kv_heads * facts.d_head * item,
            logits=facts.d_vocab * item,
            workspace=workspace_bytes(facts),
            all_logits=outcome.weights is None,
        )

    def plain_pass(self, task: Task, cap: int) -> int:
        """Of the largest plain forward pass over equally long prompts of the task, at most ``cap`` tokens at once."""
        tokens = [n * min(len(ids), max(1, cap // n)) for n, ids in task.by_length().items()]
        return self.workspace + max(tokens) * (self.per_token + self.logits)

    def kept_pass(self, n_rows: int, length: int, start: int, before: int) -> int:
        """Of a clean pass, kept from position ``start`` on, with the keys and values of the first ``before`` positions."""
        return n_rows * ((length - start) * self.kept + before * self.kv)

    def unit(self, length: int, n: int, n_rows: int, n_variants: int) -> int:
        """Of a unit: its clean pass, and in addition the largest of its passes."""
        rows = n_variants * n_rows
        clean = n_rows * length * self.per_token + n_rows * self.d_vocab * 8
        scores = 3 * rows * self.n_heads * n * length * 4 if n < length else 0
        logits = 3 * min(rows * self.d_vocab, max(1 << 24, n_rows * self.d_vocab)) * 4 if self.all_logits else 0
        kept = self.kept_pass(n_rows, length, length - n, length - n)
        return self.workspace + kept + max(clean, rows * n * self.per_token + scores, logits)


def plan_sweep(
    model: Model, task: Task, variants: Sequence[Variant], outcome: Outcome, memory: int | None, *, identity: str
) -> WorkPlan:
    """Units for every variant on every example. ``identity`` names the sweep in the units' keys.

    ``memory`` is the budget in bytes in addition to the loaded model; the default is 1.6 times that of one plain forward pass
    of the same prompts, at least 64 MiB (2 GiB on a GPU). Raises MemoryBudgetExceeded when one variant of one prompt exceeds
    it, or a unit exceeds the available memory, and ValueError for an encoder.
    """
    facts = model.facts
    facts.check_causal("A sweep")
    cap, cost = tokens_at_once(model), UnitMemory.of(facts, outcome)
    budget = max(memory_at_once(model), int(1.6 * cost.plain_pass(task, cap))) if memory is None else memory
    tails = _tails(task, variants)
    least = max(cost.unit(_longest(task, example_ids), n, 1, 1) for n, example_ids in tails)
    share = max(0, min(budget // 4, budget - least)) if len(tails) > 1 else 0  # for clean runs of several tails in one pass
    chunks: list[tuple[int, tuple[int, ...], int]] = []
    for n, example_ids in tails:
        n_rows, n_variants = _fit(cost, _longest(task, example_ids), n, len(example_ids), len(variants), cap, budget - share)
        chunks += [(n, part, n_variants) for part in _split(example_ids, n_rows)]
    units: list[WorkUnit] = []
    peak = work = clean_work = 0
    for clean, inside in _passes(chunks, task, cost, share, cap):
        clean_work += sum(len(task.examples[r].clean) for r in clean.example_ids) * facts.n_layers
        shared = len(inside) > 1
        kept = cost.kept_pass(len(clean.example_ids), _longest(task, clean.example_ids), clean.start, clean.n_before) * shared
        for n, example_ids, n_variants in inside:
            peak = max(peak, kept + cost.unit(_longest(task, example_ids), n, len(example_ids), n_variants))
            examples = [[task.examples[r].clean, task.examples[r].answers, task.examples[r].distractors] for r in example_ids]
            for part in _split(_by_layer(variants), n_variants):
                work += sum(facts.n_layers - first_layer(variants[v]) for v in part) * len(example_ids) * n
                units.append(WorkUnit(example_ids, part, n, clean, digest([identity, list(part), list(example_ids), examples])))
    check_budget(peak, available_memory(str(model.device)), f"This sweep of {facts.name}")
    return WorkPlan(tuple(units), peak, work + clean_work, clean_work)


def tokens_at_once(model: Model) -> int:
    """Tokens of changed runs per batch on the model's device."""
    return TOKENS_AT_ONCE[_kind(model)]


def memory_at_once(model: Model) -> int:
    """Bytes in addition to the loaded model that changed runs may always use on the model's device."""
    return LEAST_MEMORY[_kind(model)]


def _kind(model: Model) -> str:
    return model.device.type if model.device.type in TOKENS_AT_ONCE else "cpu"


def batches(task: Task) -> list[list[int]]:
    """Ids of equally long examples, in batches of one plain pass."""
    size = {length: max(1, TOKENS_AT_ONCE["cpu"] // length) for length in task.by_length()}
    return [
        example_ids[i : i + size[n]] for n, example_ids in task.by_length().items() for i in range(0, len(example_ids), size[n])
    ]


def _longest(task: Task, example_ids: Sequence[int]) -> int:
    return max(len(task.examples[r].clean) for r in example_ids)


def _passes(
    chunks: list[tuple[int, tuple[int, ...], int]], task: Task, cost: UnitMemory, share: int, cap: int
) -> list[tuple[CleanPassPlan, list[tuple[int, tuple[int, ...], int]]]]:
    """Consecutive chunks (n, example ids, variants per batch), grouped under one clean pass of at most ``share`` bytes."""
    found: list[tuple[CleanPassPlan, list[tuple[int, tuple[int, ...], int]]]] = []
    for chunk in chunks:
        n, example_ids, _ = chunk
        starts = [len(task.examples[r].clean) - n for r in example_ids]
        alone = CleanPassPlan(example_ids, min(starts), max(starts))
        if found:
            last, inside = found[-1]
            grown = CleanPassPlan(
                (*last.example_ids, *example_ids), min(last.start, alone.start), max(last.n_before, alone.n_before)
            )
            longest = _longest(task, grown.example_ids)
            fits = cost.kept_pass(len(grown.example_ids), longest, grown.start, grown.n_before) <= share
            if fits and len(grown.example_ids) * longest <= cap:
                found[-1] = (grown, [*inside, chunk])
                continue
        found.append((alone, [chunk]))
    return found


def _tails(task: Task, variants: Sequence[Variant]) -> list[tuple[int, list[int]]]:
    """Number of last positions to recompute, with the ids of the examples: equally long ones, and others with the same number
    unless it is their whole length."""
    tails: dict[tuple[int, bool], list[int]] = {}
    for length, example_ids in task.by_length().items():
        n = length - _first_touched(task, example_ids, variants)
        tails.setdefault((n, n == length), []).extend(example_ids)
    return [(n, example_ids) for (n, _), example_ids in tails.items()]


def _fit(cost: UnitMemory, length: int, n: int, n_rows: int, n_variants: int, cap: int, budget: int) -> tuple[int, int]:
    """Prompts and variants per batch, as many as the token cap and the budget allow; prompts take precedence."""
    example_ids = max(1, min(n_rows, cap // n, max(1, 4 * cap // length)))
    variants_per_batch = max(1, min(n_variants, cap // (example_ids * n)))
    while cost.unit(length, n, example_ids, variants_per_batch) > budget:
        if variants_per_batch > 1:
            variants_per_batch -= 1
        elif example_ids > 1:
            example_ids = (example_ids + 1) // 2
        else:
            needed = cost.unit(length, n, 1, 1)
            raise MemoryBudgetExceeded(
                f"One ablated prompt of {length} tokens needs about {format_bytes(needed)} in addition to {cost.name}, more than the "
                f"budget of {format_bytes(budget)}: raise the budget, shorten the prompts or ablate at fewer positions."
            )
    return example_ids, variants_per_batch


def _first_touched(task: Task, indices: Sequence[int], variants: Sequence[Variant]) -> int:
    examples = [task.examples[i] for i in indices]
    kinds = {intervention.positions for variant in variants for intervention in variant}
    return min(int(position_mask(kind, examples).any(0).int().argmax()) for kind in kinds)


def _by_layer(variants: Sequence[Variant]) -> list[int]:
    return sorted(range(len(variants)), key=lambda v: first_layer(variants[v]))


def _split(items: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
