"""Modules computed in fewer steps: what the models' own give."""

import pytest
import torch

from interp.engine.sweep.fused_ops import SHORTER, fused_modules
from interp.models import wrap_model
from tests.support.tiny_models import tiny_hf


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_modules_compute_what_the_models_own_do(architecture, dtype):
    hf = tiny_hf(architecture).to(dtype)
    tokens = torch.arange(3, 14).view(1, -1).repeat(2, 1)
    forwards = [module.forward for module in hf.modules()]
    with torch.inference_mode():
        plain = hf(tokens, use_cache=False).logits
        with fused_modules(hf):
            named = {type(module).__name__ for module in hf.modules() if "forward" in module.__dict__}
            fused = hf(tokens, use_cache=False).logits
    assert named and named <= set(SHORTER)
    assert (fused - plain).abs().max() <= 16 * torch.finfo(dtype).eps * plain.abs().max()
    assert [module.forward for module in hf.modules()] == forwards


def test_a_bridge_built_during_a_sweep_has_the_modules_own_forwards():
    model = wrap_model(tiny_hf("llama"))
    with fused_modules(model.hf):
        bridge = model.bridge
    assert not [
        name for name, module in bridge.original_model.named_modules() if "fused_ops" in repr(module.__dict__.get("forward"))
    ]
