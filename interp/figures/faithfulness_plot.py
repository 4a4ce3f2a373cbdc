"""Faithfulness of circuits by size, beside random circuits of the same sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.circuits import FaithfulnessCurve
from interp.figures import curve_parts, style
from interp.figures.figure_with_png import Figure

WIDTH, HEIGHT = 620, 320
LEVEL = 0.85
CIRCUIT, RANDOM = ("circuit edges", style.POSITIVE, "circle"), ("random edges", style.MUTED, "square")


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
    units = "clusters of prompts" if "n_clusters" in table else "prompts"
    caption = [
        " · ".join(part for part in (record.caption(), str(record.arguments.get("method", ""))) if part),
        f"{recovered}{areas} · mean and 95% interval over {units} · dot: one of {draws['draw'].nunique()} draws of random edges",
    ]
    figure = style.canvas((WIDTH, HEIGHT), title or "Faithfulness by circuit size", caption, right=24)
    low, high = min(0.0, *table["ci_low"], *table["faithfulness"]), max(1.0, *table["ci_high"], *table["faithfulness"])
    air = high - low
    ends = np.log10([max(1, table["n_edges"].min()), table["n_edges"].max()])
    left, right = float(ends[0]) - 0.06, float(ends[1]) + 0.06
    for height in (0.0, level, 1.0):
        curve_parts.add_level(figure, left, right, height)
    named = {"text": [f"{level:.0%}"], "textposition": "top right", "textfont": {"size": 11, "color": style.MUTED}}
    figure.add_scatter(x=[left], y=[level], mode="text", **named, hoverinfo="skip")
    texts = [f"<b>random, draw {row.draw}</b><br>{_hover_text(row)}" for row in draws.itertuples()]
    curve_parts.add_draws(figure, _log10(draws["n_edges"]), draws["faithfulness"].tolist(), RANDOM[1], texts)
    means = draws.groupby("n_edges")["faithfulness"].mean()
    texts = [f"<b>mean of random</b><br>{n:,} edges: {style.number(value)}" for n, value in means.items()]
    curve_parts.add_means(figure, _log10(means.index), means.tolist(), RANDOM, texts, width=1, size=6)
    curve_parts.add_intervals(figure, _log10(own["n_edges"]), own.itertuples(), CIRCUIT[1])
    texts = [
        f"<b>circuit</b><br>{_hover_text(row)}<br>95% interval {style.number(row.ci_low)} to {style.number(row.ci_high)}"
        for row in own.itertuples()
    ]
    curve_parts.add_means(figure, _log10(own["n_edges"]), own["faithfulness"].tolist(), CIRCUIT, texts, width=2)
    pixel = (right - left) / WIDTH
    curve_parts.add_legend(figure, (CIRCUIT, RANDOM), left + 10 * pixel, high + 0.1 * air, pixel=pixel, room=50)
    sizes = sorted(set(table["n_edges"]))
    figure.update_xaxes(title_text="edges in the circuit", range=[left, right], tickvals=_log10(sizes), ticktext=_labels(sizes))
    steps = style.round_ticks(low, high)
    figure.update_yaxes(title_text="faithfulness", range=[low - 0.05 * air, high + 0.18 * air], tickvals=steps)
    figure.update_yaxes(showgrid=True, gridcolor=style.LINES)
    return figure


def _log10(numbers: Any) -> list[float]:
    return np.log10(np.asarray(numbers)).tolist()


def _hover_text(row: Any) -> str:
    return f"{row.n_edges:,} edges ({row.share:.1%}): faithfulness {style.number(row.faithfulness)}<br>metric {style.number(row.outcome)}"


def _labels(sizes: list[int]) -> list[str]:
    """A label for each size that has room for one."""
    texts, last = [], -np.inf
    wide = np.log10(sizes[-1] / sizes[0]) or 1.0
    for size in sizes:
        room = (np.log10(size) - last) / wide * WIDTH >= 34
        texts.append(f"{size:,}" if room else "")
        last = np.log10(size) if room else last
    return texts
