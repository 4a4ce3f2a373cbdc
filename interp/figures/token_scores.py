"""A text with each token coloured by its score, wrapped into lines."""

from __future__ import annotations

import numpy as np

from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.heads import TokenScores

MAX_TOKENS = 1000  # tokens of one figure
MIN_LINES = 4  # so that the colour bar has room
COLUMNS, LINE = 100, 24  # characters in a line, and its height in pixels


def token_scores_text(
    scores: TokenScores, *, example: int = 0, span: tuple[int, int] | None = None, title: str | None = None
) -> Figure:
    """The tokens of one text in order, one cell each, coloured by their score.

    ``span`` (start, end) selects tokens, end excluded; by default the first 1,000. Scores that can be negative get a diverging scale
    centred at 0; tokens without a score are grey. Raises LookupError for an unknown text and ValueError for a span outside the text or
    of more than 1,000 tokens.
    """
    if not 0 <= example < len(scores.tokens):
        raise LookupError(f"Text {example} does not exist: {scores.name} has texts 0-{len(scores.tokens) - 1}.")
    length = max((i + 1 for i, word in enumerate(scores.tokens[example]) if word), default=0)  # padding is ""
    start, end = span or (0, min(length, MAX_TOKENS))
    if not 0 <= start < end <= length or end - start > MAX_TOKENS:
        raise ValueError(f"{start}:{end} is not a span of 1 to {MAX_TOKENS:,} tokens inside a text of {length:,} tokens.")
    words = [style.token(word, 40) for word in scores.tokens[example][start:end]]
    values = scores.values[example, start:end]
    colours = style.colour_range(values, scores.bounds)
    left, width, line = style.wrap_tokens(words, COLUMNS)
    n_lines = max(int(line[-1]) + 1, MIN_LINES)
    notes = [
        f"text {example}" if len(scores.tokens) > 1 else "",
        f"tokens {start:,}-{end - 1:,} of {length:,}" if end - start < length else "",
        f"grey: {scores.nan_reason or 'no number'}" if np.isnan(values).any() else "",
    ]
    caption = [scores.record.caption(), "; ".join(note for note in notes if note)]
    size = int(COLUMNS * style.LETTER), LINE * n_lines
    figure = style.canvas(size, title or f"{scores.name} of each token", caption, left=24, bottom=16)
    name, unit = style.escape_markup(scores.name), style.escape_markup(scores.unit)
    hover = [
        f"<b>{style.escape_markup(word)}</b> at {start + i}<br>{name} {style.number(value)} {unit}"
        for i, (word, value) in enumerate(zip(words, values, strict=True))
    ]
    style.add_token_bars(figure, (left, width, line), 0.86, values, colours, scores.unit, hover)
    inks = [style.ink_on(value, colours[1]) for value in values]
    style.add_words(figure, words, left + width / 2, line, inks, hoverinfo="skip")
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(range=[0, COLUMNS], tickvals=[])
    figure.update_yaxes(range=[n_lines - 0.5, -0.5], tickvals=[])
    return figure
