"""The command line, made of the files in ``commands/``: one file per command, named as the command."""

import os

import typer

from interp.cli.plain_help import PlainCommand, PlainGroup
from interp.registry import Registry

COMMANDS = Registry("interp.cli.commands", "command")

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 finished with failed checks, 4 model or data unavailable, "
    "5 refused by the resource guard, 6 artefact invalid, 130 interrupted but resumable, 141 output closed by its reader."
)

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

app = typer.Typer(
    name="interp",
    cls=PlainGroup,
    help="Ablate every attention head of a language model and measure the effect, with confidence intervals, controls and provenance.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name in COMMANDS.names():
    app.command(_name, cls=PlainCommand)(COMMANDS.get(_name))
