"""What the attention viewer is given: weights to within half a step, within its size, and tokens that stay data."""

import json
import zlib
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest

from interp.figures import atlas, attention_viewer, style, tile_data, view_assets, view_data
from interp.figures.dark_theme import DARK_COLOURS
from interp.heads import Head
from tests.support.attention_views import HOSTILE, WORDS, patterns


class Elements(HTMLParser):
    """The tags of a page, the attributes of its frames, and the text in its scripts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.frames, self.texts, self.inside = [], [], {}, None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = (tag, dict(attributes).get("id"))
        if tag == "iframe":
            self.frames.append(dict(attributes))

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        self.texts[self.inside] = self.texts.get(self.inside, "") + data


PAGE = ["html", "head", "meta", "meta", "title", "style", "body", "div", "script", "script"]


def inner(view):
    """The page in a notebook's frame, and its data."""
    frame = Elements(view._repr_html_())
    assert frame.tags == ["iframe"]
    page = Elements(frame.frames[0]["srcdoc"])
    return page, json.loads(page.texts["script", "data"])


def unpacked(tile, top=1.0):
    levels = np.frombuffer(zlib.decompress(b64decode(tile["weights"])), np.uint8)
    return levels.reshape(tile["shape"]) / 255 * top


@pytest.mark.parametrize("top", [1.0, 7.3])
def test_a_weight_comes_back_within_half_a_step(top):
    weights = patterns(1, 1, 11)[0, 0] * top
    tile = tile_data(weights, top=top)
    assert tile["window"] == [0, 11, 0, 11] and tile["shape"] == [11, 11]
    assert np.abs(unpacked(tile, top) - weights).max() <= top / 510 + 1e-7


def test_the_ends_of_the_scale_are_exact_and_what_is_absent_is_0():
    np.testing.assert_array_equal(unpacked(tile_data(np.array([[0.0, 1.0, np.nan]]))), [[0, 1, 0]])


def test_a_tile_says_where_it_lies_and_may_be_coarser_than_its_window():
    tile = tile_data(np.ones((2, 3)), (10, 14, 0, 9))
    assert (tile["window"], tile["shape"]) == ([10, 14, 0, 9], [2, 3])
    with pytest.raises(ValueError, match=r"A tile of 2 x 3 weights does not fit queries 10-10 and keys 0-8\."):
        tile_data(np.ones((2, 3)), (10, 11, 0, 9))


@pytest.mark.parametrize("wrong", [1.1, -0.1, np.inf])
def test_weights_off_the_scale_are_refused(wrong):
    with pytest.raises(ValueError, match=r"The viewer shows weights in 0\.\.1, not "):
        tile_data(np.array([[0.5, wrong]]))


def test_a_notebook_gets_every_weight_of_every_head_where_they_fit():
    weights = patterns(3, 5, len(WORDS))
    view = attention_viewer(weights, WORDS, first_head=Head(2, 3), atlas=atlas(weights))
    page, data = inner(view)
    assert page.tags == PAGE
    assert data["tokens"] == WORDS and data["head"] == [2, 3] and data["notes"] == []
    assert len(data["tiles"]) == 15
    for layer, head in np.ndindex(3, 5):
        (tile,) = data["tiles"][f"{layer},{head}"]
        assert np.abs(unpacked(tile) - weights[layer, head]).max() <= 1 / 510 + 1e-7


def test_where_not_all_fits_the_largest_weights_of_each_row_are_kept_and_the_view_says_so():
    length = 70
    weights = patterns(3, 5, length)
    whole = len(attention_viewer(weights, ["a"] * length)._repr_html_())
    view = attention_viewer(weights, ["a"] * length, limit=whole - 1)
    assert len(view._repr_html_()) < whole
    _, data = inner(view)
    assert len(data["tiles"]) == 15 and data["notes"] == ["the 8 largest weights of each row, the others as 0"]
    (tile,) = data["tiles"]["1,4"]
    given = unpacked(tile)
    for row, full in zip(given, weights[1, 4], strict=True):
        kept = np.sort(full)[-8:]
        np.testing.assert_allclose(np.sort(row)[-8:], kept, atol=1 / 510 + 1e-7)
        assert (row > 0).sum() <= 8


def test_where_even_that_is_too_much_there_are_fewer_heads_beginning_with_the_chosen():
    length = 70
    some = {"patterns": patterns(3, 5, length), "tokens": ["a"] * length, "first_head": Head(2, 2)}
    limit = len(attention_viewer(**some, heads=[Head(i, 2) for i in range(3)])._repr_html_())
    view = attention_viewer(**some, limit=limit)
    assert len(view._repr_html_()) <= limit
    _, data = inner(view)
    n = len(data["tiles"])
    assert 1 < n < 15 and next(iter(data["tiles"])) == "2,2"
    assert data["notes"][-1] == f"{n} of 15 heads; .save('attention.html') saves all"


def test_a_file_holds_everything_whatever_the_limit(tmp_path):
    weights = patterns(2, 3, 40)
    view = attention_viewer(weights, ["a"] * 40, limit=1)
    page = Elements(view.save(tmp_path / "new" / "view.html").read_text(encoding="utf-8"))
    data = json.loads(page.texts["script", "data"])
    assert page.tags == PAGE and data["notes"] == []
    assert np.abs(unpacked(data["tiles"]["1,2"][0]) - weights[1, 2]).max() <= 1 / 510 + 1e-7


def test_the_largest_notebook_output_is_two_megabytes():
    weights = patterns(12, 12, 64)
    view = attention_viewer(weights, [f" token{i}" for i in range(64)], atlas=atlas(weights))
    _, data = inner(view)
    assert len(view._repr_html_()) <= 2_000_000 and len(data["tiles"]) == 144


def test_a_function_makes_the_weights_of_a_head_when_they_are_needed():
    weights, asked = patterns(2, 3, 9), []

    def read(head):
        asked.append(head)
        return weights[head]

    view = attention_viewer(read, WORDS[:9], heads=[Head(0, 1), Head(1, 2)], first_head=Head(1, 2))
    assert asked == []
    _, data = inner(view)
    assert [*data["tiles"]] == ["1,2", "0,1"] and asked == [Head(1, 2), Head(0, 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": ["a"] * 4097}, r"A view holds 1 to 4,096 tokens, not 4,097: pass a part of the text\."),
        ({"tokens": []}, r"A view holds 1 to 4,096 tokens, not 0"),
        ({"first_head": Head(4, 0)}, r"Head L4H0 is not among the heads of the view"),
        ({"heads": []}, r"Head None is not among the heads of the view: pass at least one head"),
        ({"patterns": lambda head: None}, r"`patterns` is a function of a head: pass its heads"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        attention_viewer(**{"patterns": patterns(2, 3, 9), "tokens": WORDS[:9], **change})


def test_weights_of_another_text_are_refused():
    with pytest.raises(ValueError, match=r"The weights of L0H0 have the shape \(9, 9\), not \(8, 8\) as 8 tokens need\."):
        attention_viewer(patterns(2, 3, 9), WORDS[:8]).html()


def test_only_html_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"view\.png has no supported format: the viewer is saved as \.html\."):
        attention_viewer(patterns(1, 1, 3), WORDS[:3]).save(tmp_path / "view.png")


def test_hostile_tokens_add_no_element_and_come_back_as_they_were():
    length = len(HOSTILE)
    said = {"labels": {Head(0, 0): HOSTILE[0]}, "caption": HOSTILE[1], "notes": HOSTILE}
    view = attention_viewer(patterns(1, 2, length), HOSTILE, **said)
    assert length >= 40 and view._repr_html_().encode()
    page, data = inner(view)
    assert page.tags == PAGE
    assert data["tokens"] == [*HOSTILE] and data["labels"] == {"0,0": HOSTILE[0]} and data["notes"] == [*HOSTILE]


def test_the_data_name_the_place_of_every_head_of_the_atlas():
    picture = atlas(patterns(3, 5, 12))
    data = view_data(atlas=picture)["atlas"]
    for layer, head in np.ndindex(3, 5):
        x, y = data["lefts"][head], data["tops"][layer]
        assert (x, y, x + data["cell"], y + data["cell"]) == picture.box(Head(layer, head))
    assert b64decode(data["src"].removeprefix("data:image/png;base64,")) == picture.png
    assert view_data(atlas=picture, atlas_url="/media/a.png")["atlas"]["src"] == "/media/a.png"


def test_parts_that_are_not_given_are_not_there():
    assert not {"tokens", "tiles", "atlas"} & view_data().keys()
    assert json.loads(json.dumps(view_data(["a"], head=Head(0, 0)), allow_nan=False))["tokens"] == ["a"]


def test_the_viewer_has_the_papers_and_inks_of_the_figures():
    _, look = view_assets()
    for colour in (style.PAPER, style.INK):
        assert f", {colour})" in look
    assert view_data(dark=True)["palette"][0] == DARK_COLOURS[style.SEQUENTIAL[0]]


@pytest.mark.parametrize(
    "word",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch(", "http", "import "],
)
def test_the_script_makes_no_markup_of_data_and_asks_nothing_of_the_network(word):
    script, _ = view_assets()
    assert word not in script
