"""Options written as text: ``name=value``, as in ``--set share=0.5``, ``windowed_distance:window=20`` and ``planted:mini_ioi,seed=3``."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, formatannotation
from typing import Any

from interp.registry import check_options

KINDS = {
    "bool": ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    "int": ("a whole number", int),
    "float": ("a number", float),
    "tuple": ("whole numbers joined by +", lambda text: tuple(int(part) for part in text.split("+") if part)),
    "str": ("text", str),
}
"""What can be written as text, by type: its description and its parser, in the order in which they are tried."""


def settable(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters that can be written as text: numbers, true or false, text, None."""
    return {name: p for name, p in parameters.items() if (kinds := _kinds(p)) and kinds <= {*KINDS, "None"}}


def parse_options(items: Sequence[str], parameters: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The values of options written as ``name=value``. ``parameters`` are those of a function's signature, or default values by name.

    Raises LookupError for an option that ``owner`` does not have, ValueError for a value of another kind.
    """
    known = settable({name: _as_parameter(name, p) for name, p in parameters.items()})
    values = {}
    for text in items:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not an option: write name=value.")
        check_options([name], known, owner)
        values[name] = _parse(text, value, _kinds(known[name]))
    return values


def kinds_text(parameter: Parameter) -> str:
    """What can be written for a parameter: ``a whole number or none``."""
    kinds = _kinds(parameter)
    return " or ".join([*(what for name, (what, _) in KINDS.items() if name in kinds), *["none"] * ("None" in kinds)])


def option_text(value: Any) -> str:
    """The value as ``parse_options`` reads it."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def setting_text(value: Any) -> str:
    """As ``option_text``; a text that is more than a name is quoted, lest it is read as a remark."""
    return repr(value) if isinstance(value, str) and not value.replace("_", "a").isalnum() else option_text(value)


def _as_parameter(name: str, value: Any) -> Parameter:
    if isinstance(value, Parameter):
        return value
    return Parameter(name, Parameter.KEYWORD_ONLY, default="" if value is None else value)


def _kinds(parameter: Parameter) -> set[str]:
    """The kinds of value that a parameter accepts, by name: those of the annotation, else that of the default."""
    if parameter.annotation is Parameter.empty:
        return {type(parameter.default).__name__}
    return {part.strip() for part in formatannotation(parameter.annotation).strip("'").split("|")}


def _parse(text: str, value: str, kinds: set[str]) -> Any:
    if "None" in kinds and value.lower() == "none":
        return None
    allowed = [KINDS[name] for name in KINDS if name in kinds]
    for _, parse in allowed:
        with suppress(ValueError, KeyError):
            return parse(value)
    raise ValueError(f"{text!r}: the value must be {' or '.join(name for name, _ in allowed)}.")
