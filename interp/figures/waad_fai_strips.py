"""A wrapped text with strips for WAAD and FAI below each line, and markers above the tokens with a role."""

from __future__ import annotations

import numpy as np

from interp.detectors import TokenDetection
from interp.figures import curve_parts, style
from interp.figures.figure_with_png import Figure

MAX_TOKENS = 512  # tokens in one figure
MIN_LINES = 2  # so that the colour bar fits
COLUMNS, LINE = 110, 64  # letters per line, and pixels per line; heights within a line as shares of it:
MARKS, WORDS, STRIP = 0.14, 0.36, 0.17
MARK = 1.15  # letters of one marker
LEGEND = 24  # pixels of the line above the text that names the markers
STRIPS = {"waad": 0.61, "fai": 0.8}
TITLE = "Preplan and anchor tokens by WAAD and FAI"
ROLES = {
    "preplan": ("▲", "triangle-up", style.NEGATIVE),
    "anchor": ("◆", "diamond", style.POSITIVE),
    "dominated": ("●", "circle", style.INK),
    "introductory": ("▼", "triangle-down", style.INK),
    "sink": ("■", "square", style.MUTED),
}
"""Sign in a text, marker and colour of each role."""


def waad_fai_strips(
    detection: TokenDetection, *, example: int = 0, span: tuple[int, int] | None = None, title: str | None = None
) -> Figure:
    """The tokens of one text in order, shaded by WAAD and FAI (share of the text's largest), with markers for their roles.

    ``span`` selects tokens from start to before end; by default the first 512 from shortly before the first token with a
    WAAD. Tokens without a number are grey. Raises LookupError for a text that does not exist and ValueError for a span
    outside the text or of more than 512 tokens.
    """
    words, numbers = text_of(detection, example)
    start, end = shown_span(numbers["waad"], span)
    shown = [style.token(word, 40) for word in words[start:end]]
    masks = {name: detection.masks[name][example, start:end] for name in ROLES if name in detection.masks}
    n_marks = sum((mask.astype(int) for mask in masks.values()), np.zeros(end - start, int))
    left, width, line = style.wrap_tokens(shown, COLUMNS, (n_marks * MARK).tolist())
    hover = [_hover_text(detection, example, at) for at in range(start, end)]
    n_text_lines = int(line[-1]) + 1
    n_lines = max(n_text_lines, MIN_LINES)
    caption = [detection.record.caption(), " · ".join(about_text(detection, numbers, (start, end), example))]
    size = int(COLUMNS * style.LETTER), LINE * n_lines + LEGEND
    figure = style.canvas(size, title or TITLE, caption, left=52, bottom=16)
    shares = {name: own[start:end] / style.max_abs(own) for name, own in numbers.items()}
    strips = np.tile(left, 2), np.tile(width, 2), np.concatenate([line + place for place in STRIPS.values()])
    both = np.concatenate([shares[name] for name in STRIPS])
    style.add_token_bars(figure, strips, STRIP, both, (0.0, 1.0, style.SEQUENTIAL), "share of the largest", hover * 2)
    inks = [style.MUTED if np.isnan(share) else style.INK for share in shares["waad"]]
    style.add_words(figure, shown, left + width / 2, line + WORDS, inks, hovertext=hover, hoverinfo="text")
    _add_marks(figure, masks, left, line)
    looks = [(counted, ROLES[name][2], ROLES[name][1]) for name, counted in role_counts(detection, example).items()]
    curve_parts.add_legend(figure, looks, MARK / 2, -0.6 * LEGEND / LINE, pixel=COLUMNS / size[0], room=36)
    ticks = [(row + place, name.upper()) for row in range(n_text_lines) for name, place in STRIPS.items()]
    figure.update_layout(barmode="overlay", hovermode="closest")
    figure.update_xaxes(range=[0, COLUMNS], tickvals=[])
    figure.update_yaxes(range=[n_lines, -LEGEND / LINE], tickvals=[at for at, _ in ticks], ticktext=[name for _, name in ticks])
    figure.update_yaxes(tickfont={"size": 9, "color": style.MUTED})
    return figure


def _add_marks(figure: Figure, masks: dict[str, np.ndarray], left: np.ndarray, line: np.ndarray) -> None:
    """The markers of each token side by side."""
    before = np.zeros(len(left))
    for name, (_, symbol, colour) in ROLES.items():
        if name in masks:
            at, marker = masks[name], {"symbol": symbol, "size": 7, "color": colour, "line": {"width": 0}}
            x, y = (left + MARK * (before + 0.5))[at], (line + MARKS)[at]
            figure.add_scatter(x=x, y=y, mode="markers", marker=marker, hoverinfo="skip")
            before += at


def text_of(detection: TokenDetection, example: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """The tokens of a text without padding (empty strings), and the numbers of the strips."""
    if not 0 <= example < len(detection.words):
        raise LookupError(f"Text {example} does not exist: the texts are 0-{len(detection.words) - 1}.")
    words = list(detection.words[example])
    while words and not words[-1]:
        words.pop()
    return words, {name: detection.scores[name].values[example, : len(words)] for name in STRIPS}


def shown_span(waad: np.ndarray, span: tuple[int, int] | None = None) -> tuple[int, int]:
    """The span of a text with these WAAD, by default as ``waad_fai_strips`` says. Raises ValueError as it does."""
    start, end = span or _default_span(waad)
    if not 0 <= start < end <= len(waad) or end - start > MAX_TOKENS:
        raise ValueError(f"{start}:{end} is not a span of 1 to {MAX_TOKENS:,} tokens of a text that has {len(waad):,}.")
    return start, end


def _default_span(waad: np.ndarray) -> tuple[int, int]:
    """The whole text, or a span from eight tokens before the response on."""
    (response,) = np.nonzero(~np.isnan(waad))
    start = 0 if len(waad) <= MAX_TOKENS or not len(response) else max(0, min(int(response[0]) - 8, len(waad) - MAX_TOKENS))
    return start, min(start + MAX_TOKENS, len(waad))


def about_text(detection: TokenDetection, numbers: dict[str, np.ndarray], span: tuple[int, int], example: int) -> list[str]:
    """Parts of the caption: which part of the text is shown, and the largest WAAD and FAI."""
    length = len(numbers["waad"])
    parts = [f"text {example}"] if len(detection.words) > 1 else []
    parts += [f"tokens {span[0]:,}-{span[1] - 1:,} of {length:,}"] if span[1] - span[0] < length else []
    for name, own in numbers.items():
        parts.append(f"largest {name.upper()} {style.number(style.max_abs(own))} {detection.scores[name].unit}")
    return [*parts, "grey: no number"]


def role_counts(detection: TokenDetection, example: int) -> dict[str, str]:
    """Each role of a token with the number of its tokens in this text."""
    return {name: f"{name} {int(detection.masks[name][example].sum()):,}" for name in ROLES if name in detection.masks}


def _hover_text(detection: TokenDetection, example: int, at: int) -> str:
    """The token, its scores and its roles, as markup."""
    _, *lines = map(style.escape_markup, about_token(detection, example, at))
    word = style.escape_markup(style.token(detection.words[example][at], 40))
    return "<br>".join([f"<b>{word}</b> at {at}", *lines])


def about_token(detection: TokenDetection, example: int, at: int) -> list[str]:
    """The token and its position, its scores, and its roles, one line each."""
    lines = [f"{style.token(detection.words[example][at], 40)} at {at}"]
    for name, scores in detection.scores.items():
        if not np.isnan(value := scores.values[example, at]):
            lines.append(f"{name} {style.number(value)} {scores.unit}")
    roles = ", ".join(name for name, marked in detection.masks.items() if marked[example, at])
    return [*lines, roles] if roles else lines
