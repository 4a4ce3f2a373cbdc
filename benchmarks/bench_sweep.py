"""Zero-ablation of every head: this sweep against one TransformerLens ``run_with_hooks`` pass per head, in one process.

Rows: a random model of GPT-2-small's size (8 prompts of 16 tokens) and the embedded model (32 IOI prompts of 15 to 21 tokens, padded for
the loop), logit difference, each with the ablation at all positions and at the answer position only; on a GPU if
there is one. ``--threads N`` sets the threads of both sides, ``--repeats N`` how often each is timed.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
import transformers
from measure import peak_bytes, ratios, save

from interp import interventions
from interp.engine.sweep.sweep import sweep
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_model, wrap_model
from interp.models.model import record_of
from interp.tasks import make_task
from interp.tasks.task import Example, Task

LOGIT_DIFF = OUTCOMES.get("logit_diff")


def hooked_loop(model, task, position: str) -> np.ndarray:
    """Logit difference with each head's z zeroed by its own hooked pass over the batch, [n_heads n_examples]."""
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
        for head in model.facts.heads():
            hooks = [(f"blocks.{head.layer}.attn.hook_z", partial(zero, head=head.head))]
            logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[every, last]
            rows.append((logits.gather(1, answer) - logits.gather(1, distractor))[:, 0])
    return torch.stack(rows).double().cpu().numpy()


def whole_sweep(model, task, position: str, memory: int | None = None) -> np.ndarray:
    """The same numbers by the sweep."""
    variants = [(interventions.zero([head], position),) for head in model.facts.heads()]
    return sweep(model, task, variants, LOGIT_DIFF, record=record_of(model), memory=memory, backend="resumed").values


def compare(name: str, model, task, position: str, repeats: int) -> dict:
    """One row: how much faster, and how far apart."""
    kept: dict[str, np.ndarray] = {}
    model.bridge  # noqa: B018 - made on first use, and not to be timed

    def loop() -> None:
        kept["loop"] = hooked_loop(model, task, position)

    def ours() -> None:
        kept["ours"] = whole_sweep(model, task, position)

    ours()
    wall, cpu = ratios(loop, ours, repeats)
    unchanged = [(interventions.scale([model.facts.heads()[0]], 1.0),)]
    baseline = sweep(model, task, unchanged, LOGIT_DIFF, record=record_of(model)).baseline
    apart, largest = float(np.abs(kept["ours"] - kept["loop"]).max()), float(np.abs(kept["ours"] - baseline).max())
    return {
        "model": name,
        "positions": position,
        "ratio": wall,
        "ratio in processor time": cpu,
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    big, prompts = random_gpt2(device)
    rows = memory_rows(big, prompts) if device == "cpu" else []
    rows += [compare("gpt2-small-sized", big, prompts, p, options.repeats) for p in ("all", "end")]
    mini = load_model("interp-mini", device=device)
    ioi = make_task("ioi", mini, n_prompts=32, seed=0)
    rows += [compare("interp-mini", mini, ioi, p, max(9, options.repeats)) for p in ("all", "end")]
    save("sweep", rows)


if __name__ == "__main__":
    main()
