"""A wrapped text with strips for WAAD and FAI below each line, and markers above the tokens with a role."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.figures import style
from interp.figures.portable_figure import Figure

if TYPE_CHECKING:
    from interp.detectors import TokenDetection

MAX_TOKENS = 512  # tokens in one figure
MIN_LINES = 2  # so that the colour bar fits
COLUMNS, LINE = 110, 64  # letters per line, and pixels per line; heights within a line as shares of it:
MARKS, WORDS, STRIP = 0.14, 0.36, 0.17
STRIPS = {"waad": 0.61, "fai": 0.8}
ROLES = {
    "preplan": ("▲", "triangle-up", style.NEGATIVE),
    "anchor": ("◆", "diamond", style.POSITIVE),
    "dominated": ("●", "circle", style.INK),
    "introductory": ("▼", "triangle-down", style.INK),
    "sink": ("■", "square", style.MUTED),
}
"""Sign in the caption, marker and colour of each role."""

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Left edge and width of each token's cell in letters, and its line."""


def waad_fai_strips(
    detection: TokenDetection, *, example: int = 0, span: tuple[int, int] | None = None, title: str | None = None
) -> Figure:
    """The tokens of one text in order, shaded by WAAD and FAI (share of the text's largest), with markers for their roles.

    ``span`` selects tokens from start to before end; by default the first 512 from shortly before the first token with a
    WAAD. Tokens without a number are grey. Raises LookupError for a text that does not exist and ValueError for a span
    outside the text or of more than 512 tokens.
    """
    words, numbers = _text(detection, example)
    start, end = span or _default_span(numbers["waad"])
    if not 0 <= start < end <= len(words) or end - start > MAX_TOKENS:
        raise ValueError(f"{start}:{end} is not a span of 1 to {MAX_TOKENS:,} tokens of a text that has {len(words):,}.")
    shown = [style.token(word, 40) for word in words[start:end]]
    cells = style.wrap_tokens(shown, COLUMNS)
    hover = [_hover_text(detection, example, at) for at in range(start, end)]
    n_text_lines = int(cells[-1][-1]) + 1
    n_lines = max(n_text_lines, MIN_LINES)
    caption = [detection.record.caption(), _legend(detection, numbers, example, (start, end))]
    title = title or "Preplan and anchor tokens by WAAD and FAI"
    figure = style.canvas(int(COLUMNS * style.LETTER), LINE * n_lines, title, caption, left=52, bottom=16)
    shares = {name: own[start:end] / style.max_abs(own) for name, own in numbers.items()}
    _add_strips(figure, shares, cells, hover)
    _add_words(figure, shown, np.isnan(shares["waad"]), cells, hover)
    _add_marks(figure, {name: own[example, start:end] for name, own in detection.masks.items()}, cells)
    ticks = [(row + place, name.upper()) for row in range(n_text_lines) for name, place in STRIPS.items()]
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_xaxes(range=[0, COLUMNS], tickvals=[])
    figure.update_yaxes(range=[n_lines, 0], tickvals=[at for at, _ in ticks], ticktext=[name for _, name in ticks])
    figure.update_yaxes(tickfont={"size": 9, "color": style.MUTED})
    return figure


def _add_strips(figure: Figure, shares: dict[str, np.ndarray], cells: Cells, hover: list[str]) -> None:
    """One strip of cells per line and score, grey for tokens without a number."""
    left, width, line = cells
    for known in (True, False):
        at = [(name, int(i)) for name in STRIPS for i in np.flatnonzero(np.isnan(shares[name]) != known)]
        if not at:
            continue
        scale = {"colorscale": style.scale(style.SEQUENTIAL), "cmin": 0, "cmax": 1}
        scale["colorbar"] = style.colour_bar("share of the largest")
        places = [i for _, i in at]
        figure.add_bar(
            base=left[places],
            x=width[places],
            y=[line[i] + STRIPS[name] for name, i in at],
            width=STRIP,
            orientation="h",
            marker={
                "line": {"width": 0},
                **({"color": [shares[name][i] for name, i in at], **scale} if known else {"color": style.EMPTY}),
            },
            hovertext=[hover[i] for i in places],
            hoverinfo="text",
        )


def _add_words(figure: Figure, words: list[str], pale: np.ndarray, cells: Cells, hover: list[str]) -> None:
    left, width, line = cells
    font = {"size": 12, "family": style.MONO, "color": [style.MUTED if p else style.INK for p in pale]}
    text = [style.escape_markup(word) for word in words]
    place = {"x": left + width / 2, "y": line + WORDS, "mode": "text"}
    figure.add_scatter(**place, text=text, textfont=font, hovertext=hover, hoverinfo="text")


def _add_marks(figure: Figure, masks: dict[str, np.ndarray], cells: Cells) -> None:
    """The markers of each token side by side."""
    left, _, line = cells
    before = np.zeros(len(left))
    for name in (name for name in ROLES if name in masks):
        marked = masks[name]
        _, symbol, colour = ROLES[name]
        marker = {"symbol": symbol, "size": 7, "color": colour, "line": {"width": 0}}
        figure.add_scatter(
            x=(left + 0.6 + before)[marked], y=(line + MARKS)[marked], mode="markers", marker=marker, hoverinfo="skip"
        )
        before += marked


def _text(detection: TokenDetection, example: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """The tokens of a text without padding (empty strings), and the numbers of the strips."""
    if not 0 <= example < len(detection.words):
        raise LookupError(f"Text {example} does not exist: the texts are 0-{len(detection.words) - 1}.")
    words = list(detection.words[example])
    while words and not words[-1]:
        words.pop()
    return words, {name: detection.scores[name].values[example, : len(words)] for name in STRIPS}


def _default_span(waad: np.ndarray) -> tuple[int, int]:
    """The whole text, or a span from eight tokens before the response on."""
    (response,) = np.nonzero(~np.isnan(waad))
    start = 0 if len(waad) <= MAX_TOKENS or not len(response) else max(0, min(int(response[0]) - 8, len(waad) - MAX_TOKENS))
    return start, min(start + MAX_TOKENS, len(waad))


def _legend(detection: TokenDetection, numbers: dict[str, np.ndarray], example: int, span: tuple[int, int]) -> str:
    length = len(numbers["waad"])
    largest = (
        f"largest {name.upper()} {style.number(style.max_abs(own))} {detection.scores[name].unit}"
        for name, own in numbers.items()
    )
    counts = {name: int(detection.masks[name][example].sum()) for name in ROLES if name in detection.masks}
    parts = [
        f"text {example}" if len(detection.words) > 1 else "",
        f"tokens {span[0]:,}-{span[1] - 1:,} of {length:,}" if span[1] - span[0] < length else "",
        *largest,
        *(f"{ROLES[name][0]} {name} {count:,}" for name, count in counts.items()),
        "grey: no number",
    ]
    return " · ".join(filter(None, parts))


def _hover_text(detection: TokenDetection, example: int, at: int) -> str:
    """The token, its scores and its roles."""
    numbers = {name: (scores.values[example, at], scores.unit) for name, scores in detection.scores.items()}
    roles = ", ".join(name for name, marked in detection.masks.items() if marked[example, at])
    lines = [
        f"<b>{style.escape_markup(style.token(detection.words[example][at], 40))}</b> at {at}",
        *(
            f"{style.escape_markup(name)} {style.number(value)} {style.escape_markup(unit)}"
            for name, (value, unit) in numbers.items()
            if value == value
        ),
        style.escape_markup(roles),
    ]
    return "<br>".join(filter(None, lines))
