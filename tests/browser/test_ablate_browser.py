"""The page Ablate in a browser: a sweep from start to result over several tabs, clicks on its map, heads switched off by hand."""

import os
import re
import signal
import time

import pytest

from interp.experiments import AblationSpec
from interp.heads import Head
from interp.store import open_run
from interp_dashboard import jobs
from interp_dashboard.job_plan import plan_job
from tests.browser.app import PATIENCE, App

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> **$x$** \u202e`a`"


def button(app, label):
    return app.page.get_by_role("button", name=label, exact=True)


def press(app, label):
    found = button(app, label)
    found.wait_for(timeout=PATIENCE)
    found.click()


def finished(app):
    """Waits for the map of a finished sweep."""
    app.page.get_by_text("Click a head to select it").wait_for(timeout=2 * PATIENCE)
    app.page.locator(".js-plotly-plot .nsewdrag").first.wait_for(timeout=PATIENCE)
    app.settle()


def click(app, head, shape, across=0.5, down=0.5):
    """Clicks in a head's cell of the map of ``shape`` (n_layers, n_heads), at a share of its width and height."""
    box = app.page.locator(".js-plotly-plot .nsewdrag").first
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    place = {"x": (head.head + across) * size["width"] / shape[1], "y": (head.layer + down) * size["height"] / shape[0]}
    box.hover(position=place)
    box.click(position=place)
    app.wait_for_query(head=str(head))


@pytest.fixture(scope="module")
def measured(server):
    """Values of the address of a finished sweep on the server."""
    from interp.models import load_model

    sweep = AblationSpec(task="induction", ablation="zero", n_prompts=6, seed=2)
    job = plan_job(sweep, load_model("interp-mini"), server.runs).start()
    while jobs.status(job).active:
        time.sleep(0.2)
    return {"ablation": "zero", "n_prompts": "6", "seed": "2"}


def test_a_sweep_outlives_its_tab_is_cancelled_resumed_and_shown(new_page, server):
    app = App(new_page(), server.address)
    app.open("ablate", n_prompts="300")
    press(app, "Start")
    button(app, "Cancel").wait_for(timeout=PATIENCE)
    app.page.get_by_text(re.compile(r"[1-9]\d* of \d+ units in .* units/s")).wait_for(timeout=2 * PATIENCE)
    app.page.context.close()
    (job,) = [found for found in jobs.jobs(server.runs) if found.command == "ablate" and found.spec.n_prompts == 300]
    os.kill(job.pid, signal.SIGSTOP)  # so that it cannot end before it is cancelled, however fast the machine

    app = App(new_page(), server.address)
    app.open("ablate", n_prompts="300")
    press(app, "Cancel")
    os.kill(job.pid, signal.SIGCONT)
    button(app, "Resume").wait_for(timeout=PATIENCE)
    kept = jobs.status(jobs.find(server.runs, job.name))
    assert kept.state == "cancelled" and 0 < kept.done < kept.total
    app.page.get_by_text(f"{kept.done} of {kept.total} units are done").wait_for(timeout=PATIENCE)
    press(app, "Resume")
    finished(app)
    run = open_run(job.folder)
    assert run.status == "finished" and run.record.arguments["n_examples"] == 300
    assert not app.said("stException") and not app.said("stAlertContentError")


def test_a_click_anywhere_in_a_cell_chooses_its_head(app, measured):
    app.open("ablate", **measured)
    finished(app)
    for head, across, down in ((Head(2, 1), 0.5, 0.5), (Head(0, 3), 0.06, 0.94), (Head(3, 0), 0.94, 0.06)):
        click(app, head, (4, 4), across, down)
        app.page.get_by_role("heading", name=str(head), exact=True).wait_for(timeout=PATIENCE)
        app.settle()
    app.page.get_by_text("Attention of L3H0 on prompt 0").first.wait_for(timeout=PATIENCE)


def test_the_head_is_seen_on_the_same_prompt_and_switched_off(app, measured):
    app.open("ablate", **measured, head="L1H3", example="4")
    finished(app)
    app.page.get_by_role("link", name="Attention pattern").click()
    app.page.get_by_role("heading", name="Attention", exact=True, level=1).wait_for(timeout=PATIENCE)
    app.settle()
    app.wait_for_query(head="L1H3", example="4", seed="2")
    app.page.go_back()
    finished(app)
    press(app, "Manual ablation")
    app.wait_for_query(mode="manual", ablated="L1H3", example="4", seed="2")
    app.page.get_by_text("Continuation, L1H3 ablated").wait_for(timeout=PATIENCE)
    app.page.get_by_text("The most probable next token").wait_for(timeout=PATIENCE)


def test_three_layers_of_five_heads_are_swept(page, small_server):
    app = App(page, small_server.address)
    app.open("ablate", n_prompts="4", ablation="zero", outcome="answer_logprob")
    press(app, "Start")
    finished(app)
    click(app, Head(2, 4), (3, 5), 0.9, 0.9)
    click(app, Head(0, 0), (3, 5), 0.1, 0.1)


def test_hostile_text_is_continued_as_text(app):
    app.open("ablate", mode="manual", task="", text=HOSTILE, ablated="L0H0", n_tokens="3")
    app.page.get_by_text("Continuation, L0H0 ablated").wait_for(timeout=PATIENCE)
    app.page.get_by_test_id("stCode").first.wait_for(timeout=PATIENCE)
    assert not app.page.locator("img[src=x]").count() and not app.said("stException")
