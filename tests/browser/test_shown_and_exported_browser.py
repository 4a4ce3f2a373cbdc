"""What a file holds is what the screen shows; windows, encoders, unknown words and narrow pages in a browser."""

import io
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.browser.app import PATIENCE, App, serving
from tests.browser.test_pages_browser import download
from tests.support.dashboard_apps import save_encoder

pytestmark = pytest.mark.browser

TEXT = "When Mary and John went to the store, John gave a drink to Mary."
UNKNOWN = "The cat sat on the mat because the cat was tired."
LONGER = "the dog sat on the table and the cat sat on the chair and the dog sat on the cat"
NEAR = 3
"""Difference of a colour channel between the canvas and the file."""

CELL_COLOURS = """(canvas) => {
  const [rows, columns, high, wide] = canvas.dataset.cells.split(" ").map(Number);
  const ratio = window.devicePixelRatio;
  const width = parseFloat(canvas.style.width), height = parseFloat(canvas.style.height);
  const pen = canvas.getContext("2d");
  return Array.from({ length: rows }, (_, r) => Array.from({ length: columns }, (_, c) => {
    const x = width - 1 - wide * (columns - c - 0.5), y = height - 1 - high * (rows - r - 0.5);
    return [...pen.getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data].slice(0, 3);
  }));
}"""


def drawn(app):
    """The canvas of the pattern, when it is drawn."""
    canvas = app.page.locator(".attention-viewer .tile:not(.stale) .weights")
    canvas.wait_for(timeout=PATIENCE)
    app.settle()
    app.page.mouse.move(2, 2)
    return canvas


def shown_range(app, said):
    app.page.locator(".attention-viewer .range", has_text=re.compile(said)).wait_for(timeout=PATIENCE)


def png_colours(png, html, new_page, folder, shape):
    """The colours of the cells of the heat map in the PNG, [row column 3]; its layout is that of the HTML file."""
    page = new_page()
    (folder / "figure.html").write_bytes(html)
    page.goto((folder / "figure.html").as_uri())
    page.locator(".js-plotly-plot").wait_for(timeout=PATIENCE)
    layout = page.evaluate(
        "() => { const { margin, width, height } = document.querySelector('.js-plotly-plot').layout; return { margin, width, height } }"
    )
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    scale, margin = pixels.shape[1] / layout["width"], layout["margin"]
    size = layout["height"] - margin["t"] - margin["b"], layout["width"] - margin["l"] - margin["r"]
    down, across = (
        [round(scale * (margin[side] + (i + 0.5) * length / n)) for i in range(n)]
        for side, length, n in zip("tl", size, shape, strict=True)
    )
    return pixels[np.ix_(down, across)]


def test_every_file_of_a_pattern_is_what_the_screen_shows(app, new_page, tmp_path):
    app.open("", task="", text=TEXT, head="L1H3", gamma="0.25", value_weighted="yes", window="2,12,1,9")
    screen = np.array(drawn(app).evaluate(CELL_COLOURS))
    shown_range(app, "queries 2–11\nkeys 1–8")
    files = {label: download(app, label)[1] for label in ("PNG", "SVG", "HTML", "CSV", "PARQUET")}
    assert screen.shape == (10, 8, 3)
    table = pd.read_csv(io.BytesIO(files["CSV"]), keep_default_na=False)
    pd.testing.assert_frame_equal(table, pd.read_parquet(io.BytesIO(files["PARQUET"])), check_dtype=False)
    rows, columns = table["query"] - 2, table["key"] - 1
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 9, 0, 7) and (table["key"] <= table["query"]).all()
    saved = png_colours(files["PNG"], files["HTML"], new_page, tmp_path, screen.shape[:2])
    assert np.abs(saved - screen)[rows, columns].max() <= NEAR
    assert len(np.unique(screen[rows, columns], axis=0)) > 10
    said = " ".join(" ".join(ElementTree.fromstring(files["SVG"]).itertext()).split())
    caption = app.page.get_by_text(re.compile(r"· digest [0-9a-f]{12}$")).inner_text()
    assert "When Mary and John" in caption
    for part in ("When Mary and John", caption[-12:], "γ = 0.25", "queries 2-11, keys 1-8", "weight × ‖vW_O‖"):
        assert part in said

    strongest = table.loc[table["value_weighted"].idxmax()]
    app.page.keyboard.press("Escape")
    canvas = app.page.locator(".attention-viewer .weights")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    n_rows, n_columns, high, wide = map(int, canvas.get_attribute("data-cells").split())
    app.page.mouse.move(
        box["x"] + box["width"] - 1 - wide * (n_columns - (strongest["key"] - 1) - 0.5),
        box["y"] + box["height"] - 1 - high * (n_rows - (strongest["query"] - 2) - 0.5),
    )
    read = app.page.locator(".attention-viewer .tile > .readout", has_text="→").inner_text()
    assert float(read.split(": ")[-1]) == pytest.approx(strongest["value_weighted"], rel=0.06)
    app.page.get_by_test_id("stPopover").filter(has_text="Copy as Python").first.get_by_role("button").click()
    code = app.page.get_by_test_id("stCode").filter(has_text="pattern_heatmap")
    code.wait_for(timeout=PATIENCE)
    names = {}
    exec(code.inner_text(), names)
    np.testing.assert_allclose(names["weights"][rows, columns], table["value_weighted"], rtol=1e-4, atol=1e-6)


def test_the_window_goes_with_its_text_and_with_a_double_click(app):
    app.open("", task="", text=TEXT, window="0,5,0,5")
    shown_range(app, "queries 0–4")
    field = app.page.get_by_label("Text", exact=True)
    field.fill(LONGER)
    field.press("Control+Enter")
    app.wait_for_query(text=LONGER)
    shown_range(app, r"^all 2\d tokens")
    app.settle()
    assert "window" not in app.query
    canvas = drawn(app)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    app.page.mouse.move(box["x"] + box["width"] - 90, box["y"] + box["height"] - 90)
    app.page.mouse.down()
    app.page.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] - 30, steps=4)
    app.page.mouse.up()
    app.page.wait_for_function("new URLSearchParams(location.search).has('window')", timeout=PATIENCE)
    drawn(app).dblclick()
    app.page.wait_for_function("!new URLSearchParams(location.search).has('window')", timeout=PATIENCE)
    shown_range(app, r"^all 2\d tokens")


@pytest.fixture(scope="module")
def encoder_server(tmp_path_factory):
    """A server with an encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    with serving(folder, save_encoder(folder / "bert")) as server:
        yield server


def test_an_encoder_opens_on_its_own_text_and_greys_what_it_cannot_have(page, encoder_server):
    app = App(page, encoder_server.address)
    for name in ("", "heads", "compare"):
        app.open(name)
        assert not app.said("stException") and not app.said("stAlertContentError")
        assert app.page.get_by_label("Text", exact=True).first.input_value()
        assert app.page.get_by_role("combobox", name="Prompt").first.is_disabled()
    menu = app.page.get_by_test_id("stSidebarNav")
    looks = {
        title: menu.get_by_role("link", name=title, exact=True).evaluate(
            "(link) => { const look = getComputedStyle(link); return [look.opacity, look.pointerEvents] }"
        )
        for title in ("Attention", "Heads", "Tokens", "Retrieval", "Ablate", "Circuit", "Compare", "Runs")
    }
    grey = [title for title, look in looks.items() if look == ["0.4", "none"]]
    assert grey == ["Tokens", "Retrieval", "Ablate", "Circuit"]
    assert any("need a causal language model" in said for said in app.page.get_by_test_id("stSidebar").all_inner_texts())
    app.open("ablate")
    assert any("is bidirectional" in said for said in app.said("stAlertContentInfo")) and not app.said("stAlertContentError")


def test_unknown_words_are_named_and_are_no_induction(app):
    app.open("", task="")
    drawn(app)
    assert not app.said("stAlertContentWarning")
    app.open("", task="", text=UNKNOWN, head="L0H2")
    drawn(app)
    assert any("mat, because, tired" in said for said in app.said("stAlertContentWarning"))
    assert {"mat<unk>", "because<unk>", "tired<unk>"} < {*app.page.locator(".attention-viewer .token").all_inner_texts()}
    app.page.get_by_text("induction 0.00", exact=True).first.wait_for(timeout=PATIENCE)


@pytest.mark.parametrize("width", [1440, 1024])
def test_the_words_of_tokens_fit_the_page_and_do_not_overlap(app, width):
    app.page.set_viewport_size({"width": width, "height": 900})
    app.open("tokens", n_texts="2")
    strips = app.page.locator(".waad-fai")
    strips.wait_for(timeout=2 * PATIENCE)
    app.settle()
    room = app.page.locator(".stMainBlockContainer").evaluate(
        "(main) => { const s = getComputedStyle(main), b = main.getBoundingClientRect();"
        " return [b.left + parseFloat(s.paddingLeft), b.right - parseFloat(s.paddingRight)] }"
    )
    boxes = strips.evaluate(
        "(all) => ['.title', '.legend', '.bar', 'bdi'].map((part) => [...all.querySelectorAll(part)].map((one) => {"
        " const b = one.getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom, one.scrollWidth - one.clientWidth] }))"
    )
    for part in boxes:
        assert part and all(left >= room[0] - 1 and right <= room[1] + 1 for left, right, *_ in part)
    words = boxes[3]
    assert all(over <= 0 for *_, over in words)
    for (_, right, top, bottom, _), (left, _, next_top, _, _) in itertools.pairwise(words):
        assert left >= right if next_top == top else next_top >= bottom
    assert len({top for _, _, top, *_ in words}) > 1
    said = strips.inner_text()
    assert all(part in said for part in ("Preplan and anchor tokens", "largest WAAD", "preplan", "anchor", "grey: no number"))


def test_the_picture_of_tokens_can_still_be_downloaded(app):
    app.open("tokens", n_texts="2")
    app.page.locator(".waad-fai").wait_for(timeout=2 * PATIENCE)
    name, png = download(app, "PNG")
    assert Path(name).suffix == ".png" and png.startswith(b"\x89PNG")
