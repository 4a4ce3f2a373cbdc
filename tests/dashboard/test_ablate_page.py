"""The page Ablate: what it says before a sweep, while it runs and after it; and heads switched off by hand."""

import json
import os
import signal
import time

import numpy as np
import pytest

from interp.errors import MemoryBudgetExceeded
from interp.experiments import AblationSpec
from interp.heads import Head
from interp_dashboard import jobs
from interp_dashboard import settings as about
from interp_dashboard.job_plan import JobPlan, plan_job
from tests.support.dashboard_apps import labels, new_session, open_address

SHORT = AblationSpec(task="induction", ablation="zero", n_prompts=5, seed=3)
QUERY = {"ablation": "zero", "n_prompts": "5", "seed": "3"}
PATIENCE = 120


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder for the runs of a server of its own."""
    return serving(tmp_path / "runs", monkeypatch)


def serving(folder, monkeypatch):
    monkeypatch.setitem(os.environ, about.VARIABLE, json.dumps({"runs": str(folder)}))
    about.settings.cache_clear()
    return folder


@pytest.fixture(autouse=True)
def own_settings():
    """No server of another test is asked."""
    yield
    about.settings.cache_clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished sweep of every head, and its run: what the process of a job stores, without the process."""
    from typer.testing import CliRunner

    from interp.cli.app import app
    from interp.models import load_model

    root = tmp_path_factory.mktemp("finished")
    planned = plan_job(SHORT, load_model("interp-mini"), root)
    assert CliRunner().invoke(app, [*SHORT.to_argv(), "--out", str(planned.folder)]).exit_code == 0
    return root, planned.run()


def wait(done):
    limit = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.1)


def opened(**query):
    app = open_address(new_session("ablate"), **query)
    assert not app.exception
    return app


def texts(app):
    return " ".join(part.value for part in [*app.markdown, *app.caption])


def button(app, label):
    return next(found for found in app.button if found.label == label)


def test_the_cost_stands_there_before_anything_is_started(root):
    app = opened(**QUERY)
    assert "plus loading" in texts(app) and "MiB" in texts(app) and "Start" in labels(app)
    assert app.selectbox(key="field:ablation").value == "zero" and app.number_input(key="field:n_prompts").value == 5
    assert not root.exists()


def test_start_cancel_and_resume_from_the_page(root):
    app = opened(n_prompts="400")
    button(app, "Start").click().run()
    (job,) = jobs.jobs(root)
    assert "Cancel" in labels(app) and "Start" not in labels(app)
    wait(lambda: jobs.status(job).done > 0)
    os.kill(job.pid, signal.SIGSTOP)  # so that it cannot end before it is cancelled, however fast the machine
    again = opened(n_prompts="400")  # another tab, later
    assert "Cancel" in labels(again)
    button(again, "Cancel").click().run()
    os.kill(job.pid, signal.SIGCONT)
    wait(lambda: not jobs.status(jobs.find(root, job.name)).active)
    kept = jobs.status(jobs.find(root, job.name))
    assert kept.state == "cancelled"
    app = opened(n_prompts="400")
    assert f"{kept.done:,} of {kept.total:,} units are done and will be reused" in app.warning[0].value
    assert "Resume" in labels(app) and "Show" not in labels(app)
    other = opened(seed="7")
    assert "Start" in labels(other)
    button(other, "Show").click().run()
    assert other.number_input(key="field:n_prompts").value == 400 and "Resume" in labels(other)
    assert "Forget" not in labels(other)
    button(other, "Resume").click().run()
    assert "Cancel" in labels(other)
    jobs.cancel(jobs.find(root, job.name))
    wait(lambda: not jobs.status(jobs.find(root, job.name)).active)


def test_a_finished_sweep_shows_every_head_with_interval_and_corrected_p(finished, monkeypatch):
    root, run = finished
    serving(root, monkeypatch)
    app = opened(**QUERY)
    assert "Start" not in labels(app) and "negative = the head helped" in texts(app)
    shown, stored = app.dataframe[0].value, run.heads()
    assert len(shown) == len(stored) == 16
    assert np.all(np.diff(shown["effect"].abs()) <= 0)
    stored = stored.set_index("label").loc[shown["label"]]
    for name in ("effect", "ci_low", "ci_high", "p_value", "q_value"):
        np.testing.assert_array_equal(shown[name], stored[name])


def test_a_chosen_head_is_told_in_numbers_and_can_be_switched_off(finished, monkeypatch):
    root, run = finished
    serving(root, monkeypatch)
    app = opened(**QUERY, head="L1H3")
    row = run.heads().set_index("label").loc["L1H3"]
    shown = f"{row['effect']:+.3g}".replace("-", "−")
    assert "##### L1H3" in texts(app) and shown in texts(app)
    button(app, "Manual ablation").click().run()
    assert app.multiselect(key="field:ablated").value == [Head(1, 3)]
    assert "manual" in app.query_params["mode"] and "L1H3" in app.query_params["ablated"]


def test_by_hand_says_what_the_changed_model_says():
    from interp import interventions, load_model, make_task
    from interp.engine import run

    app = opened(mode="manual", ablated="L0H0,L1H3", example="2", n_tokens="3")
    table = app.dataframe[0].value.set_index("token")
    model = load_model("interp-mini")
    prompt = make_task("induction", model, n_prompts=3, seed=0).examples[2].clean
    change = [interventions.zero([Head(0, 0), Head(1, 3)])]
    before, after = (run(model, prompt, intervene=i).logits[0, -1].double().softmax(-1) for i in ((), change))
    for token, row in table.iterrows():
        assert row["before"] == pytest.approx(float(before[token]), abs=1e-6)
        assert row["after"] == pytest.approx(float(after[token]), abs=1e-6)
    assert {int(before.argmax()), int(after.argmax())} <= set(table.index)
    assert app.code[0].value == model.to_string(prompt)
    assert model.to_str_tokens([int(before.argmax())])[0].strip() in app.code[1].value


def test_heads_that_are_not_there_are_left_out_with_a_word():
    app = opened(mode="manual", ablated="L0H0,L9H9")
    assert "no head L9H9" in app.warning[0].value and app.multiselect(key="field:ablated").value == [Head(0, 0)]
    assert not app.error


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"n_prompts": "1"}, "n_prompts must be from 2"),
        ({"ablation": "magic"}, "No ablation is called"),
        ({"positions": "nowhere"}, "no position called"),
        ({"task": "", "file": "../../etc/passwd"}, "not on this server"),
        ({"task": "", "file": "0123456789ab/mine"}, "not on this server"),
    ],
)
def test_an_address_that_asks_for_what_is_not_there_starts_nothing(root, query, said):
    app = opened(**query)
    assert said in app.warning[0].value.replace("\\", "") and not app.error
    assert not root.exists()


def test_what_does_not_fit_is_refused_with_the_reason(root, monkeypatch):
    def refuse(self):
        raise MemoryBudgetExceeded("A second interp-mini needs about 9 GiB, and 1 GiB are available.")

    monkeypatch.setattr(JobPlan, "check_memory", refuse)
    app = opened(**QUERY)
    assert "9 GiB" in app.error[0].value.replace("\\", "") and button(app, "Start").disabled


def test_prompts_of_ones_own_are_planned_and_refused_where_they_cannot_be_patched(root):
    line = '{"clean": "disk country wall disk", "answer": "country", "distractor": "wall"}\n'
    kept = jobs.save_uploaded_prompts(root, "two.jsonl", (line + line.replace("disk", "forest")).encode())
    file = f"{kept.parent.name}/{kept.stem}"
    assert "Start" in labels(opened(task="", file=file))
    app = opened(task="", file=file, ablation="patch")
    assert "no corrupted prompts" in app.error[0].value and "Start" not in labels(app)


def test_copy_as_python_measures_the_same_numbers(finished, monkeypatch):
    root, run = finished
    serving(root, monkeypatch)
    app = opened(**QUERY)
    python = next(code.value for code in app.code if "ablate_heads" in code.value)
    made = {}
    exec(python, made)
    np.testing.assert_allclose(made["table"]["effect"], run.heads()["effect"], rtol=0, atol=1e-5)


def test_bars_on_a_dark_page_keep_no_colour_of_the_light_one(finished):
    from interp.figures import ranked_effects, style, to_dark_theme
    from interp.figures.ranked_effects import FAINT_NEGATIVE, FAINT_POSITIVE, GREY

    bars = ranked_effects(finished[1].heads())
    light = {GREY, FAINT_NEGATIVE, FAINT_POSITIVE, style.NEGATIVE, style.POSITIVE, style.PAPER, style.INK}
    used = {colour for colour in light if colour in bars.to_json()}
    assert {GREY, FAINT_NEGATIVE, style.INK} <= used and not any(colour in to_dark_theme(bars).to_json() for colour in light)
