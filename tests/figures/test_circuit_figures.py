"""Figures of circuits: what stands where, on plotly's own description and in the files."""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from interp.circuits import Circuit, Edge, FaithfulnessCurve, Graph, score_edges
from interp.figures import circuit_graph, faithfulness_plot, figure_bytes, save_figure, style, to_dark_theme
from interp.figures.circuit_graph import FAN, HALF, MAX_EDGES, PORTS, QKV_STYLES, THICK, THIN, WIDER
from interp.models.planted import plant
from interp.records import RunRecord
from interp.tasks.task import Example, Task

GRAPH = Graph(3, 5)
SCORES = {
    "input->a0.h4<q>": -0.5,
    "input->a0.h4<k>": 0.25,
    "input->a0.h4<v>": -4.0,
    "a0.h4->m0": -1.0,
    "m0->a2.h1<q>": 2.0,
    "a0.h4->a2.h1<v>": -3.0,
    "a2.h1->m2": -0.125,
    "m2->logits": -0.75,
    "a2.h1->logits": -2.5,
    "input->logits": 0.0625,
}
RECORD = RunRecord(
    "toy", task="ioi", arguments={"n_prompts": 6, "method": "exact"}, interventions=("corrupted edge",), metric="logit_diff"
)


def circuit(names=tuple(SCORES), scores=SCORES, graph=GRAPH):
    about = {"method": "exact", "record": RECORD.to_json()}
    known = {Edge.parse(name): score for name, score in scores.items()}
    return Circuit(graph, frozenset(map(Edge.parse, names)), known, "logits", "toy", about)


def curve(sizes=(1, 10, 40, 100), found=(0.0, 0.5, 0.9, 1.0), draws=2):
    rows = [(n / 100, n, "circuit", 0, f, f - 0.1, f + 0.2, 2 * f) for n, f in zip(sizes, found, strict=True)]
    for draw in range(draws):
        rows += [(n / 100, n, "random", draw, 0.1 * draw, -0.1, 0.2, 0.2 * draw) for n in sizes]
    names = ["share", "n_edges", "kind", "draw", "faithfulness", "ci_low", "ci_high", "outcome"]
    return FaithfulnessCurve(pd.DataFrame(rows, columns=names), 2.0, 0.0, RECORD)


def lines(figure):
    """The line of each edge, by its name."""
    return {trace.customdata[0]: trace for trace in figure.data if trace.mode == "lines" and trace.customdata is not None}


def nodes(figure):
    """Where each node can be clicked."""
    [trace] = [trace for trace in figure.data if trace.mode == "markers" and trace.customdata is not None]
    return dict(zip(trace.customdata, zip(trace.x, trace.y, strict=True), strict=True))


def texts(figure):
    """Texts in the picture, with where they stand."""
    return [
        (text, x, y)
        for trace in figure.data
        if trace.mode == "text"
        for text, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    ]


def caption(figure):
    return figure.layout.annotations[0].text.replace("<br>", " ").replace("\u00a0", " ")


# --- the graph


def test_every_edge_is_one_line_and_every_node_one_marker():
    figure = circuit_graph(circuit())
    assert set(lines(figure)) == set(SCORES)
    assert set(nodes(figure)) == {"input", "a0.h4", "m0", "a2.h1", "m2", "logits"}


def test_rows_go_from_the_embedding_up_to_the_logits_and_leave_out_empty_ones():
    figure = circuit_graph(circuit())
    height = {node: y for node, (_, y) in nodes(figure).items()}
    assert [height[node] for node in ("input", "a0.h4", "m0", "a2.h1", "m2", "logits")] == [0, 1, 2, 3, 4, 5]
    assert list(figure.layout.yaxis.ticktext) == ["embedding", "heads 0", "MLP 0", "heads 2", "MLP 2", "logits"]


def test_a_line_leaves_its_writer_and_arrives_at_the_port_of_what_reads():
    figure = circuit_graph(circuit())
    place, reach = nodes(figure), {"input": WIDER, "logits": WIDER}
    for name, line in lines(figure).items():
        edge = Edge.parse(name)
        (x0, y0), (x1, y1) = place[str(edge.writer)], place[str(edge.reader)]
        assert abs(line.x[0] - x0) <= FAN * reach.get(str(edge.writer), HALF)
        assert y0 < line.y[0] and line.y[-1] < y1 and np.all(np.diff(line.y) > 0)
        if edge.qkv:
            assert line.x[-1] == pytest.approx(x1 + PORTS[edge.qkv], abs=1e-3)
        else:
            assert abs(line.x[-1] - x1) <= FAN * reach.get(str(edge.reader), HALF)


def test_width_is_size_colour_is_sign_and_dash_is_the_part_that_reads():
    drawn = lines(circuit_graph(circuit()))
    for name, score in SCORES.items():
        line = drawn[name].line
        assert line.width == pytest.approx(THIN + (THICK - THIN) * abs(score) / 4.0)
        assert line.color == (style.NEGATIVE if score < 0 else style.POSITIVE)
        assert line.dash == QKV_STYLES[Edge.parse(name).qkv][1]
    assert len({QKV_STYLES[part][1] for part in "qkv"}) == len({PORTS[part] for part in "qkv"}) == 3


def test_ports_that_something_is_read_at_have_their_letter():
    letters = sorted((text, round(x, 6)) for text, x, _ in texts(circuit_graph(circuit())) if text in QKV_STYLES)
    place = nodes(circuit_graph(circuit()))
    ends = [("a0.h4", "q"), ("a0.h4", "k"), ("a0.h4", "v"), ("a2.h1", "q"), ("a2.h1", "v")]
    assert letters == sorted((part, round(place[node][0] + PORTS[part], 6)) for node, part in ends)


def test_a_line_says_its_edge_effect_and_unit():
    drawn = lines(circuit_graph(circuit()))
    assert drawn["m0->a2.h1<q>"].hovertext == "<b>MLP 0 → L2H1, query</b><br>effect 2 logits"
    assert drawn["a2.h1->logits"].hovertext == "<b>L2H1 → logits</b><br>effect −2.5 logits"


def test_the_caption_says_how_the_circuit_was_found_and_what_an_effect_is():
    said = caption(circuit_graph(circuit()))
    assert "toy · ioi · n = 6 · corrupted edge · logit_diff" in said and f"exact · 10 of {len(GRAPH.edges)} edges" in said
    assert "metric(corrupted) − metric(clean)" in said and "in logits" in said


def test_no_line_passes_behind_a_box_that_it_can_avoid():
    names = ("input->a1.h0<q>", "a1.h0->logits", "input->logits")  # all in one column
    figure = circuit_graph(circuit(names, {}))
    (x, y), line = nodes(figure)["a1.h0"], lines(figure)["input->logits"]
    beside = [abs(a - x) for a, b in zip(line.x, line.y, strict=True) if abs(b - y) < 0.1]
    assert beside and min(beside) > HALF


def test_lines_that_leave_one_node_stand_side_by_side():
    figure = circuit_graph(circuit())
    starts = [line.x[0] for name, line in lines(figure).items() if name.startswith("input->")]
    assert len(set(starts)) == len(starts) == 4


def test_edges_without_a_score_are_grey_and_thin_and_have_no_threshold():
    figure = circuit_graph(circuit(scores={}))
    assert {line.line.color for line in lines(figure).values()} == {style.MUTED}
    assert {line.line.width for line in lines(figure).values()} == {THIN}
    assert "no score" in lines(figure)["m2->logits"].hovertext and not figure.layout.sliders


def test_the_slider_leaves_the_largest_edges_that_lie_on_a_way_to_the_logits():
    made = circuit()
    figure = circuit_graph(made)
    [slider] = figure.layout.sliders
    order = [trace.customdata[0] if trace.customdata is not None else "" for trace in figure.data]
    n_lines, seen = len(SCORES), []
    for step in slider.steps:
        visible = step.args[0]["visible"]
        assert len(visible) == len(figure.data) and all(visible[n_lines:])
        seen.append({name for name, on in zip(order[:n_lines], visible, strict=False) if on})
        assert step.label == str(len(seen[-1]))
    ranked = sorted(SCORES, key=lambda name: -abs(SCORES[name]))
    assert ranked[:3] == ["input->a0.h4<v>", "a0.h4->a2.h1<v>", "a2.h1->logits"]
    assert seen[0] == set(ranked[:3])  # one or two edges alone lead nowhere
    assert seen[-1] == set(SCORES) and slider.active == len(seen) - 1
    for smaller, larger in pairwise(seen):
        assert smaller < larger
    names = {
        frozenset(map(str, replace(made, edges=frozenset(map(Edge.parse, ranked[:k]))).pruned().edges)) for k in range(1, 11)
    }
    assert {frozenset(step) for step in seen} <= names


def test_of_a_large_circuit_the_largest_edges_are_drawn_and_the_caption_says_so():
    graph = Graph(4, 9)
    scores = {str(edge): float(i + 1) for i, edge in enumerate(graph.edges[:400])}
    made = circuit(tuple(scores), scores, graph)
    figure = circuit_graph(made)
    assert set(lines(figure)) == {str(edge) for edge in graph.edges[400 - MAX_EDGES : 400]}
    assert f"the {MAX_EDGES} largest of 400 edges" in caption(figure)


def test_of_a_large_circuit_what_the_cut_leaves_without_a_way_is_not_drawn():
    graph = Graph(4, 9)
    small = [str(edge) for edge in graph.edges if edge.reader == Edge.parse("input->m3").reader][:40]
    large = [str(edge) for edge in graph.edges if str(edge) not in small][-170:]
    made = circuit((*small, *large), {name: -float(i + 1) for i, name in enumerate((*small, *large))}, graph)
    cut = replace(made, edges=frozenset(map(Edge.parse, large[-MAX_EDGES:]))).pruned()
    figure = circuit_graph(made)
    assert 0 < len(cut) < MAX_EDGES and set(lines(figure)) == set(map(str, cut.edges))
    assert f"{len(cut)} of the {MAX_EDGES} largest of 210 edges" in caption(figure)
    assert f"Circuit of {len(cut)} edges" in figure.layout.title.text
    assert figure.layout.sliders[0].steps[-1].label == str(len(cut))


def test_a_circuit_without_edges_is_refused():
    with pytest.raises(ValueError, match="without edges"):
        circuit_graph(circuit(()))


def test_a_graph_without_mlps_has_no_column_for_them():
    made = circuit(("input->a0.h1<v>", "a0.h1->logits"), {}, Graph(3, 5, has_mlps=False))
    assert set(nodes(circuit_graph(made))) == {"input", "a0.h1", "logits"}


@cache
def planted_scores():
    planted = plant("mini_ioi", seed=3, sharpness=6.0)
    return score_edges(planted.model, Task("ioi", tuple(Example(*p) for p in planted.prompts("ioi", 6, 0)), "logit_diff"))


def test_a_found_circuit_is_drawn_as_it_is():
    made = planted_scores().circuit(12)
    assert set(lines(circuit_graph(made))) == set(map(str, made.edges))


def test_names_are_no_markup():
    figure = circuit_graph(replace(circuit(), model="<img src=x>", unit="<b>", metadata={}))
    assert "<img" not in caption(figure)
    assert "&lt;b&gt;" in lines(figure)["m2->logits"].hovertext


@pytest.mark.parametrize("make", [lambda: circuit_graph(circuit()), lambda: faithfulness_plot(curve())], ids=["graph", "curve"])
def test_figures_are_saved_in_every_form_and_shown_dark(make, tmp_path):
    figure = make()
    assert figure_bytes(figure, ".png").startswith(b"\x89PNG")
    assert figure_bytes(figure, ".png") == figure_bytes(make(), ".png")
    assert ElementTree.fromstring(figure_bytes(figure, ".svg")).tag.endswith("svg")
    assert b"<script src" not in save_figure(figure, tmp_path / "f.html").read_bytes()
    light = {style.PAPER, style.EMPTY, style.MUTED, style.NEGATIVE}
    assert not light & set(re.findall("#[0-9a-f]{6}", str(to_dark_theme(figure).to_dict())))


def test_dashes_and_dots_are_drawn_in_files():
    svg = figure_bytes(circuit_graph(circuit()), ".svg").decode()
    assert svg.count("stroke-dasharray") == 3 + 2  # two queries and a key, and their samples in the legend


# --- the curve


def test_found_and_random_are_lines_over_the_logarithm_of_the_size():
    figure = faithfulness_plot(curve())
    random, found = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert list(found.x) == list(random.x) == pytest.approx([0.0, 1.0, np.log10(40), 2.0])
    assert list(found.y) == [0.0, 0.5, 0.9, 1.0] and list(random.y) == pytest.approx([0.05] * 4)
    assert found.line.color != random.line.color and found.marker.symbol != random.marker.symbol
    assert list(figure.layout.xaxis.ticktext) == ["1", "10", "40", "100"]


def test_intervals_stand_at_every_found_size_and_dots_at_every_draw():
    figure = faithfulness_plot(curve())
    [bars] = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(bars.y)[:5] == pytest.approx([-0.1, 0.2, None, 0.4, 0.7])
    dots = next(trace for trace in figure.data if trace.mode == "markers")
    assert len(dots.x) == 8 and dots.hovertext[0].startswith("<b>random, draw 0</b><br>1 edges (1.0%): faithfulness 0")


@pytest.mark.parametrize(("level", "said"), [(0.85, "85% recovered from 40 edges on"), (1.5, "150% recovered at no size")])
def test_the_level_is_a_line_and_the_caption_says_where_it_is_reached(level, said):
    figure = faithfulness_plot(curve(), level=level)
    assert said in caption(figure) and "CPR" in caption(figure)
    assert [shape.y0 for shape in figure.layout.shapes] == [0.0, level, 1.0]
    assert (f"{level:.0%}", level) in [(text, y) for text, _, y in texts(figure)]


def test_sizes_that_are_one_are_drawn_once_and_values_beyond_the_ends_are_seen():
    made = curve(sizes=(1, 1, 10, 100), found=(-0.5, -0.5, 1.6, 1.0))
    figure = faithfulness_plot(made)
    found = [trace for trace in figure.data if trace.mode == "lines+markers"][1]
    assert list(found.y) == [-0.5, 1.6, 1.0]
    low, high = figure.layout.yaxis.range
    assert low < -0.6 and high > 1.8


def test_a_picture_has_no_room_for_the_slider():
    from io import BytesIO

    from matplotlib.image import imread

    slid, plain = (circuit_graph(circuit(), threshold=threshold) for threshold in (True, False))
    assert slid.layout.height > plain.layout.height and slid.layout.sliders
    pictures = [imread(BytesIO(figure_bytes(figure, ".png"))) for figure in (slid, plain)]
    assert (pictures[0] == pictures[1]).all()
