"""Modules computed in fewer steps: what the models' own give."""

import pytest
import torch

from interp.engine.sweep.fused_ops import SHORTER, fused_modules
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
