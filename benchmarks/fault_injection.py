"""Random differences between what one part of the engine computes and what the plain model computes: is each caught before a number?

    python benchmarks/fault_injection.py [SEED] [N]

Each of N trials draws a tiny random model, a measurement (sweep at all positions, at the end, of patterns in all layers, attention,
edges) and a fault, measures with the fault, and compares with the numbers without it. A fault is caught when the measurement is refused,
or replaced by the hooked one with right numbers; it is missed when a number moves by 1% of the largest or more. Exits with 1 when one is
missed.
"""

import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from interp.ablation import ablate_heads
from interp.circuits import score_edges
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import streaming, uniform
from interp.metrics import observe_attention
from interp.metrics.outcomes import OUTCOMES
from interp.models import wrap_model
from interp.models.model import record_of
from interp.tasks.task import Example, Task
from tests.support.tiny_models import TINY, tiny_hf

MOVED = 0.01
modules = {
    name.rpartition(".")[2]: import_module(f"interp.engine.{name}")
    for name in (
        "attention.attention_interface",
        "attention.attention_rows",
        "sweep.change_patterns",
        "sweep.clean_pass",
        "sweep.readout",
        "sweep.resume_from_layer",
        "sweep.verify_resumption",
        "edges.residual_decomposition",
    )
}


def prompts() -> Task:
    draw = torch.Generator().manual_seed(1)
    examples = []
    for n in (6, 9, 9, 11):
        clean = torch.randint(3, 90, (n,), generator=draw).tolist()
        corrupted = [*clean[:2], (clean[2] + 7) % 80 + 3, *clean[3:]]
        examples.append(Example(tuple(clean), tuple(corrupted), (5,), (6,)))
    return Task("faults", tuple(examples), "logit_diff")


TASK = prompts()
PAIRS = Task("faults", TASK.examples[1:3], "logit_diff")


def effects(model: Any, **options: Any) -> tuple[np.ndarray, bool]:
    result = ablate_heads(model, TASK, **options)
    return result.values - result.baseline, result.backend == "hooked"


def patterns(model: Any) -> tuple[np.ndarray, bool]:
    """Patterns changed in every layer at once, of one head in each."""
    heads = [Head(layer, layer % model.facts.n_heads) for layer in range(model.facts.n_layers)]
    variants = [(uniform(heads),), (streaming(heads, 1, 2, "end"),)]
    result = sweep(model, TASK, variants, OUTCOMES.get("logit_diff"), record=record_of(model))
    return result.effects, result.backend == "hooked"


def attention(model: Any) -> tuple[np.ndarray, bool]:
    seen = observe_attention(model, TASK, ["entropy", "attention_distance"])
    return np.concatenate([seen[name].nan_to_num().numpy().ravel() for name in seen.metrics]), False


MEASUREMENTS: dict[str, Callable[[Any], tuple[np.ndarray, bool]]] = {
    "sweep": lambda model: effects(model, ablation="zero"),
    "sweep at the end": lambda model: effects(model, ablation="mean", positions="end"),
    "sweep of patterns": patterns,
    "attention": attention,
    "edges": lambda model: (score_edges(model, PAIRS, method="eap").effects, False),
}


def on_calls(change: Callable[[Any], Any]) -> list[Any]:
    """The inputs of every attention module, as the engine receives them, changed."""
    module = modules["attention_interface"]
    right = module.AttentionInputs
    return [patch.object(module, "AttentionInputs", lambda *args, **kwargs: change(right(*args, **kwargs)))]


def everywhere(name: str, make: Callable[[Any], Any]) -> list[Any]:
    """A function of the engine, replaced in every file that has it."""
    return [patch.object(module, name, make(getattr(module, name))) for module in modules.values() if hasattr(module, name)]


def faults(draw: random.Random) -> dict[str, list[Any]]:
    factor, head, shift = 1 + draw.uniform(0.02, 0.3), draw.randrange(5), draw.choice([1, 2])

    def scaled(name: str) -> Callable[[Any], Any]:
        def change(call: Any) -> Any:
            tensor = getattr(call, name).clone()
            tensor[:, head % tensor.shape[1]] *= factor
            return replace(call, **{name: tensor})

        return change

    def without_norm(right: Any) -> Any:
        return lambda model, residual, norm=None: right(model, residual, torch.nn.Identity())

    def tilted(right: Any) -> Any:
        return lambda model, *args: right(model, *args) * torch.linspace(1, factor, model.facts.d_vocab)

    def shifted_tokens(right: Any) -> Any:
        return lambda model, examples: (lambda batch: replace(batch, tokens=batch.tokens.roll(shift, 1)))(
            right(model, examples)
        )

    def scaled_block(right: Any) -> Any:
        return lambda block, clean, layer, x: right(block, clean, layer, x) * (factor if layer == 1 else 1)

    clean_pass = modules["clean_pass"]
    return {
        "scale of the scores": on_calls(lambda call: replace(call, scale=call.scale * factor)),
        "causality flipped": on_calls(lambda call: replace(call, causal=not call.causal, mask=None)),
        "mask dropped": on_calls(lambda call: replace(call, mask=None)),
        "values of a head": on_calls(scaled("v")),
        "keys of a head": on_calls(scaled("k")),
        "keys shifted": on_calls(lambda call: replace(call, k=call.k.roll(shift, 2))),
        "queries shifted": on_calls(lambda call: replace(call, q=call.q.roll(shift, 2))),
        "soft cap added or dropped": on_calls(lambda call: replace(call, softcap=2.0 if call.softcap is None else None)),
        "logits": everywhere("logits_of", tilted),
        "columns of the unembedding": everywhere("unembed_rows", lambda right: lambda *args: right(*args) * factor),
        "final norm": everywhere("logits_of", without_norm),
        "output of a block": everywhere("call_block", scaled_block),
        "output of attention rows": everywhere("_block_output", lambda right: lambda *args: right(*args) * factor),
        "tokens shifted": [patch.object(clean_pass, "as_batch", shifted_tokens(clean_pass.as_batch))],
    }


def main(seed: int = 0, n: int = 200) -> int:
    draw, right, count = random.Random(seed), {}, Counter()
    warnings.simplefilter("ignore")
    for _ in range(n):
        name, measured = draw.choice([*TINY]), draw.choice([*MEASUREMENTS])
        fault, patches = draw.choice([*faults(draw).items()])
        if (name, measured) not in right:
            try:
                right[name, measured] = MEASUREMENTS[measured](wrap_model(tiny_hf(name)))[0]
            except ValueError:
                right[name, measured] = None
        wanted = right[name, measured]
        if wanted is None:
            count["the measurement is refused without a fault as well"] += 1
            continue
        with ExitStack() as stack:
            for each in patches:
                stack.enter_context(each)
            try:
                found, hooked = MEASUREMENTS[measured](wrap_model(tiny_hf(name)))
            except ValueError:
                count["caught: refused"] += 1
                continue
        moved = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        outcome = "missed" if moved >= MOVED else "caught: right by the hooked backend" if hooked else "moves less than 1%"
        count[outcome] += 1
        if outcome == "missed":
            print(f"missed: {fault} on {measured} of {name} moves it by {moved:.1%}")
    for outcome, times in count.most_common():
        print(f"{times:4d}  {outcome}")
    return int(count["missed"] > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
