"""A text with each token coloured by its number, in lines as a reader would have them."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from interp.figures import style
from interp.heads import TokenScores

MAX_TOKENS = 1000  # tokens in one picture
FEWEST = 4  # lines, so that the colour bar has room
COLUMNS, LINE = 100, 24  # letters in a line, and pixels of a line


def token_scores_text(
    scores: TokenScores, *, example: int = 0, span: tuple[int, int] | None = None, title: str | None = None
) -> go.Figure:
    """The tokens of one text in order, a cell each (equal tokens have separate cells), coloured by their number.

    ``span`` chooses the tokens from start to before end; by default the first 1,000. Numbers that can be negative get a diverging
    scale centred at 0; tokens without a number are grey. Raises LookupError for a text that is not there and ValueError for a span
    outside the text or of more than 1,000 tokens.
    """
    if not 0 <= example < len(scores.tokens):
        raise LookupError(f"Text {example} does not exist: {scores.name} has the texts 0-{len(scores.tokens) - 1}.")
    length = max((i + 1 for i, word in enumerate(scores.tokens[example]) if word), default=0)  # padding is written as ""
    start, end = span or (0, min(length, MAX_TOKENS))
    if not 0 <= start < end <= length or end - start > MAX_TOKENS:
        raise ValueError(f"{start}:{end} is not a span of 1 to {MAX_TOKENS:,} tokens of a text that has {length:,}.")
    words = [style.token(word, 40) for word in scores.tokens[example][start:end]]
    values = scores.values[example, start:end]
    low, high, colours = style.colour_range(values, scores.bounds)
    left, width, line = style.running(words, COLUMNS)
    n_lines = max(int(line[-1]) + 1, FEWEST)
    notes = [
        f"text {example}" if len(scores.tokens) > 1 else "",
        f"tokens {start:,}-{end - 1:,} of {length:,}" if end - start < length else "",
        f"grey: {scores.nan_reason or 'no number'}" if np.isnan(values).any() else "",
    ]
    caption = [scores.record.caption(), "; ".join(note for note in notes if note)]
    size = int(COLUMNS * style.LETTER), LINE * n_lines
    figure = style.canvas(*size, title or f"{scores.name} of each token", caption, left=24, bottom=16)
    hover = [
        f"<b>{style.safe(word)}</b> at {start + i}<br>{style.safe(scores.name)} {style.number(value)} {style.safe(scores.unit)}"
        for i, (word, value) in enumerate(zip(words, values, strict=True))
    ]
    scale = {"colorscale": style.scale(colours), "cmin": low, "cmax": high, "colorbar": style.colour_bar(scores.unit)}
    for there, marker in ((~np.isnan(values), scale), (np.isnan(values), {})):
        cells = np.flatnonzero(there).tolist()
        marker["color"] = [values[i] for i in cells] if marker else style.EMPTY
        if cells:
            place = {"base": left[cells], "x": width[cells], "y": line[cells], "width": 0.86, "orientation": "h"}
            figure.add_bar(
                **place, marker={**marker, "line": {"width": 0}}, hovertext=[hover[i] for i in cells], hoverinfo="text"
            )
    figure.add_scatter(
        x=left + width / 2,
        y=line,
        mode="text",
        text=[style.safe(word) for word in words],
        textfont={"size": 12, "family": style.MONO, "color": [style.ink_on(value, high) for value in values]},
        hoverinfo="skip",
    )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(range=[0, COLUMNS], tickvals=[])
    figure.update_yaxes(range=[n_lines - 0.5, -0.5], tickvals=[])
    return figure
