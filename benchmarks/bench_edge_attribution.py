"""EAP and EAP-IG (5 steps) at the size of GPT-2 small: this package against the authors' code, in one process.

The weights are random, as are the 4 prompts of 16 tokens. The peer is hannamw/EAP-IG with transformer-lens 2, in folders of their own:

    pip install --no-deps --target PEER transformer-lens==2.16.1 better_abc fancy_einsum
    git clone https://github.com/hannamw/EAP-IG CODE && git -C CODE checkout 795f560
    python benchmarks/bench_edge_attribution.py --peer PEER CODE/src

Without ``--peer`` nothing is measured. ``--threads N`` sets the threads of both sides, ``--repeats N`` the number of timings.
Differences are those of the scores, relative to the largest.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import peak_bytes, ratios, save
from transformers import GPT2Config, GPT2LMHeadModel

from interp.circuits import score_edges
from interp.models import wrap_model
from interp.tasks.task import Example, Task

N_PROMPTS, LENGTH, STEPS, ANSWER, DISTRACTOR = 4, 16, 5, 5, 6


def peer_scores(hf: GPT2LMHeadModel, clean: torch.Tensor, corrupted: torch.Tensor, folders: list[Path]) -> Any:
    """A function of the method's name to the peer's score of every edge by name."""
    sys.path[:0] = [str(folder) for folder in folders]
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))  # imported there, and not used
    import eap.attribute as peer
    from eap.graph import Graph
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    c = hf.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer,
        d_model=c.n_embd,
        n_ctx=c.n_positions,
        d_head=c.n_embd // c.n_head,
        n_heads=c.n_head,
        d_mlp=4 * c.n_embd,
        d_vocab=c.vocab_size,
        act_fn="gelu_new",
        normalization_type="LN",
        eps=c.layer_norm_epsilon,
        use_attn_result=True,
        use_split_qkv_input=True,
        use_hook_mlp_in=True,
        device="cpu",
    )
    model = HookedTransformer(config)
    as_they_are = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict(convert_gpt2_weights(hf, config), **as_they_are)
    own_forward = model.forward
    model.forward = lambda tokens, attention_mask=None, **options: own_forward(tokens, **options)  # nothing is padded

    def tokenize(model: Any, inputs: list[list[int]], max_length: int | None = None) -> tuple:
        tokens = torch.tensor(inputs)
        return tokens, torch.ones_like(tokens), torch.full((len(tokens),), tokens.shape[1]), tokens.shape[1]

    def logit_diff(logits: torch.Tensor, *_: Any) -> torch.Tensor:
        return (logits[:, -1, ANSWER] - logits[:, -1, DISTRACTOR]).sum()

    peer.tokenize_plus = tokenize
    graph, batches = Graph.from_model(model), [(clean.tolist(), corrupted.tolist(), None)]

    def scores(method: str) -> dict[str, float]:
        if method == "eap":
            found = peer.get_scores_eap(model, graph, batches, logit_diff, quiet=True)
        else:
            found = peer.get_scores_eap_ig(model, graph, batches, logit_diff, steps=STEPS, quiet=True)
        return {edge.name: float(found[edge.matrix_index]) for edge in graph.edges.values()}

    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not options.peer:
        print("Not measured: --peer names no folders of the peer's code.")
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    clean = torch.randint(0, 50_000, (N_PROMPTS, LENGTH))
    corrupted = clean.clone()
    corrupted[:, 1] = (corrupted[:, 1] + 9) % 50_000
    theirs = peer_scores(hf, clean, corrupted, options.peer)
    pairs = zip(clean.tolist(), corrupted.tolist(), strict=True)
    examples = tuple(Example(tuple(a), tuple(b), (ANSWER,), (DISTRACTOR,)) for a, b in pairs)
    model, task, rows = wrap_model(hf), Task("random", examples, "logit_diff"), []
    for method in ("eap", "eap-ig"):

        def ours(method: str = method) -> Any:
            return score_edges(model, task, method=method, steps=STEPS, rule="left")

        found, right = ours(), theirs(method)
        apart = [right[str(edge)] - effect for edge, effect in zip(found.graph.edges, found.effects, strict=True)]
        wall, cpu = ratios(lambda method=method: theirs(method), ours, options.repeats)
        row = {"model": "GPT-2 small's size", "method": method, "edges": len(right), "threads": options.threads}
        row |= {"ratio": wall, "ratio in processor time": cpu, "peak bytes": peak_bytes(ours)}
        row["peak bytes of the peer"] = peak_bytes(lambda method=method: theirs(method))
        row["max difference"] = float(np.abs(apart).max() / np.abs(found.effects).max())
        rows.append(row)
    save("edge_attribution", rows)


if __name__ == "__main__":
    main()
