"""Heads, Compare and Runs in a browser: clicks choose the head or the run that was clicked, links lead there, downloads open."""

import io
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from interp.heads import Head, HeadScores
from interp.metrics import observe_attention
from interp.records import RunRecord
from interp.store import list_runs, open_run, save_observation, save_scores
from interp_dashboard.selectable_figures_and_tables import ROW
from tests.browser.app import PATIENCE, App, serving

pytestmark = pytest.mark.browser

TEXT = "the cat sat on the mat"
MARKED = 20
"""Pixels from the left of a table to the middle of the boxes that choose its rows."""


def drawn(app):
    """The first map of the page."""
    box = app.page.locator(".js-plotly-plot .nsewdrag").first
    box.wait_for(timeout=PATIENCE)
    app.settle()
    return box


def click_cell(app, head, shape, across=0.5, down=0.5):
    """Clicks in a head's cell of the map of ``shape`` (n_layers, n_heads), at a share of its width and height."""
    box = drawn(app)
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    place = {"x": (head.head + across) * size["width"] / shape[1], "y": (head.layer + down) * size["height"] / shape[0]}
    box.hover(position=place)
    box.click(position=place)
    app.wait_for_query(head=str(head))


def click_row(app, key, row):
    """Clicks the box before a row of the table of this key."""
    table = app.page.locator(f"[class*=st-key-{key}] [data-testid=stDataFrameResizable]").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": MARKED, "y": ROW * (row + 1) + ROW / 2})
    app.settle()


def download(app, label, menu="Download"):
    """What the browser is given by a button of a menu: its name and its bytes."""
    button = app.page.get_by_role("button", name=label, exact=True)
    if not button.is_visible():
        app.page.get_by_test_id("stPopover").filter(has_text=menu).first.get_by_role("button").click()
    button.wait_for(timeout=PATIENCE)
    with app.page.expect_download(timeout=PATIENCE) as found:
        button.click()
    return found.value.suggested_filename, found.value.path().read_bytes()


@pytest.fixture(scope="module")
def stored(server):
    """Two runs of the server: metrics of a text, and random scores of 4 x 4 heads."""
    from interp.models import load_model

    mini = load_model("interp-mini")
    found = observe_attention(mini, mini.to_tokens(TEXT), ["entropy", "confidence"])
    save_observation(replace(found, record=replace(found.record, task="text")), mini.facts, server.runs / "read")
    values = np.random.default_rng(0).random((4, 4))
    save_scores(HeadScores("entropy", values, "nats", (0.0, None), RunRecord("toy", metric="entropy")), server.runs / "scored")
    return server.runs


@pytest.mark.parametrize(
    ("head", "across", "down"),
    [(Head(0, 0), 0.08, 0.08), (Head(1, 3), 0.92, 0.5), (Head(3, 1), 0.5, 0.92), (Head(2, 2), 0.06, 0.94)],
)
def test_a_click_anywhere_in_a_cell_chooses_its_head(app, head, across, down):
    app.open("heads", task="", text=TEXT)
    click_cell(app, head, (4, 4), across, down)
    app.page.get_by_role("heading", name=str(head), exact=True).wait_for(timeout=PATIENCE)


@pytest.fixture(scope="module")
def single_server(tmp_path_factory, folders):
    """A server with a model of one head."""
    with serving(tmp_path_factory.mktemp("single"), folders["single"]) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "shape", "chosen"), [("small_server", (3, 5), Head(2, 4)), ("single_server", (1, 1), Head(0, 0))]
)
def test_maps_of_other_shapes_are_clicked_as_well(request, new_page, name, shape, chosen):
    small = App(new_page(), request.getfixturevalue(name).address)
    for page in ("heads", "compare"):
        small.open(
            page, task="", text=TEXT, **({"task_b": "", "text_b": "the dog sat on the mat"} if page == "compare" else {})
        )
        click_cell(small, chosen, shape, 0.8, 0.2)


def test_a_row_chooses_its_head_and_the_map_moves_the_mark(app):
    app.open("heads", task="", text=TEXT)
    drawn(app)
    click_row(app, "heads-table", 6)
    app.wait_for_query(head="L1H2")
    click_cell(app, Head(3, 3), (4, 4))
    click_row(app, "heads-table", 2)
    app.wait_for_query(head="L0H2")


def test_a_head_is_followed_to_its_pattern_on_the_same_prompt(app):
    app.open("heads", task="induction", seed="3", head="L1H3")
    app.page.get_by_role("link", name="Attention pattern").click()
    app.page.get_by_role("heading", name="Attention", exact=True, level=1).wait_for(timeout=PATIENCE)
    app.settle()
    assert app.query["head"] == "L1H3" and app.query["seed"] == "3"


def test_a_head_of_the_difference_is_shown_with_its_difference_pattern_and_the_link_reproduces_it(app, new_page):
    app.open("compare")
    click_cell(app, Head(3, 1), (4, 4))
    app.page.locator(".js-plotly-plot", has_text="Change of the attention of L3H1").wait_for(timeout=PATIENCE)
    again = app.again(new_page())
    again.page.locator(".js-plotly-plot", has_text="Change of the attention of L3H1").wait_for(timeout=PATIENCE)
    assert again.query == app.query


def test_every_file_of_a_difference_opens(app):
    app.open("compare", task="", text=TEXT, task_b="", text_b="the dog sat on the mat", metric="entropy")
    drawn(app)
    files = {label: download(app, label) for label in ("PNG", "SVG", "HTML", "CSV", "PARQUET")}
    assert {label: name for label, (name, _) in files.items()} == {
        label: f"difference.{label.lower()}" for label in ("PNG", "SVG", "HTML", "CSV", "PARQUET")
    }
    assert files["PNG"][1].startswith(b"\x89PNG")
    assert ElementTree.fromstring(files["SVG"][1]).tag.endswith("svg")
    assert b"B minus A" in files["HTML"][1]
    read = [pd.read_csv(io.BytesIO(files["CSV"][1])), pd.read_parquet(io.BytesIO(files["PARQUET"][1]))]
    pd.testing.assert_frame_equal(*(table.sort_values("head", ignore_index=True) for table in read))
    assert list(read[0].columns) == ["head", "A", "B", "B − A"] and len(read[0]) == 16


def test_a_run_is_opened_from_the_list_drawn_and_downloaded(app, stored, tmp_path):
    app.open("runs")
    click_row(app, "runs", [entry.name for entry in list_runs(stored)].index("scored"))
    app.page.get_by_role("heading", name="scored").wait_for(timeout=PATIENCE)
    app.wait_for_query(run="scored")
    app.open("runs", run="read", figure_metric="confidence")
    click_cell(app, Head(2, 1), (4, 4))
    app.page.get_by_test_id("stButtonGroup").get_by_text("Tokens", exact=True).click()
    app.wait_for_query(figure="tokens")
    app.page.locator(".js-plotly-plot", has_text="confidence of each token").wait_for(timeout=PATIENCE)
    name, packed = download(app, "ZIP", menu="Download all")
    assert name == "read.zip"
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path)
    np.testing.assert_array_equal(
        open_run(tmp_path / "read").scores("confidence").values, open_run(stored / "read").scores("confidence").values
    )


def test_a_run_is_compared_from_its_page(app, stored):
    app.open("runs", run="read")
    app.page.get_by_test_id("stMain").get_by_role("link", name="Compare").click()
    app.page.get_by_role("heading", name="Compare", exact=True, level=1).wait_for(timeout=PATIENCE)
    app.settle()
    assert (app.query["versus"], app.query["run_b"]) == ("runs", "read")


def test_a_run_is_deleted_after_its_name_is_typed(app, server, stored):
    scores = HeadScores("entropy", np.array([[0.5]]), "nats", (0.0, None), RunRecord("toy", metric="entropy"))
    save_scores(scores, server.runs / "gone")
    app.open("runs", run="gone")
    app.page.get_by_test_id("stPopover").filter(has_text="Delete").get_by_role("button").click()
    assert app.page.get_by_role("button", name="Delete permanently").is_disabled()
    field = app.page.get_by_role("textbox", name="Name of the run")
    field.fill("gone")
    field.press("Enter")
    button = app.page.locator("button:not([disabled])", has_text="Delete permanently")
    button.wait_for(timeout=PATIENCE)
    button.click()
    app.page.wait_for_function("!new URLSearchParams(location.search).has('run')", timeout=PATIENCE)
    assert not (server.runs / "gone").exists() and (server.runs / "read").exists()


@pytest.mark.parametrize("page", ["heads", "compare", "runs"])
def test_a_page_is_dark_where_the_browser_is(new_page, server, stored, page):
    dark = App(new_page(color_scheme="dark"), server.address)
    dark.open(page, task="", text=TEXT, run="read")
    drawn(dark)
    papers = dark.page.eval_on_selector_all(
        ".js-plotly-plot .main-svg:first-child", "all => all.map(one => one.style.background)"
    )
    assert papers and set(papers) == {"rgb(14, 17, 23)"}
