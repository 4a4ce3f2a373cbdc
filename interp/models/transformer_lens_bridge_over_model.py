"""TransformerLens's view of a loaded model.

The bridge wraps modules in place, so it wraps a copy of the plain model: separate modules over shared parameters. The plain
model keeps its speed and its attention function, and the weights are in memory once. (Where q, k and v are interleaved in
one matrix, as in GPT-NeoX, the bridge holds a second copy of that matrix: do not change such weights after it is built.)
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from interp.errors import first_line
from interp.models.plain_model_reference import outputs_of, plain_copy, unexplained_error

if TYPE_CHECKING:
    from interp.models.model import Model


CHECKED_TOKENS = 12


def build_bridge(model: Model) -> Any:
    """A TransformerBridge over ``model.hf``'s weights: eager attention, eval mode, no pattern is kept after a run. Raises
    ValueError when TransformerLens does not know the architecture, for layers without attention, or its logits are not the model's own."""
    if model.hf is None:
        raise ValueError(f"{model.facts.name} has no Hugging Face module to build a bridge from.")
    prepare_transformer_lens()
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    plain = plain_copy(model)
    plain.set_attn_implementation("eager")
    plain.config.use_cache = False  # hooked passes read whole prompts
    architecture = type(plain).__name__
    try:
        bridge = build_bridge_from_module(plain, architecture, hf_config=plain.config, model_name=model.facts.name)
    except Exception as error:  # a bridge builder fails in as many ways as there are adapters
        raise ValueError(f"TransformerLens cannot wrap {architecture} ({model.facts.name}): {first_line(error)}") from error
    if not all(hasattr(block, "attn") for block in bridge.blocks):
        raise ValueError(
            f"TransformerLens's view of {model.facts.name} ({architecture}) has layers without attention: hooked passes, and what needs "
            f"them, are refused."
        )
    for block in bridge.blocks:
        block.attn.__dict__.pop("_pattern", None)
        if (
            getattr(plain.config, "do_layer_norm_before", None) is False
        ):  # in OPT-350M ln2 sees [batch pos d_model], not flat rows
            for hook in (block.hook_mlp_in, block.ln2.hook_in, block.ln2.hook_out):
                hook.hook_conversion = None
    _check_logits(bridge.eval(), model, model.hf)
    return bridge


def _check_logits(bridge: Any, model: Model, hf: torch.nn.Module) -> None:
    """Raises ValueError unless the bridge gives the model's own logits on two random texts."""
    if getattr(hf, "main_input_name", "") != "input_ids" or hf.get_output_embeddings() is None:  # pyright: ignore[reportCallIssue]
        return  # images, and encoders without a head
    length = min(CHECKED_TOKENS, model.facts.max_length or CHECKED_TOKENS)
    tokens = torch.randint(model.facts.d_vocab, (2, length), generator=torch.Generator().manual_seed(0)).to(model.device)
    plain = plain_copy(model)
    with torch.no_grad():
        found = bridge(tokens)
    if error := unexplained_error(plain, tokens, found, outputs_of(plain, tokens)):
        view = f"TransformerLens's view of {model.facts.name} ({model.facts.architecture})"
        raise ValueError(
            f"{view} differs from the model by {error:.2g} of its logits: hooked passes, and what needs them, are refused."
        )


def prepare_transformer_lens() -> None:
    """Imports TransformerLens and disables, for this process, its package installer and its stored patterns. The installer runs
    ``pip install torchvision`` when a multimodal processor cannot be loaded. Attention with fused QKV keeps the last pattern of
    every layer, which nothing reads and which multiplies the memory of a long run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens.model_bridge.generalized_components.joint_qkv_attention import JointQKVAttentionBridge
        from transformer_lens.model_bridge.sources.transformers import helpers

    helpers._ensure_torchvision = lambda: False
    JointQKVAttentionBridge._pattern = property(lambda self: None, lambda self, value: None)  # pyright: ignore
