"""Models that transformers places on devices, and those whose weights stay quantised."""

import pytest
import torch
from torch import nn

from interp.errors import FastPathUnavailable, MemoryBudgetExceeded, ModelUnavailable
from interp.models import load_model, wrap_model
from interp.models.device_map import check_placed, placement, read_max_memory
from interp.models.quantisation_method_and_tensors import quantised_form, weight_tensors
from interp.models.read_facts import weights_digest
from interp.models.value_and_output_weights import input_size, output_weights, unembed_rows, value_weights
from tests.support.tiny_models import save_tiny, tiny_hf, tiny_tokens


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return str(save_tiny("llama", tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_placed_model_is_the_model(saved, device_map):
    placed, tokens = load_model(saved, device_map=device_map, max_memory="cpu=2GiB"), tiny_tokens()
    with torch.no_grad():
        assert torch.equal(placed.hf(tokens).logits, tiny_hf("llama")(tokens).logits)
    assert placed.facts == load_model(saved).facts


def test_memory_by_device_is_read_from_text():
    assert read_max_memory("0=10GiB, cpu=20GiB") == {0: "10GiB", "cpu": "20GiB"}
    for text in ("10GiB", "0=", "=1GiB", "0=1GiB,"):
        with pytest.raises(ValueError, match="is not memory by device: write 0=10GiB,cpu=20GiB"):
            read_max_memory(text)


def test_what_does_not_go_with_a_device_map_is_refused(saved):
    with pytest.raises(ValueError, match="max_memory belongs to a device_map"):
        load_model(saved, max_memory={"cpu": "1GiB"})
    with pytest.raises(ValueError, match="device='cuda' and device_map='auto' both place the model"):
        placement("cuda", "auto")
    with pytest.raises(ValueError, match="device_map belongs to folders and Hub names that hold all weights"):
        load_model("planted:mini_ioi,seed=3", device_map="auto")


def test_without_accelerate_a_device_map_is_answered_with_what_to_install(saved, monkeypatch):
    monkeypatch.setattr("interp.models.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match=r"device_map='auto' needs accelerate, .*'interp-workbench\[accelerate\]'"):
        load_model(saved, device_map="auto")


def test_layers_outside_of_the_devices_are_refused():
    hf = tiny_hf("llama")
    hf.model.layers[1].to("meta")
    with pytest.raises(MemoryBudgetExceeded, match=r"9 weights, model\.layers\.1\.self_attn\.q_proj\.weight first"):
        check_placed(hf, "m")


class Packed(nn.Module):
    """A projection whose weights are integers in a buffer with one scale, as several methods store them."""

    def __init__(self, linear):
        super().__init__()
        self.in_features = linear.in_features
        scale = linear.weight.detach().abs().max() / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x):
        return x @ (self.weight * self.scale).T


def quantised():
    """A tiny llama whose output projections are packed."""
    hf = tiny_hf("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj = Packed(block.self_attn.o_proj)
    hf.config.quantization_config = {"quant_method": "packed"}
    return hf


def test_reads_of_quantised_weights_are_refused_with_how_they_are_stored():
    hf = quantised()
    model = wrap_model(hf, weights_form=quantised_form(hf.config))
    assert model.facts.weights_form == "quantised by packed"
    assert (model.facts.d_head, input_size(model.layout.outputs[0])) == (8, 48)
    with pytest.raises(FastPathUnavailable, match=r"are quantised \(Packed stores its weight as Tensor of int8\)"):
        output_weights(model, 0)
    with pytest.raises(FastPathUnavailable, match="are quantised by packed: give the same model in floating point"):
        value_weights(model, 0)
    assert unembed_rows(model.layout, torch.tensor([3])).shape == (1, 60)  # plain


def test_doctor_measures_a_quantised_model():
    from interp.models import doctor

    checks = {check.name: check for check in doctor(wrap_model(quantised(), weights_form="quantised by packed"))}
    assert checks["weights_finite"].passed
    assert checks["pattern_times_v_is_z"].passed


def test_attention_of_a_quantised_model_is_that_of_its_own_pass():
    from interp import observe_attention

    hf, tokens = quantised(), tiny_tokens(1)
    observed = observe_attention(wrap_model(hf, weights_form="quantised by packed"), [tokens[0].tolist()], ["entropy"])
    own = tiny_hf("llama")
    for block, packed in zip(own.model.layers, hf.model.layers, strict=True):
        block.self_attn.o_proj.weight.data = packed.self_attn.o_proj.weight * packed.self_attn.o_proj.scale
    expected = observe_attention(wrap_model(own), [tokens[0].tolist()], ["entropy"])
    torch.testing.assert_close(observed.heads("entropy").values, expected.heads("entropy").values, rtol=1e-5, atol=1e-6)


def test_the_digest_of_a_quantised_model_covers_its_buffers_and_that_of_a_plain_one_its_parameters():
    one, other, plain = quantised(), quantised(), tiny_hf("llama")
    assert weights_digest(weight_tensors(one)) == weights_digest(weight_tensors(other))
    other.model.layers[2].self_attn.o_proj.weight[0, 0] += 1
    assert weights_digest(weight_tensors(one)) != weights_digest(weight_tensors(other))
    assert weights_digest(weight_tensors(plain)) == weights_digest(plain.named_parameters())
