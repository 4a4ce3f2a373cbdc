"""The pages Tokens and Retrieval, role badges and role cards: what they show is what detectors found, and what they cannot ask they say."""

import json
import time
from functools import cache

import numpy as np
import pytest

from interp.confirmation import DEFAULT_KS, confirm
from interp.detectors import detect, quick_detectors
from interp.experiments import ConfirmationSpec, DetectionSpec
from interp.heads import Head
from interp.models import load_model
from interp.store import save_confirmation, save_detection
from interp.tasks import make_task
from interp_dashboard import jobs, url
from interp_dashboard.detector_option_widgets import DetectorOptions
from interp_dashboard.head_roles import role_cache
from interp_dashboard.job_plan import plan_job
from interp_dashboard.model_cache import model_cache
from interp_dashboard.pages import retrieval, tokens
from interp_dashboard.score_badges import role_badges
from interp_dashboard.settings import settings
from tests.support.attention_views import HOSTILE
from tests.support.dashboard_apps import address, labels, new_session, open_address, save_small
from tests.support.detection_cases import detection, token_detection

MODEL = "interp-mini"
GRID = {"retrieval.n_lengths": "3", "retrieval.n_depths": "2", "retrieval.n_needles": "2", "retrieval.longest": "300"}
VALUES = {"n_lengths": 3, "n_depths": 2, "n_needles": 2, "longest": 300}
TRIAL = {"confirm.n_prompts": "12", "confirm.seed": "4", "confirm.ablation": "zero"}
ASKED = {"task": "needle", "n_prompts": 12, "seed": 4, "n_draws": 5, "ablation": "zero"}
OWN = {"texts": "", "prompt": "Tom has a disk. The disk is red.", "response": " Tom has a red disk and Tom has a cup."}
PATIENCE = 120


@cache
def mini():
    return load_model(MODEL)


@cache
def found():
    return detect(mini(), "retrieval", **VALUES)


def opened(page, **query):
    """The page as it stands after its address was opened."""
    app = open_address(new_session(page), **query)
    assert not app.exception, app.exception[0].value
    return app


def said(app):
    return " ".join(part.value for part in [*app.markdown, *app.caption])


def table_with(app, *columns):
    return next(element.value for element in app.dataframe if set(columns) <= set(element.value.columns))


def pictures(app):
    """The titles of the plotly figures of the page."""
    return [json.loads(chart.proto.spec)["layout"]["title"]["text"] for chart in app.get("plotly_chart")]


def wait(done):
    limit = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of runs, that of the server."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("INTERP_DASHBOARD", json.dumps({"runs": str(folder)}))
    settings.cache_clear()
    monkeypatch.setattr(role_cache(), "_detections", {})
    yield folder
    settings.cache_clear()


@pytest.fixture
def stored(root):
    """The run of the detection that ``GRID`` asks for."""
    plan = plan_job(DetectionSpec(role="retrieval", options=VALUES), mini(), root)
    return save_detection(found(), mini().facts, plan.folder, plan.identity)


@pytest.fixture
def tried(root, stored):
    """The run of the confirmation that ``TRIAL`` asks for."""
    plan = plan_job(ConfirmationSpec(detection=str(stored.path), **ASKED), mini(), root)
    made = confirm(found(), mini(), make_task("needle", mini(), n_prompts=12, seed=4), ablation="zero", seed=4)
    return save_confirmation(made, mini().facts, plan.folder, plan.identity)


# --- options


def test_every_option_that_can_be_written_is_a_field_with_the_detectors_own_default():
    for role in (*retrieval.OPTIONS, tokens.ROLE):
        own = retrieval.OPTIONS.get(role, tokens.OPTIONS)
        fields = {field.name: field for field in own.fields()}
        assert fields.keys() == {f"{role}.{name}" for name in own.known}
        for name, about in own.known.items():
            field = fields[f"{role}.{name}"]
            default = about.default
            assert field.default == (
                default if "None" not in str(about.annotation) else "" if default is None else str(default)
            )
            assert field.read(field.write(field.default)) == field.default


class Given(dict):
    """A state with these values."""


def test_values_are_of_the_kind_that_the_detector_takes():
    own = DetectorOptions("retrieval", exclude=("haystack", "mark"))
    usual = Given({field.name: field.default for field in own.fields()})
    assert own.values(usual) == {}
    given = Given({**usual, "retrieval.min_recall": " ", "retrieval.n_depths": 3, "retrieval.mode": "greedy"})
    assert own.values(given) == {"min_recall": None, "n_depths": 3, "mode": "greedy"}
    assert own.values(Given({**usual, "retrieval.min_recall": "0.25"})) == {"min_recall": 0.25}
    with pytest.raises(ValueError, match=r"min_recall=half.*a number"):
        own.values(Given({**usual, "retrieval.min_recall": "half"}))


def test_values_are_written_as_the_command_line_reads_them():
    from inspect import signature

    from interp.detectors import DETECTORS
    from interp.options_text import parse_options

    values = {"calibrate": False, "n_prompts": 7, "fwer": 0.1, "null_query": "a=b c"}
    words = DetectionSpec(role="query_retrieval", options=values).to_argv()[4:]
    assert words[::2] == ["--set"] * 4
    assert parse_options(words[1::2], signature(DETECTORS.get("query_retrieval")).parameters, "it") == values


# --- Tokens


def test_the_tokens_of_a_given_response_are_those_that_the_detector_finds():
    app = opened("tokens", **OWN)
    made = detect(mini(), "preplan_anchor", prompt=OWN["prompt"], response=OWN["response"]).to_dataframe()
    shown = table_with(app, "pos", "token", "waad", "fai", "preplan")
    assert len(shown) == len(made)
    for name in ("waad", "fai", "delta", "entropy", "preplan", "anchor", "dominated", "sink"):
        np.testing.assert_array_equal(shown[name], made[name])
    (text,) = [
        element.proto.body for element in app.get("html") if "Preplan and anchor tokens by WAAD and FAI" in element.proto.body
    ]
    assert text.count('class="token"') == len(made)


def test_a_response_is_written_where_none_is_given():
    app = opened("tokens", texts="", prompt=OWN["prompt"])
    n_given = len(mini().to_tokens(OWN["prompt"]))
    shown = table_with(app, "pos", "token", "waad")
    assert len(shown) > n_given and shown["waad"].isna().sum() >= n_given
    assert "response" not in address(app)


def test_statistics_stand_beside_shuffles_shifts_and_random_heads():
    table = table_with(opened("tokens", n_texts="3"), "statistic", "null", "observed", "p_value")
    assert {"random positions", "circular shifts", "random heads"} <= set(table["null"])
    assert set(table["statistic"]) == set(tokens.STATISTICS.values())


def test_every_control_of_tokens_changes_what_is_shown_and_the_address():
    app = opened("tokens", n_texts="2", **{"preplan_anchor.n_null_draws": "50"})
    fields = {
        "k": lambda at: app.number_input(key=at).set_value(1),
        "waad_quantile": lambda at: app.number_input(key=at).set_value(0.1),
        "share": lambda at: app.number_input(key=at).set_value(0.5),
        "window": lambda at: app.number_input(key=at).set_value(2),
        "horizon_min": lambda at: app.number_input(key=at).set_value(2),
        "horizon_max": lambda at: app.number_input(key=at).set_value(5),
        "q": lambda at: app.number_input(key=at).set_value(0.2),
        "layers": lambda at: app.selectbox(key=at).select("middle"),
        "exclude": lambda at: app.selectbox(key=at).select("first"),
        "prominence": lambda at: app.text_input(key=at).set_value("0.5"),
        "shift": lambda at: app.number_input(key=at).set_value(1),
    }
    seen = "".join(element.value.to_csv() for element in app.dataframe)
    for name, change in fields.items():
        change(f"field:preplan_anchor.{name}").run()
        assert not app.exception and not app.error, name
        assert f"preplan_anchor.{name}" in address(app)
        now = "".join(element.value.to_csv() for element in app.dataframe)
        assert now != seen, name
        seen = now
    again = opened("tokens", **address(app))
    assert "".join(element.value.to_csv() for element in again.dataframe) == seen and address(again) == address(app)


def test_other_texts_of_a_task_are_chosen_by_number_and_seed():
    app = opened("tokens", n_texts="3")
    first = table_with(app, "token", "waad").to_csv()
    app.number_input(key="field:text_index").set_value(2).run()
    other = table_with(app, "token", "waad")
    assert set(other["example"]) == {2} and other.to_csv() != first
    app.number_input(key="field:texts_seed").set_value(5).run()
    assert table_with(app, "token", "waad").to_csv() != other.to_csv()
    app.number_input(key="field:n_texts").set_value(2).run()
    assert address(app)["text_index"] == "1"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"texts": "", "prompt": "  "}, "The prompt is empty"),
        ({**OWN, "response": " disk"}, "use responses of at least 4 tokens"),
        ({**OWN, "preplan_anchor.horizon_min": "60"}, "60"),
        ({**OWN, "preplan_anchor.share": "0.9"}, "share=0.9"),
        ({**OWN, "preplan_anchor.prominence": "much"}, "prominence=much"),
        ({"n_texts": "2", "preplan_anchor.n_null_draws": "0"}, "n_null_draws=0"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_tokens_cannot_measure_is_one_sentence(query, sentence):
    app = opened("tokens", **query)
    assert len(app.error) == 1
    assert sentence in app.error[0].value.replace("\\", "")


def test_hostile_tokens_are_text():
    text = " ".join(HOSTILE).encode("utf-8", "ignore").decode()  # half a letter cannot be typed
    app = opened("tokens", texts="", prompt=text, response=text)
    assert not app.error
    (shown,) = [part.proto.body for part in app.get("html") if "waad-fai" in part.proto.body]
    assert "<img" not in shown and "<script" not in shown


def test_a_long_text_is_shown_in_part(tmp_path):
    folder = str(save_small(tmp_path / "long", 2, 4, 4096))
    model_cache().add(folder)
    text = "The cat sat on the mat. " * 120
    app = opened("tokens", model=folder, texts="", prompt=text, response=text, **{"preplan_anchor.n_null_draws": "20"})
    assert not app.error and len(table_with(app, "token", "waad")) > 1200
    assert "512 of" in said(app)
    app.number_input(key="field:first_token").set_value(1100).run()
    assert not app.error and address(app)["first_token"] == "1100"
    assert any("tokens 1,100-" in part.proto.body for part in app.get("html"))


def test_the_groups_of_heads_are_named_and_one_is_chosen():
    app = opened("tokens", **OWN, head="L1H2")
    made = detect(mini(), "preplan_anchor", prompt=OWN["prompt"], response=OWN["response"])
    for group, heads in made.heads.items():
        assert f"**{group}**: {', '.join(map(str, heads))}" in said(app)
    assert list(table_with(app, "group", "distance")["head"])[:2] == ["L0H0", "L0H1"]
    assert "L9H9 does not exist" in opened("tokens", **OWN, head="L9H9").warning[0].value.replace("\\", "")


def test_the_code_of_tokens_finds_the_same():
    app = opened("tokens", **OWN, **{"preplan_anchor.q": "0.2"})
    names = {}
    exec(next(code.value for code in app.code if code.language == "python"), names)
    shown = table_with(app, "token", "waad")
    np.testing.assert_array_equal(names["found"].to_dataframe()["anchor"], shown["anchor"])
    cli = next(code.value for code in app.code if code.language == "bash")
    assert "interp detect preplan_anchor" in cli and "'response= Tom has" in cli and "q=0.2" in cli


# --- Retrieval


def test_nothing_is_started_or_written_before_somebody_presses_start(root):
    app = opened("retrieval", **GRID)
    assert "Start" in labels(app) and not app.dataframe and not root.exists()
    assert "--set n_lengths=3" in app.code[0].value


@pytest.mark.parametrize("detector", retrieval.OPTIONS)
def test_every_detector_is_offered_with_its_own_options(root, detector):
    app = opened("retrieval", detector=detector)
    shown = {element.key for kind in ("number_input", "text_input", "toggle", "selectbox") for element in app.get(kind)}
    assert {f"field:{detector}.{name}" for name in retrieval.OPTIONS[detector].known} <= shown
    assert f"interp detect {detector} --model interp-mini" in app.code[0].value


def test_a_stored_detection_is_shown_with_its_scores_by_depth(stored):
    app = opened("retrieval", **GRID, head="L1H3")
    assert "Start" not in labels(app)
    shown, made = table_with(app, "head", "score", "null"), found()
    assert list(shown["head"]) == list(made.to_dataframe()["label"])
    np.testing.assert_allclose(shown["score"], made.to_dataframe()["score"])
    depths = made.tables["depths"]
    for depth, own in depths.groupby("depth"):
        expected = {str(Head(int(r.layer), int(r.head))): r.score for r in own.itertuples()}
        np.testing.assert_allclose(shown[f"at {depth:.0f}%"], [expected[label] for label in shown["head"]])
    assert pictures(app) == [
        "<b>Role retrieval: retrieval_score</b>",
        "<b>Recall by length and depth of the needle</b>",
    ]
    assert f"**{len(made.detected)} of 16 heads detected**: {', '.join(map(str, made.detected))}" in said(app)
    rank = made.top(16).index(Head(1, 3)) + 1
    assert f"rank {rank} of 16" in said(app)


def test_the_address_of_another_grid_shows_no_result(stored):
    assert "Start" in labels(opened("retrieval", **{**GRID, "retrieval.n_depths": "4"}))


def test_the_confirmation_is_offered_and_shown_with_its_controls(stored, tried):
    other = opened("retrieval", **GRID, **{**TRIAL, "confirm.n_draws": "7"})
    assert "Confirm" in labels(other)
    app = opened("retrieval", **GRID, **TRIAL)
    assert "Confirm" not in labels(app) and "<b>Ablating retrieval heads</b>" in pictures(app)
    curve = table_with(app, "group", "k", "effect_ci_low")
    assert set(curve["group"]) == {"detected", "random", "layer_matched", "bottom"} and set(curve["k"]) <= {0, *DEFAULT_KS}
    assert "interp confirm" in " ".join(code.value for code in app.code)


def test_prompts_that_the_heads_were_found_on_are_refused_in_a_sentence(root):
    made = detect(mini(), "query_retrieval", n_prompts=12, seed=4)
    plan = plan_job(DetectionSpec(role="query_retrieval", options={"n_prompts": 12, "seed": 4}), mini(), root)
    save_detection(made, mini().facts, plan.folder, plan.identity)
    query = {"detector": "query_retrieval", "query_retrieval.n_prompts": "12", "query_retrieval.seed": "4"}
    app = opened("retrieval", **query, **TRIAL)
    assert "12 of the 12 prompts" in app.error[0].value.replace("\\", "") and table_with(app, "head", "score") is not None


@pytest.mark.slow
def test_a_detection_runs_in_its_own_process_and_a_failed_one_says_why(root):
    app = opened("retrieval", **GRID)
    next(button for button in app.button if button.label == "Start").click().run()
    (job,) = jobs.jobs(root)
    assert job.command == "detect" and "Cancel" in labels(app)
    other = opened("retrieval")
    assert job.name in said(other).replace("\\", "")
    wait(lambda: not jobs.status(jobs.find(root, job.name)).active)
    assert jobs.status(job).state == "finished" and jobs.status(job).share == 1
    assert table_with(opened("retrieval", **GRID), "head", "score") is not None
    bad = opened("retrieval", **{"retrieval.shortest": "3", "retrieval.longest": "4"})
    next(button for button in bad.button if button.label == "Start").click().run()
    (failed,) = [job for job in jobs.jobs(root) if jobs.status(job).state != "finished"]
    wait(lambda: not jobs.status(failed).active)
    again = opened("retrieval", **{"retrieval.shortest": "3", "retrieval.longest": "4"})
    assert "The last attempt failed: " in again.error[0].value and "Start" in labels(again)
    shown = opened("retrieval")
    next(button for button in shown.button if button.label == "Show").click().run()
    assert shown.number_input(key="field:retrieval.longest").value == 4


def test_how_far_a_command_is_is_read_from_its_progress_bar(tmp_path):
    job = jobs.Job(tmp_path / "run", MODEL, DetectionSpec(role="retrieval"), started=1000.0, query={"detector": "retrieval"})
    job.job_dir.mkdir(parents=True)
    jobs._write(job)
    assert jobs.find(tmp_path, "run") == job
    with jobs._locked(job.job_dir / jobs.STDOUT):
        assert jobs.status(job).state == "loading"
        bar = "\r retrieval: 0unit [00:00, ?unit/s]\r retrieval:  4%|4   | 1/24 [00:01<00:23]\r retrieval:  25%|2  | 6/24 [00:02<00:06]"
        (job.job_dir / jobs.STDERR).write_text("x" * 9000 + bar)
        now = jobs.status(job)
        assert (now.state, now.done, now.total, now.share) == ("running", 6, 24, 0.25)
        assert now.rate > 0 and now.eta > 0
    assert jobs.status(job).state == "failed"


# --- roles


def test_cards_of_the_heads_page_hold_what_the_quick_detectors_find(root):
    app = opened("heads", task="", text="the cat sat", head="L1H3", roles="yes")
    card = table_with(app, "role", "detected", "rank").set_index("role")
    assert set(card.index) == set(quick_detectors())
    made = detect(mini(), "induction")
    assert card.loc["induction", "score"] == pytest.approx(made.scores[Head(1, 3)])
    assert bool(card.loc["induction", "detected"]) is (Head(1, 3) in made.detected)
    assert card.loc["induction", "rank"] == f"{made.top(16).index(Head(1, 3)) + 1} of 16"


def test_nothing_is_looked_for_unasked_and_stored_detections_count(root, stored):
    app = opened("heads", task="", text="the cat sat", head="L1H3")
    assert list(table_with(app, "role", "detected")["role"]) == ["retrieval"]
    assert role_cache()._detections == {}


def test_badges_of_the_attention_page_say_what_detectors_found(root, stored):
    app = opened("attention", task="", text="the cat sat", head="L1H3")
    shown = [badge.value for badge in app.markdown if "retrieval" in badge.value]
    (expected,) = role_badges({"retrieval": found()}, Head(1, 3))
    assert len(shown) == 1 and expected[0] in shown[0] and expected[1]
    assert "Threshold" in expected[2] and "null" in expected[2]


def test_detections_of_other_weights_are_not_shown(root):
    save_detection(detection(found=(Head(1, 3),), shape=(4, 4)), mini().facts, root / "other")
    app = opened("attention", task="", text="the cat sat", head="L1H3")
    assert not [badge.value for badge in app.markdown if "retrieval" in badge.value]
    assert "No detections of this model yet" in said(opened("heads", task="", text="the cat sat"))


def test_a_head_without_a_score_has_no_badge():
    made = detection()
    assert role_badges({"retrieval": made}, Head(2, 0)) == []
    ((label, is_found, _),) = role_badges({"retrieval": made}, Head(2, 4))
    assert label == "retrieval 0.7" and is_found


# --- Runs


def test_stored_roles_are_drawn_on_the_page_of_runs(root, stored, tried):
    save_detection(token_detection(), mini().facts, root / "texts")
    app = opened("runs", run=stored.path.name)
    assert pictures(app) == ["<b>Role retrieval: retrieval_score</b>"]
    app.segmented_control(key="field:figure").set_value("needle_grid").run()
    assert pictures(app) == ["<b>Recall by length and depth of the needle</b>"]
    assert table_with(app, "length", "depth", "recall") is not None
    assert pictures(opened("runs", run=tried.path.name)) == ["<b>Ablating retrieval heads</b>"]
    app = opened("runs", run="texts")
    assert pictures(app) == ["<b>Preplan and anchor tokens by WAAD and FAI</b>"]
    app.segmented_control(key="field:figure").set_value("tokens").run()
    assert not app.exception and pictures(app) == ["<b>waad of each token</b>"]


def test_following_an_address_sets_every_field():
    app = opened("retrieval", **GRID, head="L1H3")
    assert url.query(retrieval.PAGE.all_fields(), {"head": Head(1, 3), "retrieval.n_depths": 2}) == {
        "head": "L1H3",
        "retrieval.n_depths": "2",
    }
    assert address(app) == {**GRID, "head": "L1H3"}
