"""The page Circuit: what it shows is what was found, and what it cannot ask it says."""

import json
import time
from dataclasses import replace
from functools import cache

import pytest

from interp.circuits import Edge, Node, faithfulness_curve, score_edges
from interp.experiments import CircuitSpec
from interp.figures.style import number
from interp.heads import Head
from interp.models import load_model
from interp.store import FileLedger, load_circuit_run, save_circuit
from interp.tasks import make_task
from interp_dashboard import jobs
from interp_dashboard.job_plan import find_stored_circuit, plan_job
from interp_dashboard.model_cache import model_cache
from interp_dashboard.pages import circuit as page
from interp_dashboard.settings import settings
from tests.support.dashboard_apps import address, labels, new_session, open_address
from tests.support.tiny_models import save_tiny

MODEL = "interp-mini"
QUERY = {"n_prompts": "4", "seed": "3", "circuit.method": "eap"}
ASKED = {"task": "ioi", "n_prompts": 4, "seed": 3, "method": "eap", "metric": None}
PATIENCE = 120


@cache
def mini():
    return load_model(MODEL)


@cache
def scores():
    return score_edges(mini(), make_task("ioi", mini(), n_prompts=4, seed=3), method="eap")


@cache
def curve():
    return faithfulness_curve(mini(), make_task("ioi", mini(), n_prompts=4, seed=4), scores(), shares=(0.1, 1.0), n_draws=2)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of runs, that of the server."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("INTERP_DASHBOARD", json.dumps({"runs": str(folder)}))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def stored(root):
    """The run of what ``QUERY`` asks for."""
    plan = plan_job(CircuitSpec(**ASKED), mini(), root)
    return save_circuit(scores().circuit(47), scores(), curve(), plan.folder, plan.identity)


def opened(name="circuit", **query):
    """The page as it stands after its address was opened."""
    app = open_address(new_session(name), **query)
    assert not app.exception, app.exception[0].value
    return app


def said(app):
    return " ".join(part.value for part in [*app.markdown, *app.caption]).replace("\\", "")


def graph(app):
    """The graph that is shown."""
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def edges_drawn(app):
    lines = [trace for trace in graph(app)["data"] if trace["mode"] == "lines" and "customdata" in trace]
    return {trace["customdata"][0] for trace in lines}


def edges_listed(app):
    return next(element.value for element in app.dataframe if "edge" in element.value.columns)


def test_nothing_is_started_or_written_before_somebody_presses_start(root):
    app = opened(**QUERY)
    assert "Start" in labels(app) and not app.dataframe and not root.exists()
    assert "interp circuit --model interp-mini --task ioi --method eap --n-prompts 4 --seed 3" in app.code[0].value


def test_the_edges_of_largest_effect_that_lead_to_the_logits_are_drawn_and_listed(stored):
    app = opened(**QUERY, edges="30")
    wanted = scores().circuit(30)
    assert "Start" not in labels(app)
    assert edges_drawn(app) == set(edges_listed(app)["edge"]) == set(map(str, wanted.edges))
    listed = edges_listed(app)
    assert list(listed["score"].abs()) == sorted(listed["score"].abs(), reverse=True)
    assert dict(zip(listed["edge"], listed["score"], strict=True)) == {str(e): wanted.scores[e] for e in wanted.edges}
    assert f"{len(wanted)} of the 30 edges" in said(app) and f"{scores().n_nonzero:,} of 479 edges" in said(app)


def test_the_threshold_is_live_beyond_the_stored_size_and_stands_in_the_address(stored):
    app = opened(**QUERY)
    app.slider(key="field:edges").set_value(120).run()
    assert not app.exception and address(app)["edges"] == "120"
    assert edges_drawn(app) == set(map(str, scores().circuit(120).edges))
    again = opened(**address(app))
    assert graph(again) == graph(app) and address(again) == address(app)


def test_a_size_that_leaves_nothing_says_so_and_keeps_the_slider(stored):
    with pytest.raises(ValueError, match="form no circuit"):
        scores().circuit(1)
    app = opened(**QUERY, edges="1")
    assert "No edge is left at this size" in app.info[0].value and not app.error
    app.slider(key="field:edges").set_value(30).run()
    assert edges_drawn(app) == set(map(str, scores().circuit(30).edges))


def test_the_chosen_head_is_framed_and_says_what_it_reads_and_who_reads_it(stored):
    circuit = scores().circuit(60)
    chosen = next(h for h in circuit.heads if any(e.reader == Node.of(h) for e in circuit.edges))
    app = opened(**QUERY, edges="60", head=str(chosen))
    text = said(app)
    assert f"##### {chosen}" in text
    reads, read_by = text.split("Output edges")
    for edge in circuit.edges:
        effect = number(circuit.scores[edge])
        if edge.reader == Node.of(chosen):
            assert f"({edge.qkv}) {effect}" in reads
        if edge.writer == Node.of(chosen):
            assert effect in read_by
    frames = [shape for shape in graph(app)["layout"]["shapes"] if shape["type"] == "rect"]
    place = {
        node: at
        for trace in graph(app)["data"]
        if "customdata" in trace and trace["mode"] == "markers"
        for node, at in zip(trace["customdata"], zip(trace["x"], trace["y"], strict=True), strict=True)
    }
    [frame] = frames
    x, y = place[str(Node.of(chosen))]
    assert frame["x0"] < x < frame["x1"] and frame["y0"] < y < frame["y1"]


def test_a_head_outside_the_circuit_and_one_that_does_not_exist_are_told_apart(stored):
    small = scores().circuit(30)
    outside = next(Head(layer, 3) for layer in range(4) if Head(layer, 3) not in small.heads)
    assert "Not in the circuit at this size" in said(opened(**QUERY, edges="30", head=str(outside)))
    app = opened(**QUERY, head="L9H9")
    assert "L9H9 does not exist" in app.warning[0].value.replace("\\", "") and not app.error


def test_a_click_on_a_head_chooses_it_and_one_on_an_mlp_does_not(stored, monkeypatch):
    from types import SimpleNamespace

    chosen = {}
    state = SimpleNamespace(set=lambda **values: chosen.update(values))

    def click(data):
        points = SimpleNamespace(selection=SimpleNamespace(points=[{"customdata": data}] if data else []))
        monkeypatch.setattr(page.st, "session_state", {page.KEY: points})
        page._clicked(state)

    for data in ("m1", "input", "logits", None):
        click(data)
    assert not chosen
    click("a2.h1")
    assert chosen == {"head": Head(2, 1)}
    click(["a0.h3"])
    assert chosen == {"head": Head(0, 3)}


def test_the_curve_stands_below_with_the_random_line(stored):
    app = opened(**QUERY)
    figure = json.loads(app.get("plotly_chart")[1].proto.spec)
    assert "Faithfulness" in figure["layout"]["title"]["text"]
    assert len([trace for trace in figure["data"] if trace["mode"] == "lines+markers"]) == 2


def test_the_code_loads_and_draws_what_is_shown(stored):
    app = opened(**QUERY)
    for code in (code.value for code in app.code if code.language == "python"):
        names = {}
        exec(code, names)
        assert names["found"].edges == load_circuit_run(stored.path)[0].edges == scores().circuit(47).edges


def test_a_press_starts_a_process_whose_run_the_page_shows(root):
    app = opened(**QUERY)
    next(button for button in app.button if button.label == "Start").click().run()
    [job] = jobs.jobs(root)
    assert job.command == "circuit" and job.query == address(app)
    limit = time.monotonic() + PATIENCE
    while jobs.status(job).active:
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert jobs.status(job).state == "finished", jobs.status(job).error
    app = opened(**QUERY, edges="30")
    drawn = set(map(Edge.parse, edges_drawn(app)))
    assert drawn == scores().circuit(30).edges


def test_an_interrupted_circuit_is_resumed_from_its_units(root):
    """A job that was cancelled when one part of its run was stored."""
    plan = plan_job(CircuitSpec(**ASKED), mini(), root)
    calls, put = [], FileLedger.put

    def interrupted(self, key, values):
        if calls:
            raise KeyboardInterrupt
        calls.append(key)
        put(self, key, values)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FileLedger, "put", interrupted)
        plan.spec.run(plan.folder, model=mini())
    job = jobs.Job(plan.folder, MODEL, plan.spec, plan.total, cancelled=True)
    job.job_dir.mkdir(parents=True)
    jobs._write(job)
    app = opened(**QUERY)
    assert f"1 of {plan.total:,} units are done and will be reused" in app.warning[0].value
    assert "Resume" in labels(app) and "Start" not in labels(app)
    next(button for button in app.button if button.label == "Resume").click().run()
    limit = time.monotonic() + PATIENCE
    while jobs.status(jobs.find(root, job.name)).active:
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert jobs.find(root, job.name).n_done_at_start == 1
    assert set(map(Edge.parse, edges_drawn(opened(**QUERY, edges="30")))) == scores().circuit(30).edges


def test_acdc_keeps_nothing_to_resume_from(root):
    plan = plan_job(CircuitSpec(**ASKED | {"method": "acdc"}), mini(), root)
    assert plan.total is None and not jobs.Job(plan.folder, MODEL, plan.spec, plan.total).counts_units


@pytest.mark.parametrize(
    ("query", "sentence"),
    [({"outcome": "accuracy"}, "gradient"), ({"outcome": "accuracy", "circuit.method": "eap-ig"}, "gradient")],
)
def test_what_cannot_be_estimated_is_one_sentence_and_cannot_be_started(root, query, sentence):
    app = opened(**{**QUERY, **query})
    assert len(app.error) == 1 and sentence in app.error[0].value.replace("\\", "")
    assert "Start" not in labels(app)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"circuit.method": "magic"}, "No method"),
        ({"task": "nothing"}, "No task"),
        ({"edges": "0"}, "edges must be from 1"),
        ({"n_prompts": "1"}, "n_prompts must be"),
    ],
)
def test_an_address_that_asks_for_what_is_not_there_is_told(root, query, sentence):
    app = opened(**{**QUERY, **query})
    assert sentence in app.warning[0].value.replace("\\", "") and not app.error


def test_what_was_chosen_on_other_pages_does_no_harm(root):
    app = new_session("circuit")
    app.session_state["state"] = {
        "task": "ioi",
        "method": "mean",
        "ablation": "uniform",
        "n_prompts": 600,
        "seed": 3,
        "head": Head(1, 2),
    }
    app.run()
    assert not app.exception and not app.error
    assert "--task ioi --method eap-ig --n-prompts 600 --seed 3" in app.code[0].value


def test_a_stored_circuit_is_drawn_on_the_page_of_runs(stored):
    app = opened("runs", run=stored.path.name)
    assert edges_drawn(app) == set(map(str, scores().circuit(47).edges))
    app = opened("runs", run=stored.path.name, figure="faithfulness")
    assert "Faithfulness" in graph(app)["layout"]["title"]["text"]


def test_pairs_of_ones_own_are_asked_for_and_refused_in_a_sentence(root):
    app = opened(task="")
    assert "One prompt per line" in app.info[0].value and "Start" not in labels(app) and not app.error
    line = {"clean": "Paris is in", "corrupted": "Rome is in", "answer": "France", "distractor": "Italy"}
    names = ("Mary", "John", "Tom", "Anna", "Peter")
    rows = [line | {"clean": f"{name} saw Paris in", "corrupted": f"{name} saw Rome in"} for name in names]
    file = jobs.save_uploaded_prompts(root, "mine.jsonl", "\n".join(map(json.dumps, rows[:3])).encode())
    app = opened(task="", file=f"{file.parent.name}/{file.stem}")
    assert "give 4 or more" in app.error[0].value and "Start" not in labels(app)
    file = jobs.save_uploaded_prompts(root, "mine.jsonl", "\n".join(map(json.dumps, rows)).encode())
    app = opened(task="", file=f"{file.parent.name}/{file.stem}")
    assert f"--prompts {file}" in app.code[0].value and "--n-prompts" not in app.code[0].value
    assert "Start" in labels(app) and not app.error


def test_a_model_whose_residual_stream_is_no_sum_is_refused_before_anything_is_started(root, tmp_path, monkeypatch):
    folder = save_tiny("gemma2", tmp_path / "tiny-gemma2")
    monkeypatch.setenv("INTERP_DASHBOARD", json.dumps({"runs": str(root), "model": str(folder)}))
    settings.cache_clear()
    model_cache.clear()
    line = {"corrupted": "w4 w2 w3", "answer": "w7", "distractor": "w9"}
    rows = [line | {"clean": f"w{word} w2 w3"} for word in (1, 5, 6, 8)]
    file = jobs.save_uploaded_prompts(root, "mine.jsonl", "\n".join(map(json.dumps, rows)).encode())
    app = opened(task="", file=f"{file.parent.name}/{file.stem}")
    assert "tiny-gemma2 has no edges" in app.error[0].value.replace("\\", "") and "Start" not in labels(app)
    model_cache.clear()


def test_prompts_of_different_lengths_are_named_by_their_line(root):
    lines = [{"clean": "Paris is in", "corrupted": "Rome in", "answer": "France"}]
    file = jobs.save_uploaded_prompts(root, "mine.jsonl", json.dumps(lines[0]).encode())
    app = opened(task="", file=f"{file.parent.name}/{file.stem}")
    assert "line 1" in app.error[0].value and "Start" not in labels(app)


@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
def test_what_corrupted_edges_show_is_part_of_what_is_asked(root, ablation):
    plans = [plan_job(CircuitSpec(**ASKED, **more), mini(), root) for more in ({}, {"ablation": ablation})]
    assert plans[0].folder != plans[1].folder and plans[1].identity["ablation"] == ablation
    app = opened(**QUERY, **{"circuit.ablation": ablation})
    assert app.code[0].value.endswith(f"--ablation {ablation}")
    app = opened(**QUERY | {"circuit.ablation": ablation, "circuit.method": "acdc"})
    assert "acdc replaces edges by those of the corrupted prompt" in app.error[0].value and "Start" not in labels(app)


def test_a_circuit_that_is_there_is_found_for_a_head_of_the_ablate_page(stored, root):
    facts = mini().facts
    wanted = {"task": "ioi", "n_prompts": 4, "seed": 3, "circuit.method": "eap", "circuit.ablation": "counterfactual"}
    for task in ("ioi", "induction"):
        there = find_stored_circuit(root, facts, "cpu", task)
        assert there is not None and there.items() >= wanted.items()
    for other in ({"weights_digest": "others"}, {"dtype": "bfloat16"}, {"name": "another"}):
        assert find_stored_circuit(root, replace(facts, **other), "cpu", "ioi") is None
    assert find_stored_circuit(root, facts, "cuda", "ioi") is None
    save_circuit(scores().circuit(20), scores(), curve(), root / "from-python", {"kind": "circuit"})
    for missing in ("arguments", "seed", "metric", "ablation"):
        spec = {name: value for name, value in stored.spec.items() if name != missing}
        save_circuit(scores().circuit(20), scores(), curve(), root / f"without-{missing}", spec)
    assert find_stored_circuit(root, facts, "cpu", "ioi") == there
    app = opened(**{name: str(value) for name, value in there.items()}, edges="30")
    assert edges_drawn(app) == set(map(str, scores().circuit(30).edges))


@pytest.mark.parametrize(
    "setting",
    [{"steps": 5}, {"rule": "left"}, {"exact_top": 9}, {"size": 3}, {"threshold": 0.5}, {"faithfulness": 0.9}, {"n_draws": 2}],
)
def test_a_circuit_with_a_setting_that_the_page_does_not_have_is_not_shown_as_its_own(stored, root, setting):
    spec = {**stored.spec, "seed": 77, **setting}
    save_circuit(scores().circuit(20), scores(), curve(), root / "other-setting", spec)
    assert find_stored_circuit(root, mini().facts, "cpu", "ioi")["seed"] == stored.spec["seed"]


def test_a_circuit_that_was_stored_under_a_name_of_ones_own_is_shown(stored, root):
    stored.path.rename(root / "mine")
    there = find_stored_circuit(root, mini().facts, "cpu", "ioi")
    app = opened(**{name: str(value) for name, value in there.items()}, edges="30")
    assert "Start" not in labels(app) and edges_drawn(app) == set(map(str, scores().circuit(30).edges))
    assert plan_job(CircuitSpec(**ASKED | {"seed": 5}), mini(), root).run() is None


def test_the_circuit_file_says_of_how_many_edges_it_is(stored):
    whole = load_circuit_run(stored.path)[0]
    assert whole.metadata["k"] == 47
    assert page._largest(whole, 30)[0].metadata == {**whole.metadata, "k": 30}
