"""The work units of a sweep: examples x variants that fit the memory budget, and their estimated cost.

A unit holds a few prompts, recomputed at the same number of last positions, and a few variants. The plan depends only on the
arguments and the budget, never on the clock or on earlier units, so that a resumed sweep repeats it exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.engine.sweep.outcome import Outcome
from interp.engine.sweep.variant import Variant, first_layer, resumable
from interp.errors import MemoryBudgetExceeded
from interp.models.memory import (
    ITEM_BYTES,
    LIBRARY_BYTES,
    activation_bytes,
    available_memory,
    check_budget,
    format_bytes,
    forward_bytes,
    workspace_bytes,
)
from interp.models.model import Model, ModelFacts
from interp.records import digest
from interp.tasks.position_names import position_mask
from interp.tasks.task import Task

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
LEAST_MEMORY = {"cpu": 64 << 20, "cuda": 2 << 30}
GRADIENT_MEMORY = {"cpu": 512 << 20, "cuda": 8 << 30}

Chunk = tuple[int, tuple[int, ...], int, bytes]
"""Number of last positions, ids of examples, variants per batch, and the examples' class of lengths."""


@dataclass(frozen=True)
class CleanPassPlan:
    """One clean pass over examples that keeps activations from ``start`` on, and keys and values of the ``n_before`` first."""

    example_ids: tuple[int, ...]
    start: int
    n_before: int


@dataclass(frozen=True)
class WorkUnit:
    """Variants (by index) on examples, recomputed at each prompt's last ``n_positions``, from a clean pass that units share."""

    example_ids: tuple[int, ...]
    variants: tuple[int, ...]
    n_positions: int
    clean: CleanPassPlan
    key: str


@dataclass(frozen=True)
class WorkPlan:
    """The units in order, the largest memory of any of them and of the comparison with the plain model, in addition to the loaded
    model (``bytes``), and the work in token-layers; ``clean_work`` is that of the clean passes alone. ``resumable`` says whether every
    variant can be resumed from them."""

    units: tuple[WorkUnit, ...]
    bytes: int
    work: int
    clean_work: int
    resumable: bool

    @property
    def n_units(self) -> int:
        return len(self.units)


class UnitMemory:
    """Estimated bytes, in addition to the loaded model, that the passes of a unit take.

    ``per_token`` is alive at once inside a block, ``kept`` (residuals and z) and ``kv`` are kept of one token in all layers,
    ``workspace`` is taken by matrix products, ``logits`` by one row of logits.
    """

    def __init__(self, facts: ModelFacts, outcome: Outcome, n_answer_tokens: int = 1) -> None:
        item = ITEM_BYTES[facts.dtype]
        self.n_logits = facts.d_vocab * n_answer_tokens
        self.facts, self.all_logits = facts, outcome.weights is None
        self.per_token, self.workspace = activation_bytes(facts, 1), workspace_bytes(facts)
        self.kept = facts.n_layers * (2 * facts.d_model + facts.n_heads * facts.d_head) * item
        self.kv = facts.n_layers * 2 * facts.n_kv_heads * facts.d_head * item
        self.logits = facts.d_vocab * item

    def plain_pass(self, task: Task, cap: int) -> int:
        """Of the largest plain forward pass over equally long prompts of the task, at most ``cap`` tokens at once."""
        tokens = [n * min(len(ids), max(1, cap // n)) for n, ids in task.by_length().items()]
        return self.workspace + max(tokens) * (self.per_token + self.logits)

    def kept_pass(self, n_rows: int, length: int, start: int, before: int) -> int:
        """Of a clean pass, kept from position ``start`` on, with the keys and values of the first ``before`` positions."""
        return n_rows * ((length - start) * self.kept + before * self.kv)

    def unit(self, length: int, n: int, n_rows: int, n_variants: int) -> int:
        """Of a unit: its clean pass, and in addition the largest of its passes."""
        rows, n_logits = n_variants * n_rows, self.n_logits
        clean = n_rows * length * self.per_token + n_rows * n_logits * 8
        scores = 3 * rows * self.facts.n_heads * n * length * 4 if n < length else 0
        logits = 3 * min(rows * n_logits, max(1 << 24, n_rows * n_logits)) * 4 if self.all_logits else 0
        kept = self.kept_pass(n_rows, length, length - n, length - n)
        return self.workspace + kept + max(clean, rows * n * self.per_token + scores, logits)

    def proof(self, length: int, n: int, patterns: bool, *, selected: int = 0) -> int:
        """Of comparing the sweep with the plain model on its shortest and its longest prompt, whose patterns the plain model may keep.

        Runs are resumed at the last ``n`` positions or more, from a copy of at most ``selected`` positions of the clean pass (0: from the
        clean pass itself).
        """
        plain = forward_bytes(self.facts, 1, length, patterns=patterns, all_logits=False)
        kept = self.kept_pass(2, length, 0, length - n)
        return max(self.unit(length, length, 2, 1), kept + plain, kept + self.unit(length, selected, 2, 1) if selected else 0)


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
    cap, cost = tokens_at_once(model), UnitMemory(facts, outcome, max(example.n_answer_tokens for example in task))
    budget = max(memory_at_once(model), int(1.6 * cost.plain_pass(task, cap))) if memory is None else memory
    tails = _tails(model, task, variants)
    least = max(cost.unit(_longest(task, example_ids), n, 1, 1) for (n, *_), example_ids in tails.items())
    share = max(0, min(budget // 4, budget - least)) if len(tails) > 1 else 0  # for clean runs of several tails in one pass
    by_layer = sorted(range(len(variants)), key=lambda v: first_layer(variants[v]))
    chunks: list[Chunk] = []
    for (n, _, lengths), example_ids in tails.items():
        n_rows, n_variants = _fit(cost, _longest(task, example_ids), n, len(example_ids), len(variants), cap, budget - share)
        chunks += [(n, part, n_variants, lengths) for part in _split(example_ids, n_rows)]
    units: list[WorkUnit] = []
    longest, sizes = max(task.by_length()), [n for n, *_ in tails]
    copied = len(task.by_length()) > 1 or min(sizes) < longest
    peak = cost.proof(longest, min(sizes), model.own_attention == "eager", selected=max(sizes) * copied)
    work = clean_work = 0
    for clean, inside in _passes(chunks, task, cost, share, cap):
        clean_work += sum(len(task.examples[r].clean) for r in clean.example_ids) * facts.n_layers
        shared = len(inside) > 1
        kept = cost.kept_pass(len(clean.example_ids), _longest(task, clean.example_ids), clean.start, clean.n_before) * shared
        for n, example_ids, n_variants, _ in inside:
            peak = max(peak, kept + cost.unit(_longest(task, example_ids), n, len(example_ids), n_variants))
            examples = [[task.examples[r].clean, task.examples[r].answers, task.examples[r].distractors] for r in example_ids]
            for part in _split(by_layer, n_variants):
                work += sum(facts.n_layers - first_layer(variants[v]) for v in part) * len(example_ids) * n
                units.append(WorkUnit(example_ids, part, n, clean, digest([identity, list(part), list(example_ids), examples])))
    check_budget(LIBRARY_BYTES + peak, available_memory(str(model.device)), f"This sweep of {facts.name}")
    return WorkPlan(tuple(units), LIBRARY_BYTES + peak, work + clean_work, clean_work, all(map(resumable, variants)))


def tokens_at_once(model: Model) -> int:
    """Tokens of changed runs per batch on the model's device."""
    return TOKENS_AT_ONCE[_kind(model)]


def memory_at_once(model: Model) -> int:
    """Bytes in addition to the loaded model that changed runs may always use on the model's device."""
    return LEAST_MEMORY[_kind(model)]


def gradient_memory(model: Model) -> int:
    """Bytes in addition to the loaded model that activations kept for a backward pass, or the outputs of all writers in several runs, may
    use on the model's device."""
    return GRADIENT_MEMORY[_kind(model)]


def _kind(model: Model) -> str:
    return model.device.type if model.device.type in TOKENS_AT_ONCE else "cpu"


def batches(task: Task, n_tokens: int = TOKENS_AT_ONCE["cpu"]) -> list[list[int]]:
    """Ids of equally long examples whose answers have equally many tokens, in batches of one plain pass, of at most ``n_tokens``."""
    cap = min(n_tokens, TOKENS_AT_ONCE["cpu"])
    return [list(part) for (n, _), example_ids in _alike(task).items() for part in _split(example_ids, max(1, cap // n))]


def _alike(task: Task) -> dict[tuple[int, int], list[int]]:
    """Ids of examples by length and number of tokens of the answer."""
    groups: dict[tuple[int, int], list[int]] = {}
    for length, example_ids in task.by_length().items():
        for i in example_ids:
            groups.setdefault((length, task.examples[i].n_answer_tokens), []).append(i)
    return groups


def _longest(task: Task, example_ids: Sequence[int]) -> int:
    return max(len(task.examples[r].clean) for r in example_ids)


def _passes(chunks: list[Chunk], task: Task, cost: UnitMemory, share: int, cap: int) -> list[tuple[CleanPassPlan, list[Chunk]]]:
    """Consecutive chunks, grouped under one clean pass of at most ``share`` bytes."""
    found: list[tuple[CleanPassPlan, list[Chunk]]] = []
    for chunk in chunks:
        n, example_ids, _, lengths = chunk
        starts = [len(task.examples[r].clean) - n for r in example_ids]
        start, before = min(starts), max(starts)
        if found:
            last, inside = found[-1]
            grown = CleanPassPlan((*last.example_ids, *example_ids), min(last.start, start), max(last.n_before, before))
            n_rows, longest = len(grown.example_ids), _longest(task, grown.example_ids)
            if (
                lengths == inside[-1][3]
                and n_rows * longest <= cap
                and cost.kept_pass(n_rows, longest, grown.start, grown.n_before) <= share
            ):
                found[-1] = (grown, [*inside, chunk])
                continue
        found.append((CleanPassPlan(example_ids, start, before), [chunk]))
    return found


def _tails(model: Model, task: Task, variants: Sequence[Variant]) -> dict[tuple[int, bool, bytes], list[int]]:
    """Ids of examples by the number of last positions to recompute, whether that is all of them, and the class of their lengths and
    answers: those of one key can share a batch."""
    tails: dict[tuple[int, bool, bytes], list[int]] = {}
    kinds = {intervention.positions for variant in variants for intervention in variant}
    whole = any(i.needs_whole_text and max(i.heads).layer > first_layer(variant) for variant in variants for i in variant)
    for (length, n_tokens), example_ids in _alike(task).items():
        examples = [task.examples[i] for i in example_ids]
        n = length - min(int(position_mask(kind, examples).any(0).int().argmax()) for kind in kinds)
        n, answers = length if whole else max(n, n_tokens), b"" if n_tokens == 1 else str(n_tokens).encode()
        tails.setdefault((n, n == length, model.length_class(length) + answers), []).extend(example_ids)
    return tails


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
                f"One ablated prompt of {length} tokens needs about {format_bytes(needed)} in addition to {cost.facts.name}, more than "
                f"the budget of {format_bytes(budget)}: raise the budget, shorten the prompts or ablate at fewer positions."
            )
    return example_ids, variants_per_batch


def _split(items: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
