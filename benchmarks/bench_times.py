"""How long the engines take on a small, a middle and a real model, on one thread and on two, and how far ``adaptive`` may be trusted.

Rows of times: ``interp-mini`` (32 IOI prompts), a random model of GPT-2-small's size (8 prompts of 16 tokens) and, where it is installed,
SmolLM2 (8 IOI prompts), each engine once after the same on two prompts, with zero ablation. Rows of agreement: for each task that SmolLM2
does, 8 prompts, how many of the ten heads of largest effect ``attribution`` and ``adaptive`` name, against the exact sweep.
``--only times|agreement`` makes one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from bench_sweep import random_gpt2
from measure import once, save, show
from scipy.stats import spearmanr

from interp import ablate_heads, observe_attention
from interp.circuits import score_edges
from interp.errors import ModelUnavailable
from interp.models import load_model
from interp.models.model import Model
from interp.tasks import make_task
from interp.tasks.task import Task

TASKS = ("greater_than", "docstring", "agreement", "gendered_pronoun", "facts", "antonyms", "ioi")
METRICS = ["attention_distance", "entropy", "prev_token_score"]


def engines(model: Model, task: Task) -> dict[str, Callable[[], object]]:
    """What is timed, by its name in the table."""
    tokens = torch.randint(100, 500, (1, 512), generator=torch.Generator().manual_seed(0))
    zero = partial(ablate_heads, model, task, ablation="zero")
    calls: dict[str, Callable[[], object]] = {
        "exact sweep": zero,
        "exact sweep, answer position": partial(zero, positions="end"),
        "adaptive sweep": partial(zero, estimator="adaptive"),
        "attribution": partial(zero, estimator="attribution"),
        "three attention metrics, 512 tokens": lambda: observe_attention(model, tokens, METRICS),
    }
    if task.has_corrupted:
        calls["edges, eap"] = partial(score_edges, model, task, method="eap")
        calls["edges, eap-ig, 5 steps"] = partial(score_edges, model, task, method="eap-ig", steps=5)
    return calls


def times(name: str, model: Model, task: Task) -> list[dict]:
    """Seconds of every engine on one thread and on two."""
    for call in engines(model, task.select([0, 1])).values():  # what is made and proven on first use is not timed
        call()
    rows = []
    for engine, call in engines(model, task).items():
        row: dict = {"model": name, "engine": engine}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            row[f"seconds, {threads} threads"], row[f"processor seconds, {threads} threads"] = once(call)
        rows.append(row)
    torch.set_num_threads(1)
    return rows


def agreement(model: Model, name: str) -> dict:
    """How the estimates of one task agree with its exact effects."""
    task = make_task(name, model, n_prompts=8, seed=0)
    exact, adaptive, estimate = (
        ablate_heads(model, task, ablation="zero", estimator=estimator).heads().set_index("label")["effect"].abs()
        for estimator in ("exact", "adaptive", "attribution")
    )
    row: dict = {"model": model.facts.name, "task": name, "heads": len(exact), "heads measured by adaptive": len(adaptive)}
    row["rank correlation of attribution"] = float(spearmanr(estimate, exact[estimate.index]).statistic)
    largest = set(exact.nlargest(10).index)
    row["ten largest, attribution"] = len(largest & set(estimate.nlargest(10).index))
    row["ten largest, adaptive"] = len(largest & set(adaptive.nlargest(10).index))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["times", "agreement"], default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mini, found = load_model("interp-mini"), []
    models = [("interp-mini", mini, make_task("ioi", mini, n_prompts=32, seed=0)), ("gpt2-small-sized", *random_gpt2("cpu"))]
    try:
        smollm2 = load_model("smollm2")
        models.append(("smollm2", smollm2, make_task("ioi", smollm2, n_prompts=8, seed=0)))
    except ModelUnavailable as missing:
        smollm2 = None
        print(f"SmolLM2 is left out: {missing}")
    if options.only != "agreement":
        found += [row for model in models for row in times(*model)]
    if options.only != "times":
        found += [agreement(mini, "ioi"), *(agreement(smollm2, task) for task in TASKS if smollm2)]
    show(found) if options.only else save("times", found)


if __name__ == "__main__":
    main()
