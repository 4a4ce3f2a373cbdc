"""A command: a function of a ``Terminal`` and its own options, which returns nothing or an exit code.

The decorator adds the options that every command has (``--json``, ``--quiet``, ``--debug``) and turns every exception into one
sentence on stderr and an exit code.
"""

import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.exit_codes import PIPE_CLOSED, exit_code_and_message
from interp.cli.plain_help import as_paragraphs, with_metavar
from interp.cli.terminal import Terminal, discard_output
from interp.files import user_path

SHARED = {
    "as_json": Annotated[bool, typer.Option("--json", help="Write one JSON object to stdout; remarks still go to stderr.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Write only errors to stderr.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """``function(terminal, ...)`` as a Typer command with the shared options and the exit codes of ``exit_codes``."""

    @wraps(function)
    def run(*, as_json: bool, quiet: bool, debug: bool, **arguments: Any) -> None:
        terminal = Terminal(as_json, quiet)
        try:
            with _remarks(terminal):
                paths = {name: user_path(value) for name, value in arguments.items() if isinstance(value, Path)}
                code = function(terminal, **{**arguments, **paths}) or 0
        except BrokenPipeError:
            discard_output()
            code = PIPE_CLOSED
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            code, sentence = exit_code_and_message(error)
            terminal.fail(sentence, code)
        raise typer.Exit(code)

    own = list(inspect.signature(function).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=a) for name, a in SHARED.items()
    ]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=with_metavar(p.annotation)) for p in own]
    run.__signature__ = inspect.Signature([*keyword, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword, *shared]}
    run.__doc__ = as_paragraphs(function.__doc__)
    return run


@contextmanager
def _remarks(terminal: Terminal) -> Iterator[None]:
    """Shows warnings of this package as remarks and drops those of others, which a user of the command cannot act on."""

    def remark(message: Warning | str, *_: Any, **__: Any) -> None:
        terminal.say(f"Note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"interp\b")
        warnings.showwarning = remark
        yield
