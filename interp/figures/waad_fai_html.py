"""A text with strips for WAAD and FAI below each token, as HTML whose lines fit any width; ``waad_fai_strips`` is the figure."""

from __future__ import annotations

from html import escape

import numpy as np

from interp.detectors import TokenDetection
from interp.figures import style
from interp.figures.dark_theme import DARK_COLOURS
from interp.figures.waad_fai_strips import ROLES, STRIPS, TITLE, about_text, about_token, role_counts, shown_span, text_of

LOOK = """
.waad-fai { font-size: 13px; line-height: 1.5 }
.waad-fai p { font-size: 13px; margin: 0 0 4px }
.waad-fai p.title { font-size: 15px; font-weight: 600 }
.waad-fai .unbroken { white-space: nowrap }
.waad-fai .bar { display: inline-block; width: 96px; height: 9px; margin: 0 6px }
.waad-fai .words { display: flex; flex-wrap: wrap; gap: 4px 2px; margin-top: 12px }
.waad-fai .token { display: inline-flex; flex-direction: column; max-width: 100%; min-width: 10px }
.waad-fai .marks { height: 14px; font-size: 10px; line-height: 14px; white-space: nowrap }
.waad-fai bdi { font: 12px/1.5 "DejaVu Sans Mono", Menlo, Consolas, monospace; padding: 0 3px; min-height: 18px;
  white-space: pre-wrap; overflow-wrap: anywhere }
.waad-fai .strip { height: 8px; margin-top: 2px }
"""


def waad_fai_html(
    detection: TokenDetection, *, example: int = 0, span: tuple[int, int] | None = None, dark: bool = False
) -> str:
    """The tokens of one text in order, each with its roles above and shaded strips of WAAD and FAI (share of the text's largest)
    below, after a legend. ``span`` and errors as in ``waad_fai_strips``."""
    words, numbers = text_of(detection, example)
    start, end = shown_span(numbers["waad"], span)
    inks = DARK_COLOURS if dark else {}
    palette = [inks.get(colour, colour) for colour in style.interpolated(style.SEQUENTIAL)]
    empty = inks.get(style.EMPTY, style.EMPTY)
    shares = [own / style.max_abs(own) for own in numbers.values()]
    tokens = []
    for at in range(start, end):
        strips = [empty if np.isnan(own[at]) else palette[round(float(own[at]) * (len(palette) - 1))] for own in shares]
        marks = [
            f'<span style="color: {inks.get(colour, colour)}">{sign}</span>'
            for name, (sign, _, colour) in ROLES.items()
            if name in detection.masks and detection.masks[name][example, at]
        ]
        bars = "".join(f'<span class="strip" style="background: {colour}"></span>' for colour in strips)
        about = escape("\n".join(about_token(detection, example, at)))
        word = f'<span class="marks">{"".join(marks)}</span><bdi>{escape(style.token(words[at], 40))}</bdi>'
        tokens.append(f'<span class="token" title="{about}">{word}{bars}</span>')
    gradient = f'<span class="bar" style="background: linear-gradient(to right, {", ".join(palette)})"></span>'
    strips = " and ".join(name.upper() for name in STRIPS)
    parts = [escape(part) for part in about_text(detection, numbers, (start, end), example)]
    for name, counted in role_counts(detection, example).items():
        sign, _, colour = ROLES[name]
        parts.append(f'<span class="unbroken"><span style="color: {inks.get(colour, colour)}">{sign}</span> {counted}</span>')
    return (
        f'<div class="waad-fai"><p class="title">{TITLE}</p><p>{escape(detection.record.caption())}</p>'
        f'<p class="legend">{" · ".join(parts)} · strips below a token: {strips}, '
        f'<span class="unbroken">0 {gradient} largest</span></p><div class="words">{"".join(tokens)}</div><style>{LOOK}</style></div>'
    )
