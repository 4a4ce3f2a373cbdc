"""`interp generate`: what a model writes after a text, unchanged and under attention variants."""

from typing import Annotated, Any

import typer

from interp.cli.command_decorator import command
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    OPTIONS,
    Bos,
    Device,
    Dtype,
    ModelName,
    Offline,
    Revision,
    read_heads,
)
from interp.cli.terminal import Terminal
from interp.experiments.usage_error import UsageError, usage_errors
from interp.files import check_file


@command
def generate(
    terminal: Terminal,
    text: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="A file with the text; - is standard input.")] = None,
    chat: Annotated[bool, OPTIONS["chat"]] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="An attention variant from `interp variants`, such as window:size=64; repeatable."),
    ] = None,
    heads: Annotated[str | None, typer.Option(help="Heads that the variants change, as L5H1,L2H3; default: all.")] = None,
    n_tokens: Annotated[int, typer.Option("--n-tokens", "-n", min=1, help="Number of tokens to write.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0 writes the most probable token; above 0 one is drawn.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    model: ModelName = DEFAULT_MODEL,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    offline: Offline = False,
    bos: Bos = "auto",
) -> None:
    """Continue a text: as the model does, and under each attention variant; all from a cache, token by token.

    Each variant stands with the number of tokens that it writes as the unchanged model does before the first other one.
    """
    if (text is None) == (file is None):
        raise UsageError("Give the text to continue: one of --text and --file.")
    from interp.ablation.ablations import build_variant
    from interp.engine import generate as continue_tokens
    from interp.experiments.attention import read_text
    from interp.heads import Head
    from interp.models import load_model

    variants = variant or []
    with usage_errors():
        for name in variants:
            build_variant(name, [Head(0, 0)])
        labels = read_heads(heads)
        if file is not None:
            check_file(file)
        _, text, _ = read_text(text, file)
        how: dict[str, Any] = {"device": device, "dtype": dtype, "revision": revision, "offline": offline, "bos": bos}
        loaded = load_model(model, **how)
        chosen = [loaded.facts.check_head(Head.parse(label)) for label in labels] or loaded.facts.heads()
        prompt = loaded.to_chat_tokens(text) if chat else loaded.to_tokens(text)
        settings: dict[str, Any] = {"temperature": temperature, "seed": seed}
        found = {"unchanged": continue_tokens(loaded, prompt, n_tokens, **settings).tokens}
        for name in variants:
            change = [build_variant(name, chosen)]
            found[name] = continue_tokens(loaded, prompt, n_tokens, intervene=change, **settings).tokens
    rows = []
    for name, tokens in found.items():
        pairs = zip(tokens, found["unchanged"], strict=False)
        same = next((i for i, (new, old) in enumerate(pairs) if new != old), len(tokens))
        rows.append({"variant": name, "text": loaded.to_string(tokens), "tokens": list(tokens), "n_same": same})
        if name != "unchanged":
            terminal.line()
        terminal.line(f"{name}:" if name == "unchanged" else f"{name} ({same} of {len(tokens)} tokens the same):")
        terminal.line(str(rows[-1]["text"]))
    terminal.emit({"model": loaded.facts.name, "n_prompt_tokens": len(prompt), "continuations": rows})
