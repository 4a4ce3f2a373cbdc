"""What the figures show, checked on plotly's own description and on the pixels of the PNG."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from interp.figures import head_map, ranked_bars, save_figure, style
from interp.heads import Head, HeadScores
from interp.metrics.importance import head_table
from interp.records import RunRecord
from tests.sweep_results import FACTS, planted, sweep_result


@pytest.fixture(scope="module")
def table():
    """15 heads; L1H1 helps, L2H3 hurts, the others do next to nothing."""
    effects = planted()
    effects[13] += 3.0
    return head_table(sweep_result(effects), FACTS)


def scores(values, bounds=(0.0, 1.0)):
    return HeadScores("induction_score", np.array(values, dtype=float), "attention", bounds, RunRecord("toy", task="induction"))


def caption(figure):
    return figure.layout.annotations[0].text.replace("<br>", " ")


def test_head_map_puts_layer_0_at_the_top_and_0_in_the_middle_of_the_scale(table):
    figure = head_map(table)
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, table["effect"].to_numpy().reshape(3, 5))
    assert list(heat.x) == [0, 1, 2, 3, 4] and list(heat.y) == [0, 1, 2]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert heat.zmin == -heat.zmax and heat.zmax == table["effect"].abs().max()
    assert heat.colorscale[5] == (0.5, style.DIVERGING[5])
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("head", "layer")


def test_head_map_says_n_metric_intervention_model_and_sign(table):
    words = caption(head_map(table))
    for word in ("n = 17", "logit_diff", "zero at all positions", "toy@01234567", "negative = the head helped"):
        assert word in words


def test_hover_of_a_head_names_it_with_interval_and_q(table):
    text = head_map(table).data[0].hovertext[1][1]
    row = table.iloc[6]
    for word in ("L1H1", f"{style.number(row['ci_low'])} to {style.number(row['ci_high'])}", "n = 17", "q = "):
        assert word in text


def test_distinct_heads_are_outlined_and_a_choice_replaces_them(table):
    line = head_map(table).data[1]
    assert {(round(x), round(y)) for x, y in zip(line.x, line.y, strict=True) if x is not None} == {(1, 1), (3, 2)}
    chosen = head_map(table, marked=[Head(0, 4)])
    assert {round(x) for x in chosen.data[1].x if x is not None} == {4}
    assert "outlined" in caption(head_map(table)) and "outlined" not in caption(chosen)


def test_shape_leaves_room_for_heads_that_were_not_measured(table):
    heat = head_map(table.iloc[:7], shape=(3, 5)).data[0]
    assert np.isnan(heat.z).sum() == 8 and heat.hovertext[2][4] == "not measured" and heat.text[2][4] == ""


def test_scores_with_a_lower_bound_of_0_get_one_hue_from_bound_to_bound():
    heat = head_map(scores([[0.25, np.nan], [0, 0.5], [1, 0.125]])).data[0]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert [colour for _, colour in heat.colorscale] == style.SEQUENTIAL
    assert heat.colorbar.title.text == "attention"
    assert heat.text[0][0] == "0.25" and heat.text[0][1] == ""


def test_scores_draw_themselves():
    assert isinstance(scores([[0.5, 0.25]]).plot(), go.Figure)


def test_numbers_in_cells_have_enough_decimals_and_no_negative_zero():
    tiny = head_map(scores([[0.0123, -0.0004]], bounds=(None, None))).data[0]
    assert list(tiny.text[0]) == ["0.012", "0.000"]
    assert style.fixed(-0.0004, 2) == "0.00" and style.fixed(-3.14159, 2) == "−3.14"
    assert [style.decimals(reach) for reach in (250.0, 3.2, 0.5, 0.05, 0.004)] == [1, 2, 2, 3, 4]


def test_pairs_are_bars_but_not_cells(table):
    effects = planted()
    heads = [(Head(*divmod(i, 5)),) for i in range(15)]
    both = head_table(sweep_result([*effects, effects[0] - 9], [*heads, (Head(0, 0), Head(0, 1))]), FACTS)
    assert np.nanmin(head_map(both).data[0].z) > -3
    assert ranked_bars(both).layout.yaxis.ticktext[0] == "L0H0+L0H1"


def test_bars_are_ranked_by_magnitude_with_their_intervals(table):
    figure = ranked_bars(table, k=4)
    bars = figure.data[0]
    rows = table.loc[table["effect"].abs().sort_values(ascending=False).index[:4]]
    assert list(figure.layout.yaxis.ticktext) == rows["label"].tolist() and rows["label"].iloc[0] == "L1H1"
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    np.testing.assert_allclose(np.array(bars.x) + np.array(bars.error_x.array), rows["ci_high"])
    np.testing.assert_allclose(np.array(bars.x) - np.array(bars.error_x.arrayminus), rows["ci_low"])
    assert bars.marker.color[:2] == (style.NEGATIVE, style.POSITIVE)
    assert bars.marker.color[3] not in (style.NEGATIVE, style.POSITIVE)
    assert "effect on logit_diff in logits (negative = the head helped)" in figure.layout.xaxis.title.text


def test_each_bar_stands_before_its_own_control(table):
    figure = ranked_bars(table, k=3)
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    first = table[table["label"] == "L1H1"].iloc[0]
    assert len(bands) == 3
    assert (bands[0].x0, bands[0].x1) == (first["control_low"], first["control_high"])
    assert (bands[0].y0, bands[0].y1) == (-0.5, 0.5)


def test_bars_without_a_control_have_no_band():
    alone = head_table(sweep_result(planted()[6:7]), FACTS)
    figure = ranked_bars(alone)
    assert [shape.type for shape in figure.layout.shapes] == ["line"] and "grey" not in caption(figure)


def test_sign_of_a_loss_is_explained_the_other_way(table):
    assert "positive = the head helped" in ranked_bars(table.assign(metric="loss")).layout.xaxis.title.text
    assert "negative" not in caption(head_map(table.assign(metric="kl")))


def test_large_model_gets_sparse_ticks_dots_and_no_numbers(tmp_path):
    figure = head_map(scores(np.random.default_rng(0).uniform(size=(80, 64))), marked=[Head(70, 9)])
    assert figure.data[0].text is None
    assert (figure.data[1].mode, figure.data[1].x, figure.data[1].y) == ("markers", (9,), (70,))
    assert save_figure(figure, tmp_path / "a.png").stat().st_size > 10_000
    assert list(figure.layout.xaxis.tickvals)[:3] == [0, 5, 10] and list(figure.layout.yaxis.tickvals)[:3] == [0, 5, 10]


@pytest.mark.parametrize("draw", [head_map, ranked_bars])
def test_png_is_twice_the_size_of_the_figure_and_svg_is_xml_with_text(tmp_path, table, draw):
    from matplotlib.image import imread

    figure = draw(table)
    pixels = imread(save_figure(figure, tmp_path / "a.png"))
    assert pixels.shape[:2] == (2 * figure.layout.height, 2 * figure.layout.width)
    root = ElementTree.fromstring(save_figure(figure, tmp_path / "a.svg").read_text())
    words = " ".join(root.itertext())
    assert figure.layout.title.text.removeprefix("<b>").removesuffix("</b>") in words
    assert "n = 17" in words and "zero at all positions" in words
    assert "kaleido" not in sys.modules


def test_pixels_of_the_png_are_the_colours_of_the_heads(tmp_path, table):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    figure = head_map(table)
    pixels = imread(save_figure(figure, tmp_path / "a.png"))[..., :3]
    margin, (n_layers, n_heads) = figure.layout.margin, (3, 5)
    width = (figure.layout.width - margin.l - margin.r) / n_heads
    height = (figure.layout.height - margin.t - margin.b) / n_layers

    def colour(layer, head):  # a point in the upper left of the cell, inside the outline and beside the number
        return pixels[int(2 * (margin.t + (layer + 0.2) * height)), int(2 * (margin.l + (head + 0.15) * width))]

    np.testing.assert_allclose(
        colour(1, 1), to_rgb(style.DIVERGING[0]), atol=0.02
    )  # the largest magnitude: the end of the scale
    assert colour(2, 3)[2] > colour(2, 3)[0] + 0.1  # positive: blue
    assert np.ptp(colour(0, 0)) < 0.1  # next to nothing: nearly white


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html", ".json"])
def test_equal_figures_give_equal_files(tmp_path, table, suffix):
    a, b = (save_figure(head_map(table), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert a == b


def test_html_stands_alone_and_json_is_the_figure(tmp_path, table):
    page = save_figure(head_map(table), tmp_path / "deep" / "a.html").read_text()
    assert "<script src=" not in page and "L1H1" in page
    back = go.Figure(json.loads(save_figure(head_map(table), tmp_path / "a.json").read_text()))
    assert back.layout.title.text == head_map(table).layout.title.text


def test_names_from_outside_are_text_and_not_markup(tmp_path, table):
    strange = table.assign(model="<img src=x onerror=alert(1)> $a_b$ & co", task="<b>bold")
    figure = head_map(strange)
    assert "<img" not in caption(figure) and "&lt;img" in caption(figure) and "&lt;b&gt;" in caption(figure)
    words = " ".join(ElementTree.fromstring(save_figure(figure, tmp_path / "a.svg").read_text()).itertext())
    assert "<img src=x" in words and "$a_b$ & co" in words


def test_other_formats_and_traces_are_refused(tmp_path, table):
    with pytest.raises(ValueError, match=r"a\.bmp has no known format.*\.html, \.json, \.png, \.svg"):
        save_figure(head_map(table), tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="not pie: save this figure as"):
        save_figure(go.Figure(go.Pie(values=[1, 2])), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
