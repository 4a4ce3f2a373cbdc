"""`interp doctor`: whether the identities that every number rests on hold in a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command_decorator import command
from interp.cli.exit_codes import DONE, FAILED_CHECKS
from interp.cli.family_matrix_output import as_markdown, cell, counts
from interp.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    DEFAULT_MODEL,
    Bos,
    Device,
    DeviceMap,
    Dtype,
    MaxMemory,
    Offline,
    Revision,
)
from interp.cli.terminal import Terminal
from interp.experiments.usage_error import usage_errors

if TYPE_CHECKING:
    from interp.models.selfcheck import Check


@command
def doctor(
    terminal: Terminal,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of `interp models`, folder, GGUF file, Hub name, or planted:NAME.")
    ] = DEFAULT_MODEL,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    offline: Offline = False,
    bos: Bos = "auto",
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Check tiny random models of all families of transformers instead.")
    ] = False,
    families: Annotated[str, typer.Option("--families", help="With --matrix: these families alone, separated by commas.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="With --matrix: also write the table to this Markdown file.")
    ] = None,
) -> int:
    """Check a model: attention rows sum to 1, pattern @ v = z, the residual stream adds up, the logits equal Hugging Face's.

    With --matrix: what works in which architecture, each number against the plain model. Exits with 3 when an identity fails.
    """
    from dataclasses import asdict

    if matrix:
        return _matrix(terminal, families, out)
    from interp.models import doctor as check_model
    from interp.models import load_model

    with usage_errors():
        how: dict[str, Any] = {"bos": bos, "device_map": device_map, "max_memory": max_memory}
        loaded = load_model(model, device=device, dtype=dtype, revision=revision, offline=offline, **how)
    checks = check_model(loaded)
    passed = not any(check.passed is False for check in checks)
    facts = loaded.facts
    terminal.line(
        f"{facts.name}: {facts.architecture}, {facts.n_layers} layers x {facts.n_heads} heads ({facts.n_kv_heads} for keys and "
        f"values), {facts.n_parameters:,} parameters, {facts.dtype}, weights {facts.weights_digest}"
        + (f" ({facts.weights_form})" if facts.weights_form else "")
    )
    reason = f" ({facts.bos_reason})" if facts.bos_reason else ""
    terminal.line(f"Prompts begin {'with' if facts.prepend_bos else 'without'} BOS{reason}.")
    terminal.table(
        ("identity", "", "error", "tolerated", "note"), [_cells(check) for check in checks], right=("error", "tolerated")
    )
    terminal.line("Every identity holds." if passed else "An identity fails: numbers that rest on it cannot be trusted.")
    terminal.emit(
        {"model": facts.name, "facts": asdict(facts), "passed": passed, "checks": [asdict(check) for check in checks]}
    )
    return DONE if passed else FAILED_CHECKS


def _matrix(terminal: Terminal, families: str, out: Path | None) -> int:
    from interp.family_matrix import CHECKS, family_matrix
    from interp.files import write_atomically

    with usage_errors(), terminal.progress("families") as progress:
        table = family_matrix(families.split(",") if families else None, progress)
    found = counts(table)
    groups: Any = table[table["check"] != "build"].groupby(["family", "kind"], sort=False)
    rows = [(str(family), *map(cell, part.itertuples())) for (family, _), part in groups]
    terminal.table(("family", *CHECKS), rows)
    terminal.line("Families: " + ", ".join(f"{n} {word}" for word, n in found.items()) + ".")
    terminal.emit({"counts": found, "cells": table.to_dict("records")})
    if out is not None:
        write_atomically(out, as_markdown(table).encode())
    return FAILED_CHECKS if found["wrong"] else DONE


def _cells(check: "Check") -> list[str]:
    word = {True: "holds", False: "FAILS", None: "does not apply"}[check.passed]
    error = "" if check.error is None else f"{check.error:.1e}"
    return [check.name, word, error, f"{check.tolerance:.1e}" if error else "", check.note]
