"""Retrieval, Tokens, role badges and role cards in a browser: from the first press to a confirmed curve, by clicks alone."""

import io
from xml.etree import ElementTree

import pandas as pd
import pytest

from interp.heads import Head
from interp_dashboard import jobs
from tests.browser.app import PATIENCE, App
from tests.browser.test_pages_browser import click_row, download

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> **$x$** `a` =1+1"
GRID = {"retrieval.n_lengths": "3", "retrieval.n_depths": "2", "retrieval.n_needles": "2", "retrieval.longest": "260"}
TRIAL = {"confirm.n_prompts": "12", "confirm.seed": "4"}
LONG = "The cat sat on the mat because the cat was tired. "


def press(app, label):
    button = app.page.get_by_role("button", name=label, exact=True)
    button.wait_for(timeout=PATIENCE)
    button.click()


def picture(app, title):
    """The figure of this title, when it is drawn."""
    found = app.page.locator(".js-plotly-plot", has_text=title).first
    found.wait_for(timeout=2 * PATIENCE)
    app.settle()
    return found


def strips(app, said):
    """The text with strips for WAAD and FAI, when it says this."""
    app.page.locator(".waad-fai", has_text=said).wait_for(timeout=2 * PATIENCE)
    app.settle()


def click_cell(app, title, head, shape):
    """Clicks in a head's cell of the map of this title."""
    box = picture(app, title).locator(".nsewdrag").first
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    place = {"x": (head.head + 0.4) * size["width"] / shape[1], "y": (head.layer + 0.6) * size["height"] / shape[0]}
    box.hover(position=place)
    box.click(position=place)
    app.wait_for_query(head=str(head))


def arrive(app, title):
    app.page.get_by_role("heading", name=title, exact=True, level=1).wait_for(timeout=PATIENCE)
    app.settle()


def opens(files, begins):
    """Whether files of all five kinds are what they say, and their table."""
    assert {name for name, _ in files.values()} == {f"{begins}.{ending}" for ending in ("png", "svg", "html", "csv", "parquet")}
    assert files["PNG"][1].startswith(b"\x89PNG")
    assert ElementTree.fromstring(files["SVG"][1]).tag.endswith("svg")
    assert b"plotly" in files["HTML"][1]
    read = [pd.read_csv(io.BytesIO(files["CSV"][1])), pd.read_parquet(io.BytesIO(files["PARQUET"][1]))]
    assert list(read[0].columns) == list(read[1].columns) and len(read[0]) == len(read[1])
    return read[1]


def downloads(app, name):
    """All files of a view."""
    menu = app.page.locator(f".st-key-share-{name}").first
    menu.scroll_into_view_if_needed()
    menu.get_by_test_id("stPopover").filter(has_text="Download").get_by_role("button").click()
    app.page.get_by_role("button", name="PNG", exact=True).wait_for(timeout=PATIENCE)
    return {label: download(app, label) for label in ("PNG", "SVG", "HTML", "CSV", "PARQUET")}


@pytest.fixture(scope="module")
def measured(server, browser):
    """The grid was measured and confirmed, by presses in a browser; the job survives its tab."""
    page = browser.new_page()
    app = App(page, server.address)
    app.open("retrieval", **GRID, **TRIAL)
    press(app, "Start")
    page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=PATIENCE)
    page.context.close()
    page = browser.new_page()
    app = App(page, server.address)
    app.open("retrieval", **GRID, **TRIAL)
    picture(app, "Role retrieval")
    press(app, "Confirm")
    picture(app, "Ablating retrieval heads")
    page.context.close()
    assert {job.command for job in jobs.jobs(server.runs)} >= {"detect", "confirm"}
    return {**GRID, **TRIAL}


def test_grid_scores_and_dose_curve_stand_on_the_page_and_a_link_shows_them_again(app, new_page, measured):
    app.open("retrieval", **measured)
    for title in ("Role retrieval", "Recall by length and depth of the needle", "Ablating retrieval heads"):
        picture(app, title)
    click_cell(app, "Role retrieval", Head(1, 3), (4, 4))
    app.page.get_by_role("heading", name="L1H3", exact=True).wait_for(timeout=PATIENCE)
    again = app.again(new_page())
    again.page.get_by_role("heading", name="L1H3", exact=True).wait_for(timeout=PATIENCE)
    picture(again, "Ablating retrieval heads")
    assert again.query == app.query
    assert not app.said("stException") and not app.said("stAlertContentError")


def test_a_row_chooses_its_head_which_leads_to_attention_and_to_ablate(app, measured):
    app.open("retrieval", **measured)
    picture(app, "Recall by length")
    click_row(app, "role-table", 0)
    app.page.wait_for_function("new URLSearchParams(location.search).has('head')", timeout=PATIENCE)
    chosen = app.query["head"]
    app.page.get_by_role("link", name="Attention pattern").click()
    arrive(app, "Attention")
    assert app.query["head"] == chosen and app.query["task"] == "needle"
    app.page.get_by_test_id("stMarkdownContainer").filter(has_text="retrieval").first.wait_for(timeout=PATIENCE)  # the badge
    app.page.go_back()
    arrive(app, "Retrieval")
    app.page.get_by_role("link", name="Manual ablation").click()
    arrive(app, "Ablate")
    app.wait_for_query(mode="manual", ablated=chosen)
    app.page.get_by_text(f"Continuation, {chosen} ablated").wait_for(timeout=PATIENCE)


def test_every_file_of_retrieval_opens(app, measured):
    app.open("retrieval", **measured)
    picture(app, "Ablating retrieval heads")
    assert {"head", "score", "at 0%"} <= set(opens(downloads(app, "retrieval"), "retrieval").columns)
    app.page.keyboard.press("Escape")
    assert list(opens(downloads(app, "needle-grid"), "needle-grid")["n"].unique()) == [2]
    app.page.keyboard.press("Escape")
    assert set(opens(downloads(app, "ablation-curve"), "ablation-curve")["group"]) == {
        "detected",
        "random",
        "layer_matched",
        "bottom",
    }


def test_every_option_is_shown_and_changes_the_command(app):
    app.open("retrieval")
    app.page.get_by_text("Options: ").click()
    for label, value, written in (
        ("n depths", "4", "n_depths=4"),
        ("n lengths", "5", "n_lengths=5"),
        ("fwer", "0.1", "fwer=0.1"),
        ("min recall", "", "min_recall=none"),
    ):
        field = app.page.get_by_label(label, exact=True).first
        field.wait_for(timeout=PATIENCE)
        field.fill(value)
        field.press("Enter")
        app.settle()
        app.page.wait_for_function(
            "(name) => [...new URLSearchParams(location.search).keys()].includes(name)",
            arg=f"retrieval.{written.split('=')[0]}",
            timeout=PATIENCE,
        )
    app.page.get_by_test_id("stPopover").filter(has_text="Copy as CLI").first.get_by_role("button").click()
    code = app.page.get_by_test_id("stCode").first
    code.wait_for(timeout=PATIENCE)
    said = code.inner_text()
    assert all(written in said for written in ("n_depths=4", "n_lengths=5", "fwer=0.1", "min_recall=none"))


def test_tokens_of_a_written_response_are_shown_and_their_files_open(app):
    app.open("tokens", n_texts="2")
    strips(app, "Preplan and anchor tokens")
    files = downloads(app, "tokens")
    table = opens(files, "tokens")
    assert {"token", "waad", "fai", "preplan", "anchor"} <= set(table.columns)
    assert not app.said("stException") and not app.said("stAlertContentError")


def test_tokens_lead_from_a_head_to_its_pattern(app):
    app.open("tokens", n_texts="2")
    strips(app, "Preplan and anchor tokens")
    click_row(app, "groups-table", 7)
    app.wait_for_query(head="L1H3")
    app.page.get_by_role("link", name="Attention pattern of L1H3").click()
    arrive(app, "Attention")
    assert app.query["task"] == "plan_following" and app.query["head"] == "L1H3"


def test_hostile_texts_are_text(app):
    app.open("tokens", texts="", prompt=HOSTILE, response=HOSTILE)
    strips(app, "Preplan and anchor tokens")
    assert not app.page.locator("img[src=x]").count() and not app.said("stException")


def test_a_text_of_four_thousand_tokens_is_paged(page, small_server):
    app = App(page, small_server.address)
    app.open("tokens", **{"preplan_anchor.n_null_draws": "100"}, texts="", prompt=LONG * 20, response=LONG * 310)
    strips(app, "Preplan and anchor tokens")
    field = app.page.get_by_label("First token shown")
    field.fill("3200")
    field.press("Enter")
    app.wait_for_query(first_token="3200")
    strips(app, "tokens 3,200-3,711")
    assert not app.said("stException") and not app.said("stAlertContentError")


def test_roles_are_looked_for_on_the_heads_page_and_stand_as_badges_on_attention(app):
    app.open("heads", head="L1H3")
    app.page.get_by_text("Run the quick detectors", exact=True).click()
    app.wait_for_query(roles="yes")
    picture(app, "Role ")
    app.choose("Role", "induction:")
    picture(app, "Role induction")
    click_cell(app, "Role induction", Head(0, 3), (4, 4))
    app.page.get_by_text("previous_token").first.wait_for(timeout=PATIENCE)
    app.page.get_by_role("link", name="Attention pattern").click()
    arrive(app, "Attention")
    badges = app.page.locator(".st-key-role-badges")
    badges.wait_for(timeout=PATIENCE)
    assert "previous_token" in badges.inner_text() and "induction" in badges.inner_text()


def test_retrieval_is_dark_where_the_browser_is(new_page, server, measured):
    dark = App(new_page(color_scheme="dark"), server.address)
    dark.open("retrieval", **measured)
    picture(dark, "Ablating")
    papers = dark.page.eval_on_selector_all(
        ".js-plotly-plot .main-svg:first-child", "all => all.map(one => one.style.background)"
    )
    assert papers and set(papers) == {"rgb(14, 17, 23)"}


def test_the_strips_of_tokens_are_dark_where_the_browser_is(new_page, server):
    dark = App(new_page(color_scheme="dark"), server.address)
    dark.open("tokens", n_texts="2")
    strips(dark, "Preplan and anchor tokens")
    colours = dark.page.locator(".waad-fai .strip").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert "rgb(37, 43, 54)" in colours and "rgb(233, 235, 238)" not in colours, "grey where there is no number"
