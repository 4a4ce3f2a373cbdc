"""Exact scores of every edge of the embedded model: this package against one hooked forward pass per edge, in one process.

IOI prompts of 15 to 21 tokens, padded for the loop; logit difference. A hook of the loop adds the writer's change on the
corrupted prompt to the input of one query, key, value, MLP or the final norm. ``--prompts N`` sets the number of prompts,
``--threads N`` the threads of both sides, ``--repeats N`` the number of timings.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from measure import ratios, save

from interp.circuits import score_edges
from interp.engine.edges.edge_patching import graph_of
from interp.graph import Edge
from interp.models import load_model
from interp.tasks import make_task


def writer_outputs(model, tokens) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output of each writer, [n_writers batch pos d_model], and the residual stream before each block."""
    hf, facts, z, mlp, streams = model.hf, model.facts, [], [], []
    with ExitStack() as stack:
        for block in hf.model.layers:
            stack.callback(block.register_forward_pre_hook(lambda _, args: streams.append(args[0])).remove)
            stack.callback(block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: z.append(args[0])).remove)
            stack.callback(block.mlp.register_forward_hook(lambda _, args, out: mlp.append(out)).remove)
        hf(tokens, use_cache=False)
    outputs = [streams[0]]
    for layer, block in enumerate(hf.model.layers):
        weights = block.self_attn.o_proj.weight.T.unflatten(0, (facts.n_heads, facts.d_head))
        outputs += torch.einsum("bphd,hdm->hbpm", z[layer].unflatten(-1, (facts.n_heads, facts.d_head)), weights).unbind(0)
        outputs.append(mlp[layer])
    return torch.stack(outputs), streams


def edge_hook(model, edge: Edge, added: torch.Tensor, streams: list[torch.Tensor]) -> Any:
    """The handle of a hook that corrupts one edge."""
    layer, d_head = edge.reader.layer, model.facts.d_head
    if edge.reader.kind == "logits":
        return model.hf.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + added,))
    block = model.hf.model.layers[layer]
    if edge.reader.kind == "mlp":
        return block.post_attention_layernorm.register_forward_pre_hook(lambda _, args: (args[0] + added,))
    projection, own = (
        block.self_attn.get_submodule(f"{edge.qkv}_proj"),
        slice(edge.reader.head * d_head, (edge.reader.head + 1) * d_head),
    )

    def replace(_, args, out):
        out = out.clone()
        x = block.input_layernorm(streams[layer] + added)
        out[..., own] = torch.nn.functional.linear(x, projection.weight[own], projection.bias[own])
        return out

    return projection.register_forward_hook(replace)


def hooked_loop(model, task) -> np.ndarray:
    """Effects of the edges on the logit difference by one forward pass each, [n_edges n_examples]."""
    graph, longest = graph_of(model), max(len(e.clean) for e in task)
    clean, corrupted = (
        torch.tensor([[*getattr(e, side), *[0] * (longest - len(e.clean))] for e in task]) for side in ("clean", "corrupted")
    )
    every, last = torch.arange(len(task)), torch.tensor([len(e.clean) - 1 for e in task])
    answer, distractor = (torch.tensor([getattr(e, n)[0] for e in task])[:, None] for n in ("answers", "distractors"))

    def read() -> torch.Tensor:
        logits = model.hf(clean, use_cache=False).logits[every, last]
        return (logits.gather(1, answer) - logits.gather(1, distractor))[:, 0]

    with torch.inference_mode():
        outputs, streams = writer_outputs(model, clean)
        differences = dict(zip(graph.writers, writer_outputs(model, corrupted)[0] - outputs, strict=True))
        baseline, rows = read(), []
        for edge in graph.edges:
            handle = edge_hook(model, edge, differences[edge.writer], streams)
            rows.append(read() - baseline)
            handle.remove()
    return torch.stack(rows).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model("interp-mini")
    task = make_task("ioi", model, n_prompts=options.prompts, seed=0)
    effects: dict[str, np.ndarray] = {}

    def loop() -> None:
        effects["loop"] = hooked_loop(model, task)

    def ours() -> None:
        effects["ours"] = score_edges(model, task, method="exact").values

    ours()
    wall, cpu = ratios(loop, ours, options.repeats)
    difference, largest = (float(np.abs(values).max()) for values in (effects["ours"] - effects["loop"], effects["loop"]))
    row = {
        "model": "interp-mini",
        "edges": len(effects["ours"]),
        "prompts": len(task),
        "ratio": wall,
        "ratio in processor time": cpu,
    }
    save("edges", [{**row, "max difference": difference, "largest effect": largest}])


if __name__ == "__main__":
    main()
