"""The pages Heads, Compare and Runs: what they show is what was measured, and what they cannot show they say."""

import base64
import fcntl
import json
import zlib
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from math import nan

import numpy as np
import pytest
import torch
from filelock import FileLock

from interp.engine.attention.qk_cache import AttentionCache
from interp.experiments import AblationSpec
from interp.heads import Head, HeadScores
from interp.metrics import observe_attention
from interp.models import load_model
from interp.records import RunRecord
from interp.store import list_runs, open_run, save_observation, save_scores, start_run
from interp.store.run_directory import LOCK
from interp_dashboard import jobs, metric_cache, prompts, url
from interp_dashboard.attention_cache import PromptChoice, attention_cache
from interp_dashboard.model_cache import model_cache
from interp_dashboard.pages import compare, heads, runs
from interp_dashboard.settings import settings
from tests.store.test_list_delete_zip_runs import ESCAPES
from tests.support.dashboard_apps import address, new_session, open_address
from tests.support.tiny_models import save_tiny

MODEL = "interp-mini"
TEXT = "the cat sat on the mat"


@cache
def mini():
    return load_model(MODEL)


def opened(page, **query):
    """The page as it stands after its address was opened."""
    app = open_address(new_session(page), **query)
    assert not app.exception, app.exception[0].value
    return app


def tables(app):
    return [element.value for element in app.dataframe]


def table_with(app, *columns):
    """The table that has these columns."""
    return next(table for table in tables(app) if set(columns) <= set(table.columns))


def observed(metric, text=TEXT):
    return observe_attention(mini(), mini().to_tokens(text), [metric]).heads(metric).values


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of runs, that of the server."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("INTERP_DASHBOARD", json.dumps({"runs": str(folder)}))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A second model of another shape (3 layers x 6 heads), known to the server."""
    path = save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")
    model_cache().add(str(path))
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The embedded model with weights that were changed a little, known to the server."""
    path = tmp_path_factory.mktemp("models") / "step-2000"
    torch.manual_seed(0)
    changed = load_model(MODEL)
    with torch.no_grad():
        for weights in changed.hf.parameters():
            weights.add_(0.2 * weights.std() * torch.randn_like(weights))
    changed.hf.save_pretrained(path)
    changed.tokenizer.save_pretrained(path)
    model_cache().add(str(path))
    return str(path)


def stored(folder, text=TEXT, metrics=("entropy", "attention_distance")):
    """A run of the dashboard's folder: metrics of a text."""
    found = observe_attention(mini(), mini().to_tokens(text), list(metrics))
    record = replace(found.record, task="text", arguments={"n_tokens": len(mini().to_tokens(text))})
    return save_observation(replace(found, record=record), mini().facts, folder)


def of_scores(folder, values, name="entropy", model="toy"):
    scores = HeadScores(name, np.array(values, dtype=float), "nats", (None, None), RunRecord(model, metric=name), "no row")
    return save_scores(scores, folder)


def job_of(folder):
    """The job of a run directory, not at work."""
    job = jobs.Job(folder, MODEL, AblationSpec(task="induction"), 4, 1.0)
    job.job_dir.mkdir(parents=True)
    jobs._write(job)
    return job


# --- Heads


@pytest.mark.parametrize("metric", ["entropy", "value_weighted_norm", "head_similarity"])
def test_the_table_of_heads_holds_what_is_measured_on_the_prompt(metric):
    app = opened("heads", task="", text=TEXT, metric=metric, columns="self_attention_score")
    table = table_with(app, "head", metric, "self_attention_score")
    assert list(table.columns) == ["head", metric, "self_attention_score"]
    assert list(table["head"]) == [str(head) for head in mini().facts.heads()]
    np.testing.assert_allclose(table[metric], observed(metric).ravel(), rtol=1e-5)
    np.testing.assert_allclose(table["self_attention_score"], observed("self_attention_score").ravel(), rtol=1e-5)


def test_every_control_of_heads_changes_what_is_shown_and_the_address():
    app = opened("heads", task="induction")
    seen = [table_with(app, "head").to_csv()]
    changes = {
        "metric": lambda: app.selectbox(key="field:metric").select("confidence"),
        "columns": lambda: app.multiselect(key="field:columns").set_value(["local_focus"]),
        "example": lambda: app.number_input(key="field:example").set_value(2),
        "seed": lambda: app.number_input(key="field:seed").set_value(5),
        "corrupted": lambda: app.toggle(key="field:corrupted").set_value(True),
        "task": lambda: app.selectbox(key="field:task").select("ioi"),
    }
    for field, change in changes.items():
        before = address(app)
        change().run()
        assert not app.exception and not app.error
        assert address(app).get(field) != before.get(field), field
        seen.append(table_with(app, "confidence" if len(seen) else "head").to_csv())
        assert seen[-1] != seen[-2], field
    app.selectbox(key="field:task").select("").run()
    app.text_area(key="field:text").set_value(TEXT).run()
    np.testing.assert_allclose(table_with(app, "confidence")["confidence"], observed("confidence").ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("heads", {"task": "", "text": TEXT, "metric": "confidence", "columns": "entropy,sink_mass", "head": "L2H1"}),
        (
            "compare",
            {"task": "", "text": TEXT, "task_b": "", "text_b": "the dog sat on the mat", "metric": "entropy", "head": "L1H3"},
        ),
        ("compare", {"versus": "models", "model_b": MODEL, "seed": "4", "head": "L0H2"}),
    ],
)
def test_a_copied_address_shows_the_same(page, query):
    app = opened(page, **query)
    copied = address(app)
    assert copied.items() >= {name: value for name, value in query.items() if name != "model_b"}.items()
    again = opened(page, **copied)
    assert address(again) == copied
    assert [table.to_csv() for table in tables(again)] == [table.to_csv() for table in tables(app)]


def test_the_chosen_head_is_told_in_numbers():
    app = opened("heads", task="", text=TEXT, metric="entropy", head="L2H3")
    told = table_with(app, "metric", "value", "unit").set_index("metric")
    assert float(told.loc["entropy", "value"]) == pytest.approx(observed("entropy")[2, 3], rel=1e-2)
    assert told.loc["entropy", "unit"] == "nats"


@pytest.mark.parametrize("page", ["heads", "compare"])
def test_a_head_that_the_model_lacks_is_told(page):
    app = opened(page, head="L99H0")
    assert "L99H0 does not exist" in app.warning[0].value.replace("\\", "")


@pytest.mark.parametrize("page", ["heads", "compare"])
def test_an_empty_prompt_is_refused_in_a_sentence(page):
    app = opened(page, task="", text=" ")
    assert len(app.error) == 1 and "The prompt is empty" in app.error[0].value


def test_the_command_is_left_out_where_it_would_read_other_prompts():
    def languages(**query):
        return [code.language for code in opened("heads", **query).code]

    assert languages(task="induction") == ["bash", "python"]
    assert languages(task="induction", example="1") == languages(task="induction", corrupted="yes") == ["python"]


def test_the_code_gives_the_number_that_is_shown():
    app = opened("heads", task="induction", example="3", corrupted="yes", metric="entropy")
    names = {}
    exec(app.code[0].value.replace(".plot()", "").replace("found.heads", "scores = found.heads"), names)
    np.testing.assert_allclose(names["scores"].values.ravel(), table_with(app, "head", "entropy")["entropy"], rtol=1e-5)


def test_a_metric_is_measured_once_and_only_so_many_are_kept(monkeypatch):
    asked, observe = [], AttentionCache.observe

    def counted(self, metrics, **options):
        asked.append([metric.name for metric in metrics])
        return observe(self, metrics, **options)

    prompt = PromptChoice(text="the cat sat")
    reading = attention_cache().get(MODEL, prompt)
    monkeypatch.setattr(AttentionCache, "observe", counted)
    monkeypatch.setattr(metric_cache, "MAX_CACHED_METRICS", 2)
    store = metric_cache.MetricCache()
    for names in (["entropy"], ["entropy", "confidence"], ["confidence"], ["local_focus"], ["entropy"]):
        assert list(store.get(reading, MODEL, names)) == names
    assert asked == [["entropy"], ["confidence"], ["local_focus"], ["entropy"]]
    (scores,) = metric_cache.measure(reading, prompt, MODEL, ["entropy"]).values()
    assert (scores.record.task, scores.record.arguments) == ("own text", {"n_tokens": len(reading.tokens)})


def test_the_record_names_example_and_side_so_that_captions_of_two_prompts_differ():
    prompts = [PromptChoice(task="ioi", example=3, corrupted=corrupted) for corrupted in (False, True)]
    found = [metric_cache.measure(attention_cache().get(MODEL, p), p, MODEL, ["entropy"])["entropy"] for p in prompts]
    assert [scores.record.task for scores in found] == ["ioi, example 3", "ioi, corrupted example 3"]


def test_every_metric_that_is_offered_has_a_number_a_head_and_a_sentence():
    names = metric_cache.metric_names()
    reading, prompt = attention_cache().get(MODEL, PromptChoice(task="induction")), PromptChoice(task="induction")
    found = metric_cache.measure(reading, prompt, MODEL, names)
    assert {scores.values.shape for scores in found.values()} == {(mini().facts.n_layers, mini().facts.n_heads)}
    about = {name: metric_cache.about_metric(name) for name in names}
    assert all(scores.unit in about[name] for name, scores in found.items())
    assert about["attention_distance"].endswith(", in tokens")  # the unit is not repeated in brackets
    assert "patch_ring_mass" not in names and "value_weighted_norm" in names


# --- Compare


def test_the_difference_of_two_prompts_is_b_minus_a_the_largest_first():
    app = opened("compare", task="", text=TEXT, task_b="", text_b="the dog", metric="entropy")
    table = table_with(app, "head", "A", "B")
    a, b = observed("entropy"), observed("entropy", "the dog")
    for row in table.itertuples():
        head = Head.parse(row.head)
        assert row[2:4] == pytest.approx((a[head], b[head]), rel=1e-5)
    np.testing.assert_allclose(table["B − A"], table["B"] - table["A"])
    assert list(table["B − A"].abs()) == sorted(table["B − A"].abs(), reverse=True)


def test_a_prompt_and_its_corrupted_form_are_compared_first():
    app = opened("compare", head="L1H1")
    assert not app.toggle(key="field:corrupted").value and app.toggle(key="field:corrupted_b").value
    assert (table_with(app, "A", "B")["B − A"] != 0).any()


def test_the_commands_of_a_comparison_make_both_runs_and_draw_their_difference():
    made, _ = (
        code.value for code in opened("compare", task="", text="it's", task_b="", text_b="the dog", metric="entropy").code
    )
    assert made.splitlines() == [
        """interp attention --model interp-mini --text 'it'"'"'s' --metrics entropy --out runs/a""",
        "interp attention --model interp-mini --text 'the dog' --metrics entropy --out runs/b",
        "interp show runs/b --minus runs/a --metric entropy --figure difference.png",
    ]


def test_the_same_prompt_twice_is_said_to_be_the_same():
    app = opened("compare", corrupted_b="no")
    assert "all differences are 0" in app.info[0].value
    assert (table_with(app, "A", "B")["B − A"] == 0).all()


def test_every_control_of_compare_changes_what_is_shown():
    app = opened("compare", task="induction", task_b="induction")
    seen = table_with(app, "A", "B").to_csv()
    for change in (
        lambda: app.selectbox(key="field:metric").select("entropy"),
        lambda: app.number_input(key="field:example").set_value(1),
        lambda: app.number_input(key="field:example_b").set_value(2),
        lambda: app.number_input(key="field:seed_b").set_value(3),
        lambda: app.toggle(key="field:corrupted").set_value(True),
        lambda: app.toggle(key="field:corrupted_b").set_value(False),
        lambda: app.selectbox(key="field:task_b").select("ioi"),
        lambda: app.segmented_control(key="field:versus").set_value("models"),
    ):
        before, _ = address(app), change().run()
        assert not app.exception and not app.error
        assert address(app) != before
        now = table_with(app, "A", "B").to_csv()
        assert now != seen
        seen = now


def test_patterns_of_texts_of_other_lengths_are_not_compared_but_maps_are():
    app = opened("compare", task="", text=TEXT, task_b="", text_b="the dog", head="L1H1")
    assert not app.error and len(table_with(app, "A", "B")) == 16
    n, m = (len(mini().to_tokens(text)) for text in (TEXT, "the dog"))
    assert f"A has {n} tokens and B has {m}" in app.info[-1].value


def test_the_exported_difference_of_patterns_is_that_of_the_weights():
    a, b = (attention_cache().get(MODEL, PromptChoice(task="induction", corrupted=side)) for side in (False, True))
    cell = slice(3, 3 + compare.TILE), slice(1, 1 + compare.TILE)
    weights = [side.cache.pattern(Head(1, 2), *cell).numpy() for side in (a, b)]
    place = {"first_query": 3, "first_key": 1}
    table = compare._tile_table(weights[1], weights[0], b.words, a.words, **place, causal=True)
    length = len(a.tokens)
    assert len(table) == sum(min(query, length - 1) for query in range(3, length))  # keys 1 to the query itself
    row = table[(table["query"] == 9) & (table["key"] == 4)].iloc[0]
    for side, reading in (("A", a), ("B", b)):
        assert row[side] == pytest.approx(float(reading.cache.pattern(Head(1, 2))[9, 4]))
        assert (row[f"query token {side}"], row[f"key token {side}"]) == (reading.words[9], reading.words[4])
    open_eyed = compare._tile_table(weights[1], weights[0], b.words, a.words, **place, causal=False)
    assert len(open_eyed) == (length - 3) * (length - 1)


def test_a_window_beyond_the_text_is_moved_into_it():
    long = " ".join(["the cat sat on the mat"] * 20)
    app = opened("compare", task="", text=long, task_b="", text_b=long, head="L1H1", first_query="999999", first_key="3")
    last = len(mini().to_tokens(long)) - compare.TILE
    assert (app.number_input(key="field:first_query").value, app.number_input(key="field:first_key").value) == (last, 3)
    assert address(app)["first_query"] == str(last)
    app.number_input(key="field:first_key").set_value(5).run()
    assert address(app)["first_key"] == "5" and not app.exception


def test_models_of_different_shapes_are_refused_in_a_sentence(llama):
    app = opened("compare", versus="models", task="", text="w1 w2 w3", model_b=llama)
    said = app.error[0].value.replace("\\", "")
    assert "has 4 layers x 4 heads" in said and "has 3 layers x 6 heads" in said and "the same shape" in said


def test_two_checkpoints_are_compared_head_by_head(checkpoint):
    app = opened("compare", versus="models", task="", text=TEXT, model_b=checkpoint, metric="entropy", head="L2H0")
    assert not app.error
    assert all("does not know" in warning.value for warning in app.warning)
    table = table_with(app, "A", "B").set_index("head")
    other = load_model(checkpoint)
    after = observe_attention(other, other.to_tokens(TEXT), ["entropy"]).heads("entropy").values
    np.testing.assert_allclose(
        table.loc["L2H0"], [observed("entropy")[2, 0], after[2, 0], (after - observed("entropy"))[2, 0]], rtol=1e-4
    )
    assert abs(table["B − A"]).max() > 0.01
    assert address(app)["model_b"] == checkpoint and "model" not in address(app)


def test_two_runs_are_compared_where_both_have_a_number(root):
    stored(root / "one"), stored(root / "other", "the dog sat", ("attention_distance",))
    app = opened("compare", versus="runs", run_a="one", run_b="other")
    assert app.selectbox(key="field:run_metric").options == ["attention_distance"]
    table = table_with(app, "A", "B").set_index("head")
    a, b = observed("attention_distance"), observed("attention_distance", "the dog sat")
    assert table.loc["L3H1", "A"] == pytest.approx(a[3, 1], rel=1e-5)
    assert table.loc["L3H1", "B − A"] == pytest.approx((b - a)[3, 1], rel=1e-4)
    app.selectbox(key="field:run_a").select("other").run()
    assert (table_with(app, "A", "B")["B − A"] == 0).all()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"values": [[0.5]], "name": "concentration"}, "share no metric: A has entropy, B has concentration"),
        ({"values": [[0.5], [0.25]]}, "the shapes (2, 1) and (1, 1)"),
        (None, "needs two finished runs with numbers per head"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(root, other, sentence):
    of_scores(root / "a", [[1.0]])
    if other:
        of_scores(root / "b", **other)
    app = opened("compare", versus="runs", run_a="a", run_b="b")
    assert sentence in app.error[0].value.replace("\\", "")


def test_only_runs_with_numbers_per_head_are_compared(root):
    of_scores(root / "a", [[1.0]]), of_scores(root / "b", [[0.5]])
    with start_run(root / "without", {"kind": "circuit"}) as writer:
        writer.finish(RunRecord("toy", metric="accuracy"), kind="circuit", shape=[1, 1])
    assert set(opened("compare", versus="runs").selectbox(key="field:run_a").options) == {"a", "b"}
    with pytest.raises(LookupError, match=r"without has no table 'heads'\. There are: none"):
        open_run(root / "without").scores()


def test_a_run_of_another_checkpoint_is_compared_and_heads_without_a_number_come_last(root):
    of_scores(root / "a", [[1.0, nan, 3.0]], model="step-1"), of_scores(root / "b", [[1.5, 9.0, 1.0]], model="step-2")
    table = table_with(opened("compare", versus="runs", run_a="a", run_b="b"), "A", "B")
    assert list(table["head"]) == ["L0H2", "L0H0", "L0H1"]
    np.testing.assert_array_equal(table["B − A"], [-2.0, 0.5, nan])


# --- Runs


def test_without_runs_the_page_says_how_to_make_one(root):
    app = opened("runs")
    assert "No runs yet" in app.info[0].value and "interp ablate" in app.code[0].value


def test_the_history_lists_every_run_and_opens_the_one_in_the_address(root):
    stored(root / "read"), of_scores(root / "scored", [[0.5, 0.25]])
    with start_run(root / "begun", {"kind": "ablation", "task": "ioi", "model": "toy"}):
        pass
    app = opened("runs", run="read", figure="heads", figure_metric="entropy")
    listed = tables(app)[0].set_index("run")
    assert dict(listed["status"]) == {"read": "● finished", "scored": "● finished", "begun": "○ interrupted"}
    assert (listed.loc["read", "heads"], listed.loc["scored", "heads"]) == ("4 × 4", "1 × 2")
    assert (listed.loc["begun", "task"], listed.loc["read", "model"]) == ("ioi", MODEL)
    rows = table_with(app, "label", "value").set_index("label")["value"]
    assert list(rows) == sorted(observed("entropy").ravel(), key=abs, reverse=True)
    assert rows["L2H1"] == pytest.approx(observed("entropy")[2, 1])


def test_every_control_of_runs_changes_what_is_shown(root):
    stored(root / "read")
    app = opened("runs", run="read")
    app.selectbox(key="field:figure_metric").select("attention_distance").run()
    assert address(app)["figure_metric"] == "attention_distance"
    assert table_with(app, "label", "value")["value"].max() == pytest.approx(observed("attention_distance").max())
    for kind in ("layers", "tokens"):
        app.segmented_control(key="field:figure").set_value(kind).run()
        assert not app.exception and address(app)["figure"] == kind
        assert f"--kind {kind} --metric attention_distance" in app.code[0].value
    table = table_with(app, "pos", "token", "value")
    assert list(table["token"]) == mini().to_str_tokens(mini().to_tokens(TEXT))
    again = opened("runs", **address(app))
    assert [shown.to_csv() for shown in tables(again)] == [shown.to_csv() for shown in tables(app)]


def test_the_record_of_a_run_is_shown(root):
    stored(root / "read")
    made = table_with(opened("runs", run="read"), "field", "value").set_index("field")["value"]
    record = open_run(root / "read").record
    assert (made["model"], made["weights_digest"], made["n_tokens"]) == (record.model, record.weights_digest, "7")
    assert made["torch"] == record.packages["torch"] and made["folder"] == str(root / "read")


@pytest.mark.parametrize("damage", ["{", "[1]", '{"schema": 2}', None])
def test_a_damaged_run_is_shown_as_damaged_and_the_others_stay(root, damage):
    of_scores(root / "fine", [[0.5]]), of_scores(root / "broken", [[0.5]])
    file = root / "broken" / "run.json"
    file.write_text(damage or json.dumps({**json.loads(file.read_text()), "spec": 3, "details": None}))
    app = opened("runs", run="broken")
    assert dict(tables(app)[0].set_index("run")["status"]) == {"fine": "● finished", "broken": "✕ damaged"}
    assert "run.json" in app.error[0].value.replace("\\", "")


def test_a_table_that_was_changed_is_refused_in_a_sentence(root):
    of_scores(root / "changed", [[0.5]])
    (root / "changed" / "heads.parquet").write_bytes(b"PAR1")
    assert "is not the file that the run wrote" in opened("runs", run="changed").error[0].value


def test_a_run_is_deleted_once_its_name_is_typed_and_not_before(root):
    of_scores(root / "gone", [[0.5]]), of_scores(root / "stays", [[0.5]])
    job_of(root / "gone")
    app = opened("runs", run="gone")

    def button():
        return next(button for button in app.button if button.label == "Delete permanently")

    assert button().disabled
    app.text_input(key="typed-gone").set_value("gon").run()
    assert button().disabled and (root / "gone").exists()
    app.text_input(key="typed-gone").set_value("gone").run()
    button().click().run()
    assert not app.exception
    assert [entry.name for entry in list_runs(root)] == ["stays"]
    assert "run" not in address(app) and list(tables(app)[0]["run"]) == ["stays"]
    assert jobs.find(root, "gone") is None


@pytest.mark.parametrize("why", ["strange", "written", "measured"])
def test_a_run_that_may_not_be_deleted_stays_with_a_sentence(root, why):
    of_scores(root / "kept", [[0.5]])
    if why == "strange":
        (root / "kept" / "notes.txt").write_text("mine")
    app = opened("runs", run="kept")
    app.text_input(key="typed-kept").set_value("kept").run()
    button = next(button for button in app.button if button.label == "Delete permanently")
    with ExitStack() as held:
        if why == "written":
            held.enter_context(FileLock(root / "kept" / LOCK))
        if why == "measured":
            fcntl.flock(held.enter_context((job_of(root / "kept").job_dir / jobs.STDOUT).open("ab")), fcntl.LOCK_EX)
        button.click().run()
    said = app.warning[0].value.replace("\\", "")
    reasons = {
        "strange": "notes.txt",
        "written": "by another process",
        "measured": "cancel it first, on the page that started it",
    }
    assert "Nothing was deleted" in said and reasons[why] in said
    assert (root / "kept" / "run.json").exists()


@pytest.mark.parametrize(
    ("page", "fields", "shown"),
    [("runs", ["run"], "There is no run called"), ("compare", ["run_a", "run_b"], "There is no finished run called")],
)
def test_no_name_in_an_address_leads_out_of_the_folder(root, page, fields, shown):
    of_scores(root / "inside", [[0.5]]), of_scores(root / "other", [[0.5625]]), of_scores(root.parent / "outside", [[0.25]])
    (root / "link").symlink_to(root.parent / "outside")
    app = opened(page)
    for name in ESCAPES:
        if name in ("", "\ud800"):  # no name, and one that no address can hold
            continue
        app.query_params.clear()
        app.query_params["versus"] = "runs"
        for field in fields:
            app.query_params[field] = url.text(field).write(name)
        app.run()
        assert not app.exception, name
        assert shown in app.warning[0].value.replace("\\", ""), name
        numbers = [value for table in tables(app) for value in table.select_dtypes("float").to_numpy().ravel()]
        assert 0.25 not in np.abs(numbers), name
    assert sorted(entry.name for entry in list_runs(root)) == ["inside", "other"]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\u202etxt.exe",
    "=HYPERLINK(1)",
    "![x](http://a.b)",
    "\ud83d",
]


@pytest.mark.parametrize("said", HOSTILE)
def test_what_a_run_says_is_shown_as_text(root, said):
    record = RunRecord(said, metric="entropy", arguments={said: said}, task=said)
    save_scores(HeadScores("entropy", np.array([[0.5]]), "nats", (None, None), record), root / "odd")
    app = opened("runs", run="odd", figure="heads")
    shown = said.encode("utf-8", "backslashreplace").decode()
    assert table_with(app, "run").loc[0, "task"] == shown
    assert dict(table_with(app, "field", "value").to_numpy())[said if said == shown else "\\ud83d"] == shown
    assert not [element for element in (*app.markdown, *app.caption) if said in element.value]


@pytest.mark.parametrize("said", HOSTILE)
def test_a_hostile_prompt_is_compared_like_any_other(said):
    packed = url.COMPRESSED + base64.urlsafe_b64encode(zlib.compress(said.encode("utf-8", "surrogatepass"))).decode()
    app = opened("compare", task="", text="the cat", task_b="", text_b=packed, head="L0H0")
    assert not app.error and len(table_with(app, "A", "B")) == 16


def test_pages_have_fields_of_their_own_and_share_those_of_the_prompt_and_the_head():
    names = {page.PAGE.name: {field.name for field in page.fields()} for page in (heads, compare, runs)}
    shared = {field.name for field in prompts.fields()}
    assert names["heads"] & names["compare"] == {*shared, "head", "metric"}
    assert names["heads"] & names["runs"] == {"head"}
