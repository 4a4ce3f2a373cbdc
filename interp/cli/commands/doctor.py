"""`interp doctor`: whether the identities that every number rests on hold in a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.command_decorator import command
from interp.cli.exit_codes import DONE, FAILED_CHECKS
from interp.cli.options import DEFAULT_DEVICE, DEFAULT_DTYPE, DEFAULT_MODEL, Device, Dtype, Offline, Revision
from interp.cli.terminal import Terminal
from interp.experiments.usage_errors import usage_errors

if TYPE_CHECKING:
    from interp.models.selfcheck import Check


@command
def doctor(
    terminal: Terminal,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded model, local folder or Hub name.")] = DEFAULT_MODEL,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    revision: Revision = None,
    offline: Offline = False,
) -> int:
    """Check a model: attention rows sum to 1, pattern @ v = z, the residual stream adds up, the logits equal Hugging Face's.

    Exits with 3 when an identity fails.
    """
    from dataclasses import asdict

    from interp.models import doctor as check_model
    from interp.models import load_model

    with usage_errors():
        loaded = load_model(model, device=device, dtype=dtype, revision=revision, offline=offline)
    checks = check_model(loaded)
    passed = not any(check.passed is False for check in checks)
    facts = loaded.facts
    terminal.line(
        f"{facts.name}: {facts.architecture}, {facts.n_layers} layers x {facts.n_heads} heads ({facts.n_kv_heads} for keys and "
        f"values), {facts.n_parameters:,} parameters, {facts.dtype}, weights {facts.weights_digest}"
    )
    terminal.table(
        ("identity", "", "error", "tolerated", "note"), [_cells(check) for check in checks], right=("error", "tolerated")
    )
    terminal.line("Every identity holds." if passed else "An identity fails: numbers that rest on it cannot be trusted.")
    terminal.emit(
        {"model": facts.name, "facts": asdict(facts), "passed": passed, "checks": [asdict(check) for check in checks]}
    )
    return DONE if passed else FAILED_CHECKS


def _cells(check: "Check") -> list[str]:
    word = {True: "holds", False: "FAILS", None: "does not apply"}[check.passed]
    error = "" if check.error is None else f"{check.error:.1e}"
    return [check.name, word, error, f"{check.tolerance:.1e}" if error else "", check.note]
