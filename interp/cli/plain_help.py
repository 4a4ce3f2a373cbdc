"""Help and usage errors of commands in plain words, whatever version of Typer writes them."""

import re
from copy import copy
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import OptionInfo

ARGUMENTS = "interp.arguments"
METAVARS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}
PLAIN_WORDS = (
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1."),
    (r"Input should be a valid integer.*", "it must be a whole number."),
    (r"Input should be a valid number.*", "it must be a number."),
    (r"Value error, (.*)", r"\1"),
)
"""What the library that reads values says, as a pattern, and what a user is told."""
OTHER_NAMES = {
    "compare": "`interp circuit compare A B` compares two circuits, `interp show A --minus B --figure FILE` draws A minus B",
}
"""Commands that a user may look for, and what does their work."""


class PlainCommand(TyperCommand):
    """A command whose help shows no types of flags and arguments, followed by what its ``more_help`` prints for these arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif isinstance(param, TyperArgument):
                argument: Any = param
                argument.display_type_rich = lambda ctx: None  # read by newer versions of Typer alone
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        if more_help := getattr(self.callback, "more_help", None):
            more_help(ctx.meta[ARGUMENTS])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            for pattern, words in PLAIN_WORDS:
                error.message = re.sub(pattern, words, error.message)
            raise


class PlainGroup(TyperGroup):
    """The commands of `interp`; of one that does not exist, what does its work."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in OTHER_NAMES:
            ctx.fail(f"No such command {args[0]!r}: {OTHER_NAMES[args[0]]}.")
        return super().resolve_command(ctx, args)


def with_metavar(annotation: Any) -> Any:
    """The annotation of an option with a word for its value in the place of its Python type."""
    hint, option, *_ = (*get_args(annotation), None)
    if not isinstance(option, OptionInfo) or option.metavar is not None:
        return annotation
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    named = copy(option)
    named.metavar = METAVARS.get(kinds[0])
    return Annotated[hint, named]


def as_paragraphs(text: str | None) -> str:
    """A docstring whose paragraphs are one line each, which the terminal breaks."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))
