"""Retrieval heads by teacher forcing, from the answer rows alone, against decoding step by step with attention outputs.

The same prompts and the same model, once with `interp-mini` (trained; the heads are compared) and once with a random llama-like model
(time alone). Peers: Hugging Face eager attention with `output_attentions=True` in every call; and the same with a prefill by SDPA that
returns no attention, as the paper's code has it. Both write up to 50 tokens, as the paper's code does, or as many as the answer has.
Heads are compared on the prompts of which the whole answer is right: there the two read the same rows, but for those after the answer.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import transformers
from measure import once, save

from interp.detectors.retrieval import retrieval
from interp.detectors.support.copied_answers import is_copy, share_copied
from interp.detectors.support.needle_prompts import Trial, hide_needles
from interp.heads import HeadScores
from interp.models import Model, load_model, wrap_model
from interp.records import RunRecord

STEPS = 50


def llama_like(length: int) -> Model:
    """6 layers x 12 heads, d_model 384."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=4000, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=12,
        max_position_embeddings=length, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return wrap_model(transformers.LlamaForCausalLM(config).eval(), name=f"llama-like-{length}")


def decode(model: Model, trial: Trial, steps: int, plain_prefill: bool) -> tuple[np.ndarray, bool]:
    """The paper's score of every head on one prompt, and whether the whole answer was written."""
    hf, past = model.hf, None
    tokens, argmax_positions = list(trial.tokens), []
    if plain_prefill:
        hf.set_attn_implementation("sdpa")
        past = hf(torch.tensor([tokens[:-1]]), use_cache=True, logits_to_keep=1).past_key_values
    hf.set_attn_implementation("eager")
    for _ in range(min(steps, model.facts.max_length - len(trial.tokens) + 1)):
        given = tokens if past is None else tokens[-1:]
        out = hf(torch.tensor([given]), past_key_values=past, use_cache=True, output_attentions=True)
        past = out.past_key_values
        argmax_positions.append(np.stack([layer[0, :, -1].argmax(-1).numpy() for layer in out.attentions]))
        tokens.append(int(out.logits[0, -1].argmax()))
    written = np.array(tokens[len(trial.tokens) :])
    rows = np.stack(argmax_positions, -1)
    hits = is_copy(np.array(tokens), trial.span, rows, written)
    return share_copied(hits, rows, trial.span), tuple(written[: len(trial.answer)].tolist()) == trial.answer


def peer(model: Model, trials: list[Trial], steps: int, plain_prefill: bool) -> np.ndarray:
    """Mean over the answered prompts, [n_layers n_heads]; over all where none was answered (random weights)."""
    with torch.inference_mode():
        found = [decode(model, trial, steps or len(trial.answer), plain_prefill) for trial in trials]
    return np.mean([score for score, answered in found if answered] or [score for score, _ in found], axis=0)


def compare(model: Model, grid: dict, min_recall: float | None, repeats: int) -> list[dict]:
    """One row a peer: how many times longer it takes, in wall-clock and processor time, and how the heads agree."""
    lengths = grid["shortest"], grid["longest"], grid["n_lengths"]
    trials = hide_needles(model, "repeats", "", lengths, grid["n_depths"], grid["n_needles"], 0).trials
    own = model.hf.config._attn_implementation
    kept: dict = {}

    def ours() -> None:
        kept["ours"] = retrieval(model, needles="repeats", min_recall=min_recall, **grid)

    rows = []
    ours()
    for name, steps, plain in (("eager", STEPS, False), ("SDPA prefill", STEPS, True), ("SDPA prefill, answer only", 0, True)):
        times = []
        for _ in range(repeats):
            before, long = (
                once(ours),
                once(lambda steps=steps, plain=plain: kept.update(peer=peer(model, trials, steps, plain))),
            )
            model.hf.set_attn_implementation(own)
            after = once(ours)
            times.append([2 * long[i] / (before[i] + after[i]) for i in (0, 1)])
        theirs = HeadScores("peer", kept["peer"], "share", (0, 1), RunRecord(model.facts.name))
        scores = kept["ours"].scores
        row = {
            "model": model.facts.name,
            "prompts": len(trials),
            "longest": grid["longest"],
            "answer tokens": len(trials[0].answer),
        }
        row |= {
            "answered": kept["ours"].details["accepted"],
            "peer": name,
            "peer / ours": float(np.median(times, 0)[0]),
            "in processor time": float(np.median(times, 0)[1]),
        }
        if min_recall is not None:
            row["heads in both top 10"] = len(set(scores.top(10, by="highest")) & set(theirs.top(10, by="highest")))
            row["correlation"] = float(np.corrcoef(scores.values.ravel(), theirs.values.ravel())[0, 1])
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    mini = load_model("interp-mini")
    kept: dict = {}
    wall, processor = once(lambda: kept.update(found=retrieval(mini)))
    found = kept["found"]
    rows: list[dict] = [
        {"model": "interp-mini", "grid": "20 x 10, 3 needles a cell", "prompts": found.details["total"]}
        | {"answered": found.details["accepted"], "seconds": wall, "processor seconds": processor}
        | {"found": [f"{head} {found.scores[head]:.3f}" for head in found.detected]}
    ]
    small = {"n_lengths": 6, "n_depths": 10, "n_needles": 1, "shortest": 64, "longest": 448}
    rows += compare(mini, small, 0.99, options.repeats)
    large = {"n_lengths": 2, "n_depths": 10, "n_needles": 1, "shortest": 512, "longest": 1000}
    rows += compare(llama_like(1024), large, None, options.repeats)
    save("retrieval", rows)


if __name__ == "__main__":
    main()
