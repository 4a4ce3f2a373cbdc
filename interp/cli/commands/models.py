"""`interp models`: the models that load without a network."""

import json

from interp.cli.command_decorator import command
from interp.cli.options import DEFAULT_MODEL
from interp.cli.terminal import Terminal


@command
def models(terminal: Terminal) -> None:
    """List the models that ship with the project; every command also accepts a local folder or a Hub name."""
    from interp.models.embedded import embedded_folder, embedded_names
    from interp.models.planted import FAMILIES

    rows = []
    for name in embedded_names():
        folder = embedded_folder() / name
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = {"n_layers": config.get("num_hidden_layers"), "n_heads": config.get("num_attention_heads")}
        n_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        rows.append(
            {"name": name, "type": config.get("model_type"), **sizes, "bytes": n_bytes, "default": name == DEFAULT_MODEL}
        )
    named = ("name", "type", "n_layers", "n_heads")
    cells = [(*(str(r[n]) for n in named), f"{r['bytes'] / 1e6:.1f} MB", "default" * r["default"]) for r in rows]
    terminal.table(("model", "type", "layers", "heads", "weights", ""), cells, right=("layers", "heads", "weights"))
    terminal.line(
        "--model also accepts a folder (Hugging Face form, adapter), a GGUF file, and a Hub name such as openai-community/gpt2."
    )
    planted = " ".join(f"planted:{name}" for name in FAMILIES)
    terminal.line(f"Models with planted heads, whose weights are written by hand: {planted}; options: planted:mini_ioi,seed=3.")
    terminal.emit({"models": rows, "default": DEFAULT_MODEL, "planted": [*FAMILIES]})
