"""The viewer in a browser: pointing, keys, zoom, hostile tokens, many views in one page."""

import json
import re

import numpy as np
import pytest

from interp.figures import atlas, attention_viewer, tile_data, view_assets, view_data
from interp.heads import Head
from tests.support.attention_views import HOSTILE, WORDS, patterns

pytestmark = pytest.mark.browser


@pytest.fixture
def weights():
    return patterns(3, 5, len(WORDS))


@pytest.fixture
def opened(page, tmp_path, weights):
    """Opens a saved view from its file; whatever it asks of the network is an error."""

    def open_view(view=None, **options):
        options.setdefault("atlas", atlas(weights))
        view = view or attention_viewer(weights, WORDS, labels={Head(2, 1): "previous token 0.91"}, **options)
        page.on("request", lambda request: asked.append(request.url))
        asked = []
        page.goto(view.save(tmp_path / "view.html").as_uri())
        page.wait_for_selector(".weights:visible")
        open_view.asked = asked
        return page

    return open_view


def middle(page, head, picture):
    """The middle of a head's cell on the atlas as it is shown."""
    x0, y0, x1, y1 = picture.box(head)
    share = page.locator(".grid img").bounding_box()["width"] / picture.width
    return {"x": (x0 + x1) / 2 * share, "y": (y0 + y1) / 2 * share}


def place(page, row, column):
    """Where a place of the tile, in cells, is on the page: the cells fill the canvas from its lower right corner."""
    weights = page.locator(".weights")
    box = weights.bounding_box()
    rows, columns, high, wide = map(int, weights.get_attribute("data-cells").split())
    return box["x"] + box["width"] - 1 - wide * (columns - column), box["y"] + box["height"] - 1 - high * (rows - row)


def test_a_click_on_the_atlas_chooses_that_head(opened, weights):
    page, picture = opened(), atlas(weights)
    assert page.locator(".name").inner_text() == "L0H0"
    for head in (Head(2, 1), Head(0, 4), Head(1, 3)):
        page.locator(".grid").click(position=middle(page, head, picture))
        assert page.locator(".name").inner_text() == str(head)
        assert page.get_by_role("gridcell").get_attribute("aria-label").startswith(str(head))


def test_arrow_keys_walk_the_atlas_and_stop_at_its_edges(opened, weights):
    page = opened(first_head=Head(1, 2))
    page.locator(".grid").focus()
    for key, head in [
        ("ArrowRight", "L1H3"), ("ArrowDown", "L2H3"), ("ArrowDown", "L2H3"), ("End", "L2H4"), ("ArrowRight", "L2H4"),
        ("Home", "L2H0"), ("ArrowLeft", "L2H0"), ("ArrowUp", "L1H0"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        assert page.locator(".name").inner_text() == head


def test_pointing_at_a_head_names_it_with_its_label(opened, weights):
    page = opened()
    page.locator(".grid").hover(position=middle(page, Head(2, 1), atlas(weights)))
    assert page.locator(".tip").inner_text() == "L2H1 · previous token 0.91"


@pytest.mark.parametrize(("n_layers", "n_heads", "width"), [(3, 5, 700), (32, 32, 420), (2, 3, 2400)])
def test_the_atlas_names_its_heads_where_they_are(page, tmp_path, n_layers, n_heads, width):
    weights = patterns(n_layers, n_heads, 6)
    picture = atlas(weights)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(attention_viewer(weights, WORDS[:6], atlas=picture).save(tmp_path / "view.html").as_uri())
    page.wait_for_selector(".weights:visible")
    frame = page.locator(".grid img").bounding_box()
    scale = frame["width"] / picture.width
    own = [page.locator(f".{strip}").is_visible() for strip in ("across", "down")]
    assert own == [scale <= 0.85] * 2
    if not own[0]:
        return
    ends = []
    for i, name in enumerate(page.locator(".across span").all()):
        head = int(name.inner_text().removeprefix("H"))
        box = name.bounding_box()
        x0, _, x1, _ = picture.box(Head(0, head))
        assert abs(box["x"] + box["width"] / 2 - frame["x"] - (x0 + x1) / 2 * scale) < 1
        assert i == 0 or box["x"] > ends[-1], "names do not touch"
        ends.append(box["x"] + box["width"])
    assert ends


def test_keys_read_single_weights_of_the_tile(opened, weights):
    page = opened(first_head=Head(1, 2))
    page.locator(".weights").focus()
    for key in ["ArrowDown"] * 5 + ["ArrowRight"] * 2:
        page.keyboard.press(key)
    assert page.locator(".tile > .readout").inner_text() == f"‘{shown(4)}’ 4 → ‘{shown(2)}’ 2: {stored(weights[1, 2, 4, 2])}"
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator(".tile > .readout").inner_text().endswith("6: masked (key after the query)")


def test_the_pointer_reads_the_cell_under_it(opened, weights):
    page = opened(first_head=Head(1, 2))
    page.mouse.move(*place(page, 9.5, 2.5))
    assert page.locator(".tile > .readout").inner_text() == f"‘{shown(9)}’ 9 → ‘{shown(2)}’ 2: {stored(weights[1, 2, 9, 2])}"


def test_a_cell_of_a_long_text_shows_the_largest_weight_of_its_bin(opened):
    n = 901
    scores = np.random.default_rng(3).normal(scale=4, size=(n, n))
    weights = np.exp(scores) * np.tri(n)
    weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    page = opened(attention_viewer(weights[None, None], [f"w{i}" for i in range(n)]))
    rows, columns, high, wide = map(int, page.locator(".weights").get_attribute("data-cells").split())
    assert high == wide == 1 and 1 < n / rows < 3
    bins = np.arange(n) * rows // n, np.arange(n) * columns // n
    for row, column in [(rows - 1, 0), (rows - 2, columns // 3), (rows // 2, rows // 2), (rows // 2, 7), (40, 31)]:
        page.mouse.move(*place(page, row + 0.5, column + 0.5))
        value = weights[np.ix_(bins[0] == row, bins[1] == column)].max()
        said = page.locator(".tile > .readout").inner_text()
        first = int(np.argmax(bins[0] == row)), int(np.argmax(bins[1] == column))
        number = "< 0.01" if 0 < round(255 * float(value)) < 2.55 else stored(value)
        assert said.startswith(f"‘w{first[0]}’ {first[0]} → ‘w{first[1]}’ {first[1]}: at most {number} among ")
    page.mouse.move(*place(page, 30.5, 33.5))
    assert page.locator(".tile > .readout").inner_text().endswith("masked (key after the query)")


def test_wheel_and_keys_zoom_about_where_they_are(opened):
    page, n = opened(), len(WORDS)
    page.mouse.move(*place(page, 9.5, 2.5))
    page.mouse.wheel(0, -100)
    assert page.locator(".range").inner_text() == f"all {n} tokens", "the wheel alone scrolls the page"
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_selector(".reset:visible")
    q0, q1, k0, k1 = map(int, re.findall(r"\d+", page.locator(".range").inner_text())[:4])
    assert q1 - q0 == k1 - k0 == int(0.7 * n) - 1 and q0 <= 9 <= q1 and k0 <= 2 <= k1
    page.locator(".weights").focus()
    page.keyboard.press("0")
    assert page.locator(".range").inner_text() == f"all {n} tokens"
    page.keyboard.press("+")
    assert page.locator(".range").inner_text().startswith("queries 0–")
    page.get_by_role("button", name="Whole text").click()
    assert page.locator(".range").inner_text() == f"all {n} tokens"


COLOUR = """() => {
  const canvas = document.querySelector(".weights");
  const [rows, columns, high, wide] = canvas.dataset.cells.split(" ").map(Number);
  const [x, y] = [canvas.width - 1 - wide * (columns - 9.5), canvas.height - 1 - high * (rows - 9.5)];
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
}"""


def test_gamma_lifts_small_weights_and_leaves_the_numbers(opened):
    page = opened(first_head=Head(1, 2))
    page.mouse.move(*place(page, 9.5, 2.5))
    said = page.locator(".tile > .readout").inner_text()
    before = page.evaluate(COLOUR)
    page.get_by_role("button", name="¼").click()
    after = page.evaluate(COLOUR)
    assert sum(after[:3]) < sum(before[:3]), "darker on a light page"
    page.mouse.move(*place(page, 9.5, 2.5))
    assert page.locator(".tile > .readout").inner_text() == said


def test_keys_walk_the_text_and_turn_the_direction(opened):
    page = opened(first_head=Head(2, 1))
    page.locator(".words").focus()
    for key in ["ArrowRight"] * 4 + ["ArrowLeft", "Enter"]:
        page.keyboard.press(key)
    assert "pinned" in page.locator('.token[data-index="2"]').get_attribute("class")
    shown = [page.locator(".lists b").all_inner_texts()]
    for _ in range(3):
        page.keyboard.press("t")
        shown.append(page.locator(".lists b").all_inner_texts())
    both = ["attends to", "attended by"]
    assert shown == [both, both[:1], both[1:], both]
    page.keyboard.press("Escape")
    assert page.locator(".own").count() == 0


def test_dragging_zooms_and_a_double_click_shows_the_whole_text(opened):
    page = opened()
    n = len(WORDS)
    page.mouse.move(*place(page, 4.5, 2.5))
    page.mouse.down()
    page.mouse.move(*place(page, 8.5, 5.5), steps=3)
    page.mouse.up()
    assert page.locator(".range").inner_text() == f"queries 4–8\nkeys 2–5\nof {n} tokens"
    assert page.locator(".overview").is_visible()
    page.locator(".weights").dblclick()
    assert page.locator(".range").inner_text() == f"all {n} tokens"
    assert not page.locator(".overview").is_visible()


def test_pointing_at_a_token_colours_what_it_attends_to_and_what_attends_to_it(opened, weights):
    page = opened(first_head=Head(2, 1))
    token = page.locator('.token[data-index="5"]')
    token.hover()
    said = page.locator(".lists").inner_text().replace("\n", " ")
    row, column = weights[2, 1, 5], weights[2, 1, :, 5].copy()
    for values, verb in ((row, "attends to"), (column, "attended by")):
        most = int(values.argmax())
        assert f"{verb}" in said and f"{shown(most, 12)} {most}: {stored(values[most])}" in said
    strongest = page.locator(f'.token[data-index="{int(row.argmax())}"]')
    assert "color" in strongest.get_attribute("style")
    token.click()
    page.mouse.move(5, 5)
    assert "pinned" in token.get_attribute("class")
    page.get_by_role("button", name="attended by").click()
    assert "attends to" not in page.locator(".lists").inner_text()
    token.click()
    page.mouse.move(5, 5)
    assert "pinned" not in token.get_attribute("class")


def test_a_head_that_did_not_fit_is_said_to_be_missing(opened, weights):
    page = opened(attention_viewer(weights, WORDS, heads=[Head(0, 0), Head(0, 2)], atlas=atlas(weights)))
    page.locator(".grid").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tile > .readout").inner_text() == "L0H1 is not included in this view."
    assert not page.locator(".weights").is_visible()
    page.locator('.token[data-index="5"]').click()
    page.locator(".grid").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".weights:visible")
    assert "attends to" in page.locator(".lists").inner_text()


def test_heads_without_an_atlas_are_chosen_from_a_list(opened, weights):
    page = opened(attention_viewer(weights, WORDS, heads=[Head(2, 0), Head(0, 2)], first_head=Head(0, 2)))
    assert page.locator(".pick option").all_inner_texts() == ["L0H2", "L2H0"]
    page.locator(".pick").select_option("2,0")
    page.mouse.move(*place(page, 9.5, 2.5))
    assert page.locator(".tile > .readout").inner_text().startswith("‘,↵’ 9 → ‘·Mary’ 2:")
    assert "L2H0" in page.locator(".weights").get_attribute("aria-label")


def test_nothing_is_asked_of_the_network(opened):
    opened()
    assert [url for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_tokens_stay_text(page, tmp_path, dark):
    words = list(HOSTILE)
    weights = patterns(1, 1, len(words))
    view = attention_viewer(weights, words, labels={Head(0, 0): words[0]}, caption=words[1], notes=words[:3], dark=dark)
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><body>{view._repr_html_()}</body>", encoding="utf-8")
    page.goto(notebook.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator(".weights").wait_for()
    tags = inside.locator(".words *").evaluate_all("all => all.map((one) => one.tagName)")
    assert set(tags) <= {"BDI", "BR", "SPAN"} and tags.count("BDI") == len(words)
    for i in range(len(words)):
        inside.locator(f'.token[data-index="{i}"]').hover()
    assert inside.locator("script").count() == 2
    assert inside.locator("iframe, img[src], svg, object, embed, form, style + style").count() == 0


def test_several_views_live_in_one_page(page, tmp_path, weights):
    views = [attention_viewer(weights, WORDS, atlas=atlas(weights), first_head=Head(i, i)) for i in range(3)]
    path = tmp_path / "notebook.html"
    path.write_text("<!doctype html>" + "".join(view._repr_html_() for view in views), encoding="utf-8")
    page.goto(path.as_uri())
    for i in range(3):
        inside = page.frame_locator("iframe").nth(i)
        inside.locator(".weights").wait_for()
        assert inside.locator(".name").inner_text() == f"L{i}H{i}"
    first = page.frame_locator("iframe").nth(0)
    first.locator(".grid").focus()
    page.keyboard.press("ArrowRight")
    assert first.locator(".name").inner_text() == "L0H1"
    assert page.frame_locator("iframe").nth(1).locator(".name").inner_text() == "L1H1"


@pytest.mark.parametrize(("n_layers", "n_heads", "length"), [(1, 1, 1), (1, 1, 2), (3, 5, 1), (32, 32, 6)])
def test_every_size_is_drawn(page, tmp_path, n_layers, n_heads, length):
    weights = patterns(n_layers, n_heads, length)
    view = attention_viewer(weights, WORDS[:length], atlas=atlas(weights), first_head=Head(n_layers - 1, n_heads - 1))
    page.goto(view.save(tmp_path / "view.html").as_uri())
    page.wait_for_selector(".weights:visible")
    assert page.locator(".name").inner_text() == f"L{n_layers - 1}H{n_heads - 1}"
    page.locator(".grid").focus()
    page.keyboard.press("Home")
    assert page.locator(".name").inner_text() == f"L{n_layers - 1}H0"


COMPONENT = """async ([script, look, data]) => {
  const style = document.createElement("style");
  style.textContent = look;
  document.body.append(style);
  const place = document.createElement("div");
  document.body.append(place);
  const shadow = place.attachShadow({ mode: "open" });
  shadow.append(style);
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.sent = [];
  window.give = (next) => {
    const setTriggerValue = (name, value) => window.sent.push([name, value]);
    window.remove = module.default({ data: next, parentElement: shadow, setTriggerValue });
  };
  window.give(data);
}"""


@pytest.fixture
def component(page):
    """The viewer as the dashboard has it: in a shadow root, given data again and again, telling what was chosen."""
    page.goto("about:blank")

    def start(data):
        page.evaluate(COMPONENT, [*view_assets(), json.loads(json.dumps(data))])
        return page

    return start


def test_a_component_tells_the_head_and_waits_for_its_tile(component, weights):
    def given(head):
        data = view_data(WORDS, head=head, tiles={head: [tile_data(weights[head])]}, atlas=atlas(weights))
        return json.loads(json.dumps(data))

    page = component(given(Head(0, 0)))
    page.locator(".weights").wait_for()
    page.locator(".grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => window.sent.length")
    assert page.evaluate("() => window.sent") == [["head", [1, 1]]], "one message for a run of keys"
    assert "stale" in page.locator(".tile").get_attribute("class")
    page.evaluate("(data) => window.give(data)", given(Head(1, 1)))
    page.wait_for_function("() => !document.querySelector('div').shadowRoot.querySelector('.tile').classList.contains('stale')")
    assert page.evaluate("() => document.querySelector('div').shadowRoot.activeElement.className") == "grid", "the focus stays"
    page.evaluate("() => window.remove()")
    assert page.locator(".attention-viewer").count() == 0


def test_a_component_keeps_the_readers_choice_when_old_data_come_again(component, weights):
    tiles = {Head(*place): [tile_data(weights[place])] for place in np.ndindex(3, 5)}
    data = json.loads(json.dumps(view_data(WORDS, head=Head(0, 0), tiles=tiles, atlas=atlas(weights))))
    page = component(data)
    page.locator('.token[data-index="4"]').click()
    page.locator(".grid").focus()
    page.keyboard.press("End")
    page.evaluate("(data) => window.give(data)", data)
    assert page.locator(".name").inner_text() == "L0H4"
    assert "pinned" in page.locator('.token[data-index="4"]').get_attribute("class")


def test_an_answer_to_an_earlier_choice_does_not_undo_a_later_one(component, weights):
    def given(head):
        return json.loads(
            json.dumps(view_data(WORDS, head=head, tiles={head: [tile_data(weights[head])]}, atlas=atlas(weights)))
        )

    page = component(given(Head(0, 0)))
    page.locator(".grid").focus()
    for sent in (1, 2):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("(n) => window.sent.length === n", arg=sent)
    page.evaluate("(data) => window.give(data)", given(Head(0, 1)))
    assert page.locator(".name").inner_text() == "L0H2"
    page.evaluate("(data) => window.give(data)", given(Head(0, 2)))
    assert page.locator(".name").inner_text() == "L0H2"
    page.evaluate("(data) => window.give(data)", given(Head(2, 4)))
    assert page.locator(".name").inner_text() == "L2H4", "a head chosen elsewhere is taken"


def test_a_long_text_is_zoomed_from_a_coarse_picture_to_single_weights(component):
    length, bins, (q0, q1, k0, k1) = 4096, 64, (3000, 3040, 1000, 1030)
    pooled = np.zeros((bins, bins), np.float32)
    pooled[q0 * bins // length, k0 * bins // length] = 0.8
    words = [f" w{i}" for i in range(length)]
    head = Head(0, 0)
    whole = tile_data(pooled, (0, length, 0, length))
    page = component(view_data(words, head=head, tiles={head: [whole]}))
    page.locator(".weights").wait_for()
    assert page.locator(".token").count() <= 600
    assert "4,096" in page.locator(".range").inner_text()
    fine = np.zeros((q1 - q0, k1 - k0), np.float32)
    fine[2, 3] = 0.8
    tiles = {head: [whole, tile_data(fine, (q0, q1, k0, k1))]}
    data = view_data(words, head=head, tiles=tiles, window=(q0, q1, k0, k1))
    page.evaluate("(data) => window.give(data)", json.loads(json.dumps(data)))
    page.locator(".overview").wait_for()
    page.locator('.token[data-index="3002"]').hover()
    assert "·w1003 1003: 0.80" in page.locator(".lists").inner_text()
    page.locator(".overview").click(position={"x": 60, "y": 60})
    page.wait_for_function("() => window.sent.some(([name]) => name === 'window')")
    (_, window), *_ = page.evaluate("() => window.sent")
    assert window[1] - window[0] == q1 - q0 and window[3] - window[2] == k1 - k0
    assert abs((window[0] + window[1]) / 2 - length / 2) < length / 60


def shown(i, longest=24):
    """The i-th word as the viewer writes it."""
    word = WORDS[i].replace(" ", "·").replace("\n", "↵")
    return word if len(word) <= longest else f"{word[: longest - 1]}…"


def stored(weight):
    """A weight as the viewer reads it back from its 255 steps, in two decimals."""
    return f"{round(255 * float(weight)) / 255:.2f}"
