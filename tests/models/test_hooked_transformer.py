"""Toys trained with TransformerLens 2.x, against a HookedTransformer forward written out by hand."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from tests.support.tiny_models import tiny_tokenizer

SIZES = {"n_layers": 3, "n_heads": 5, "d_model": 20, "d_head": 6, "d_mlp": 28, "n_ctx": 11, "d_vocab": 17, "d_vocab_out": 17}
BASE = {
    **SIZES,
    "attn_only": False,
    "act_fn": "relu",
    "normalization_type": "LN",
    "eps": 1e-5,
    "attention_dir": "causal",
    "positional_embedding_type": "standard",
    "attn_scale": 6**0.5,
    "use_attn_scale": True,
    "gated_mlp": False,
    "n_key_value_heads": None,
    "parallel_attn_mlp": False,
    "use_local_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "final_rms": False,
    "dtype": "torch.float32",
    "model_name": "custom",
    "init_weights": True,
    "seed": None,
}
KINDS = {
    "plain": {},
    "attention_only": {"attn_only": True, "act_fn": None, "d_mlp": None},
    "classifier": {"d_vocab_out": 2, "attention_dir": "bidirectional", "normalization_type": "LNPre"},
    "gelu": {"act_fn": "gelu", "normalization_type": "RMS"},
    "gelu_new": {"act_fn": "gelu_new", "normalization_type": "RMSPre"},
    "silu_without_norms": {"act_fn": "silu", "normalization_type": None},
    "solu_ln": {"act_fn": "solu_ln"},
    "solu_final_rms": {"act_fn": "solu", "final_rms": True},
    "soft_caps": {"attn_scores_soft_cap": 0.5, "output_logits_soft_cap": 2.0},
}


def toy_weights(config, seed=0):
    """A 2.x state dict with every parameter random, causal masks and IGNORE buffers included."""
    draw = torch.Generator().manual_seed(seed)
    heads, width, inner, hidden = config["n_heads"], config["d_model"], config["d_head"], config["d_mlp"]
    weights = {
        "embed.W_E": (config["d_vocab"], width),
        "pos_embed.W_pos": (config["n_ctx"], width),
        "unembed.W_U": (width, config["d_vocab_out"]),
        "unembed.b_U": (config["d_vocab_out"],),
    }
    norms = {"ln_final": width}
    for layer in range(config["n_layers"]):
        block = f"blocks.{layer}"
        for part in "QKV":
            weights[f"{block}.attn.W_{part}"] = (heads, width, inner)
            weights[f"{block}.attn.b_{part}"] = (heads, inner)
        weights |= {f"{block}.attn.W_O": (heads, inner, width), f"{block}.attn.b_O": (width,)}
        norms[f"{block}.ln1"] = width
        if not config["attn_only"]:
            weights |= {f"{block}.mlp.W_in": (width, hidden), f"{block}.mlp.b_in": (hidden,)}
            weights |= {f"{block}.mlp.W_out": (hidden, width), f"{block}.mlp.b_out": (width,)}
            norms[f"{block}.ln2"] = width
            if config["act_fn"] == "solu_ln":
                norms[f"{block}.mlp.ln"] = hidden
    tensors = {key: 0.5 * torch.randn(shape, generator=draw) for key, shape in weights.items()}
    kind = config["normalization_type"]
    for key, size in norms.items():
        if kind in ("LN", "RMS"):
            tensors[f"{key}.w"] = 1 + 0.3 * torch.randn(size, generator=draw)
        if kind == "LN" and not (config.get("final_rms") and key == "ln_final"):
            tensors[f"{key}.b"] = 0.3 * torch.randn(size, generator=draw)
    for layer in range(config["n_layers"]):
        tensors[f"blocks.{layer}.attn.mask"] = torch.ones(config["n_ctx"], config["n_ctx"]).tril().bool()
        tensors[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(float("-inf"))
    return tensors


def activation(name, x):
    if name in ("solu", "solu_ln"):
        return x * x.exp() / x.exp().sum(-1, keepdim=True)
    if name == "gelu_new":
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return {
        "relu": lambda: x.clamp(min=0),
        "gelu": lambda: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "silu": lambda: x / (1 + torch.exp(-x)),
    }[name]()


def norm(config, weights, key, x, *, rms=False):
    kind = config["normalization_type"]
    if kind is None and not rms:
        return x
    if kind in ("LN", "LNPre") and not rms:
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + config["eps"]).sqrt()
    return x * weights.get(f"{key}.w", 1.0) + weights.get(f"{key}.b", 0.0)


def cap(x, limit):
    return torch.tanh(x / limit) * limit if limit else x


def reference_logits(config, weights, tokens):
    """HookedTransformer's forward pass, one head at a time, in float64."""
    w = {key: value.double() for key, value in weights.items()}
    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"][: tokens.shape[1]]
    future = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
    for layer in range(config["n_layers"]):
        at = f"blocks.{layer}.attn"
        normed, total = norm(config, w, f"blocks.{layer}.ln1", x), w[f"{at}.b_O"]
        for h in range(config["n_heads"]):
            q, k, v = (normed @ w[f"{at}.W_{part}"][h] + w[f"{at}.b_{part}"][h] for part in "QKV")
            scores = cap(q @ k.transpose(1, 2) / config["d_head"] ** 0.5, config.get("attn_scores_soft_cap"))
            if config["attention_dir"] == "causal":
                scores = scores.masked_fill(future, float("-inf"))
            total = total + scores.softmax(-1) @ v @ w[f"{at}.W_O"][h]
        x = x + total
        if not config["attn_only"]:
            mlp = f"blocks.{layer}.mlp"
            inside = activation(
                config["act_fn"], norm(config, w, f"blocks.{layer}.ln2", x) @ w[f"{mlp}.W_in"] + w[f"{mlp}.b_in"]
            )
            if config["act_fn"] == "solu_ln":
                inside = norm(config, w, f"{mlp}.ln", inside)
            x = x + inside @ w[f"{mlp}.W_out"] + w[f"{mlp}.b_out"]
    x = norm(config, w, "ln_final", x, rms=bool(config.get("final_rms")))
    return cap(x @ w["unembed.W_U"] + w["unembed.b_U"], config.get("output_logits_soft_cap"))


@pytest.fixture
def toys():
    from interp.models import doctor, load_hooked_transformer, load_model

    return type(
        "Toys",
        (),
        {"doctor": staticmethod(doctor), "load_model": staticmethod(load_model), "load": staticmethod(load_hooked_transformer)},
    )


def save(folder, config, weights=None, *, file="model.pt"):
    """A toy folder: configuration as JSON beside the weights."""
    weights = toy_weights(config) if weights is None else weights
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / file) if file.endswith("safetensors") else torch.save(weights, folder / file)  # noqa: TID251 - what TransformerLens 2.x users have
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuilt_toy_gives_the_logits_of_the_original(toys, tmp_path, kind):
    config = {**BASE, **KINDS[kind]}
    tokens = torch.randint(17, (2, 7), generator=torch.Generator().manual_seed(1))
    model = toys.load(save(tmp_path, config))
    with torch.no_grad():
        logits = model.bridge(tokens)
    wanted = reference_logits(config, toy_weights(config), tokens)
    assert logits.shape == (2, 7, config["d_vocab_out"])
    assert wanted.std() > 0.5
    assert (logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuilt_toy_is_sound(toys, tmp_path, kind):
    model = toys.load(save(tmp_path, {**BASE, **KINDS[kind]}))
    checks = toys.doctor(model)
    assert [check for check in checks if check.passed is False] == []
    assert sum(check.passed is True for check in checks) >= 4


@pytest.mark.parametrize("file", ["model.pt", "best.pth", "model.safetensors"])
def test_a_toy_folder_is_recognised_by_load_model(toys, tmp_path, file):
    model = toys.load_model(str(save(tmp_path, BASE, file=file)))
    facts = model.facts
    assert (facts.architecture, facts.name, facts.positions) == ("HookedTransformer", str(tmp_path), "learned")
    assert (facts.n_layers, facts.n_heads, facts.n_kv_heads, facts.d_head, facts.d_model, facts.d_mlp) == (3, 5, 5, 6, 20, 28)
    assert (facts.max_length, facts.d_vocab, facts.sliding_windows, facts.causal) == (11, 17, (None, None, None), True)
    assert (model.hf, model.layout, model.tokenizer, facts.prepend_bos) == (None, None, None, False)
    weights = toy_weights(BASE)
    assert facts.n_parameters == sum(t.numel() for key, t in weights.items() if key.split(".")[-1] not in ("mask", "IGNORE"))


def test_a_file_that_carries_its_configuration_needs_nothing_beside_it(toys, tmp_path):
    torch.save({"config": BASE, "state_dict": toy_weights(BASE), "step": 3}, tmp_path / "run.pt")  # noqa: TID251
    beside = toys.load(save(tmp_path, BASE, file="other.pth") / "other.pth")
    assert toys.load(tmp_path / "run.pt").facts.weights_digest == beside.facts.weights_digest


def test_loading_a_toy_prints_nothing_and_takes_the_requested_dtype(toys, tmp_path, capsys):
    model = toys.load(save(tmp_path, BASE), dtype="float64")
    assert capsys.readouterr().out == ""
    assert model.facts.dtype == "float64"
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        assert torch.allclose(model.bridge(tokens), reference_logits(BASE, toy_weights(BASE), tokens), atol=1e-9)


def test_a_configuration_file_may_be_named(toys, tmp_path):
    save(tmp_path, BASE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "elsewhere" / "cfg.json")
    assert toys.load(tmp_path / "model.pt", tmp_path / "elsewhere" / "cfg.json").facts.d_model == 20


def test_a_tokenizer_beside_a_toy_is_loaded_with_it(toys, tmp_path):
    from interp.errors import ModelUnavailable

    config = {**BASE, "d_vocab": 97, "d_vocab_out": 97}
    tiny_tokenizer().save_pretrained(save(tmp_path, config))
    assert toys.load(tmp_path).to_tokens("w1 w2") == [1, 5, 6]
    (tmp_path / "config.json").write_text(json.dumps({**config, "default_prepend_bos": False}))
    assert toys.load(tmp_path).to_tokens("w1 w2") == [5, 6]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is damaged, or of a newer format"):
        toys.load(tmp_path)


def test_a_bidirectional_toy_is_not_called_causal(toys, tmp_path):
    assert not toys.load(save(tmp_path, {**BASE, **KINDS["classifier"]})).facts.causal


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("positional_embedding_type", "rotary"),
        ("positional_embedding_type", "shortformer"),
        ("gated_mlp", True),
        ("parallel_attn_mlp", True),
        ("use_local_attn", True),
        ("use_attn_scale", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("n_key_value_heads", 1),
        ("num_experts", 4),
        ("act_fn", "gelu_fast"),
        ("normalization_type", "Batch"),
        ("attn_scale", 1.0),
    ],
)
def test_a_setting_that_would_compute_something_else_is_refused_by_name(toys, tmp_path, field, value):
    with pytest.raises(ValueError, match=rf"{field}={value!r}"):
        toys.load(save(tmp_path, {**BASE, field: value}))


def test_a_configuration_without_a_size_is_refused(toys, tmp_path):
    with pytest.raises(ValueError, match="lacks d_head"):
        toys.load(save(tmp_path, {key: value for key, value in BASE.items() if key != "d_head"}, toy_weights(BASE)))


@pytest.mark.parametrize(
    ("field", "write"),
    [
        ("attention_dir", '"attention_dir": "causal" or "bidirectional"'),
        ("act_fn", '"act_fn": "gelu" or "gelu_new"'),
        ("normalization_type", '"normalization_type": "LN" or "LNPre" or "RMS" or "RMSPre" or null'),
        ("eps", '"eps": 1e-05'),
        ("final_rms", '"final_rms": false or true'),
        ("positional_embedding_type", '"positional_embedding_type": "standard"'),
        ("use_attn_scale", '"use_attn_scale": true'),
        ("scale_attn_by_inverse_layer_idx", '"scale_attn_by_inverse_layer_idx": false'),
        ("parallel_attn_mlp", '"parallel_attn_mlp": false'),
        ("use_local_attn", '"use_local_attn": false'),
    ],
)
def test_a_setting_that_changes_logits_and_not_weights_is_never_guessed(toys, tmp_path, field, write):
    with pytest.raises(ValueError, match=rf"lacks {field}, which the logits depend on .*: write {re.escape(write)}"):
        toys.load(save(tmp_path, {key: value for key, value in BASE.items() if key != field}, toy_weights(BASE)))


def test_weights_of_another_shape_are_refused(toys, tmp_path):
    from interp.errors import ModelUnavailable

    with pytest.raises(ModelUnavailable, match="do not fit its configuration"):
        toys.load(save(tmp_path, {**BASE, "n_heads": 4}, toy_weights(BASE)))


@pytest.mark.parametrize(("key", "change"), [("unembed.W_U", "drop"), ("blocks.3.attn.W_Q", "add")])
def test_missing_and_unexpected_weights_are_refused(toys, tmp_path, key, change):
    from interp.errors import ModelUnavailable

    weights = toy_weights(BASE)
    if change == "drop":
        del weights[key]
    else:
        weights[key] = weights["blocks.2.attn.W_Q"].clone()
    with pytest.raises(ModelUnavailable, match="do not fit its configuration"):
        toys.load(save(tmp_path, BASE, weights))


def test_a_nan_weight_is_refused_by_its_2x_name(toys, tmp_path):
    from interp.errors import ArtefactInvalid

    weights = toy_weights(BASE)
    weights["blocks.1.attn.W_O"][0, 0, 0] = float("nan")
    with pytest.raises(ArtefactInvalid, match=r"blocks\.1\.attn\.W_O"):
        toys.load(save(tmp_path, BASE, weights))


def test_a_pickled_object_is_never_loaded(toys, tmp_path):
    from interp.errors import ModelUnavailable

    save(tmp_path, BASE)
    torch.save(torch.nn.Linear(2, 3), tmp_path / "model.pt")  # noqa: TID251
    with pytest.raises(ModelUnavailable, match="holds Python objects, which are never loaded"):
        toys.load(tmp_path)


def test_two_weights_files_have_to_be_told_apart(toys, tmp_path):
    from interp.errors import ModelUnavailable

    save(save(tmp_path, BASE), BASE, file="last.pth")
    with pytest.raises(ModelUnavailable, match=r"has: last\.pth, model\.pt\. Name the file itself"):
        toys.load(tmp_path)


def test_weights_without_configuration_are_refused(toys, tmp_path):
    from interp.errors import ModelUnavailable

    (save(tmp_path, BASE) / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match="needs one configuration"):
        toys.load(tmp_path)
    with pytest.raises(ModelUnavailable, match="There is no file or folder"):
        toys.load(tmp_path / "nothing")
