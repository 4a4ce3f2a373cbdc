"""Pages of the dashboard without a browser, what they show, and small models for them."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from functools import cache
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import torch
import transformers
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "data" / "models" / "interp-mini"
SCRIPT = "from interp_dashboard.app import show; show({!r})"

# Every session asks which installed packages bring components; reading all their metadata takes longer than most pages.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


def new_session(page: str) -> AppTest:
    """A session of one page that nothing was asked of yet."""
    return AppTest.from_string(SCRIPT.format(page), default_timeout=120)


def open_address(app: AppTest, **query: str) -> AppTest:
    """The session after somebody opened the address with these values."""
    app.query_params.clear()
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def viewer_data(app: AppTest) -> dict:
    """What the attention viewer was given."""
    return json.loads(app.get("bidi_component")[0].proto.json)


def viewer_weights(app: AppTest) -> np.ndarray:
    """The finest tile of the viewer, weights [query key] in steps of 1/255."""
    data = viewer_data(app)
    tile = data["tiles"][",".join(map(str, data["head"]))][-1]
    return np.frombuffer(zlib.decompress(b64decode(tile["weights"])), np.uint8).reshape(tile["shape"]) / 255


def save_small(folder: Path, n_layers: int, n_heads: int, length: int = 64) -> Path:
    """The folder of a random Llama-like model that reads with the embedded model's tokenizer; its attention is peaked."""
    torch.manual_seed(n_layers)
    config = transformers.LlamaConfig(
        vocab_size=1133,
        hidden_size=40,
        intermediate_size=56,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        head_dim=8,
        max_position_embeddings=length,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return _save(model, folder)


def save_encoder(folder: Path, n_layers: int = 2, n_heads: int = 3) -> Path:
    """The folder of a random BERT that reads with the embedded model's tokenizer."""
    torch.manual_seed(n_layers)
    config = transformers.BertConfig(
        vocab_size=1133,
        hidden_size=8 * n_heads,
        intermediate_size=40,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        max_position_embeddings=64,
    )
    return _save(transformers.BertForMaskedLM(config), folder)


def _save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        copy(MINI / file, folder / file)
    return folder


def address(app: AppTest) -> dict[str, str]:
    """The address of the page as parameters of a link."""
    return {name: value[0] if isinstance(value, list) else value for name, value in app.query_params.items()}


def labels(app: AppTest) -> list[str]:
    """The labels of the buttons of a page."""
    return [button.label for button in app.button]
