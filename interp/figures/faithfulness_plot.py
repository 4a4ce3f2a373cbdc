"""Faithfulness of circuits by size, beside random circuits of the same sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.circuits import FaithfulnessCurve
from interp.figures import style
from interp.figures.portable_figure import Figure

WIDTH, HEIGHT = 620, 320
LEVEL = 0.85
CIRCUIT, RANDOM = ("circuit", style.POSITIVE, "circle"), ("random", style.MUTED, "square")


def faithfulness_plot(curve: FaithfulnessCurve, *, level: float = LEVEL, title: str | None = None) -> Figure:
    """Number of edges on x (logarithmic), faithfulness on y: 0 = as the corrupted run, 1 = as the model.

    The line of the circuits has 95% intervals over prompts; that of random circuits is the mean over draws, with a dot for each draw. The
    dashed lines are 0, 1 and ``level``; the caption gives the size from which on circuits reach it.
    """
    table: Any = curve.table.drop_duplicates(["n_edges", "kind", "draw"])
    own = table[table["kind"] == "circuit"].sort_values("n_edges")
    draws = table[table["kind"] == "random"].sort_values("n_edges")
    size, record = curve.size_at(level), curve.record
    recovered = f"{level:.0%} recovered from {size:,} edges on" if size else f"{level:.0%} recovered at no size"
    areas = f" · CPR {style.number(curve.cpr)}, CMD {style.number(curve.cmd)}" if own["share"].max() == 1 else ""
    caption = [
        " · ".join(part for part in (record.caption(), str(record.arguments.get("method", ""))) if part),
        f"{recovered}{areas} · mean and 95% interval over prompts · dot: one of {draws['draw'].nunique()} draws of random edges",
    ]
    figure = style.canvas(WIDTH, HEIGHT, title or "Faithfulness by size of the circuit", caption, right=24)
    low, high = min(0.0, *table["ci_low"], *table["faithfulness"]), max(1.0, *table["ci_high"], *table["faithfulness"])
    air = high - low
    ends = np.log10([max(1, table["n_edges"].min()), table["n_edges"].max()])
    left, right = float(ends[0]) - 0.06, float(ends[1]) + 0.06
    for height in (0.0, level, 1.0):
        line = {"color": style.MUTED, "width": 1, "dash": "dash"}
        figure.add_shape(type="line", x0=left, x1=right, y0=height, y1=height, line=line, layer="below")
    named = {"text": [f"{level:.0%}"], "textposition": "top right", "textfont": {"size": 11, "color": style.MUTED}}
    figure.add_scatter(x=[left], y=[level], mode="text", **named, hoverinfo="skip")
    name, colour, _ = RANDOM
    figure.add_scatter(
        x=np.log10(draws["n_edges"]).tolist(),
        y=draws["faithfulness"].tolist(),
        mode="markers",
        marker={"size": 4, "color": colour, "opacity": 0.45, "line": {"width": 0}},
        hovertext=[f"<b>{name}, draw {row.draw}</b><br>{_hover_text(row)}" for row in draws.itertuples()],
        hoverinfo="text",
    )
    _add_line(figure, RANDOM, draws.groupby("n_edges")["faithfulness"].mean())
    figure.add_scatter(
        x=[x for n in own["n_edges"] for x in (float(np.log10(n)), float(np.log10(n)), None)],
        y=[y for row in own.itertuples() for y in (row.ci_low, row.ci_high, None)],
        mode="lines",
        line={"color": CIRCUIT[1], "width": 1.2},
        hoverinfo="skip",
    )
    texts = [
        f"<b>circuit</b><br>{_hover_text(row)}<br>95% interval {style.number(row.ci_low)} to {style.number(row.ci_high)}"
        for row in own.itertuples()
    ]
    _add_line(figure, CIRCUIT, own.set_index("n_edges")["faithfulness"], texts)
    _add_legend(figure, left, (right - left) / WIDTH, high + 0.1 * air)
    sizes = sorted(set(table["n_edges"]))
    figure.update_xaxes(title_text="edges in the circuit", range=[left, right], tickvals=np.log10(sizes).tolist())
    figure.update_xaxes(ticktext=_labels(sizes))
    steps = style.round_ticks(low, high)
    figure.update_yaxes(title_text="faithfulness", range=[low - 0.05 * air, high + 0.18 * air], tickvals=steps)
    figure.update_yaxes(showgrid=True, gridcolor=style.LINES)
    return figure


def _hover_text(row: Any) -> str:
    return f"{row.n_edges:,} edges ({row.share:.1%}): faithfulness {style.number(row.faithfulness)}<br>metric {style.number(row.outcome)}"


def _add_line(figure: Figure, look: tuple[str, str, str], values: Any, texts: list[str] | None = None) -> None:
    """The values by number of edges, joined."""
    name, colour, symbol = look
    means = [f"<b>mean of {name}</b><br>{n:,} edges: {style.number(value)}" for n, value in values.items()]
    figure.add_scatter(
        x=np.log10(values.index.to_numpy()).tolist(),
        y=values.tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2 if look is CIRCUIT else 1},
        marker={"symbol": symbol, "size": 8 if look is CIRCUIT else 6, "color": colour, "line": {"width": 0}},
        hovertext=texts or means,
        hoverinfo="text",
    )


def _add_legend(figure: Figure, left: float, pixel: float, height: float) -> None:
    at = left + 10 * pixel
    for name, colour, symbol in (CIRCUIT, RANDOM):
        marker = {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 0}}
        figure.add_scatter(x=[at], y=[height], mode="markers", marker=marker, hoverinfo="skip")
        place = {"x": [at + 9 * pixel], "y": [height], "textposition": "middle right"}
        font = {"size": 11, "color": style.INK}
        figure.add_scatter(**place, mode="text", text=[f"{name} edges"], textfont=font, hoverinfo="skip")
        at += (50 + 6.6 * len(f"{name} edges")) * pixel


def _labels(sizes: list[int]) -> list[str]:
    """A label for each size that has room for one."""
    texts, last = [], -np.inf
    wide = np.log10(sizes[-1] / sizes[0]) or 1.0
    for size in sizes:
        room = (np.log10(size) - last) / wide * WIDTH >= 34
        texts.append(f"{size:,}" if room else "")
        last = np.log10(size) if room else last
    return texts
