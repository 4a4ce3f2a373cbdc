"""Six attention metrics of every head: one observed pass against a TransformerLens pass with a pattern hook, and a plain SDPA pass.

Random llama- and gpt2-like models (4 layers, 16 heads, d_model 256), one text of 2048 and of 4096 tokens; peak memory above the
loaded model at those lengths and, streamed alone, at 16384 and 32768. ``--smollm2`` measures the 270 heads of SmolLM2 at the 8192
tokens that it takes, and nothing else.
"""

from __future__ import annotations

import argparse

import torch
import transformers
from measure import once, peak_bytes, ratios, save, show

from interp import observe_attention
from interp.engine import capture_attention
from interp.models import load_model, wrap_model

SIX = ["attention_distance", "entropy", "sink_mass", "prev_token_score", "windowed_distance", "received_attention"]


def random_model(kind: str, length: int, device: str):
    """A random model of 4 layers x 16 heads that takes ``length`` tokens."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=1000, n_positions=length, n_embd=256, n_layer=4, n_head=16)
        return wrap_model(transformers.GPT2LMHeadModel(config).to(device), name=f"gpt2-like-{length}")
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=16,
        max_position_embeddings=length,
    )  # fmt: skip
    return wrap_model(transformers.LlamaForCausalLM(config).to(device), name=f"llama-like-{length}")


def streamed(model, tokens) -> torch.Tensor:
    """The six metrics by observation, [metric layer head]."""
    seen = observe_attention(model, tokens, SIX)
    return torch.stack([seen[name].double().nanmean((1, 3)) for name in SIX])


def hooked(model, tokens) -> torch.Tensor:
    """The same from a pattern hook, as a TransformerLens user writes it."""
    length = tokens.shape[1]
    place = torch.arange(length, device=tokens.device)
    gap = (place[:, None] - place).clamp(min=0)
    near, seen = gap.clamp(max=10), torch.arange(length, 0, -1, device=tokens.device)
    found = []

    def read(pattern, hook):
        rows = pattern[0]
        found.append(
            torch.stack(
                [
                    (rows * gap).sum(-1).mean(-1),
                    -torch.xlogy(rows, rows).sum(-1).mean(-1),
                    rows[:, 16:, :4].sum(-1).mean(-1),
                    rows.diagonal(-1, 1, 2).mean(-1),
                    (rows * near).sum(-1).mean(-1),
                    (rows.sum(1) / seen).mean(-1),
                ]
            )
        )

    with torch.inference_mode():
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.facts.n_layers)]
        model.bridge.run_with_hooks(tokens, return_type=None, fwd_hooks=[(name, read) for name in names])
    return torch.stack(found, 1).double()


def plain(model, tokens) -> None:
    """One forward pass with torch's own attention."""
    with torch.inference_mode():
        model.hf.base_model(tokens, use_cache=False)


def compare(kind: str, length: int, device: str, repeats: int) -> dict:
    """One row: time and memory of the three, and how far apart the numbers are."""
    model = random_model(kind, length, device)
    tokens = torch.randint(0, 1000, (1, length), device=device)
    kept = {}

    def ours() -> None:
        kept["ours"] = streamed(model, tokens)

    def theirs() -> None:
        kept["theirs"] = hooked(model, tokens)

    model.bridge  # noqa: B018 - made on first use, and not to be timed
    ours()
    plain(model, tokens)
    row = {"model": f"{kind}-like", "tokens": length, "metrics": len(SIX)}
    for name, other, times in (("pattern hook", theirs, 1), ("plain SDPA", lambda: plain(model, tokens), repeats)):
        wall, processor = ratios(other, ours, times)
        row |= {f"time / {name}": 1 / wall, f"processor time / {name}": 1 / processor}
    row["max difference"] = float(((kept["ours"] - kept["theirs"]) / (1 + kept["theirs"].abs())).abs().max())
    if device == "cpu":
        peaks = {name: peak_bytes(call) / 2**20 for name, call in (("observed", ours), ("pattern hook", theirs))}
        row |= {f"peak MiB, {name}": peak for name, peak in peaks.items()}
    return row


def long_text(length: int, metrics: list[str], device: str) -> dict:
    """One row: memory and seconds of one observed pass alone."""
    model = random_model("llama", length, device)
    tokens = torch.randint(0, 1000, (1, length), device=device)
    row = {"model": "llama-like", "tokens": length, "metrics": len(metrics)}
    row["peak MiB, observed"] = peak_bytes(lambda: observe_attention(model, tokens, metrics)) / 2**20
    return row | {"seconds": once(lambda: observe_attention(model, tokens, metrics))[0]}


def smollm2_row(device: str, repeats: int, length: int = 8192) -> dict:
    """One row: time of the six metrics against a plain pass of SmolLM2 on random tokens, and the peak memory of each."""
    model = load_model("smollm2", device=device)
    torch.manual_seed(0)
    tokens = torch.randint(0, model.facts.d_vocab, (1, length), device=device)
    calls = {"observed": lambda: observe_attention(model, tokens, SIX), "plain SDPA": lambda: plain(model, tokens)}
    observe_attention(model, tokens[:, :20], SIX)
    plain(model, tokens[:, :20])
    wall, processor = ratios(calls["observed"], calls["plain SDPA"], repeats)
    row = {"model": "smollm2", "heads": len(list(model.facts.heads())), "tokens": length, "metrics": len(SIX)}
    row |= {"time / plain SDPA": wall, "processor time / plain SDPA": processor}
    return row | ({f"peak MiB, {name}": peak_bytes(call) / 2**20 for name, call in calls.items()} if device == "cpu" else {})


def cache_row(device: str) -> dict:
    """Size of the queries and keys of 12 x 12 heads at 512 tokens against their patterns, and how far apart tiles are."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=1000, n_positions=512)
    model = wrap_model(transformers.GPT2LMHeadModel(config).to(device), name="gpt2-small-sized")
    tokens = torch.randint(0, 1000, (1, 512), device=device)
    cache = capture_attention(model, tokens)
    with torch.inference_mode():
        _, patterns = model.bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    kept = sum(p.numel() * p.element_size() for p in patterns.values())
    apart = max(
        float((cache.pattern(head) - patterns[f"blocks.{head.layer}.attn.hook_pattern"][0, head.head].cpu()).abs().max())
        for head in model.facts.heads()
    )
    return {
        "model": "gpt2-small-sized",
        "tokens": 512,
        "pattern cache / q and k": kept / cache.nbytes,
        "tile max difference": apart,
    }


def every_metric() -> list[str]:
    """All metrics of the shelf that a text alone can answer."""
    from interp.metrics.attention import ATTENTION_METRICS

    return [name for name in ATTENTION_METRICS.names() if "grid" not in ATTENTION_METRICS.get(name).needs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--longest", type=int, default=32768)
    parser.add_argument("--smollm2", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.smollm2:
        show([smollm2_row(device, options.repeats)])
        return
    rows = [compare(kind, length, device, options.repeats) for kind in ("llama", "gpt2") for length in (2048, 4096)]
    rows += [cache_row(device)]
    rows += [long_text(4096, every_metric(), device)]
    rows += [long_text(length, SIX, device) for length in (8192, 16384, 32768) if length <= options.longest]
    save("attention", rows)


if __name__ == "__main__":
    main()
