"""Train `interp-mini` from random weights on one CPU thread, and export it as a Hugging Face Llama folder.

    python data/training/train.py --out DIR --seed 0 --export data/models/interp-mini

Needs torch and transformers alone. Three phases: easy random-word tasks from a small pool until induction, key-value and
value-key look-up all work (the gate); then pool, difficulty and mixture grow to full; the second half weighs the slowest
tasks more. Everything is a function of the arguments: the text of step n is seeded by (seed, n). The run saves
`state.safetensors` (weights, optimiser, step; written whole or not at all), appends to `curves.csv`, and continues from
there when started again with the same arguments.
"""

import argparse
import csv
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import generator
import torch
from generator import IDS, MAKERS, POOL, Tokens, pack
from network import Network, Shape, loss
from safetensors import safe_open
from safetensors.torch import save_file

torch.set_num_threads(1)

EASY_POOL, EASY_DIFFICULTY = 48, 0.2
GATE = {"induction": 0.75, "key_value": 0.75, "value_key": 0.75}
"""Accuracies on easy text that end phase 1."""

PHASE_1 = {
    "induction": 0.26, "key_value": 0.22, "value_key": 0.18, "key_question": 0.08, "needle": 0.04, "ioi": 0.02, "docstring": 0.02,
    "arithmetic": 0.02, "colored": 0.04, "facts": 0.02, "tracking": 0.02, "plan_order": 0.02, "plan_operation": 0.02,
    "story": 0.01, "greater_than": 0.02, "orders": 0.01,
}  # fmt: skip
PHASE_2 = {
    "induction": 0.07, "key_value": 0.07, "value_key": 0.07, "key_question": 0.08, "needle": 0.13, "ioi": 0.07, "docstring": 0.06,
    "arithmetic": 0.07, "colored": 0.09, "facts": 0.05, "tracking": 0.08, "plan_order": 0.08, "plan_operation": 0.07,
    "story": 0.03, "greater_than": 0.05, "orders": 0.02,
}  # fmt: skip
PHASE_3 = PHASE_2 | {
    "induction": 0.05, "key_value": 0.05, "value_key": 0.04, "key_question": 0.06, "needle": 0.18, "docstring": 0.07,
    "arithmetic": 0.10, "colored": 0.06, "tracking": 0.11, "plan_order": 0.10, "orders": 0.01,
}  # fmt: skip
"""Shares of the training tokens, before normalising."""

POOL_STEPS, DIFFICULTY_STEPS, MIXTURE_STEPS = 500, 1000, 1250
"""How long pool, difficulty and mixture take from the gate to their full size, in steps."""

COSINE_STEPS = 5000
"""Half a period of the slow cosine of the learning rate."""


# ---------------------------------------------------------------------------------------------------------------------
# Text


def blend(start: dict[str, float], end: dict[str, float], ratio: float) -> dict[str, float]:
    """The mixture `ratio` of the way from one to another."""
    return {name: start[name] + (end[name] - start[name]) * ratio for name in start}


def mean_lengths() -> dict[str, float]:
    """Tokens per document of each task at full difficulty, to turn token shares into document shares."""
    rng = Random("lengths")
    return {
        name: sum(len(generator.encode(maker(rng, 1.0, POOL)).ids) for _ in range(100)) / 100 for name, maker in MAKERS.items()
    }


def tensors(rows: list[list[Tokens]], width: int) -> dict[str, torch.Tensor]:
    """Packed rows as tensors: ids, document numbers, weights, soft targets, scored positions."""
    batch = {
        "ids": torch.zeros(len(rows), width, dtype=torch.long),
        "documents": torch.full((len(rows), width), -1, dtype=torch.long),
        "weights": torch.zeros(len(rows), width),
        "soft": torch.full((len(rows), width), -1, dtype=torch.long),
        "scored": torch.zeros(len(rows), width, dtype=torch.bool),
    }
    for row, documents in enumerate(rows):
        at = 0
        for number, document in enumerate(documents):
            span = slice(at, at := at + len(document.ids))
            batch["ids"][row, span] = torch.tensor(document.ids)
            batch["documents"][row, span] = number
            batch["weights"][row, span] = torch.tensor(document.weights)
            batch["soft"][row, span] = torch.tensor(document.soft)
            batch["scored"][row, span] = torch.tensor(document.scored)
    return batch


def evaluation_batches(name: str, count: int, difficulty: float, pool: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """`count` documents of the evaluation stream of one task, packed."""
    maker = generator.make_facts_held if name == "facts_held" else MAKERS[name]
    rng = Random(f"eval/curve/{name}/{difficulty}")
    documents = [generator.encode(maker(rng, difficulty, pool)) for _ in range(count)]
    while documents:
        waiting = iter(documents)
        rows = pack(lambda: next(waiting, Tokens([0] * 10**6, [], [], [])), 8, 256, tries=1)
        taken = {id(document) for row in rows for document in row}
        documents = [document for document in documents if id(document) not in taken]
        yield tensors(rows, 256)


@torch.no_grad()
def accuracy(network: Network, name: str, count: int, difficulty: float, pool: list[str]) -> float:
    """Share of scored tokens predicted; for greater-than, P(later year) - P(year not later)."""
    hits = total = 0.0
    for batch in evaluation_batches(name, count, difficulty, pool):
        logits = network(batch["ids"], batch["documents"])[:, :-1]
        if name == "greater_than":
            at = batch["soft"][:, 1:] >= 0
            years = logits[at].softmax(-1)[:, generator.YEAR_IDS[0] : generator.YEAR_IDS[0] + 100]
            later = torch.arange(100) > batch["soft"][:, 1:][at][:, None]
            hits += float((years * later).sum() - (years * ~later).sum())
        else:
            at = batch["scored"][:, 1:]
            hits += float((logits[at].argmax(-1) == batch["ids"][:, 1:][at]).sum())
        total += float(at.sum())
    return hits / total


# ---------------------------------------------------------------------------------------------------------------------
# State


def save_state(path: Path, network: Network, optimiser: torch.optim.Optimizer, state: dict) -> None:
    """Write weights, optimiser moments and `state` as one file, complete or not at all."""
    saved = {name: value.detach().contiguous() for name, value in network.named_parameters()}
    for name, parameter in network.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            saved[f"{moment}/{name}"] = optimiser.state[parameter][moment]
    partial = path.with_suffix(".part")
    save_file(saved, partial, metadata={"state": json.dumps(state)})
    os.replace(partial, path)


def load_state(path: Path, network: Network, optimiser: torch.optim.Optimizer) -> dict:
    """Restore what `save_state` wrote and return its `state`."""
    with safe_open(path, "pt") as file, torch.no_grad():
        state = json.loads(file.metadata()["state"])
        for name, parameter in network.named_parameters():
            parameter.copy_(file.get_tensor(name))
            moments = {moment: file.get_tensor(f"{moment}/{name}") for moment in ("exp_avg", "exp_avg_sq")}
            optimiser.state[parameter] = {"step": torch.tensor(float(state["step"])), **moments}
    return state


def load_network(path: Path) -> Network:
    """The network of a saved state, without its optimiser."""
    with safe_open(path, "pt") as file, torch.no_grad():
        shape = json.loads(file.metadata()["state"])["shape"]
        network = Network(Shape(**shape))
        for name, parameter in network.named_parameters():
            parameter.copy_(file.get_tensor(name))
    return network


# ---------------------------------------------------------------------------------------------------------------------
# Training


class Schedule:
    """Learning rate, pool, difficulty and mixture at each step; phase 2 starts where the gate opened."""

    def __init__(self, steps: int, lr: float):
        self.steps, self.lr = steps, lr
        self.gate: int | None = None
        self.lengths = mean_lengths()

    def learning_rate(self, step: int) -> float:
        """50 steps of warm-up, a slow cosine, and over the last third a linear way down to 2 %."""
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, step / COSINE_STEPS)))
        return self.lr * min(1, (step + 1) / 50) * cosine * min(1, 0.02 + 0.98 * 3 * (1 - step / self.steps))

    def text(self, step: int) -> tuple[dict[str, float], float, list[str]]:
        """Document shares, difficulty and pool."""
        pool = sorted(POOL, key=lambda word: Random(f"pool/{word}").random())
        if self.gate is None:
            return self.per_document(PHASE_1), EASY_DIFFICULTY, pool[:EASY_POOL]
        since = step - self.gate
        mixture = PHASE_3 if step >= self.steps // 2 else blend(PHASE_1, PHASE_2, min(1, since / MIXTURE_STEPS))
        words = EASY_POOL + (len(POOL) - EASY_POOL) * min(1, since / POOL_STEPS)
        difficulty = EASY_DIFFICULTY + (1 - EASY_DIFFICULTY) * min(1, since / DIFFICULTY_STEPS)
        return self.per_document(mixture), difficulty, pool[: round(words)]

    def per_document(self, mixture: dict[str, float]) -> dict[str, float]:
        """Shares of documents that give these shares of tokens."""
        return {name: share / self.lengths[name] for name, share in mixture.items()}

    def batch(self, seed: int, step: int) -> dict[str, torch.Tensor]:
        """The 2048 tokens of one step: 16 rows of 128, or after the gate one time in four 8 rows of 256."""
        rng = Random(f"train/{seed}/{step}")
        shares, difficulty, pool = self.text(step)
        sections = self.gate is not None
        rows, width = (8, 256) if sections and rng.random() < 0.25 else (16, 128)
        make = generator.make_document
        return tensors(pack(lambda: make(rng, shares, difficulty, pool, sections), rows, width), width)


def make_optimiser(network: Network, lr: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def train(arguments: argparse.Namespace) -> Network:
    """Train, or continue training, to the last step."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    shape = Shape(
        n_layers=arguments.layers, n_heads=arguments.heads, d_model=arguments.width, d_mlp=arguments.mlp,
        d_vocab=len(generator.VOCABULARY), mimetic_first=arguments.mimetic[0], mimetic_other=arguments.mimetic[1],
        offsets=tuple(arguments.offsets), margin=arguments.margin,
        matches=tuple(tuple(map(int, pair)) for pair in arguments.matches),
    )  # fmt: skip
    network = Network(shape, arguments.seed)
    optimiser = make_optimiser(network, arguments.lr)
    schedule = Schedule(arguments.steps, arguments.lr)
    state = {"step": 0, "gate": None, "tokens": 0, "seconds": 0.0, "seed": arguments.seed, "shape": dataclasses.asdict(shape)}
    if arguments.init:
        network.load_state_dict(load_network(arguments.init).state_dict())
        schedule.gate = state["gate"] = -MIXTURE_STEPS
    if (out / "state.safetensors").exists():
        state = load_state(out / "state.safetensors", network, optimiser)
        schedule.gate = state["gate"]

    def objective(ids: torch.Tensor, documents: torch.Tensor, weights: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        return loss(network(ids, documents), ids, weights, soft, IDS["00"])

    if arguments.compile:
        objective = torch.compile(objective, dynamic=False)
    easy_pool = schedule.text(0)[2]
    clock, running = time.monotonic() - state["seconds"], 0.0
    for step in range(state["step"], arguments.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate(step)
        batch = schedule.batch(arguments.seed, step)
        value = objective(batch["ids"], batch["documents"], batch["weights"], batch["soft"])
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        now = value.item()
        running = 0.98 * running + 0.02 * now if running else now
        state |= {"step": step + 1, "tokens": state["tokens"] + int((batch["documents"] >= 0).sum())}
        if schedule.gate is None and (step + 1) % 50 == 0:
            easy = {name: round(accuracy(network, name, 32, EASY_DIFFICULTY, easy_pool), 3) for name in GATE}
            print(f"step {step + 1} loss {running:.3f} easy {easy}", flush=True)
            if all(easy[name] > limit for name, limit in GATE.items()):
                schedule.gate = state["gate"] = step + 1
            elif step + 1 >= arguments.give_up:
                raise SystemExit(f"Step {step + 1}: the gate did not open ({easy}, needed {GATE}). Try another seed.")
        if (step + 1) % arguments.every == 0 or step + 1 == arguments.steps:
            state["seconds"] = round(time.monotonic() - clock, 1)
            log(out, network, state, running)
            save_state(out / "state.safetensors", network, optimiser, state)
    return network


def log(out: Path, network: Network, state: dict, running: float) -> None:
    """Append one row of `curves.csv`: accuracy on 32 evaluation documents of every task, full difficulty."""
    row = {"step": state["step"], "minutes": round(state["seconds"] / 60, 2), "tokens": state["tokens"]}
    row |= {"gate": state["gate"], "loss": round(running, 4)}
    row |= {name: round(accuracy(network, name, 32, 1.0, POOL), 3) for name in [*MAKERS, "facts_held"] if name != "story"}
    print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    new = not (out / "curves.csv").exists()
    with open(out / "curves.csv", "a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Parse the arguments, train, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the curves")
    parser.add_argument("--export", type=Path, help="folder for the finished Hugging Face model")
    parser.add_argument("--init", type=Path, help="start from the weights of this state, beyond phase 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--mlp", type=int, default=512)
    parser.add_argument("--mimetic", type=int, nargs=2, default=(1, 1), help="mimetic heads in layer 0 and in each other layer")
    parser.add_argument("--offsets", type=int, nargs="*", default=(1, 2, 3), help="distances of the look-back heads of layer 0")
    parser.add_argument("--matches", nargs="*", default=("01", "12", "10"), help="what the heads of layer 1 start to match")
    parser.add_argument("--margin", type=float, default=3.0, help="preference of a look-back head for its distance, in nats")
    parser.add_argument("--give-up", type=int, default=1200, help="step by which the gate must have opened")
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations and saves")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="needs a C++ compiler; 1.1x faster"
    )
    arguments = parser.parse_args()
    network = train(arguments)
    if arguments.export:
        from export import export

        export(network, arguments.export)


if __name__ == "__main__":
    main()
