"""GGUF files and adapters: the weights are those that the files mean, and the record says how they were stored."""

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.gguf_models import write_gguf
from tests.support.tiny_models import save_tiny, tiny_hf, tiny_tokenizer, tiny_tokens

LETTERS = "abc defgh"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """A GGUF file alone in a folder, and the module that it holds."""
    pytest.importorskip("gguf", reason="the package gguf, which reads and writes GGUF files, is not installed")
    file = tmp_path_factory.mktemp("quantised") / "tiny.gguf"
    return file, write_gguf(file)


def test_a_gguf_file_is_the_model_with_its_weights_dequantised(load_model, gguf):
    file, original = gguf
    model = load_model(str(file))
    tokens = tiny_tokens()
    with torch.no_grad():
        assert torch.equal(model.hf(tokens).logits, original(tokens).logits)
    assert model.to_string(model.to_tokens(LETTERS)) == LETTERS
    assert model.to_str_tokens(model.to_tokens(LETTERS)) == ["ab", "c", " d", *"efgh"]
    assert load_model(str(file.parent)).facts.weights_digest == model.facts.weights_digest


def test_the_record_of_a_gguf_file_names_its_number_formats(load_model, gguf, tmp_path):
    from interp.models.model import record_of
    from interp.records import RunRecord

    model = load_model(str(gguf[0]))
    record = record_of(model)
    assert record.weights_form == model.facts.weights_form == "dequantised from Q8_0, F32 (GGUF)"
    assert record.weights_form in record.caption()
    assert RunRecord.from_json(record.to_json()) == record
    model.hf.save_pretrained(tmp_path)  # as a plain model
    assert load_model(str(tmp_path)).facts.weights_form == ""


def test_every_identity_holds_in_a_gguf_file(load_model, gguf):
    from interp.models import doctor

    assert not [check for check in doctor(load_model(str(gguf[0]))) if check.passed is False]


def test_the_weights_of_a_gguf_file_are_counted_as_they_are_dequantised(load_model, gguf, monkeypatch):
    from interp.errors import MemoryBudgetExceeded
    from interp.models import memory

    file, original = gguf
    sizes = [p.numel() for p in original.parameters()]
    needed = 2 * (sum(sizes) + max(sizes))  # in bfloat16; the file itself has about half of that
    assert file.stat().st_size < needed
    monkeypatch.setattr(memory, "available_memory", lambda place: needed)
    with pytest.raises(MemoryBudgetExceeded, match=r"in float32 needs about .*: --dtype bfloat16 \(.*\) needs half"):
        load_model(str(file))
    assert load_model(str(file), dtype="bfloat16").facts.dtype == "bfloat16"
    monkeypatch.setattr(memory, "available_memory", lambda place: needed - 1)
    with pytest.raises(MemoryBudgetExceeded, match=r"in bfloat16 needs about .*: free memory, choose a smaller model"):
        load_model(str(file), dtype="bfloat16")


def test_a_cut_gguf_file_is_named(load_model, unavailable, gguf, tmp_path):
    content = gguf[0].read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(unavailable, match="could not be loaded: "):
        load_model(str(tmp_path / "cut.gguf"))


def test_a_folder_of_several_gguf_files_asks_for_one(load_model, unavailable, tmp_path):
    for name in ("b.gguf", "a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(unavailable, match=r"holds 2 GGUF files: give one of them, such as .*a\.gguf\.$"):
        load_model(str(tmp_path))


def test_without_the_package_a_gguf_file_is_answered_with_what_to_install(load_model, unavailable, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.models.optional_packages.find_spec", lambda name: None)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    for name in (tmp_path, tmp_path / "tiny.gguf"):
        with pytest.raises(unavailable, match=r"needs gguf and accelerate, .* pip install 'interp-workbench\[gguf\]'\.$"):
            load_model(str(name))


def save_adapter(folder, base, *, rank=2, scale=3.0):
    """A LoRA adapter of the values and the output projections of a tiny llama, written by hand. Returns its matrices A and B."""
    folder.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base)}
    shape = {"r": rank, "lora_alpha": scale * rank, "target_modules": ["v_proj", "o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **shape}))
    torch.manual_seed(1)
    matrices = {}
    for key, weight in tiny_hf("llama").named_parameters():
        if key.endswith(("v_proj.weight", "o_proj.weight")):
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            matrices[f"{stem}.lora_A.weight"] = torch.randn(rank, weight.shape[1]) / 10
            matrices[f"{stem}.lora_B.weight"] = torch.randn(weight.shape[0], rank) / 10
    save_file(matrices, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return matrices


@pytest.fixture
def adapted(tmp_path):
    """An adapter's folder, that of its base, and its matrices."""
    base = save_tiny("llama", tmp_path / "base")
    return tmp_path / "adapter", base, save_adapter(tmp_path / "adapter", base)


needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="the package peft, which merges adapters, is not installed")


@needs_peft
def test_an_adapter_is_merged_into_its_base(load_model, adapted):
    folder, base, matrices = adapted
    model, expected, tokens = load_model(str(folder)), tiny_hf("llama"), tiny_tokens()
    with torch.no_grad():
        before = expected(tokens).logits
        for key, weight in expected.named_parameters():
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            if f"{stem}.lora_A.weight" in matrices:
                weight += 3.0 * matrices[f"{stem}.lora_B.weight"] @ matrices[f"{stem}.lora_A.weight"]
        after = expected(tokens).logits
        assert (model.hf(tokens).logits - after).abs().max() < 1e-5 * (after - before).abs().max()
    assert model.facts.weights_form == f"adapter merged into {base}"
    assert model.facts.name == str(folder)
    assert type(model.hf).__name__ == "LlamaForCausalLM"
    assert model.to_tokens("w1 w2") == [1, 5, 6]
    assert model.layout is not None


@needs_peft
def test_a_tokenizer_beside_an_adapter_is_the_one_that_is_used(load_model, adapted):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["w1w2"])
    tokenizer.save_pretrained(adapted[0])
    assert load_model(str(adapted[0])).to_tokens("w1w2") == [1, len(tokenizer) - 1]


@needs_peft
@pytest.mark.parametrize(("change", "says"), [("missing", "lacks"), ("unused", "has unused")])
def test_an_adapter_whose_weights_do_not_fit_its_configuration_is_refused(load_model, unavailable, adapted, change, says):
    file = adapted[0] / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(iter(tensors))
    tensors[key.replace("layers.0", "layers.7")] = tensors.pop(key) if change == "missing" else tensors[key].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(unavailable, match=f"The adapter in .* {says} weights for this base model: base_model"):
        load_model(str(adapted[0]))


@needs_peft
def test_an_adapter_that_names_no_base_is_refused(load_model, unavailable, adapted):
    save_adapter(adapted[0], "")
    with pytest.raises(unavailable, match=r"adapter_config\.json names no model: "):
        load_model(str(adapted[0]))


@pytest.mark.parametrize("with_model", [True, False])
def test_without_the_package_an_adapter_is_answered_with_what_to_install(
    load_model, unavailable, adapted, monkeypatch, with_model
):
    monkeypatch.setattr("interp.models.optional_packages.find_spec", lambda name: None)
    if with_model:
        save_tiny("llama", adapted[0])
    with pytest.raises(unavailable, match=r"adapter \(LoRA\) of '.*base', .* needs peft, .*'interp-workbench\[peft\]'\.$"):
        load_model(str(adapted[0]))
