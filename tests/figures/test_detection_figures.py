"""Figures of detections and confirmations: what stands where, on plotly's own description and on the pixels of the PNG."""

from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from interp.figures import (
    available_figures,
    confirmation_curve,
    detection_map,
    figure_bytes,
    needle_grid,
    run_figure,
    save_figure,
    style,
    to_dark_theme,
    waad_fai_html,
    waad_fai_strips,
)
from interp.figures.confirmation_curve import GROUPS
from interp.figures.waad_fai_strips import MAX_TOKENS, ROLES
from interp.heads import Head
from interp.models import load_model
from interp.store import load_confirmation, load_detection, save_confirmation, save_detection
from tests.support.attention_views import HOSTILE
from tests.support.detection_cases import FOUND, RECORD, cells, confirmation, detection, token_detection

FIGURES = {
    "detection_map": lambda: detection_map(detection()),
    "needle_grid": lambda: needle_grid(cells(), RECORD),
    "confirmation_curve": lambda: confirmation_curve(confirmation()),
    "waad_fai_strips": lambda: waad_fai_strips(token_detection()),
}


def caption(figure):
    return figure.layout.annotations[0].text.replace("<br>", " ").replace("\u00a0", " ")


def of(figure, mode):
    """The traces of a mode: markers, text, lines ..."""
    return [trace for trace in figure.data if trace.type == "scatter" and trace.mode == mode]


def segments(trace):
    """The separate lines of a trace: two ends each."""
    ends = [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
    return [(ends[i], ends[i + 1]) for i in range(0, len(ends), 2)]


def encloses(trace, head):
    """How many of the four sides of a head's cell are drawn."""
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for (x0, y0), (x1, y1) in segments(trace)]
    return sum(abs(x - head.head) + abs(y - head.layer) == 0.5 for x, y in middles)


def marks_of_tokens(figure):
    """The markers above tokens: those of the legend stand above the text."""
    return [trace for trace in of(figure, "markers") if min(trace.y) > 0]


# --- score map


def test_the_contour_has_a_side_wherever_a_found_head_has_a_neighbour_that_was_not():
    contour = detection_map(detection()).data[1]
    assert {head: encloses(contour, head) for head in FOUND} == {Head(1, 3): 3, Head(1, 4): 2, Head(2, 4): 3, Head(0, 0): 4}
    assert len(segments(contour)) == 12
    assert encloses(contour, Head(1, 2)) == 1 and encloses(contour, Head(0, 2)) == 0


def test_a_score_on_the_threshold_is_outside():
    found = detection()
    exact = replace(found, threshold=np.full((3, 5), found.scores[Head(2, 4)]))
    assert encloses(detection_map(exact).data[1], Head(2, 4)) == 1 and encloses(detection_map(exact).data[1], Head(1, 4)) == 3


def test_a_map_without_found_heads_has_no_contour_and_says_so():
    figure = detection_map(replace(detection(), threshold=np.full((3, 5), 0.95)))
    assert len(figure.data) == 1 and "0 of 15 heads above the calibrated threshold 0.95" in caption(figure)


def test_the_caption_says_the_decision_its_chance_and_the_papers_constant():
    words = caption(detection_map(detection()))
    for part in (
        "toy@01234567",
        "needles",
        "n = 7",
        "4 of 15 heads above the calibrated threshold 0.2",
        "nominally 5% of models without the role have any such head",
        "4 above 0.1, the usual threshold in the literature; 4 above both",
    ):
        assert part in words
    assert "literature" not in caption(detection_map(detection(literature_threshold=None)))


def test_heads_that_no_score_could_exceed_are_counted():
    limits = np.full((3, 5), 0.2)
    limits[1, 4], limits[0, 2] = 1.4, np.inf
    words = caption(detection_map(replace(detection(), threshold=limits)))
    assert "3 of 15 heads above their calibrated thresholds, 0.2 to 1.4" in words
    assert "2 cannot be detected, since their null scores vary too much" in words


def test_pointing_at_a_head_tells_rank_control_and_parts_and_nothing_of_one_without_a_score():
    hover = detection_map(detection()).data[0].hovertext
    for part in ("L1H4", "detected: rank 2, threshold 0.2", "under the null 0.0125", "frequency 0.4"):
        assert part in hover[1][4]
    assert "not detected: rank" in hover[0][1]
    assert hover[2][0] == "no trial was answered"


@pytest.mark.parametrize("shape", [(2, 3), (40, 32)])
def test_maps_of_other_sizes_are_enclosed_as_well(shape):
    figure = detection_map(detection(found=(Head(1, 2), Head(0, 0)), shape=shape))
    assert [encloses(figure.data[1], head) for head in (Head(1, 2), Head(0, 0))] == [4, 4]
    assert figure_bytes(figure, ".png").startswith(b"\x89PNG")


# --- needle grid


def test_the_grid_has_lengths_across_and_depths_down_from_the_beginning():
    figure = needle_grid(cells(), RECORD)
    heat, table = figure.data[0], cells()
    assert (heat.zmin, heat.zmax) == (0, 1) and [colour for _, colour in heat.colorscale] == style.SEQUENTIAL
    assert list(figure.layout.xaxis.ticktext) == ["32", "64", "96", "1,280"]
    assert list(figure.layout.yaxis.ticktext) == ["0%", "50%", "100%"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    for row in table.itertuples():
        at = (0.0, 50.0, 100.0).index(row.depth), (32, 64, 96, 1280).index(row.length)
        assert heat.z[at[0]][at[1]] == row.recall
        assert f"{row.accepted} of 2 trials" in heat.hovertext[at[0]][at[1]]
    assert np.isnan(heat.z[2][3]) and heat.hovertext[2][3] == "not measured"


def test_the_grid_counts_its_trials_and_rows_may_come_in_any_order():
    table = cells()
    words = caption(needle_grid(table, RECORD))
    assert f"{table['accepted'].sum()} of {table['n'].sum()} trials answered" in words and "grey: not measured" in words
    mixed = needle_grid(table.sample(frac=1, random_state=3), RECORD)
    np.testing.assert_array_equal(mixed.data[0].z, needle_grid(table, RECORD).data[0].z)
    assert "grey" not in caption(needle_grid(table[table["length"] < 1000], RECORD))


# --- dose curve


def by_group(figure, panel=0, n_panels=2):
    """Of each group its curve in a panel: k by place, and values."""
    curves = of(figure, "lines+markers")
    return dict(zip(GROUPS, curves[panel * len(GROUPS) : (panel + 1) * len(GROUPS)], strict=True))


def test_each_group_is_a_curve_in_each_panel_at_its_own_numbers_of_heads():
    figure, made = confirmation_curve(confirmation()), confirmation()
    curve = made.tables["curve"]
    for panel, where in enumerate(("all", "end")):
        for group, trace in by_group(figure, panel).items():
            rows = curve[(curve["positions"] == where) & (curve["group"] == group) & (curve["k"] > 0)]
            np.testing.assert_allclose(trace.y, rows["value"])
            for x, k, text in zip(trace.x, rows["k"], trace.hovertext, strict=True):
                ticks = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
                nearest = min(ticks, key=lambda at: abs(at - x))
                assert ticks[nearest] == str(k) and abs(nearest - x) < 0.3
                assert f"{k} ablated" in text and "n = 40" in text
    assert [trace.text[0] for trace in of(figure, "text")][-2:] == ["all positions", "end positions"]


def test_intervals_and_draws_stand_at_their_point():
    figure = confirmation_curve(confirmation(ks=(2, 4), draws=7, positions=("end",)))
    rows = confirmation(ks=(2, 4), draws=7, positions=("end",)).tables["curve"]
    lines = of(figure, "lines")
    assert len(lines) == len(GROUPS)
    for trace, (group, curve) in zip(lines, by_group(figure).items(), strict=True):
        own = rows[(rows["group"] == group) & (rows["k"] > 0)]
        np.testing.assert_allclose([y for y in trace.y if y is not None], own[["ci_low", "ci_high"]].to_numpy().ravel())
        assert [x for x in trace.x if x is not None] == [x for x in curve.x for _ in range(2)]
    dots = [trace for trace in of(figure, "markers") if trace.marker.opacity is not None]
    assert [len(trace.x) for trace in dots] == [14, 14]  # random and layer-matched: 2 numbers of heads x 7 draws
    assert "one of 7 draws" in caption(figure)


def test_all_heads_in_place_are_a_line_across_each_panel_and_tasks_are_named():
    figure = confirmation_curve(confirmation(tasks=("needle", "copying")))
    assert [(shape.y0, shape.y1, shape.line.dash) for shape in figure.layout.shapes] == [(0.95, 0.95, "dash")] * 4
    assert {shape.layer for shape in figure.layout.shapes} == {"between"}  # above the grid
    named = [trace.text[0] for trace in of(figure, "text")][len(GROUPS) :]
    assert named == ["needle, all positions", "needle, end positions", "copying, all positions", "copying, end positions"]
    for word in ("toy@01234567", "needle", "mean", "accuracy", "n = 40"):
        assert word in caption(figure)


# --- role strips


def test_strips_are_shares_of_the_texts_largest_and_grey_where_there_is_no_number():
    found = token_detection()
    shaded, grey = (trace for trace in waad_fai_strips(found).data if trace.type == "bar")
    for name in ("waad", "fai"):
        values = found.scores[name].values[0]
        assert np.isnan(values).sum() > 0
    known = [values[~np.isnan(values)] / np.nanmax(values) for values in (found.scores[n].values[0] for n in ("waad", "fai"))]
    np.testing.assert_allclose(shaded.marker.color, np.concatenate(known))
    assert len(grey.x) == sum(int(np.isnan(found.scores[n].values).sum()) for n in ("waad", "fai"))
    assert (shaded.marker.cmin, shaded.marker.cmax) == (0, 1)


def test_marks_stand_above_the_tokens_that_were_chosen_and_never_on_one_another():
    found = token_detection()
    figure = waad_fai_strips(found)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    edges = {round(b, 6): text for trace in bars for b, text in zip(trace.base, trace.hovertext, strict=True)}
    marks = marks_of_tokens(figure)
    assert [trace.marker.symbol for trace in marks] == [ROLES[name][1] for name in ("preplan", "anchor", "sink")]
    places = [(x, y) for trace in marks for x, y in zip(trace.x, trace.y, strict=True)]
    assert len(places) == len(set(places)) == sum(int(chosen.sum()) for chosen in found.masks.values())
    for trace, name in zip(marks, ("preplan", "anchor", "sink"), strict=True):
        expected = [f"<b> w{at}</b> at {at}" for at in np.flatnonzero(found.masks[name][0])]
        under = [edges[max(edge for edge in edges if edge <= x)] for x, y in zip(trace.x, trace.y, strict=True) if y < 1]
        assert [text.split("<br>")[0] for text in under] == expected[: len(under)]
        assert all(name in text for text in under)


def test_marks_of_short_tokens_have_room_beside_each_other():
    found = token_detection(tuple("abcdefghijklmnopqrstuvw"))
    found = replace(found, masks={name: np.ones_like(mask) for name, mask in found.masks.items()})
    places = sorted((y, x) for trace in marks_of_tokens(waad_fai_strips(found)) for x, y in zip(trace.x, trace.y, strict=True))
    gaps = [right - left for (one, left), (other, right) in pairwise(places) if one == other]
    assert len(places) == 3 * 23 and min(gaps) > 1.1


def test_signs_of_the_legend_have_the_colour_of_the_marks():
    found = token_detection()
    traces = [trace for trace in waad_fai_strips(found).data if trace.type == "scatter"]
    looks = {
        word.text[0].split()[0]: mark.marker
        for mark, word in pairwise(traces)
        if mark.mode == "markers" and word.mode == "text"
    }
    assert {name: (look.symbol, look.color) for name, look in looks.items()} == {name: ROLES[name][1:] for name in found.masks}
    legend = waad_fai_html(found).split('class="legend">')[1].split("</p>")[0]
    assert all(
        f'<span style="color: {ROLES[name][2]}">{ROLES[name][0]}</span> {name}' in legend for name in ("preplan", "anchor")
    )


def test_tokens_before_the_response_are_pale():
    words = of(waad_fai_strips(token_detection(response=6)), "text")[0]
    assert [colour == style.MUTED for colour in words.textfont.color] == [at < 6 for at in range(23)]


def test_a_long_text_begins_with_its_response_and_wraps():
    long = token_detection(tuple(f" word{i}" for i in range(3000)), response=1700)
    figure = waad_fai_strips(long)
    text = of(figure, "text")[0]
    assert len(text.x) == MAX_TOKENS and text.text[0] == " word1692" and max(text.y) > 20
    assert "tokens 1,692-2,203 of 3,000" in caption(figure)
    assert len(of(waad_fai_strips(long, span=(10, 12)), "text")[0].x) == 2


@pytest.mark.parametrize("span", [(-1, 4), (5, 5), (0, 24), (0, 600)])
def test_a_span_outside_the_text_is_refused(span):
    with pytest.raises(ValueError, match="not a span of 1 to 512 tokens of a text that has 23"):
        waad_fai_strips(token_detection(), span=span)


def test_a_text_that_is_not_there_is_refused():
    with pytest.raises(LookupError, match=r"Text 2 does not exist: the texts are 0-1\."):
        waad_fai_strips(token_detection(n_texts=2), example=2)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # a box is drawn
def test_hostile_tokens_are_text_in_every_file():
    words = tuple(word for word in HOSTILE if word)
    figure = waad_fai_strips(token_detection(words, response=1))
    shown = [text for trace in of(figure, "text") for text in (*trace.text, *(trace.hovertext or ()))]
    assert not [text for text in shown if "<img" in text or "<script" in text]
    page = figure_bytes(figure, ".html").decode()
    assert "<img src=x" not in page
    drawn = "".join(ElementTree.fromstring(figure_bytes(figure, ".svg").decode()).itertext())
    assert "<img" in drawn


# --- all of them


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_in_every_format_and_has_a_dark_form(name, tmp_path):
    figure = FIGURES[name]()
    pixels = imread(save_figure(figure, tmp_path / "a.png"))
    assert pixels.shape[:2] == (2 * figure.layout.height, 2 * figure.layout.width)
    words = " ".join(ElementTree.fromstring(figure_bytes(figure, ".svg").decode()).itertext())
    assert figure.layout.title.text.removeprefix("<b>").removesuffix("</b>") in words and "toy@01234567" in words
    assert figure_bytes(figure, ".png") == figure_bytes(FIGURES[name](), ".png")
    dark = to_dark_theme(figure).to_json()
    assert not [colour for colour in (style.PAPER, style.INK, style.MUTED, style.NEGATIVE, style.POSITIVE) if colour in dark]


def test_marks_of_the_png_have_their_colour(tmp_path):
    figure = waad_fai_strips(token_detection())
    pixels = imread(save_figure(figure, tmp_path / "a.png"))[..., :3]
    margin, layout = figure.layout.margin, figure.layout
    width, height = layout.width - margin.l - margin.r, layout.height - margin.t - margin.b
    bottom, top = layout.yaxis.range
    for trace in of(figure, "markers"):
        x = margin.l + trace.x[0] / layout.xaxis.range[1] * width
        y = margin.t + (trace.y[0] - top) / (bottom - top) * height
        np.testing.assert_allclose(pixels[int(2 * y), int(2 * x)], to_rgb(trace.marker.color), atol=0.05)


def test_stored_detections_and_confirmations_are_drawn_as_they_were_found(tmp_path):
    facts = load_model("interp-mini").facts
    heads = save_detection(detection(found=FOUND[::3], shape=(4, 4)), facts, tmp_path / "heads")
    tokens = save_detection(token_detection(), facts, tmp_path / "tokens")
    dose = save_confirmation(confirmation(), facts, tmp_path / "dose")
    assert available_figures(heads) == ["heads", "layers", "needle_grid"]
    assert available_figures(tokens) == ["waad_fai", "tokens"]
    assert available_figures(dose) == ["confirmation_curve"]
    pairs = [
        (run_figure(heads, "heads"), detection_map(load_detection(heads.path))),
        (run_figure(heads, "needle_grid"), needle_grid(cells(), RECORD)),
        (run_figure(tokens, "waad_fai"), waad_fai_strips(token_detection())),
        (run_figure(dose, "confirmation_curve"), confirmation_curve(load_confirmation(dose.path))),
    ]
    for drawn, made in pairs:
        assert drawn.to_json() == made.to_json()
    assert "frequency" in run_figure(heads, "heads", "frequency").layout.title.text
    assert run_figure(tokens, "tokens", "fai").layout.title.text == "<b>fai of each token</b>"
    assert "plot" in dir(load_detection(heads.path)) and load_detection(heads.path).plot().to_json() == pairs[0][1].to_json()
