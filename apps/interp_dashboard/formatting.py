"""Numbers and texts as they are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping


def plain(text: str) -> str:
    """The text escaped for Markdown."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def signed(value: float) -> str:
    """The number with its sign and three significant digits: +0.137, −1.5."""
    return f"{value:+.3g}".replace("-", "−")


def visible(token: str) -> str:
    """A token with visible spaces and line ends."""
    from interp.figures.style import token as shown

    return shown(token).replace(" ", "␣")


def bullets(descriptions: Mapping[str, str]) -> str:
    """Names with their descriptions as a Markdown list."""
    return "\n".join(f"- **{name}**: {description}" for name, description in descriptions.items())


def duration(seconds: float) -> str:
    """Seconds with a suitable unit: 0.4 s, 12 s, 3 min, 2.1 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
