"""PNG and SVG of plotly figures without a browser, rendered by matplotlib.

Covers what the figures of this room contain: heat maps, horizontal bars with or without intervals, lines, points and texts, rectangles
and lines as shapes, titles, captions, ticks and one colour bar. Other traces are refused, so that no figure silently lacks a part.
"""

from __future__ import annotations

import re
from html import unescape
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2430"  # text on light cells, in both themes
POINTS = 72 / 96  # plotly counts CSS pixels, matplotlib points
SCALE = 2  # PNG pixels per CSS pixel
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue
BARE = 16  # pixels below a plotting area without labels
LOCK = Lock()  # matplotlib's settings are shared by all threads
DASHES = {"dash": "--", "dot": ":"}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v"}
RC: dict[Any, Any] = {"svg.hashsalt": "interp", "svg.fonttype": "none", "font.family": ["DejaVu Sans", "sans-serif"]}


def render(figure: go.Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``svg``. Raises ValueError for a type of trace that is not supported."""
    import matplotlib as mpl

    figure = _without_slider(figure)
    known = {"heatmap": _heatmap, "bar": _bars, "scatter": _scatter}
    traces: list[Any] = list(figure.data)
    unknown = sorted({trace.type for trace in traces} - set(known))
    if unknown:
        traces_known, others = ", ".join(known), ", ".join(unknown)
        raise ValueError(f"PNG and SVG support the traces {traces_known}, not {others}: save this figure as .html.")
    with LOCK, mpl.rc_context(RC):
        page, axes = _page(figure)
        for order, trace in enumerate(traces):
            known[trace.type](page, axes, trace, order + 2)
        for shape in figure.layout.shapes:
            _shape(axes, shape)
        _texts(page, axes, figure.layout)
        file = BytesIO()
        page.savefig(file, format=kind, dpi=96 * SCALE, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()


def _without_slider(figure: go.Figure) -> go.Figure:
    """The figure without a slider, which a picture cannot have, and without the room for it at the bottom."""
    layout = figure.layout
    if not layout.sliders:
        return figure
    height = layout.height - layout.margin.b + BARE
    title = {"y": 1 - (1 - layout.title.y) * layout.height / height}  # as far below the top
    return go.Figure(figure).update_layout(sliders=[], height=height, margin={"b": BARE}, title=title)


def _page(figure: go.Figure) -> tuple[Figure, Axes]:
    """A page of the figure's size, with axes in the place of plotly's plotting area."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout, margin = figure.layout, figure.layout.margin
    width, height = layout.width, layout.height
    page = Figure(figsize=(width / 96, height / 96), facecolor=layout.paper_bgcolor)
    FigureCanvasAgg(page)
    area = (margin.l / width, margin.b / height, (width - margin.l - margin.r) / width, (height - margin.t - margin.b) / height)
    axes = page.add_axes(area, facecolor=layout.plot_bgcolor)
    axes.set_frame_on(True)
    for side in axes.spines.values():
        side.set_visible(False)
    _axis(axes, axes.xaxis, layout.xaxis)
    _axis(axes, axes.yaxis, layout.yaxis)
    return page, axes


def _axis(axes: Axes, axis: Any, spec: Any) -> None:
    (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(*spec.range)
    if spec.tickvals is not None:
        axis.set_ticks(list(spec.tickvals), [_plain(text) for text in spec.ticktext] if spec.ticktext is not None else None)
    rotation = -(spec.tickangle or 0)  # plotly rotates clockwise
    look = {"labelsize": spec.tickfont.size * POINTS, "labelcolor": spec.tickfont.color, "labelrotation": rotation}
    axis.set_tick_params(length=0, pad=5, **look)
    if spec.showgrid:
        axis.grid(color=spec.gridcolor, linewidth=0.75, zorder=0)
        axes.set_axisbelow(True)
    axis.set_label_text(_plain(spec.title.text or ""), fontsize=spec.title.font.size * POINTS, color=spec.title.font.color)
    axis.labelpad = 7


def _heatmap(page: Figure, axes: Axes, trace: Any, order: int) -> None:
    values = np.ma.masked_invalid(np.array(trace.z, dtype=float))
    colours = _colours(trace.colorscale)
    edges = [np.append(np.asarray(centres) - 0.5, centres[-1] + 0.5) for centres in (trace.x, trace.y)]
    style: dict[str, Any] = {"edgecolors": axes.get_facecolor(), "linewidth": (trace.xgap or 0) * POINTS, "zorder": order}
    mesh = axes.pcolormesh(*edges, values, cmap=colours, vmin=trace.zmin, vmax=trace.zmax, **style)
    if trace.text is not None:
        for (row, column), value in np.ndenumerate(values):
            dark = not np.ma.is_masked(value) and mesh.to_rgba(np.atleast_1d(value))[0, :3] @ LUMINANCE < 0.5
            look = {"size": trace.textfont.size * POINTS, "color": "white" if dark else INK, "ha": "center", "va": "center"}
            axes.text(trace.x[column], trace.y[row], str(trace.text[row][column]), zorder=order + 1, **look)
    _colour_bar(page, axes, mesh, trace.colorbar)


def _colours(scale: Any) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    even = np.ptp(np.diff([place for place, _ in scale])) < 1e-9
    return LinearSegmentedColormap.from_list("scale", [(place, colour) for place, colour in scale], N=256 if even else 4096)


def _colour_bar(page: Figure, axes: Axes, mesh: Any, spec: Any) -> None:
    area, width = axes.get_position(), page.get_figwidth() * 96
    beside = page.add_axes((area.x1 + spec.xpad / width, area.y0, spec.thickness / width, area.height))
    bar = page.colorbar(mesh, cax=beside)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelsize=spec.tickfont.size * POINTS, labelcolor=spec.tickfont.color, pad=4)
    bar.set_label(_plain(spec.title.text), fontsize=spec.title.font.size * POINTS, color=spec.title.font.color, labelpad=6)


def _bars(page: Figure, axes: Axes, trace: Any, order: int) -> None:
    lengths, places = np.asarray(trace.x, dtype=float), np.asarray(trace.y, dtype=float)
    marker, base = trace.marker, 0 if trace.base is None else np.asarray(trace.base, dtype=float)
    colours = marker.color
    if marker.colorscale is not None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        mapped = ScalarMappable(Normalize(marker.cmin, marker.cmax), _colours(marker.colorscale))
        colours = mapped.to_rgba(np.asarray(colours, dtype=float))
        _colour_bar(page, axes, mapped, marker.colorbar)
    axes.barh(places, lengths, height=trace.width, left=base, color=colours, linewidth=0, zorder=order)
    error = trace.error_x
    if error.array is None:
        return
    ends = np.stack([np.asarray(error.arrayminus, dtype=float), np.asarray(error.array, dtype=float)])
    look = {"ecolor": error.color, "elinewidth": error.thickness, "capsize": error.width * POINTS, "capthick": error.thickness}
    axes.errorbar(lengths, places, xerr=ends, fmt="none", zorder=order + 1, **look)


def _scatter(page: Figure, axes: Axes, trace: Any, order: int) -> None:
    x, y = (np.array([np.nan if value is None else value for value in side], dtype=float) for side in (trace.x, trace.y))
    if "lines" in trace.mode:
        look = {"color": trace.line.color, "linewidth": trace.line.width * POINTS, "clip_on": trace.cliponaxis is not False}
        look |= {"linestyle": DASHES.get(trace.line.dash, "-"), "alpha": trace.opacity, "solid_capstyle": "butt"}
        axes.plot(x, y, zorder=order, solid_joinstyle="miter", **look)
    if "markers" in trace.mode:
        marker = trace.marker
        look = {"s": (marker.size * POINTS) ** 2, "marker": MARKERS[marker.symbol or "circle"], "alpha": marker.opacity}
        axes.scatter(x, y, c=marker.color, linewidth=0, zorder=order, **look)
    if "text" in trace.mode:
        at = trace.textposition or ""
        font, above = trace.textfont, at.startswith("top")
        look = {"size": font.size * POINTS, "family": _families(font.family), "textcoords": "offset points"}
        look |= {"ha": "left" if at.endswith("right") else "center", "va": "bottom" if above else "center_baseline"}
        colours = [font.color] * len(x) if isinstance(font.color, str) else font.color
        for *place, text, colour in zip(x, y, trace.text, colours, strict=True):
            axes.annotate(_plain(text), tuple(place), (0, 5 * POINTS * above), color=colour, zorder=order, **look)


def _families(names: str | None) -> list[str]:
    """The installed ones of plotly's font families; matplotlib warns of the others."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [name for part in (names or "").split(",") if (name := part.strip()) in installed] or list(RC["font.family"])


def _shape(axes: Axes, shape: Any) -> None:
    from matplotlib.patches import Rectangle

    behind = 9 if shape.layer == "above" else 1
    if shape.type == "line":
        line = {"color": shape.line.color, "linewidth": shape.line.width, "linestyle": DASHES.get(shape.line.dash, "-")}
        axes.plot([shape.x0, shape.x1], [shape.y0, shape.y1], **line, zorder=behind)
    else:
        size = (shape.x1 - shape.x0, shape.y1 - shape.y0)
        axes.add_patch(Rectangle((shape.x0, shape.y0), *size, facecolor=shape.fillcolor, linewidth=0, zorder=behind))


def _texts(page: Figure, axes: Axes, layout: Any) -> None:
    title = layout.title
    weight = "bold" if "<b>" in title.text else "normal"
    look = {"fontsize": title.font.size * POINTS, "color": title.font.color, "fontweight": weight}
    page.text(title.x, title.y, _plain(title.text), ha="left", va="center", **look)
    area, height = axes.get_position(), page.get_figheight() * 96
    for note in layout.annotations:
        place = (area.x0 + note.x * area.width, area.y0 + note.y * area.height + (note.yshift or 0) / height)
        look = {"fontsize": note.font.size * POINTS, "color": note.font.color, "linespacing": 1.35}
        page.text(*place, _plain(note.text), ha="left", va="bottom", **look)


def _plain(text: str) -> str:
    """Plotly's markup as plain text; ``$`` is escaped, which matplotlib would read as mathematics."""
    return unescape(re.sub(r"</?b>", "", text.replace("<br>", "\n"))).replace("$", r"\$")
