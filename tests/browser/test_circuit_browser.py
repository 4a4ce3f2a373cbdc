"""Circuit in a browser: from the press that starts it to a head of the graph and its pattern, by clicks alone."""

import json

import pytest

from interp_dashboard import jobs
from tests.browser.app import PATIENCE, App
from tests.browser.test_pages_browser import download
from tests.browser.test_roles_browser import arrive, downloads, opens, picture, press

pytestmark = pytest.mark.browser

ASKED = {"n_prompts": "8", "seed": "2", "edges": "25"}
PLACE = """(figure, node) => {
    const marks = figure.data.find((trace) => trace.mode === "markers");
    const [x, y] = [figure._fullLayout.xaxis, figure._fullLayout.yaxis], at = marks.customdata.indexOf(node);
    return {x: x._offset + x.l2p(marks.x[at]), y: y._offset + y.l2p(marks.y[at])};
}"""


def click_node(app, node):
    """Clicks on a node of the graph."""
    graph = picture(app, "Circuit of")
    graph.scroll_into_view_if_needed()
    place = graph.evaluate(PLACE, node)
    graph.hover(position=place)
    graph.click(position=place)


@pytest.fixture(scope="module")
def measured(server, browser):
    """The circuit was found, after a press in a browser; the job survives its tab."""
    page = browser.new_page()
    app = App(page, server.address)
    app.open("circuit", **ASKED)
    press(app, "Start")
    page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=PATIENCE)
    page.context.close()
    page = browser.new_page()
    app = App(page, server.address)
    app.open("circuit", **ASKED)
    picture(app, "Faithfulness by circuit size")
    page.context.close()
    assert "circuit" in {job.command for job in jobs.jobs(server.runs)}
    return ASKED


def test_a_click_on_a_head_leads_to_its_pattern_and_the_address_shows_it_again(app, new_page, measured):
    app.open("circuit", **measured)
    click_node(app, "a1.h0")
    app.wait_for_query(head="L1H0")
    app.page.get_by_role("heading", name="L1H0", exact=True).wait_for(timeout=PATIENCE)
    again = app.again(new_page())
    again.page.get_by_role("heading", name="L1H0", exact=True).wait_for(timeout=PATIENCE)
    picture(again, "Circuit of")
    assert again.query == app.query
    app.page.get_by_role("link", name="Attention pattern").click()
    arrive(app, "Attention")
    assert app.query["head"] == "L1H0" and app.query["task"] == "ioi"
    assert not app.said("stException") and not app.said("stAlertContentError")


def test_the_threshold_is_moved_by_keys_and_the_graph_follows(app, measured):
    app.open("circuit", **measured)
    before = picture(app, "Circuit of").evaluate("(figure) => figure.layout.title.text")
    app.page.get_by_role("slider").first.press("End")
    app.wait_for_query(edges="150")
    app.page.locator(".js-plotly-plot", has_text="Circuit of 1").first.wait_for(timeout=PATIENCE)
    after = picture(app, "Circuit of 1").evaluate("(figure) => figure.layout.title.text")
    assert int(after.split()[2]) > 100 > int(before.split()[2])


def test_a_figure_keeps_its_width_in_a_narrow_window_and_is_scrolled(app, measured):
    app.page.set_viewport_size({"width": 800, "height": 900})
    app.open("circuit", **measured)
    plot = picture(app, "Faithfulness by circuit size")
    assert plot.evaluate("(figure) => [figure._fullLayout.width, figure.layout.width]") == [708, 708]
    frame = app.page.locator(".st-key-frame-faithfulness")
    assert frame.evaluate("(frame) => frame.scrollWidth - frame.clientWidth") > 0
    assert app.page.get_by_test_id("stMain").evaluate("(main) => main.scrollWidth - main.clientWidth") == 0


def test_every_file_of_a_circuit_opens(app, measured):
    app.open("circuit", **measured)
    picture(app, "Faithfulness by circuit size")
    edges = opens(downloads(app, "circuit"), "circuit")
    assert {"edge", "score", "qkv"} <= set(edges.columns)
    app.page.keyboard.press("Escape")
    assert set(opens(downloads(app, "faithfulness"), "faithfulness")["kind"]) == {"circuit", "random"}
    app.page.keyboard.press("Escape")
    name, content = download(app, "Circuit file")
    kept = {edge for edge, facts in json.loads(content)["edges"].items() if facts["in_graph"]}
    assert name == "circuit.json" and kept == set(edges["edge"])


def test_a_head_of_the_ablate_page_leads_to_its_place(app, measured):
    app.open("ablate", task="ioi", n_prompts="8", seed="2", ablation="zero", head="L1H0")
    press(app, "Start")
    app.page.get_by_role("link", name="Place in the").click(timeout=2 * PATIENCE)
    arrive(app, "Circuit")
    assert app.query.get("task", "ioi") == "ioi" and app.query["seed"] == "2" and app.query["head"] == "L1H0"


def test_the_page_is_dark_where_the_browser_is(new_page, server, measured):
    dark = App(new_page(color_scheme="dark"), server.address)
    dark.open("circuit", **measured, head="L1H0")
    picture(dark, "Faithfulness by circuit size")
    papers = dark.page.eval_on_selector_all(
        ".js-plotly-plot .main-svg:first-child", "all => all.map(one => one.style.background)"
    )
    assert papers and set(papers) == {"rgb(14, 17, 23)"}
