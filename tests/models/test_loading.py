"""Loading from folders: what comes back, and one clear sentence for everything that can be wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.tiny_models import save_tiny, tiny_hf, tiny_tokens


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A whole folder: tiny llama with its tokenizer."""
    return save_tiny("llama", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the whole folder, to be broken."""
    return shutil.copytree(saved, tmp_path / "model")


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


BPE_SIZE = 300


def save_with_bpe(folder, kind="Qwen2"):
    """A tiny model whose tokenizer.json does not cut digits apart, as the family's own pre-tokenizer would."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=BPE_SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["in 2023 and 2023"] * 9, trainer)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=BPE_SIZE,
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=12,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    bpe.enable_truncation(1)
    bpe.enable_padding(length=7)
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": f"{kind}Tokenizer", "eos_token": special[0], "pad_token": "<nowhere>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return bpe


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_loads_with_the_logits_and_the_digest_it_was_saved_with(load_model, saved):
    from interp.models import wrap_model

    model, original = load_model(str(saved)), tiny_hf("llama")
    tokens = tiny_tokens()
    with torch.no_grad():
        assert torch.equal(model.hf(tokens).logits, original(tokens).logits)
    assert model.facts.weights_digest == wrap_model(original).facts.weights_digest
    assert model.facts.name == str(saved)
    assert model.facts.revision == ""
    assert model.to_tokens("w1 w2") == [1, 5, 6]
    assert not model.hf.training


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_requested_dtype_is_the_dtype_of_every_weight(load_model, saved, dtype):
    model = load_model(str(saved), dtype=dtype)
    assert {str(p.dtype) for p in model.hf.parameters()} == {f"torch.{dtype}"}
    assert model.facts.dtype == dtype


def test_tied_weights_that_are_stored_once_are_not_missing(load_model, tmp_path):
    tiny_hf("gpt2").save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load_model(str(tmp_path))
    assert model.layout.unembed.weight is model.hf.transformer.wte.weight
    assert model.tokenizer is None


def test_shards_load_as_one_file_does(load_model, tmp_path, saved):
    tiny_hf("llama").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert load_model(str(tmp_path)).facts.weights_digest == load_model(str(saved)).facts.weights_digest


def test_a_missing_shard_is_named(load_model, unavailable, tmp_path):
    tiny_hf("llama").save_pretrained(tmp_path, max_shard_size="100KB")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(unavailable, match="its index names model-00002-of-"):
        load_model(str(tmp_path))


def test_an_index_without_shards_is_refused(load_model, unavailable, folder):
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(unavailable, match="has no weight_map"):
        load_model(str(folder))


def test_an_unknown_name_is_answered_with_what_there_is(load_model, unavailable):
    from interp.models import embedded_names

    with pytest.raises(unavailable) as caught:
        load_model("interp-mimi", offline=True)
    message = str(caught.value)
    assert "'interp-mimi'" in message
    assert "Embedded models: " + (", ".join(embedded_names()) or "none") in message
    assert "a folder with config.json" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere", " "])
def test_a_path_to_nothing_is_not_looked_up_on_the_hub(load_model, unavailable, name):
    with pytest.raises(unavailable, match="There is no folder" if name.strip() else "The name of the model is empty"):
        load_model(name)


def test_a_name_that_is_too_long_for_a_folder_is_unavailable(load_model, unavailable):
    with pytest.raises(unavailable, match=r"^a{300} cannot be a folder: the name is too long for the file system\. Embedded"):
        load_model("a" * 300)


def test_a_file_is_not_a_model(load_model, unavailable, folder):
    with pytest.raises(unavailable, match=r"is a file: give a GGUF file, or the folder that holds config\.json"):
        load_model(str(folder / "config.json"))


def test_a_folder_without_config_is_not_a_model_folder(load_model, unavailable, folder):
    (folder / "config.json").unlink()
    with pytest.raises(unavailable, match=r"is not a model folder: it has no config\.json"):
        load_model(str(folder))


@pytest.mark.parametrize(("text", "reason"), [("{", "is not valid JSON"), ("[]", "holds a JSON list")])
def test_a_broken_config_is_named(load_model, unavailable, folder, text, reason):
    (folder / "config.json").write_text(text)
    with pytest.raises(unavailable, match=reason):
        load_model(str(folder))


def test_a_config_of_no_known_type_is_one_sentence(load_model, unavailable, folder):
    edit_config(folder, model_type="never_heard_of")
    with pytest.raises(unavailable, match=r"could not be loaded: .*never_heard_of") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_config_without_weights_says_which_files_are_looked_for(load_model, unavailable, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(unavailable, match=r"no weights: none of model\.safetensors"):
        load_model(str(folder))


@pytest.mark.parametrize("keep", [0.9, 0.01])
def test_truncated_weights_are_found_by_their_length(load_model, unavailable, folder, keep):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(unavailable, match=r"model\.safetensors is (damaged|not a safetensors file)"):
        load_model(str(folder))


def test_an_empty_weights_file_is_not_a_model(load_model, unavailable, folder):
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(unavailable, match=r"\(0 bytes\)"):
        load_model(str(folder))


def test_missing_weights_are_named(load_model, unavailable, folder):
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.weight"))
    with pytest.raises(unavailable, match=r"lacks weights .*: model\.layers\.1\.self_attn\.k_proj\.weight\."):
        load_model(str(folder))


def test_weights_of_layers_that_the_config_does_not_have_are_refused(load_model, unavailable, folder):
    edit_config(folder, num_hidden_layers=2)
    with pytest.raises(unavailable, match=r"does not use: model\.layers\.2\..* and 6 more"):
        load_model(str(folder))


def test_weights_of_another_shape_are_refused(load_model, unavailable, folder):
    edit_config(folder, intermediate_size=57)
    with pytest.raises(unavailable, match="another shape than its config"):
        load_model(str(folder))


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_constant_masks_of_old_gpt2_folders_are_a_remark(load_model, unavailable, tmp_path, prefix):
    tiny_hf("gpt2").save_pretrained(tmp_path)

    def as_published(tensors):
        for key in list(tensors):
            tensors[prefix + key.removeprefix("transformer.")] = tensors.pop(key)
        for layer in range(3):
            tensors[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
            tensors[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()

    edit_weights(tmp_path, as_published)
    with pytest.warns(UserWarning, match=r"neither its logits nor its attention depend; .*: .*h\.0\.attn\.masked_bias, .*h\.1"):
        model = load_model(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(model.hf(tiny_tokens()).logits, tiny_hf("gpt2")(tiny_tokens()).logits)
    edit_weights(tmp_path, lambda tensors: tensors.update({f"{prefix}h.3.ln_1.weight": torch.ones(40)}))
    with pytest.raises(
        unavailable, match=r"GPT2LMHeadModel does not use: .*h\.3\.ln_1\.weight\. config\.json and weights do not"
    ):
        load_model(str(tmp_path))


BERT = {"vocab_size": 97, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 5}


def test_bert_as_published_keeps_its_head_and_names_what_is_left_out(load_model, tmp_path):
    import transformers

    original = transformers.BertForPreTraining(transformers.BertConfig(**BERT)).eval()
    original.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"left out: bert\.pooler\.dense\.bias, .*cls\.seq_relationship\.bias and 1 more"):
        model = load_model(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(model.hf(tiny_tokens()).logits, original(tiny_tokens()).prediction_logits)


@pytest.mark.parametrize(
    ("family", "task"), [("Bert", "SequenceClassification"), ("Roberta", "TokenClassification"), ("Electra", "PreTraining")]
)
def test_an_encoder_with_the_head_of_another_task_is_the_bare_encoder(load_model, tmp_path, family, task):
    import transformers

    config = getattr(transformers, f"{family}Config")(**BERT)
    original = getattr(transformers, f"{family}For{task}")(config).eval()
    original.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="left out: "), pytest.warns(UserWarning, match=f"loaded as the bare {family}Model"):
        model, again = load_model(str(tmp_path)), load_model(str(tmp_path))
    with torch.no_grad():
        assert torch.equal(model.hf(tiny_tokens())[0], original.base_model(tiny_tokens())[0])
    assert again.facts.weights_digest == model.facts.weights_digest


def test_a_head_of_which_a_part_is_missing_is_not_taken_for_none(load_model, unavailable, tmp_path):
    tiny_hf("bert").save_pretrained(tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.pop("cls.predictions.transform.dense.weight"))
    with pytest.raises(unavailable, match=r"lacks weights that BertForMaskedLM needs: cls\.predictions\.transform\.dense"):
        load_model(str(tmp_path))


def test_a_causal_classifier_without_unembedding_is_refused_for_what_it_is(load_model, unavailable, tmp_path):
    import transformers

    transformers.LlamaForSequenceClassification(tiny_hf("llama").config).save_pretrained(tmp_path)
    with pytest.raises(unavailable, match=r"needs: lm_head\.weight\. It was saved as LlamaForSequenceClassification\."):
        load_model(str(tmp_path))


def test_tokens_are_those_of_the_folders_own_file(load_model, tmp_path):
    own = save_with_bpe(tmp_path)
    with pytest.warns(UserWarning, match=r"Qwen2Tokenizer makes \[.*\] of '2023', and the model's own tokenizer.json"):
        model = load_model(str(tmp_path))
    own.no_truncation()
    own.no_padding()
    for text in ("2023", "in 2023  and A\n2023", "naïve 你好"):
        assert model.to_tokens(text) == own.encode(text).ids
    assert model.tokenizer.eos_token == "<|endoftext|>"
    assert len(model.tokenizer) == own.get_vocab_size()


@pytest.mark.parametrize("content", ["{", "{}", '{"model": {}}'])
def test_a_damaged_tokenizer_is_named(load_model, unavailable, folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(unavailable, match=r"tokenizer\.json is damaged, or of a newer format \(.*\): copy it again\.$"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Couldn't instantiate the backend tokenizer from one of: \n(1) a file, \n(2) a slow tokenizer",
            "the backend tokenizer",
        ),
        ("\n  No vocabulary.\nTraceback:\n  ...", "No vocabulary"),
        ("", "OSError"),
    ],
)
def test_why_a_tokenizer_could_not_be_loaded_is_one_clause(load_model, unavailable, saved, monkeypatch, said, reason):
    from transformers import AutoTokenizer

    def fail(*_, **__):
        raise OSError(said)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(unavailable, match=rf"could not be loaded \([^\n]*{reason}\): copy its files again\.$"):
        load_model(str(saved))


def test_damaged_settings_of_a_tokenizer_are_named(load_model, unavailable, folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(unavailable, match=r"^The tokenizer of .*model could not be loaded \(.*\): copy its files again\.$"):
        load_model(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_a_number_is_named(load_model, folder, value):
    from interp.errors import ArtefactInvalid

    edit_weights(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))
    with pytest.raises(ArtefactInvalid, match=r"model\.norm\.weight of .* holds 1 NaN or infinite values of 60"):
        load_model(str(folder))


@pytest.mark.parametrize("kind", ["T5", "Bart", "ResNet", "ImageGPT", "Whisper"])
def test_what_is_neither_causal_nor_an_encoder_is_refused_by_type(load_model, folder, kind):
    import transformers

    getattr(transformers, f"{kind}Config")().save_pretrained(folder)
    with pytest.raises(ValueError, match=f"is of type {kind.lower()}: supported are causal"):
        load_model(str(folder))


def test_a_recurrent_model_is_refused_before_its_weights_are_read(load_model, tmp_path):
    import transformers

    config = transformers.MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_attention_heads=None"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors", "..", "", 7, "x\x00"])
def test_a_shard_outside_the_folder_is_refused(load_model, unavailable, folder, shard):
    shutil.copy(folder / "model.safetensors", folder.parent / "secret.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    with pytest.raises(unavailable, match=r"which is not in its folder|which is missing"):
        load_model(str(folder))


def test_nothing_takes_an_option_to_trust_code_of_a_model(load_model):
    from inspect import signature

    from interp.cli.app import COMMANDS
    from interp.experiments import AblationSpec

    for function in (load_model, AblationSpec, *(COMMANDS.get(name) for name in COMMANDS.names())):
        assert not [name for name in signature(function).parameters if "trust" in name or "remote" in name]


def test_code_beside_a_model_is_never_run(load_model, unavailable, folder):
    (folder / "evil.py").write_text("raise SystemExit('run')")
    edit_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(unavailable):
        load_model(str(folder))


def test_a_hub_name_with_no_network_is_unavailable(load_model, unavailable):
    sentence = "'openai-community/gpt2' is neither a folder .* and the Hub was not reached .*Embedded models: "
    with pytest.raises(unavailable, match=sentence):
        load_model("openai-community/gpt2", offline=True)
    with pytest.raises(unavailable, match="Did you mean 'interp-mini'"):
        load_model("interp-mni", offline=True)


def test_a_name_that_the_hub_does_not_have_is_not_blamed_on_the_connection(load_model, unavailable, monkeypatch):
    from transformers import AutoConfig

    def missing(*_, **__):
        raise OSError("nobody/nothing is not a valid model identifier")

    monkeypatch.setattr(AutoConfig, "from_pretrained", missing)
    with pytest.raises(unavailable, match=r"could not be loaded from the Hugging Face Hub \(nobody/nothing is not a valid"):
        load_model("nobody/nothing")


@pytest.mark.parametrize("resolves", [True, False])
def test_the_hub_is_asked_only_when_its_name_resolves(load_model, monkeypatch, resolves):
    from interp.models import load

    def lookup(*_):
        if not resolves:
            raise OSError("Name or service not known")

    asked = []
    monkeypatch.setattr(load.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(load, "getproxies", dict)
    monkeypatch.setattr(load, "_load", lambda *arguments: asked.append(arguments[-1]))
    load_model("openai-community/gpt2", revision="abc")
    assert asked == [{"revision": "abc", "local_files_only": not resolves}]


def test_a_proxy_is_trusted_to_find_the_hub(monkeypatch):
    from interp.models import load

    monkeypatch.setattr(load, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(load.socket, "getaddrinfo", None)
    assert load.hub_is_resolvable()


def test_a_revision_belongs_to_hub_names(load_model, saved):
    with pytest.raises(ValueError, match="revision='main' belongs to models of the Hub"):
        load_model(str(saved), revision="main")


@pytest.mark.parametrize(("key", "value"), [("dtype", "float8"), ("device", "cuda:99"), ("device", "tpu")])
def test_an_unknown_dtype_or_device_is_answered_with_the_known_ones(load_model, saved, key, value):
    with pytest.raises(ValueError, match=f"{key}='{value}'.*(float32|cpu)"):
        load_model(str(saved), **{key: value})


HALF = r"--dtype bfloat16 \(in Python dtype='bfloat16'\) needs half, 139 KiB, and rounds .* two to three significant digits\.$"
NOTHING_FITS = r"free memory, choose a smaller model, or divide this one among devices \(--device-map auto --max-memory"


@pytest.fixture
def available(monkeypatch):
    """Sets the available memory; no weight may be read then."""
    from interp.models import load, memory

    def only(n_bytes):
        monkeypatch.setattr(memory, "available_memory", lambda place: n_bytes)
        monkeypatch.setattr(load, "_weights", lambda *_: pytest.fail("weights were read"))

    return only


@pytest.mark.parametrize(
    ("dtype", "kib", "sentence"),
    [
        ("float32", 277, rf"in float32 needs about 278 KiB, and 277 KiB are available on cpu: {HALF}"),
        ("float32", 100, rf"in float32 .* 100 KiB are available on cpu: even bfloat16 needs 139 KiB; {NOTHING_FITS}"),
        ("bfloat16", 100, rf"in bfloat16 needs about 139 KiB, and 100 KiB are available on cpu: {NOTHING_FITS}"),
        (
            "float64",
            300,
            r"needs about 556 KiB, .*: --dtype float32 \(in Python dtype='float32'\) needs half, 278 KiB, .* seven",
        ),
        ("float64", 200, r"needs about 556 KiB, .*: --dtype bfloat16 \(.*\) needs a quarter, 139 KiB, and rounds"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_would(load_model, saved, available, dtype, kib, sentence):
    from interp.errors import MemoryBudgetExceeded

    available(kib * 1024)
    with pytest.raises(MemoryBudgetExceeded, match=sentence):
        load_model(str(saved), dtype=dtype)


def test_in_the_proposed_dtype_it_loads(load_model, saved, monkeypatch):
    from interp.models import memory

    monkeypatch.setattr(memory, "available_memory", lambda place: 140 * 1024)
    assert load_model(str(saved), dtype="bfloat16").facts.dtype == "bfloat16"


def test_a_model_of_the_hub_that_does_not_fit_is_refused_before_its_weights_are_fetched(load_model, available, monkeypatch):
    from transformers import AutoConfig

    from interp.errors import MemoryBudgetExceeded

    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: tiny_hf("llama").config)
    available(200 * 1024)
    with pytest.raises(MemoryBudgetExceeded, match=rf"^Loading nobody/tiny in float32 needs about 278 KiB.*{HALF}"):
        load_model("nobody/tiny", offline=True)


def test_memory_is_needed_on_the_machine_that_reads_and_on_the_device(monkeypatch):
    from interp.errors import MemoryBudgetExceeded
    from interp.models import memory

    config, free = tiny_hf("llama").config, {"cpu": 400 * 1024, "cuda": 200 * 1024}
    monkeypatch.setattr(memory, "available_memory", free.get)
    memory.check_load("m", config, "float32", "cpu")
    with pytest.raises(MemoryBudgetExceeded, match="200 KiB are available on cuda: --dtype bfloat16"):
        memory.check_load("m", config, "float32", "cuda")
    free.update(cpu=200 * 1024, cuda=400 * 1024)
    with pytest.raises(MemoryBudgetExceeded, match="200 KiB are available on cpu: --dtype bfloat16"):
        memory.check_load("m", config, "float32", "cuda")


def test_loading_leaves_the_logging_of_transformers_as_it_was(load_model, saved):
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    load_model(str(saved))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    logging.set_verbosity_warning()


def test_embedded_models_lie_in_the_package_or_beside_it():
    from interp.models import embedded_names
    from interp.models.embedded import embedded_folder

    assert embedded_folder().parts[-2:] == ("data", "models")
    assert all((embedded_folder() / name / "config.json").is_file() for name in embedded_names())
