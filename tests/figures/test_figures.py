"""What the figures show, checked on plotly's own description and on the pixels of the PNG."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from interp.figures import (
    head_difference_map,
    head_map,
    pattern_difference,
    pattern_heatmap,
    ranked_effects,
    save_figure,
    scores_by_layer,
    style,
    token_scores_text,
)
from interp.heads import Head, HeadScores, TokenScores
from interp.records import RunRecord
from tests.support.sweep_results import planted, sweep_result


@pytest.fixture(scope="module")
def table():
    """15 heads; L1H1 helps, L2H3 hurts, the others do next to nothing."""
    effects = planted()
    effects[13] += 3.0
    return sweep_result(effects).heads()


def scores(values, bounds=(0.0, 1.0), record=None, **fields):
    about = {"name": "induction_score", "unit": "attention", **fields}
    record = record or RunRecord(
        "toy", task="induction", metric="induction_score", arguments={"n_prompts": 9, "n_tokens": 1234}
    )
    return HeadScores(values=np.array(values, dtype=float), bounds=bounds, record=record, **about)


def token_scores(rows, values, bounds=(0.0, None), nan_reason="a lone row"):
    """Rows of words, padded with "" to equal length, with their values."""
    longest = max(map(len, rows))
    padded = np.full((len(rows), longest), np.nan)
    for row, own in zip(padded, values, strict=True):
        row[: len(own)] = own
    tokens = tuple((*row, *[""] * (longest - len(row))) for row in rows)
    return TokenScores("entropy", padded, tokens, "nats", bounds, RunRecord("toy", metric="entropy"), nan_reason=nan_reason)


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
    figure = head_map(table.iloc[:7], shape=(3, 5))
    heat = figure.data[0]
    assert "grey: 8 of 15 heads have no number" in caption(figure) and "grey" not in caption(head_map(table))
    assert np.isnan(heat.z).sum() == 8 and heat.hovertext[2][4] == "not measured" and heat.text[2][4] == ""


def test_scores_with_a_lower_bound_of_0_get_one_hue_up_to_the_largest():
    heat = head_map(scores([[0.25, np.nan], [0, 0.5], [0.75, 0.125]])).data[0]
    assert (heat.zmin, heat.zmax) == (0, 0.75)
    assert [colour for _, colour in heat.colorscale] == style.SEQUENTIAL
    assert heat.colorbar.title.text == "attention"
    assert heat.text[0][0] == "0.25" and heat.text[0][1] == ""


def test_scores_draw_themselves():
    assert isinstance(scores([[0.5, 0.25]]).plot(), go.Figure)


def test_numbers_in_cells_have_enough_decimals_and_no_negative_zero():
    tiny = head_map(scores([[0.0123, -0.0004]], bounds=(None, None))).data[0]
    assert list(tiny.text[0]) == ["0.012", "0.000"]
    assert style.fixed(-0.0004, 2) == "0.00" and style.fixed(-3.14159, 2) == "−3.14"
    assert [style.number(value) for value in (1234.5, -0.01234, 999.0)] == ["1,234", "−0.0123", "999"]
    assert [style.decimals(reach) for reach in (2000.0, 250.0, 3.2, 0.5, 0.05, 0.004)] == [0, 1, 2, 2, 3, 4]


def test_pairs_are_bars_but_not_cells(table):
    effects = planted()
    heads = [(Head(*divmod(i, 5)),) for i in range(15)]
    both = sweep_result([*effects, effects[0] - 9], [*heads, (Head(0, 0), Head(0, 1))]).heads()
    assert np.nanmin(head_map(both).data[0].z) > -3
    assert ranked_effects(both).layout.yaxis.ticktext[0] == "L0H0+L0H1"


def test_a_significant_pair_without_other_pairs_is_not_faint():
    effects = planted()
    heads = [(Head(*divmod(i, 5)),) for i in range(15)]
    table = sweep_result([*effects, effects[0] - 9], [*heads, (Head(0, 0), Head(0, 1))]).heads()
    assert ranked_effects(table).data[0].marker.color[0] == style.NEGATIVE
    table.loc[table["label"] == "L0H0+L0H1", "q_value"] = 0.2
    assert ranked_effects(table).data[0].marker.color[0] != style.NEGATIVE


def test_bars_are_ranked_by_magnitude_with_their_intervals(table):
    figure = ranked_effects(table, k=4)
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
    figure = ranked_effects(table, k=3)
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    first = table[table["label"] == "L1H1"].iloc[0]
    assert len(bands) == 3
    assert (bands[0].x0, bands[0].x1) == (first["control_ci_low"], first["control_ci_high"])
    assert (bands[0].y0, bands[0].y1) == (-0.5, 0.5)


def test_the_caption_of_bars_states_the_rule_of_the_colours(table):
    rule = "faint: interval not wholly farther from 0 than the grey one, or q &gt; 0.05"
    assert f"grey: interval of the other heads' mean; {rule}" in caption(ranked_effects(table)).replace("\u00a0", " ")
    assert "faint" not in caption(ranked_effects(table, k=2))


def test_bars_without_a_control_have_no_band():
    alone = sweep_result(planted()[6:7]).heads()
    figure = ranked_effects(alone)
    assert [shape.type for shape in figure.layout.shapes] == ["line"] and "grey" not in caption(figure)


def test_sign_of_a_loss_is_explained_the_other_way(table):
    assert "positive = the head helped" in ranked_effects(table.assign(metric="answer_loss")).layout.xaxis.title.text
    assert "negative" not in caption(head_map(table.assign(metric="kl")))


def test_large_model_gets_sparse_ticks_dots_and_no_numbers(tmp_path):
    figure = head_map(scores(np.random.default_rng(0).uniform(size=(80, 64))), marked=[Head(70, 9)])
    assert figure.data[0].text is None
    assert (figure.data[1].mode, figure.data[1].x, figure.data[1].y) == ("markers", (9,), (70,))
    assert save_figure(figure, tmp_path / "a.png").stat().st_size > 10_000
    assert list(figure.layout.xaxis.tickvals)[:3] == [0, 5, 10] and list(figure.layout.yaxis.tickvals)[:3] == [0, 5, 10]


def test_dots_of_low_cells_stand_beside_their_numbers():
    values = np.linspace(-2.34, 2.34, 270).reshape(30, 9)
    cells, dots = head_map(scores(values, bounds=(None, None)), marked=[Head(23, 3), Head(29, 0)]).data
    width = 440 / 9  # of a cell in pixels; its widest number has five characters of about 6.5
    assert cells.text[23][3] and list(dots.y) == [23, 29]
    assert all(16 + 2 < (head - x) * width < width / 2 - 2 for x, head in zip(dots.x, (3, 0), strict=True))


@pytest.mark.parametrize("draw", [head_map, ranked_effects])
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
    with pytest.raises(ValueError, match=r"a\.bmp has no supported format.*\.html, \.json, \.png, \.svg"):
        save_figure(head_map(table), tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="not pie: save this figure as"):
        save_figure(go.Figure(go.Pie(values=[1, 2])), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# --- attention: dots by layer, texts, tiles, differences -------------------------------------------------------------


def test_a_map_without_any_number_is_grey_and_says_why(tmp_path):
    figure = head_map(scores([[np.nan] * 3] * 2, nan_reason="a single row has no entropy"))
    assert figure.data[0].hovertext[1][2] == "a single row has no entropy"
    assert "grey: 6 of 6 heads have no number: a single row has no entropy" in caption(figure)
    assert save_figure(figure, tmp_path / "a.png").exists()


def test_captions_name_model_n_tokens_interventions_and_metric():
    made = RunRecord(
        "toy",
        "0123456789ab",
        task="ioi",
        arguments={"n_prompts": 9, "n_tokens": 1234},
        interventions=("zero",),
        metric="entropy",
    )
    assert caption(head_map(scores([[0.5]], record=made))).replace("\u00a0", " ") == (
        "toy@01234567 · ioi · n = 9 · 1,234 tokens · zero · entropy · seed 0"
    )


def test_layer_dots_has_one_dot_a_head_in_its_layer_and_a_line_at_each_mean():
    values = [[0.1, 0.2, 0.6], [0.4, np.nan, 0.8]]
    figure = scores_by_layer(scores(values, nan_reason="no repeats"), named=2)
    dots, lines, labels = figure.data
    placed = {(round(x), y) for x, y in zip(dots.x, dots.y, strict=True)}
    assert len(dots.x) == 5 and placed == {(0, 0.1), (0, 0.2), (0, 0.6), (1, 0.4), (1, 0.8)}
    own = {text.split("<br>")[0]: x for text, x in zip(dots.hovertext, dots.x, strict=True)}
    assert own["<b>L0H0</b>"] < own["<b>L0H1</b>"] < own["<b>L0H2</b>"] and len(set(own.values())) == 5
    np.testing.assert_allclose([y for y in lines.y if y is not None], [0.3, 0.3, 0.6, 0.6])
    assert list(zip(labels.text, labels.y, strict=True)) == [("L1H2", 0.8), ("L0H2", 0.6)]
    assert "1 of 6 heads have no number: no repeats" in caption(figure) and "1,234 tokens" in caption(figure)
    assert "line: mean of the layer's heads that have a number" in caption(figure)
    assert figure.layout.yaxis.title.text == "induction_score (attention)" and figure.layout.yaxis.range[0] <= 0


def test_labels_of_heads_close_together_are_one_and_stay_inside():
    values = np.linspace(0, 0.5, 120).reshape(30, 4)
    values[0, :2], values[9, 2:], values[29, 3] = (0.9, 0.91), (0.95, 0.95), 0.93
    figure = scores_by_layer(scores(values), named=5)
    labels, (left, right) = figure.data[2], figure.layout.xaxis.range
    assert set(labels.text) == {"L0H0, L0H1", "L9H2, L9H3", "L29H3"}
    layers = 820 / (right - left)  # pixels of a layer
    for text, x in zip(labels.text, labels.x, strict=True):
        assert min(x - left, right - x) * layers >= 3 * len(text)
    assert list(scores_by_layer(scores(values[9:12])).data[2].text) == ["L0H2, L0H3", "L2H3"]


def test_equal_tokens_keep_separate_cells_in_their_order():
    words = ["the", "cat", "the", "the"]
    figure = token_scores_text(token_scores([words], [[0.5, 1.0, 2.0, 0.25]]))
    bars, texts = figure.data
    assert list(texts.text) == words and list(bars.marker.color) == [0.5, 1.0, 2.0, 0.25]
    left = np.array(bars.base)
    assert (np.diff(left) >= np.array(bars.x)[:-1]).all()  # no cell on another
    assert [hover.split("<br>")[0] for hover in bars.hovertext] == [f"<b>{word}</b> at {i}" for i, word in enumerate(words)]
    assert (bars.marker.cmin, bars.marker.cmax) == (0, 2) and bars.marker.colorbar.title.text == "nats"


def test_a_long_text_is_wrapped_into_lines_and_nothing_leaves_the_page():
    words = [f"w{i}" * (1 + i % 5) for i in range(300)]
    bars = token_scores_text(token_scores([words], [np.arange(300.0)])).data[0]
    right = np.array(bars.base) + np.array(bars.x)
    assert right.max() <= 100 and len(set(bars.y)) > 5
    assert list(bars.y) == sorted(bars.y) and all(
        base == 0 for base, new in zip(bars.base[1:], np.diff(bars.y), strict=True) if new
    )


def test_a_strip_shows_a_span_and_says_which(tmp_path):
    rows = [["a", "b"], ["c", "d", "e", "f", "g"]]
    many = token_scores(rows, [[1, 2], [3, 4, 5, 6, 7]])
    figure = token_scores_text(many, example=1, span=(1, 4))
    assert list(figure.data[0].marker.color) == [4, 5, 6] and figure.data[0].marker.cmax == 6
    assert "text 1; tokens 1-3 of 5" in caption(figure)
    assert list(token_scores_text(many).data[-1].text) == ["a", "b"]  # padding is no token
    with pytest.raises(LookupError, match="Text 2 does not exist: entropy has texts 0-1"):
        token_scores_text(many, example=2)
    with pytest.raises(ValueError, match="1:3 is not a span of 1 to 1,000 tokens inside a text of 2 tokens"):
        token_scores_text(many, span=(1, 3))
    long = token_scores([["x"] * 1001], [[1.0] * 1001])
    assert "tokens 0-999 of 1,001" in caption(token_scores_text(long))
    with pytest.raises(ValueError, match="0:1001 is not"):
        token_scores_text(long, span=(0, 1001))


def test_tokens_without_a_number_are_grey_with_the_reason(tmp_path):
    figure = token_scores_text(token_scores([["a", "b", "c"]], [[np.nan, 1, 2]]))
    measured, absent, _ = figure.data
    assert list(measured.marker.color) == [1, 2] and absent.marker.color == style.EMPTY and len(absent.x) == 1
    assert "grey: a lone row" in caption(figure)
    alone = token_scores_text(token_scores([["a"]], [[np.nan]]))
    assert len(alone.data) == 2 and save_figure(alone, tmp_path / "a.png").exists()


def test_pixels_of_a_strip_are_the_colours_of_its_tokens(tmp_path):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    figure = token_scores_text(token_scores([["aaaa", "bbbb", "cccc"]], [[0, np.nan, 3]]))
    pixels, margin = imread(save_figure(figure, tmp_path / "a.png"))[..., :3], figure.layout.margin
    width = figure.layout.width - margin.l - margin.r
    colours = {}
    for bars in figure.data[:2]:
        for base, text in zip(bars.base, bars.hovertext, strict=True):  # a little inside the left edge, beside the text
            at = pixels[int(2 * (margin.t + 12)), int(2 * (margin.l + (base + 0.2) * width / 100))]
            colours[text[3]] = at
    for name, colour in (("a", style.SEQUENTIAL[0]), ("b", style.EMPTY), ("c", style.SEQUENTIAL[-1])):
        np.testing.assert_allclose(colours[name], to_rgb(colour), atol=0.02)


def test_tokens_are_text_and_not_markup(tmp_path):
    words = ["<script>alert(1)</script>", "</script>", "a&b", "$x$", "\n", "\x07"]
    figure = token_scores_text(token_scores([words], [range(6)]))
    assert list(figure.data[-1].text) == [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;/script&gt;",
        "a&amp;b",
        "$x$",
        "↵",
        "\ufffd",
    ]
    page = save_figure(figure, tmp_path / "a.html").read_text()
    assert "<script>alert" not in page and "alert(1)</script>" not in page
    drawn = " ".join(ElementTree.fromstring(save_figure(figure, tmp_path / "a.svg").read_text()).itertext())
    assert "<script>alert(1)</script>" in drawn and "a&b" in drawn and "$x$" in drawn
    tile = pattern_heatmap(np.eye(2), words[:2], Head(0, 0), RunRecord("toy"))
    assert list(tile.layout.xaxis.ticktext)[1] == "&lt;/script&gt;" and "&lt;/script&gt;" in tile.data[0].hovertext[1][1]


def test_wide_letters_get_wide_cells():
    narrow, wide = token_scores_text(token_scores([["ab", "漢字"]], [[1, 2]])).data[0].x
    assert wide - narrow == pytest.approx(2)


def test_a_tile_has_a_tick_for_every_position_and_grey_after_the_query():
    weights = np.array([[0.9, 0.1, 0, 0], [0.2, 0.3, 0.5, 0]])
    words = ["the", "cat", "the", "the", "dog"]
    figure = pattern_heatmap(weights, words, Head(3, 1), RunRecord("toy", task="text"), first_query=2, first_key=1)
    heat = figure.data[0]
    assert list(figure.layout.xaxis.tickvals) == [1, 2, 3, 4] and list(figure.layout.xaxis.ticktext) == [
        "cat",
        "the",
        "the",
        "dog",
    ]
    assert list(figure.layout.yaxis.tickvals) == [2, 3] and list(figure.layout.yaxis.ticktext) == ["the", "the"]
    np.testing.assert_array_equal(heat.z, [[0.9, 0.1, np.nan, np.nan], [0.2, 0.3, 0.5, np.nan]])
    assert figure.layout.plot_bgcolor == style.EMPTY and (heat.zmin, heat.zmax) == (0, 0.9)
    assert heat.hovertext[1][0] == "<b>the</b> at 3 → <b>cat</b> at 1<br>weight 0.2" and "masked" in heat.hovertext[0][3]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert "L3H1" in caption(figure) and "grey: masked (keys after the query)" in caption(figure)
    assert not np.isnan(pattern_heatmap(weights, words, Head(3, 1), RunRecord("toy"), causal=False).data[0].z).any()


def test_a_large_tile_has_fewer_ticks_and_a_larger_one_is_refused():
    words, record = [f"w{i}" for i in range(300)], RunRecord("toy")
    ticks = pattern_heatmap(np.ones((200, 200)), words, Head(0, 0), record).layout.xaxis.tickvals
    assert 20 < len(ticks) <= 50 and len(set(np.diff(ticks))) == 1
    with pytest.raises(ValueError, match="1 to 256 queries and keys, not 257 x 3: choose a smaller tile"):
        pattern_heatmap(np.ones((257, 3)), words, Head(0, 0), record)
    with pytest.raises(ValueError, match="queries 298-302 and keys 0-2 is outside the text of 300 tokens"):
        pattern_heatmap(np.ones((5, 3)), words, Head(0, 0), record, first_query=298)


def test_a_difference_is_after_minus_before_with_0_in_the_middle():
    after, before = (
        scores([[0.5, 0.2, np.nan]]),
        scores([[0.125, 0.8, 0.3]], record=RunRecord("toy", task="ioi", metric="induction_score")),
    )
    figure = head_difference_map(after, before)
    np.testing.assert_allclose(figure.data[0].z, [[0.375, -0.6, np.nan]])
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-0.6000000000000001, 0.6000000000000001)
    assert [colour for _, colour in figure.data[0].colorscale] == style.DIVERGING
    words = caption(figure).replace("\u00a0", " ")
    assert "toy · induction" in words and "minus toy · ioi" in words


def test_the_difference_of_two_models_names_both_and_shows_both_numbers():
    before = scores([[0.125, 0.5]], record=RunRecord("step-1000", metric="induction_score"))
    after = scores([[0.5, 0.25]], record=RunRecord("step-2000", metric="induction_score"))
    figure = head_difference_map(after, before)
    assert "step-2000 · induction_score · seed 0 minus step-1000" in caption(figure).replace("\u00a0", " ")
    assert figure.data[0].hovertext[0][1].startswith("<b>L0H1</b><br>0.25 after, 0.5 before<br>")
    assert figure.data[0].hovertext[0][1].endswith("−0.25 attention")


def test_a_difference_tile_holds_both_weights_and_both_tokens_of_every_pair_that_is_seen():
    before = np.array([[0.75, 0.25, 0.9], [0.5, 0.25, 0.25]])
    after = np.array([[0.5, 0.5, 0.9], [0.125, 0.25, 0.625]])
    words, old = ["a", "b", "<c>", "d"], ["a", "b", "x", "d"]
    figure = pattern_difference(after, before, words, old, Head(1, 4), RunRecord("toy"), first_query=2, first_key=1)
    tile = figure.data[0]
    np.testing.assert_allclose(tile.z, [[-0.25, 0.25, np.nan], [-0.375, 0.0, 0.375]])
    assert (tile.zmin, tile.zmax) == (-0.375, 0.375)
    assert [colour for _, colour in tile.colorscale] == style.DIVERGING
    assert list(figure.layout.yaxis.ticktext) == ["x│&lt;c&gt;", "d"]
    assert "a│b: tokens of the first and the second text" in caption(figure).replace("\u00a0", " ")
    assert tile.hovertext[1][2] == "<b>d</b> at 3 → <b>d</b> at 3<br>0.625 after, 0.25 before<br>change 0.375"
    assert tile.hovertext[0][2].endswith("masked")
    open_eyed = pattern_difference(
        after, before, words, old, Head(1, 4), RunRecord("toy"), first_query=2, first_key=1, causal=False
    )
    assert open_eyed.data[0].z[0][2] == 0.0


def test_patterns_of_different_lengths_have_no_difference():
    with pytest.raises(ValueError, match="these texts have 3 and 2 tokens"):
        pattern_difference(np.ones((2, 2)), np.ones((2, 2)), ["a", "b"], ["a", "b", "c"], Head(0, 0), RunRecord("toy"))


def test_dots_of_effects_say_what_their_sign_means():
    record = RunRecord("toy", metric="logit_diff")
    figure = scores_by_layer(scores([[0.5, -1.0]], (None, None), record, name="effect on logit_diff"))
    assert figure.layout.title.text == "<b>Effect on logit_diff by layer</b>"
    assert "negative = the head helped" in caption(figure).replace("\u00a0", " ")
    assert "helped" not in caption(scores_by_layer(scores([[0.5, 0.25]])))


def test_dots_by_layer_are_as_wide_as_asked_for_few_layers_alone():
    few, many = scores(np.full((12, 2), 0.5)), scores(np.full((13, 2), 0.5))
    widths = [scores_by_layer(both, width=300).layout.width for both in (few, many)]
    assert widths == [300 + 64 + 24, 820 + 64 + 24]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"unit": "nats"}, "the units attention and nats"),
        ({"name": "entropy"}, "the names induction_score and entropy"),
        (
            {"record": RunRecord("toy", metric="induction_score(window=3)")},
            r"the metrics induction_score and induction_score\(window=3\)",
        ),
        ({"values": [[0.5], [0.5]]}, r"the shapes \(1, 2\) and \(2, 1\)"),
    ],
)
def test_a_difference_of_unlike_runs_is_refused(other, sentence):
    with pytest.raises(ValueError, match=f"two scores of the same metric, unit and shape, and these have {sentence}"):
        head_difference_map(scores([[0.5, 0.25]]), scores(**{"values": [[0.5, 0.25]], **other}))
