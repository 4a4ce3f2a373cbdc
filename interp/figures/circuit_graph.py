"""A circuit as a graph: the embedding at the bottom, layers upwards, the logits on top, one line per edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from interp.circuits import Circuit, Edge, Node
from interp.figures import style
from interp.figures.figure_with_png import Figure
from interp.records import RunRecord

QKV_STYLES = {"q": ("query", "dash"), "k": ("key", "dot"), "v": ("value", "solid"), "": ("", "solid")}
"""Name and line style of what an edge feeds; edges into q, k and v also end at separate ports below a head."""
PORTS = {"q": -0.17, "k": 0.0, "v": 0.17, "": 0.0}
"""Offset of each port from the middle of a head, in columns."""
SAMPLES = (
    ("query", style.MUTED, "dash"),
    ("key", style.MUTED, "dot"),
    ("value and others", style.MUTED, "solid"),
    ("helps", style.NEGATIVE, "solid"),
    ("hinders", style.POSITIVE, "solid"),
)
"""The lines of the legend."""

COLUMN, ROW, NARROWEST = 108, 74, 620  # pixels from one head to the next, from one row to the next, least width of the figure
HALF, WIDER, TALL = 0.27, 0.42, 13  # half a node's width in columns, of embedding and logits, and half its height in pixels
BELOW = 16  # pixels from a head to the lines that end at its ports
FAN = 0.75  # of a node's width that the lines leaving it, or arriving at an MLP or the logits, take up
HEADROOM = 0.75  # rows above the logits, for the legend
THIN, THICK = 1.0, 6.0  # pixels of a line of no effect and of the largest
POINTS = 25  # of a line, each with hover text
BENDS = (0.0, -0.35, 0.35, -0.7, 0.7, -1.05, 1.05, -1.4, 1.4)  # columns by which a line may bend
Position = tuple[float, float]
Positions = dict[Node, Position]
MAX_EDGES = 150
STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, MAX_EDGES)


def circuit_graph(circuit: Circuit, *, threshold: bool = True, title: str | None = None) -> Figure:
    """Nodes in rows by layer, heads below the MLP; line width is the absolute effect of the edge, red if negative (the edge
    helps) and blue if positive; dashed into queries, dotted into keys, solid into values and others.

    With ``threshold`` a slider restricts the edges to those of largest effect on a path from the embedding to the logits (in
    HTML; PNG and SVG show all). The ``customdata`` of a marker is its node, that of a line its edge, as in circuit files. At
    most the 150 largest edges are drawn, pruned to such paths if there are any; the caption says so.

    Raises ValueError for a circuit without edges.
    """
    if not circuit.edges:
        raise ValueError("A circuit without edges cannot be drawn: use more edges, or a lower threshold.")
    whole = len(circuit)
    if whole > MAX_EDGES:
        cut = replace(circuit, edges=frozenset(circuit.top(MAX_EDGES)))
        circuit = cut.pruned() or cut
    ranked = circuit.top(len(circuit))  # those without a score come last
    places, rows, columns = _node_positions(circuit.nodes)
    slid = threshold and len(ranked) > 1 and any(edge in circuit.scores for edge in ranked)
    size, below = (int(COLUMN * columns), int(ROW * (len(rows) + HEADROOM))), 96 if slid else 16
    title = title or f"Circuit of {len(ranked)} edges"
    figure = style.canvas(size, title, _caption(circuit, whole), left=76, right=24, bottom=below)
    largest = style.max_abs(np.array([circuit.scores.get(edge, 0.0) for edge in ranked]))
    ends = _ends(ranked, places)
    boxes = _boxes(places, columns)
    for edge in reversed(ranked):  # the largest on top
        _add_edge(figure, circuit, edge, _curve(*ends[edge], boxes), largest)
    _add_nodes(figure, circuit, places)
    _add_legend(figure, len(rows) + HEADROOM / 3 - 0.5)
    figure.update_xaxes(range=[-0.5, columns - 0.5], tickvals=[], fixedrange=True)
    figure.update_yaxes(range=[-0.5, len(rows) - 0.5 + HEADROOM], fixedrange=True)
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=rows)
    figure.update_layout(hovermode="closest", dragmode=False)
    if slid:
        _add_slider(figure, circuit, ranked)
    return figure


def node_label(node: Node) -> str:
    """The label of a node: L5H1, MLP 5, embedding, logits."""
    names = {"input": "embedding", "head": f"L{node.layer}H{node.head}", "mlp": f"MLP {node.layer}", "logits": "logits"}
    return names[node.kind]


def _caption(circuit: Circuit, whole: int) -> list[str]:
    record, method = circuit.metadata.get("record"), circuit.metadata.get("method", "")
    origin = RunRecord.from_json(record).caption() if record else circuit.model
    drawn = f"{whole} of {len(circuit.graph.edges):,} edges"
    if whole > MAX_EDGES:
        drawn = f"{f'{len(circuit)} of ' * (len(circuit) < MAX_EDGES)}the {MAX_EDGES} largest of {whole} edges"
    unit = f" in {circuit.unit}" if circuit.unit else ""
    effect = f"effect{unit} = metric(corrupted) − metric(clean), negative: helps"
    return [origin, " · ".join(part for part in (method, drawn, effect) if part)]


def _node_positions(nodes: Iterable[Node]) -> tuple[Positions, list[str], float]:
    """Position (column, row) of each node, the label of each row, and the number of columns. Rows without a node are omitted."""
    rows: dict[tuple[str, int], list[Node]] = {}
    for node in nodes:
        rows.setdefault((node.kind, node.layer), []).append(node)
    has_mlps = any(kind == "mlp" for kind, _ in rows)
    columns = max(float(max(map(len, rows.values())) + has_mlps), NARROWEST / COLUMN)
    places: Positions = {}
    beside = columns - has_mlps
    for height, ((kind, _), row) in enumerate(rows.items()):
        for i, node in enumerate(row):
            across = columns - 1 if kind == "mlp" else beside * (i + 0.5) / len(row) - 0.5
            places[node] = (across, float(height))
    names = {"head": "heads {}", "mlp": "MLP {}", "input": "embedding"}
    return places, [names.get(kind, kind).format(layer) for kind, layer in rows], columns


def _ends(edges: list[Edge], places: Positions) -> dict[Edge, tuple[Position, Position]]:
    """Start and end of each edge's line, side by side on a node in the order of their other ends."""
    start = _spread_ends({edge: (edge.writer, edge.reader) for edge in edges}, places)
    end = _spread_ends({edge: (edge.reader, edge.writer) for edge in edges if not edge.qkv}, places)
    high, low = TALL / ROW, (TALL + BELOW) / ROW
    ends: dict[Edge, tuple[Position, Position]] = {}
    for edge in edges:
        x, y = places[edge.reader]
        last = (x + PORTS[edge.qkv], y - low) if edge.qkv else (end[edge], y - high)
        ends[edge] = (start[edge], places[edge.writer][1] + high), last
    return ends


def _spread_ends(nodes: dict[Edge, tuple[Node, Node]], places: Positions) -> dict[Edge, float]:
    """Where each edge meets the first of its two nodes, from left to right in the order of the second ones."""
    by_node: dict[Node, list[Edge]] = {}
    for edge, (node, _) in nodes.items():
        by_node.setdefault(node, []).append(edge)
    found: dict[Edge, float] = {}
    for node, own in by_node.items():
        ordered = sorted(own, key=lambda edge: (places[nodes[edge][1]][0] + PORTS[edge.qkv], places[nodes[edge][1]][1]))
        wide = 2 * FAN * _half(node)
        found |= {edge: places[node][0] + wide * ((i + 0.5) / len(own) - 0.5) for i, edge in enumerate(ordered)}
    return found


def _half(node: Node) -> float:
    return HALF if node.kind in ("head", "mlp") else WIDER


def _add_edge(figure: Figure, circuit: Circuit, edge: Edge, line: tuple[list[float], list[float]], largest: float) -> None:
    score, (x, y) = circuit.scores.get(edge), line
    colour = style.MUTED if score is None else style.NEGATIVE if score < 0 else style.POSITIVE
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": colour, "width": THIN + (THICK - THIN) * abs(score or 0.0) / largest, "dash": QKV_STYLES[edge.qkv][1]},
        opacity=0.75,
        customdata=[str(edge)] * len(x),
        hovertext=_hover_text(circuit, edge, score),
        hoverinfo="text",
    )


def _hover_text(circuit: Circuit, edge: Edge, score: float | None) -> str:
    part = f", {QKV_STYLES[edge.qkv][0]}" if edge.qkv else ""
    effect = "no score" if score is None else f"effect {style.number(score)} {style.escape_markup(circuit.unit)}"
    return f"<b>{node_label(edge.writer)} → {node_label(edge.reader)}{part}</b><br>{effect}"


def _curve(start: Position, end: Position, boxes: np.ndarray) -> tuple[list[float], list[float]]:
    """A curve from start to end that crosses the fewest ``boxes`` (left, right, bottom, top), with the smallest bend."""
    (x0, y0), (x1, y1) = start, end
    t = np.linspace(0, 1, POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    rise = 0.45 * (y1 - y0)
    up = np.array([y0, y0 + rise, y1 - rise, y1]) @ weights
    ways = [np.array([x0, x0 + bend, x1 + bend, x1]) @ weights for bend in BENDS]
    across = min(ways, key=lambda way: _n_crossed_boxes(way, up, boxes))
    return across.round(4).tolist(), up.round(4).tolist()


def _boxes(places: Positions, columns: float) -> np.ndarray:
    """What lines should avoid, [n left-right-bottom-top]: the nodes, and everything outside the figure."""
    high = (TALL - 1) / ROW  # lines begin and end at the edge of a box
    own = [(x - _half(node), x + _half(node), y - high, y + high) for node, (x, y) in places.items()]
    return np.array([*own, (-np.inf, -0.5, -np.inf, np.inf), (columns - 0.5, np.inf, -np.inf, np.inf)])


def _n_crossed_boxes(x: np.ndarray, y: np.ndarray, boxes: np.ndarray) -> int:
    left, right, bottom, top = boxes.T[:, :, None]
    return int(((left < x) & (x < right) & (bottom < y) & (y < top)).any(1).sum())


def _add_nodes(figure: Figure, circuit: Circuit, places: Positions) -> None:
    """Boxes with their labels, the letters of ports with edges, and a marker with hover text."""
    nodes = list(places)
    x, y = [places[node][0] for node in nodes], [places[node][1] for node in nodes]
    figure.add_scatter(
        x=[side for node in nodes for side in (places[node][0] - _half(node), places[node][0] + _half(node), None)],
        y=[side for node in nodes for side in (places[node][1], places[node][1], None)],
        mode="lines",
        line={"color": style.EMPTY, "width": 2 * TALL},
        hoverinfo="skip",
    )
    ports = sorted({(edge.reader, edge.qkv) for edge in circuit.edges if edge.qkv})
    figure.add_scatter(
        x=[places[node][0] + PORTS[part] for node, part in ports],
        y=[places[node][1] - (TALL + BELOW / 2) / ROW for node, _ in ports],
        mode="text",
        text=[part for _, part in ports],
        textfont={"size": 10, "color": style.INK},
        hoverinfo="skip",
    )
    names = {"mode": "text", "text": [node_label(node) for node in nodes], "textfont": {"size": 11, "color": style.INK}}
    figure.add_scatter(x=x, y=y, **names, hoverinfo="skip")
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"symbol": "square", "size": 2 * TALL, "color": style.EMPTY, "opacity": 0},
        customdata=[str(node) for node in nodes],
        hovertext=[_node_hover_text(circuit, node) for node in nodes],
        hoverinfo="text",
    )


def _node_hover_text(circuit: Circuit, node: Node) -> str:
    incoming, outgoing = (sum(edge[side] == node for edge in circuit.edges) for side in (1, 0))
    return f"<b>{node_label(node)}</b><br>{incoming} incoming edges, {outgoing} outgoing"


def _add_legend(figure: Figure, height: float) -> None:
    at = -0.5 + 10 / COLUMN
    for name, colour, dash in SAMPLES:
        line = {"color": colour, "width": 2.5, "dash": dash}
        figure.add_scatter(x=[at, at + 30 / COLUMN], y=[height] * 2, mode="lines", line=line, hoverinfo="skip")
        style.add_label(figure, at + 36 / COLUMN, height, name)
        at += (58 + 6.8 * len(name)) / COLUMN


def _add_slider(figure: Figure, circuit: Circuit, ranked: list[Edge]) -> None:
    """A slider over the number of edges shown, largest effects first; nodes keep their positions."""
    steps: list[dict[str, Any]] = []
    rest = [True] * (len(list[Any](figure.data)) - len(ranked))  # the lines of the edges come first
    last = 0
    for k in (*(k for k in STEPS if k < len(ranked)), len(ranked)):
        visible = circuit.edges if k == len(ranked) else replace(circuit, edges=frozenset(ranked[:k])).pruned().edges
        if len(visible) == last:
            continue
        last = len(visible)
        shown = {"visible": [*(edge in visible for edge in reversed(ranked)), *rest]}
        steps.append({"method": "restyle", "label": str(last), "args": [shown]})
    font = {"size": 11, "color": style.MUTED}
    value = {"prefix": "edges of largest effect on a path to the logits: ", "font": font}
    colours = {"font": font, "bgcolor": style.LINES, "bordercolor": style.LINES, "tickcolor": style.MUTED}
    slider = {"active": len(steps) - 1, "steps": steps, "currentvalue": value, **colours}
    figure.update_layout(sliders=[{**slider, "x": 0, "len": 1, "y": 0, "pad": {"t": 14, "b": 0}}])
