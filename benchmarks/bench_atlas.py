"""Every head of a model in one image: thumbnails from cached queries and keys, and rendering and encoding of the atlas.

Random queries and keys (d_head 64) of 12 x 12 and of 32 x 32 heads, one text of 256 tokens: ``spread`` weights, scores of standard
deviation 1; ``mixed``, 3, the hardest to compress; ``peaked``, 12, nearly one key a row. Last: noise in every bin.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from measure import once, save

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.qk_cache import AttentionCache
from interp.figures import atlas
from interp.metrics import thumbnails
from interp.records import RunRecord
from interp.tasks.token_batch import TokenBatch

SHAPES, TOKENS, D_HEAD, SIZE = ((12, 12), (32, 32)), 256, 64, 48
SPREADS = {"spread": 1.0, "mixed": 3.0, "peaked": 12.0}


def random_cache(n_layers: int, n_heads: int, spread: float) -> AttentionCache:
    """Queries and keys of one text whose scores have this standard deviation."""
    made = torch.Generator().manual_seed(0)
    calls = []
    for _ in range(n_layers):
        q, k = (torch.randn(1, n_heads, TOKENS, D_HEAD, generator=made) for _ in range(2))
        calls.append(AttentionInputs(q, k, k[..., :0], None, spread / D_HEAD**0.5, None))
    prompts = TokenBatch(torch.zeros(1, TOKENS, dtype=torch.long), torch.ones(1, TOKENS, dtype=torch.bool))
    return AttentionCache(tuple(calls), prompts, (("",) * TOKENS,), RunRecord("random"))


def timed(name: str, function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians in ms, wall clock and CPU time, of a warm call."""
    wall, processor = np.median([once(function) for _ in range(repeats)], 0) * 1e3
    return {f"{name} ms": wall, f"{name} processor ms": processor}


def drawn(thumbs: np.ndarray, repeats: int, gamma: float = 1.0) -> dict:
    """Time and size of the image alone."""
    size = len(atlas(thumbs, gamma=gamma).png)
    return {"gamma": gamma, **timed("drawing", lambda: atlas(thumbs, gamma=gamma), repeats), "kB": size / 1e3}


def measured(shape: tuple[int, int], name: str, repeats: int) -> list[dict]:
    """Rows of one shape and one kind of weights: with gamma 1, and with small weights raised."""
    cache = random_cache(*shape, SPREADS[name])
    thumbs = thumbnails(cache, SIZE)
    about = {"layers x heads": f"{shape[0]} x {shape[1]}", "tokens": TOKENS, "weights": name}
    about |= timed("thumbnails", lambda: thumbnails(cache, SIZE), repeats)
    return [{**about, **drawn(thumbs, repeats, gamma)} for gamma in (1.0, 0.5)]


def noise(shape: tuple[int, int], repeats: int) -> dict:
    """The row of an incompressible image."""
    thumbs = np.tril(np.random.default_rng(0).random((*shape, SIZE, SIZE), dtype=np.float32))
    return {"layers x heads": f"{shape[0]} x {shape[1]}", "tokens": TOKENS, "weights": "noise", **drawn(thumbs, repeats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        found = [row for shape in SHAPES for name in SPREADS for row in measured(shape, name, options.repeats)]
        found += [noise(shape, options.repeats) for shape in SHAPES]
        rows += [{"threads": threads, **row} for row in found]
    save("atlas", rows)


if __name__ == "__main__":
    main()
