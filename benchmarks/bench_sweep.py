"""Zero-ablation of every head: this sweep against one TransformerLens ``run_with_hooks`` pass per head, in one process.

Rows: a random model of GPT-2-small's size (8 prompts of 16 tokens), the embedded model (32 IOI prompts of 15 to 21 tokens, padded for
the loop) and, where it is installed, SmolLM2 (8 IOI prompts of 15 tokens), logit difference, each with the ablation at all positions and
at the answer position only; on a GPU if there is one. Where the loop is slow, it passes over every fifth or 23rd head only, and its
time is scaled to all. ``--threads N`` sets the threads of both sides (1), ``--repeats N`` how often each is timed;
``--model NAME`` prints the rows of one model.

Efficiency is the time that the necessary multiplications alone would take, at the rate of this machine's own matrix products, over the
processor time of the sweep, on a CPU and one thread. The rate is that of the fastest of the products of ``ROWS`` rows with one
MLP matrix of the model, float32, measured before and after the sweep. A layer multiplies, for one row::

    kv = 2 d_model n_kv_heads d_head    qo = 2 d_model n_heads d_head    mlp = (2, gated 3) d_model d_mlp
    seen = 2 n_heads d_head for each key that a query sees

With L layers, prompts of T tokens, of which the last n are recomputed, and ``rows(n) = n (kv + qo + mlp) + seen`` of n queries, the
necessary work is, two operations for each multiplication:

    clean run  (L - 1) rows(T) + T kv + rows(1) - kv + d_model d_vocab, for each prompt
    layer l    for each head and prompt: n d_head d_model + n mlp + (L - l - 2) rows(n) + n kv + rows(1) - kv + 2 d_model;
               in the last layer d_head d_model + mlp + 2 d_model

Every sweep begins with its proof, a comparison with the plain model, whose time is also given alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import torch
import transformers
from measure import once, peak_bytes, save, show

from interp import interventions
from interp.engine.forward.run import quiet_inference
from interp.engine.sweep.fused_ops import engine_modules
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.verify_resumption import verify_resumption
from interp.errors import ModelUnavailable
from interp.heads import Head
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_model, wrap_model
from interp.models.model import Model, record_of
from interp.tasks import make_task
from interp.tasks.task import Example, Task

LOGIT_DIFF = OUTCOMES.get("logit_diff")
ROWS = (512, 1024, 2048)


def hooked_loop(model: Model, task: Task, position: str, heads: list[Head]) -> np.ndarray:
    """Logit difference with each of these heads' z zeroed by its own hooked pass over the batch, [n_heads n_examples]."""
    longest = max(len(e.clean) for e in task)  # padded on the right, which a causal model does not see
    tokens = torch.tensor([[*e.clean, *[0] * (longest - len(e.clean))] for e in task], device=model.device)
    every, last = torch.arange(len(task)), torch.tensor([len(e.clean) - 1 for e in task])
    answer, distractor = (
        torch.tensor([getattr(e, n)[0] for e in task], device=model.device)[:, None] for n in ("answers", "distractors")
    )

    def zero(z, hook, head):
        z = z.clone()
        if position == "end":
            z[every, last, head] = 0
        else:
            z[:, :, head] = 0
        return z

    rows = []
    with torch.inference_mode():
        for head in heads:
            hooks = [(f"blocks.{head.layer}.attn.hook_z", partial(zero, head=head.head))]
            logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[every, last]
            rows.append((logits.gather(1, answer) - logits.gather(1, distractor))[:, 0])
    return torch.stack(rows).double().cpu().numpy()


def whole_sweep(model, task, position: str, memory: int | None = None) -> np.ndarray:
    """The same numbers by the sweep."""
    variants = [(interventions.zero([head], position),) for head in model.facts.heads()]
    return sweep(model, task, variants, LOGIT_DIFF, record=record_of(model), memory=memory, backend="resumed").values


def necessary_work(model: Model, task: Task, position: str) -> int:
    """Operations of the matrix products that a zero sweep of all heads cannot do without (see the head of this file)."""
    facts = model.facts
    width, mlp = facts.n_heads * facts.d_head, (3 if is_gated(model) else 2) * facts.d_model * facts.d_mlp
    kv, qo = 2 * facts.d_model * facts.n_kv_heads * facts.d_head, 2 * facts.d_model * width
    total = 0
    for length in (len(example.clean) for example in task):
        n = 1 if position == "end" else length

        def rows(n: int, length: int = length) -> int:
            return n * (kv + qo + mlp) + 2 * width * sum(range(length - n + 1, length + 1))

        last = rows(1) - kv
        total += (facts.n_layers - 1) * rows(length) + length * kv + last + facts.d_model * facts.d_vocab
        for layer in range(facts.n_layers - 1):
            above = (facts.n_layers - layer - 2) * rows(n) + n * kv + last
            total += facts.n_heads * (n * (facts.d_head * facts.d_model + mlp) + above)
        total += facts.n_heads * (facts.d_head * facts.d_model + mlp + facts.n_layers * 2 * facts.d_model)
    return 2 * total


def is_gated(model: Model) -> bool:
    """Whether MLPs multiply by two matrices before their output matrix."""
    return any(name.endswith("gate_proj") for name, _ in model.hf.named_modules())


def product_rate(model: Model, rounds: int = 4, least: float = 0.03) -> float:
    """Operations a second of processor time of this machine's matrix products, at the fastest of the model's MLP shapes.

    The shapes take turns, and each counts with its mean: what other programs on the machine cost, they cost the sweep as well.
    """
    facts = model.facts
    sizes = [(n, *size) for size in ((facts.d_model, facts.d_mlp), (facts.d_mlp, facts.d_model)) for n in ROWS]
    operations, spent = np.zeros(len(sizes)), np.zeros(len(sizes))
    for _ in range(rounds):
        for i, (n, n_in, n_out) in enumerate(sizes):
            x, weight, start = torch.randn(n, n_in), torch.randn(n_out, n_in), time.process_time()
            while time.process_time() - start < least:
                torch.nn.functional.linear(x, weight)
                operations[i] += 2 * n * n_in * n_out
            spent[i] += time.process_time() - start
    return float((operations / spent).max())


def compare(name: str, model: Model, task: Task, position: str, repeats: int, every: int = 1) -> dict:
    """One row: how much faster, how near to the matrix products alone, and how far apart. The loop runs before and after every sweep."""
    model.bridge  # noqa: B018 - made on first use, and not to be timed
    heads = list(model.facts.heads())
    found: dict[str, np.ndarray] = {}

    def loop() -> None:
        found["loop"] = hooked_loop(model, task, position, heads[::every])

    def ours() -> None:
        found["ours"] = whole_sweep(model, task, position)

    whole_sweep(model, task, "end")
    hooked_loop(model, task, position, heads[:1])
    single = model.device.type == "cpu" and torch.get_num_threads() == 1
    with model.lock, quiet_inference(), engine_modules(model.hf):
        n_positions = [len(task.examples[0].clean) if position == "all" else 1]
        proof = once(partial(verify_resumption, model, task.examples, n_positions))[1]
    work, more, turns = necessary_work(model, task, position), len(heads) / len(heads[::every]), []
    for _ in range(repeats):
        rates = [product_rate(model)] if single else []
        before, sweep_time, after = once(loop), once(ours), once(loop)
        rates += [product_rate(model)] if single else []
        ratio = [more * (before[i] + after[i]) / 2 / sweep_time[i] for i in (0, 1)]
        turns.append(
            [
                *ratio,
                sweep_time[1],
                *([work / sweep_time[1] / statistics.mean(rates), statistics.mean(rates)] if single else []),
            ]
        )
    wall, cpu, seconds, *efficiency = (statistics.median(column) for column in zip(*turns, strict=True))
    unchanged = [(interventions.scale([heads[0]], 1.0),)]
    baseline = sweep(model, task, unchanged, LOGIT_DIFF, record=record_of(model)).baseline
    apart = float(np.abs(found["ours"][::every] - found["loop"]).max())
    row = {
        "model": name,
        "positions": position,
        "ratio": wall,
        "ratio in processor time": cpu,
        "processor seconds": seconds,
        "of the proof": proof,
    }
    if efficiency:
        row |= {"necessary GFLOP": work / 1e9, "products, GFLOP/s": efficiency[1] / 1e9, "efficiency": efficiency[0]}
    largest = float(np.abs(found["ours"] - baseline).max())
    return row | {
        "heads of the loop": len(heads[::every]),
        "max difference": apart,
        "relative to largest effect": apart / largest,
    }


def memory_rows(model, task) -> list[dict]:
    """Peak memory of the sweep above the loaded model, against one plain forward pass of the same prompts."""
    tokens = torch.tensor([e.clean for e in task])

    def forward():
        with torch.inference_mode():
            model.hf(tokens, use_cache=False)

    whole_sweep(model, task, "end")  # what is loaded once is not counted
    once = peak_bytes(forward)
    rows = []
    for budget in (None, 96 << 20, 64 << 20):
        peak = peak_bytes(partial(whole_sweep, model, task, "all", budget))
        row = {"model": "gpt2-small-sized", "budget MiB": budget and budget >> 20, "peak MiB": peak / 2**20}
        rows.append({**row, "ratio to one forward": peak / once})
    return rows


def random_gpt2(device: str) -> tuple:
    """A random GPT-2 small and 8 prompts of 16 tokens."""
    torch.manual_seed(0)
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config()).to(device)
    ids = torch.randint(0, 50000, (8, 18)).tolist()
    task = Task("random", tuple(Example(tuple(r[:16]), tuple(r[:16]), (r[16],), (r[17],)) for r in ids), "logit_diff")
    return wrap_model(hf, name="gpt2-small-sized"), task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--model", choices=["gpt2-small-sized", "interp-mini", "smollm2"], default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, rows = "cuda" if torch.cuda.is_available() else "cpu", []
    if options.model in (None, "gpt2-small-sized"):
        big, prompts = random_gpt2(device)
        rows += memory_rows(big, prompts) if device == "cpu" else []
        rows += [compare("gpt2-small-sized", big, prompts, p, options.repeats, every=5) for p in ("all", "end")]
    if options.model in (None, "interp-mini"):
        mini = load_model("interp-mini", device=device)
        ioi = make_task("ioi", mini, n_prompts=32, seed=0)
        rows += [compare("interp-mini", mini, ioi, p, max(9, options.repeats)) for p in ("all", "end")]
    if options.model in (None, "smollm2"):
        try:
            smollm2 = load_model("smollm2", device=device)
        except ModelUnavailable as missing:
            print(f"SmolLM2 is left out: {missing}")
        else:
            ioi = make_task("ioi", smollm2, n_prompts=8, seed=0)
            rows += [compare("smollm2", smollm2, ioi, p, options.repeats, every=23) for p in ("all", "end")]
    if options.model:
        show(rows)
    else:
        save("sweep", rows)


if __name__ == "__main__":
    main()
