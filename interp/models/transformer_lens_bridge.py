"""TransformerLens's view of a loaded model.

The bridge wraps modules in place, so it wraps a copy of the plain model: separate modules over shared parameters. The plain
model keeps its speed and its attention function, and the weights are in memory once. (Where q, k and v are interleaved in
one matrix, as in GPT-NeoX, the bridge holds a second copy of that matrix: do not change such weights after it is built.)
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from interp.models.model import Model


def build_bridge(model: Model) -> Any:
    """A TransformerBridge over ``model.hf``'s weights: eager attention, eval mode, no pattern is kept after a run. Raises
    ValueError when TransformerLens does not know the architecture."""
    if model.hf is None:
        raise ValueError(f"{model.facts.name} has no Hugging Face module to build a bridge from.")
    prepare_transformer_lens()
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    plain = copy_with_shared_weights(model.hf)
    plain.set_attn_implementation("eager")
    architecture = type(plain).__name__
    try:
        bridge = build_bridge_from_module(plain, architecture, hf_config=plain.config, model_name=model.facts.name)
    except Exception as error:  # a bridge builder fails in as many ways as there are adapters
        raise ValueError(f"TransformerLens cannot wrap {architecture} ({model.facts.name}): {error}") from error
    for block in bridge.blocks:
        block.attn.__dict__.pop("_pattern", None)
    return bridge.eval()


def copy_with_shared_weights(hf: nn.Module) -> Any:
    """A second module tree with its own configuration and buffers over the same parameters (shared storage)."""
    twin = copy.deepcopy(hf, {id(p): p for p in hf.parameters()})
    for module in twin.modules():
        module.__dict__.pop("forward", None)  # the engine replaces forwards for the length of a sweep, and only there
    return twin


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
