"""The common style of all figures: colour-blind safe colours, fonts, margins, titles and captions.

Effects are red where negative and blue where positive, with 0 always in the middle; quantities that cannot be negative range from white
to blue. Names from models and prompts are untrusted: ``escape_markup`` keeps them from being read as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any
from unicodedata import east_asian_width

import numpy as np

from interp.figures.figure_with_png import Figure
from interp.figures.static_render import INK
from interp.heads import Head, HeadScores

MUTED, LINES, EMPTY, PAPER = "#5c6470", "#e3e6ea", "#e9ebee", "#ffffff"
NEGATIVE, POSITIVE = "#c4433f", "#2f73b5"
DIVERGING = [
    "#7f1020",
    "#b5272f",
    "#d6604d",
    "#f0a184",
    "#fbdccb",
    "#f8f8f8",
    "#d3e5f0",
    "#93c4de",
    "#4a94c4",
    "#2468ad",
    "#0b3565",
]
SEQUENTIAL = ["#f8fafc", "#dfeaf5", "#c3d9ee", "#9dc5e2", "#6dabd3", "#4490c3", "#2473b0", "#105796", "#093568"]
ARROWS = {"\n": "↵", "\t": "→", "\r": "←"}
FONT = "Inter, Helvetica Neue, Segoe UI, DejaVu Sans, Arial, sans-serif"
MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"
LEFT, RIGHT, BOTTOM = 64, 104, 56
LINE, TOP = 15, 48  # pixels of a caption line, and above a plot without caption
SHORT = 20  # a part of a caption of at most so many characters is not broken
CHARACTER = 6.3  # mean width in pixels of a character of a caption
LETTER = 7.3  # width in pixels of a character of wrapped tokens
PADDING, GAP = 0.8, 0.25  # characters around a token in its cell, and between two cells


def escape_markup(text: Any) -> str:
    """The text with ``< > &`` escaped, for titles, labels and hovers."""
    return escape(str(text), quote=False)


def canvas(
    size: tuple[int, int], title: str, caption: list[str], *, left: int = LEFT, right: int = RIGHT, bottom: int = BOTTOM
) -> Figure:
    """An empty figure with a plotting area of this size in pixels below a title and the paragraphs of a caption."""
    width = size[0] + left + right
    room = max(30, int((width - left - 12) / CHARACTER))
    lines = [
        line.replace("\u00a0", " ") for text in caption if text for line in wrap(_no_break(text), room, break_on_hyphens=False)
    ]
    top = TOP + LINE * len(lines)
    height = size[1] + top + bottom
    place = {"x": left / width, "xanchor": "left", "y": 1 - 22 / height, "yanchor": "middle", "yref": "container"}
    figure = Figure()
    figure.update_layout(
        width=width,
        height=height,
        margin={"l": left, "r": right, "t": top, "b": bottom, "autoexpand": False},
        title={"text": f"<b>{escape_markup(title)}</b>", "font": {"size": 15, "color": INK}, **place},
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        showlegend=False,
        hoverlabel={"bgcolor": PAPER, "bordercolor": MUTED, "font": {"family": FONT, "size": 12, "color": INK}},
    )
    above = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 8}
    look = {"borderpad": 0, "align": "left", "showarrow": False, "font": {"size": 11, "color": MUTED}}
    figure.add_annotation(text="<br>".join(map(escape_markup, lines)), **above, **look)
    bare = {"showgrid": False, "zeroline": False, "showline": False, "ticks": "", "ticklabelstandoff": 4}
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(**bare, tickfont={"size": 11, "color": INK}, title={"font": {"size": 12, "color": MUTED}, "standoff": 8})
    return figure


def add_cells(
    figure: Figure,
    values: np.ndarray,
    hover: Any,
    colours: tuple[float, float, list[str]],
    legend: str,
    *,
    origin: tuple[int, int] = (0, 0),
    gap: int = 1,
    numbers: bool = False,
    gamma: float = 1.0,
) -> None:
    """A heat map of values [row column], first row on top, NaN grey, with limits and ``colours`` as from ``colour_range``.

    ``origin`` is the (row, column) of the first cell; there are ``gap`` pixels between cells; ``numbers`` prints the values in them. For
    ``gamma`` see ``scale``.
    """
    y, x = (list(range(first, first + n)) for first, n in zip(origin, values.shape, strict=True))
    low, high, steps = colours
    figure.update_layout(plot_bgcolor=EMPTY)
    cells = {"z": values, "x": x, "y": y, "zmin": low, "zmax": high, "xgap": gap, "ygap": gap}
    figure.add_heatmap(
        **cells,
        colorscale=scale(steps, gamma),
        colorbar=colour_bar(legend),
        hovertext=hover,
        hoverinfo="text",
        **(cell_text(values) if numbers else {}),
    )
    figure.update_xaxes(range=[x[0] - 0.5, x[-1] + 0.5])
    figure.update_yaxes(range=[y[-1] + 0.5, y[0] - 0.5])


def add_label(figure: Figure, x: float, y: float, text: str) -> None:
    """A text of the legend, which begins at this point."""
    font = {"size": 11, "color": INK}
    figure.add_scatter(x=[x], y=[y], mode="text", text=[text], textposition="middle right", textfont=font, hoverinfo="skip")


def _no_break(caption: str) -> str:
    """The caption with no-break spaces inside short parts such as "8 tokens" and before the dots between parts."""
    parts = caption.split(" · ")
    return "\u00a0· ".join(part.replace(" ", "\u00a0") if len(part) <= SHORT else part for part in parts)


def colour_bar(text: str) -> dict[str, Any]:
    """A slim colour bar with this title, beside the plotting area and of its height."""
    title = {"text": escape_markup(text), "side": "right", "font": {"size": 12, "color": MUTED}}
    place = {"x": 1, "xpad": 14, "ypad": 0, "len": 1, "thickness": 12, "outlinewidth": 0}
    return {**place, "title": title, "tickfont": {"size": 11, "color": INK}}


def caption_of(row: Any) -> str:
    """Task, n, metric, intervention, model and revision of a row of a head table, in one line."""
    model = f"{row.model}@{str(row.revision)[:8]}" if row.revision else row.model
    ablation = row.ablation if row.estimator == "exact" else f"{row.ablation} ({row.estimator})"
    parts = (row.task, f"n = {row.n}", row.metric, f"{ablation} at {row.positions} positions", model)
    return " · ".join(str(part) for part in parts if part)


def colour_range(values: np.ndarray, bounds: tuple[float | None, float | None]) -> tuple[float, float, list[str]]:
    """Limits and colours of the colour scale of these values: sequential from the lower bound to the largest value, or diverging around 0
    for quantities that can be negative."""
    reach = max_abs(values)
    if bounds[0] is not None and bounds[0] >= 0:
        return bounds[0], reach, SEQUENTIAL
    return -reach, reach, DIVERGING


def ink_on(value: float, high: float) -> str:
    """The text colour that is legible on the cell of a value, on a scale up to ``high``."""
    return PAPER if abs(value) > 0.6 * high else INK


def scale(colours: list[str], gamma: float = 1.0) -> list[list[Any]]:
    """The colours as a plotly colour scale, on which a share s of the range has the colour at ``s ** gamma``."""
    colours = colours if gamma == 1 else interpolated(colours)
    return [[(i / (len(colours) - 1)) ** (1 / gamma), colour] for i, colour in enumerate(colours)]


def interpolated(colours: list[str]) -> list[str]:
    """The colours with seven between any two of them."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = np.linspace(0, len(colours) - 1, 8 * (len(colours) - 1) + 1)
    channels = np.stack([np.interp(at, range(len(colours)), channel) for channel in stops.T], 1)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in channels.round().astype(int).tolist()]


def token(text: str, longest: int = 16) -> str:
    """A token as a label: line ends and tabs as arrows, other control characters as a box, truncated to ``longest`` characters."""
    shown = "".join(ARROWS.get(letter, letter if letter.isprintable() else "\ufffd") for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def display_width(text: str) -> int:
    """Width of the text in characters; full-width East Asian characters count twice."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def wrap_tokens(
    words: list[str], columns: int, least: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens wrapped into lines of ``columns`` characters: left edge and width of each token's cell in characters, and its line.
    ``least`` gives a least width of each cell."""
    needed = [0.0] * len(words) if least is None else least
    width = [max(display_width(word) + PADDING, least) for word, least in zip(words, needed, strict=True)]
    left, line, at, row = [], [], 0.0, 0
    for own in width:
        if at + own > columns and at > 0:
            at, row = 0.0, row + 1
        left.append(at)
        line.append(row)
        at += own + GAP
    return np.array(left), np.array(width), np.array(line)


def add_token_bars(
    figure: Figure,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    height: float,
    values: np.ndarray,
    colours: tuple[float, float, list[str]],
    legend: str,
    hover: list[str],
) -> None:
    """A bar of this height (in lines) for each cell as from ``wrap_tokens``, coloured by its value (see ``add_cells``), grey for NaN."""
    left, width, line = cells
    low, high, steps = colours
    coloured = {"colorscale": scale(steps), "cmin": low, "cmax": high, "colorbar": colour_bar(legend)}
    for absent in (False, True):
        at = np.flatnonzero(np.isnan(values) == absent).tolist()
        marker = {"color": EMPTY} if absent else {"color": values[at].tolist(), **coloured}
        if at:
            bars = {"base": left[at], "x": width[at], "y": line[at], "width": height, "orientation": "h"}
            texts = [hover[i] for i in at]
            figure.add_bar(**bars, marker={**marker, "line": {"width": 0}}, hovertext=texts, hoverinfo="text")


def add_words(figure: Figure, words: list[str], x: np.ndarray, y: np.ndarray, inks: list[str], **hover: Any) -> None:
    """Tokens centred at these points, each in its ink."""
    font = {"size": 12, "family": MONO, "color": inks}
    figure.add_scatter(x=x, y=y, mode="text", text=list(map(escape_markup, words)), textfont=font, **hover)


def ticks(n: int) -> list[int]:
    """Every index, or every second, fifth, tenth ..., so that there are at most 16."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if n <= 16 * step)
    return list(range(0, n, step))


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, three to six of them."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(times * unit for times in (1, 2, 5, 10) if times * unit >= rough * (1 - 1e-9))
    return [round(float(i * step), 12) for i in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def number(value: float) -> str:
    """The number with three significant digits (all digits from 1,000 on) and a true minus sign."""
    return f"{value:{',.0f' if abs(value) >= 1000 else '.3g'}}".replace("-", "−")


def max_abs(values: np.ndarray) -> float:
    """The largest absolute value, or 1 if all values are 0 or NaN."""
    return float(np.max(np.abs(values), initial=0.0, where=~np.isnan(values))) or 1.0


def decimals(reach: float) -> int:
    """Number of decimals that shows at least two significant digits of numbers up to ``reach``."""
    return 2 if reach == 0 else int(np.clip(1 - np.floor(np.log10(reach)), 2, 6)) if reach < 100 else int(reach < 1000)


def fixed(value: float, digits: int) -> str:
    """The number with this many decimals and a true minus sign; never a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def cell_text(values: np.ndarray) -> dict[str, Any]:
    """Options of a heat map trace that print each cell's number in it."""
    digits = decimals(max_abs(values))
    texts = [["" if np.isnan(value) else fixed(value, digits) for value in row] for row in values.tolist()]
    return {"text": texts, "texttemplate": "%{text}", "textfont": {"size": 11}}


def score_lines(scores: HeadScores, head: Head) -> str:
    """Hover text of a head: label, name, number, unit."""
    return f"<b>{head}</b><br>{escape_markup(scores.name)} {number(scores[head])} {escape_markup(scores.unit)}"


def hover_lines(row: Any) -> str:
    """Hover text of a row of a head table: label, effect with interval, n, q-value, control."""
    interval = f"{number(row.ci_low)} to {number(row.ci_high)}"
    shown = f"<b>{escape_markup(row.label)}</b><br>effect {number(row.effect)} {escape_markup(row.unit)}"
    shown += f"<br>95% interval {interval} (n = {row.n})<br>q = {number(row.q_value)}"
    if row.control == row.control:  # NaN: there is no other head to compare with
        shown += f"<br>other heads {number(row.control_ci_low)} to {number(row.control_ci_high)}"
    return shown
