"""What the settings of a detector mean, read from its docstring."""

import re
from inspect import getdoc

from interp.cli.plain_help import as_paragraphs
from interp.cli.terminal import Terminal
from interp.experiments.detection import detector_options
from interp.options_text import kinds_text, setting_text

COMMON = {
    "n_prompts": "number of prompts",
    "n_null_draws": "draws of the null, from which the threshold comes",
    "fwer": "family-wise error rate that the threshold holds",
    "seed": "seed for prompts and null",
}
"""Settings that mean the same in every detector."""


def print_settings(terminal: Terminal, role: str) -> None:
    """What the detector does, and each of its settings with default, kind of value and meaning."""
    from interp.detectors import DETECTORS

    text = getdoc(DETECTORS.get(role)) or ""
    same = [name for name in re.findall(r"``(\w+)``", text) if name in DETECTORS.names() and name != role]
    text = as_paragraphs("\n\n".join([text, *(getdoc(DETECTORS.get(name)) or "" for name in same)]))
    terminal.line(f"{role}: {text.replace('``', '')}")
    rows = [(name, setting_text(p.default), kinds_text(p), meaning(name, text)) for name, p in detector_options(role).items()]
    terminal.table(("setting, for --set", "default", "value", "meaning"), rows)


def meaning(name: str, text: str) -> str:
    """What the setting means in every detector, else the sentences of a docstring that name it."""
    sentences = re.split(r"(?<=[.;])\s+(?![^()]*\))", text)  # not within parentheses
    named = " ".join(part for part in sentences if f"``{name}``" in part)
    return COMMON.get(name) or named.replace("``", "").rstrip(".;")
