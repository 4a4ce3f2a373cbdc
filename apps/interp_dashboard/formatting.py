"""Numbers and texts as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Mapping


def plain(text: str) -> str:
    """The text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def visible(token: str) -> str:
    """A token with its spaces and line ends to be seen."""
    from interp.figures.style import token as shown

    return shown(token).replace(" ", "␣")


def bullets(described: Mapping[str, str]) -> str:
    """Names with what they are, a line each, as Markdown."""
    return "\n".join(f"- **{name}**: {what}" for name, what in described.items())


def duration(seconds: float) -> str:
    """Seconds for a reader: 0.4 s, 12 s, 3 min, 2.1 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
