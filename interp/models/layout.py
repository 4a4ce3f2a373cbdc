"""Locates blocks, attention modules and output projections in a plain Hugging Face model, so that the engine can resume from a layer.

One short table of attribute names serves every architecture listed in ``KNOWN``. ``final_norm`` and ``unembed`` give the
logits before the final soft cap of Gemma 2 and 3 (``config.final_logit_softcapping``).
"""

from functools import reduce
from typing import Any

from torch import nn

from interp.models.model import Layout

KNOWN = frozenset("gpt2 llama mistral qwen2 qwen3 gemma gemma2 gemma3_text gpt_neox phi phi3 opt gptj bloom falcon".split())
BLOCKS = ("transformer.h", "model.layers", "gpt_neox.layers", "model.decoder.layers")
FINAL_NORMS = (
    "transformer.ln_f",
    "model.norm",
    "model.final_layernorm",
    "gpt_neox.final_layer_norm",
    "model.decoder.final_layer_norm",
)
ATTENTIONS = ("attn", "self_attn", "attention", "self_attention")
OUTPUTS = ("c_proj", "o_proj", "out_proj", "dense")


def layout_of(hf: nn.Module) -> Layout | None:
    """The layout of ``hf``, or None when its architecture is not known, or a module is missing or ambiguous."""
    config: Any = hf.config
    if config.model_type not in KNOWN:
        return None
    if config.model_type == "opt" and not (config.do_layer_norm_before and config.word_embed_proj_dim == config.hidden_size):
        return None  # OPT 350M projects to another width and applies its norms after the blocks
    blocks, norm = _only(hf, BLOCKS), _only(hf, FINAL_NORMS)
    unembed = hf.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    if blocks is None or norm is None or unembed is None or len(blocks) != config.num_hidden_layers:
        return None
    attentions = [_only(block, ATTENTIONS) for block in blocks]
    outputs = [_only(attention, OUTPUTS) for attention in attentions]
    if None in attentions or None in outputs:
        return None
    return Layout(tuple(blocks), tuple(attentions), tuple(outputs), norm, unembed)


def _only(root: Any, paths: tuple[str, ...]) -> Any:
    found = [reduce(lambda part, name: getattr(part, name, None), path.split("."), root) for path in paths]
    found = [part for part in found if part is not None]
    return found[0] if len(found) == 1 else None
