"""`interp doctor`: whether the identities hold that every number of this model rests on."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.command import command
from interp.cli.exit_codes import DONE, FAILED_CHECKS
from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE, DEFAULT_MODEL, Device, Dtype, Offline, load
from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    from interp.models.selfcheck import Check


@command
def doctor(
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded model, local folder or Hub name.")] = DEFAULT_MODEL,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    offline: Offline = False,
) -> int:
    """Check a model: rows of the pattern sum to 1, pattern @ v = z, the residual stream adds up, logits are Hugging Face's.

    Exits with 3 when an identity fails.
    """
    from dataclasses import asdict

    from interp.models import doctor as examine

    loaded = load(model, device, dtype, offline)
    checks = examine(loaded)
    sound = not any(check.passed is False for check in checks)
    facts = loaded.facts
    terminal.line(
        f"{facts.name}: {facts.architecture}, {facts.n_layers} layers x {facts.n_heads} heads ({facts.n_kv_heads} for keys and "
        f"values), {facts.n_parameters:,} parameters, {facts.dtype}, weights {facts.weights_digest}"
    )
    terminal.table(
        ("identity", "", "error", "tolerated", "note"), [_cells(check) for check in checks], right=("error", "tolerated")
    )
    terminal.line("Every identity holds." if sound else "An identity fails: numbers that rest on it cannot be trusted.")
    terminal.emit({"model": facts.name, "facts": asdict(facts), "sound": sound, "checks": [asdict(check) for check in checks]})
    return DONE if sound else FAILED_CHECKS


def _cells(check: "Check") -> list[str]:
    word = {True: "holds", False: "FAILS", None: "does not apply"}[check.passed]
    error = "" if check.error is None else f"{check.error:.1e}"
    return [check.name, word, error, f"{check.tolerance:.1e}" if error else "", check.note]
