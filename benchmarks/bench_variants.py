"""What attention variants cost in time and memory: all heads of SmolLM2 on a long text, and generation from a cache.

Each beside the unchanged model in turns: a pass over ``--tokens`` random tokens with torch's own attention (SDPA), and the same pass under
a variant on all heads; 200 tokens generated after 256, with and without.
"""

from __future__ import annotations

import argparse
import gc

import torch
from measure import peak_bytes, ratios, save, show

from interp.ablation import build_variant
from interp.engine import generate
from interp.engine.attention.intervening_observer import plain_logits_with
from interp.models import load_model
from interp.tasks.token_batch import as_batch

MASKS = ("window:size=256", "strided:stride=64,size=64", "power_attention:size=64,sinks=4", "top_keys:k=64")
PREPARED = ("landmark:size=64,representative=mean", "block_top_keys:size=64,top=8", "linear:feature=elu")
GENERATED = ("window:size=64", "heavy_hitters:heavy=32,recent=32", "recycled:k=48,stride=16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, rows = load_model("smollm2"), []
    heads = model.facts.heads()
    tokens = torch.randint(100, 40_000, (1, options.tokens), generator=torch.Generator().manual_seed(0))
    batch, ids = as_batch(model, tokens), torch.zeros(1, dtype=torch.long)

    def plain() -> None:
        with torch.inference_mode():
            model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1)

    for kind, names in (("mask", MASKS), ("with queries and keys", PREPARED)):
        for name in names:
            change = [build_variant(name, heads)]

            def changed(change: list = change) -> None:
                with torch.inference_mode():
                    plain_logits_with(model, batch, change, ids, 1)

            changed()
            wall, cpu = ratios(changed, plain, options.repeats)
            gc.collect()
            above = peak_bytes(changed) - peak_bytes(plain)
            rows.append({"what": name, "kind": kind, "times SDPA": wall, "processor": cpu, "MiB above": above / 2**20})
            show(rows[-1:])
    prompt = tokens[0, :256].tolist()
    for name in GENERATED:
        change = [build_variant(name, heads)]
        generate(model, prompt, 4, intervene=change)
        wall, cpu = ratios(
            lambda change=change: generate(model, prompt, 200, intervene=change),
            lambda: generate(model, prompt, 200),
            options.repeats,
        )
        rows.append({"what": name, "kind": "generation of 200 tokens", "times unchanged": wall, "processor": cpu})
        show(rows[-1:])
    save("variants_speed", rows)


if __name__ == "__main__":
    main()
