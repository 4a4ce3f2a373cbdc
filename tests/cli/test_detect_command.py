"""`interp detect`, `interp confirm` and `interp show` of what they stored; and the store of detections and confirmations."""

import json
import re
from inspect import signature
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from interp.confirmation import confirm
from interp.detectors import DETECTORS, Detection, TokenDetection, detect
from interp.detectors.support.null_threshold import prompt_digests
from interp.errors import ArtefactInvalid
from interp.heads import Head, HeadScores, TokenScores
from interp.models import load_model
from interp.models.load import PLANTED
from interp.models.model import record_of
from interp.models.planted.plant import plant_by_name
from interp.store import list_runs, load_confirmation, load_detection, open_run, save_confirmation, save_detection
from tests.cli.test_cli import assert_refused, interp
from tests.support.planted_detections import planted_case, ranked_first

MODEL = f"{PLANTED}two_tasks,seed=3,n_layers=5,length=21,n_names=7"
SHAPE = (5, 6)


def made_up(
    model,
    *,
    n_prompts: int = 6,
    share: float = 0.5,
    strict: bool = False,
    words: str | None = None,
    fails: bool = False,
    pool: list[int] | None = None,
    seed: int = 0,
    progress=None,
) -> Detection:
    """Scores of the planted retrieval head and of chance."""
    if fails:
        raise ValueError("The made-up detector was asked to fail.")
    values = np.random.default_rng(seed).uniform(0.01, 0.3, (model.facts.n_layers, model.facts.n_heads))
    for head in plant_by_name(model.facts.name).heads("retrieval"):
        values[head] = 0.8
    values[4, 5] = np.nan
    arguments = {"n_prompts": n_prompts, "share": share, "strict": strict, "words": words}
    record = record_of(model, task="made up", arguments=arguments, metric="made up", seed=seed)
    numbers = {"unit": "share", "bounds": (0.0, 1.0), "record": record, "nan_reason": "left out"}
    if progress:
        progress(1, 1)
    return Detection(
        "made_up",
        HeadScores("made-up score", values, **numbers),
        HeadScores("made-up score with wrong targets", values / 10, **numbers),
        threshold=np.full(values.shape, share),
        fwer=0.05,
        extra_scores={"frequency": HeadScores("frequency", values / 2, **numbers)},
        tables={
            "trials": pd.DataFrame({"trial": [0, 1], "answer": ["<b>", "w4"]}),
            "empty": pd.DataFrame(columns=["depth", "n"]),
        },
        details={"accepted": 17, "total": n_prompts, "settings": {"nested": [1, 2]}},
        prompts=prompt_digests([(5, 6, 7), (8, 9)]),
    )


def tokens_of(model, *, seed: int = 0) -> TokenDetection:
    """Tokens chosen by hand."""
    words = (("<s>", "a", "b"), ("<s>", "<i>c</i>", ""))
    record = record_of(model, task="by hand", metric="tokens", seed=seed)
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, np.nan]])
    scores = {
        name: TokenScores(name, values * by, words, "weight", (0.0, None), record) for name, by in (("waad", 1), ("fai", 2))
    }
    chosen = {"preplan": values > 0.25, "anchor": values > 0.45}
    statistics = pd.DataFrame(
        {"statistic": ["coupling"], "null": ["shuffles"], "observed": [0.7], "expected": [0.25], "n": [4]}
    )
    heads = {"local": (Head(0, 1), Head(2, 3)), "global": ()}
    return TokenDetection("tokens_of", scores, chosen, heads, {"statistics": statistics}, {"q": 0.1}, prompt_digests([(1, 2)]))


@pytest.fixture
def shelf(monkeypatch):
    """Two detectors in place of those of the folder."""
    known = {"made_up": made_up, "tokens_of": tokens_of}

    def get(name):
        if name not in known:
            raise LookupError(f"No detector is called {name!r}. There are: {', '.join(known)}.")
        return known[name]

    for name, value in {"names": lambda: [*known], "get": get, "describe": lambda name: f"About {name}"}.items():
        monkeypatch.setattr(DETECTORS, name, value)


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Needles of the planted model as a file of text."""
    planted = plant_by_name(MODEL)
    tokenizer = planted.model.tokenizer
    rows = []
    for prompt in planted.prompts("needle", 6, seed=4):
        clean, corrupted = (tokenizer.decode(ids[1:]) for ids in (prompt.clean, prompt.corrupted))
        answer, distractor = (tokenizer.decode([ids[0]]) for ids in (prompt.answers, prompt.distractors))
        rows.append(
            {"clean": clean, "corrupted": corrupted, "answer": answer, "distractor": distractor, "marks": {"needle": answer}}
        )
    path = tmp_path_factory.mktemp("prompts") / "needles.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    """The run directory of a detection."""
    path = tmp_path_factory.mktemp("runs") / "found"
    return save_detection(made_up(model), model.facts, path).path


# -- store --------------------------------------------------------------------------------------------------------------------


def assert_same_scores(one, other):
    assert (one.name, one.unit, one.bounds, one.nan_reason, one.record) == (
        other.name,
        other.unit,
        other.bounds,
        other.nan_reason,
        other.record,
    )
    np.testing.assert_array_equal(one.values, other.values)


def test_a_detection_of_heads_is_read_back_as_it_was(model, tmp_path):
    made = made_up(model)
    run = save_detection(made, model.facts, tmp_path / "run")
    back = load_detection(tmp_path / "run")
    assert isinstance(back, Detection)
    for name in ("role", "fwer", "literature_threshold", "details", "prompts"):
        assert getattr(back, name) == getattr(made, name)
    np.testing.assert_array_equal(back.threshold, made.threshold)
    assert_same_scores(back.scores, made.scores)
    assert_same_scores(back.control, made.control)
    assert back.extra_scores.keys() == made.extra_scores.keys()
    assert_same_scores(back.extra_scores["frequency"], made.extra_scores["frequency"])
    assert back.tables.keys() == made.tables.keys()
    assert back.tables["trials"].to_dict("list") == made.tables["trials"].to_dict("list")
    assert back.tables["empty"].empty and [*back.tables["empty"].columns] == ["depth", "n"]
    assert back.detected == made.detected and back.top(7) == made.top(7)
    assert run.scores("score")[made.top(1)[0]] == made.scores[made.top(1)[0]]
    [entry] = list_runs(tmp_path)
    assert (entry.kind, entry.status, entry.n_layers, entry.n_heads) == ("detection", "finished", *SHAPE)


def test_a_part_with_a_record_of_its_own_keeps_it(model, tmp_path):
    from dataclasses import replace

    made = made_up(model)
    record = replace(made.record, metric="answer_loss", interventions=("zero",), seed=9)
    made = replace(made, extra_scores={"effect": replace(made.extra_scores["frequency"], record=record)})
    save_detection(made, model.facts, tmp_path / "run")
    back = load_detection(tmp_path / "run")
    assert back.extra_scores["effect"].record == record and back.record == made.record


def test_a_detection_of_tokens_is_read_back_as_it_was(model, tmp_path):
    made = tokens_of(model, seed=2)
    save_detection(made, model.facts, tmp_path / "run")
    back = load_detection(tmp_path / "run")
    assert isinstance(back, TokenDetection)
    assert (back.role, back.heads, back.details, back.prompts, back.words) == (
        made.role,
        made.heads,
        made.details,
        made.prompts,
        made.words,
    )
    for name in made.scores:
        assert_same_scores(back.scores[name], made.scores[name])
    assert [*back.masks] == [*made.masks]  # in order
    for name in made.masks:
        assert back.masks[name].dtype == bool
        np.testing.assert_array_equal(back.masks[name], made.masks[name])
    pd.testing.assert_frame_equal(back.tables["statistics"], made.tables["statistics"], check_dtype=False)


def test_a_confirmation_is_read_back_as_it_was(tmp_path):
    planted, tasks = planted_case()
    made = confirm(ranked_first(planted.model, planted.heads("retrieval")), planted.model, tasks["needle"], ks=[1, 2])
    save_confirmation(made, planted.model.facts, tmp_path / "run")
    back = load_confirmation(tmp_path / "run")
    assert (back.role, back.record, back.details) == (made.role, made.record, made.details)
    keys = ["task", "positions", "group", "k", "draw"]
    pd.testing.assert_frame_equal(
        back.table.sort_values(keys, ignore_index=True), made.table.sort_values(keys, ignore_index=True), check_dtype=False
    )
    assert back.tables.keys() == made.tables.keys() == {"curve", "prompts"}
    pd.testing.assert_frame_equal(back.tables["curve"], made.tables["curve"], check_dtype=False)
    again = save_confirmation(made, planted.model.facts, tmp_path / "run")
    assert again.manifest == open_run(tmp_path / "run").manifest


def test_a_run_of_another_kind_is_refused(model, tmp_path):
    save_detection(made_up(model), model.facts, tmp_path / "run")
    with pytest.raises(
        ArtefactInvalid, match=r"is a run of kind 'detection', not 'confirmation': give .* `interp confirm` wrote"
    ):
        load_confirmation(tmp_path / "run")
    with pytest.raises(ArtefactInvalid, match="holds another run"):
        save_detection(made_up(model, seed=1), model.facts, tmp_path / "run")


# -- interp detect ------------------------------------------------------------------------------------------------------------


def test_every_detector_is_listed_with_its_settings():
    answer = interp("detect", "--json")
    assert answer.exit_code == 0, answer.stderr
    listed = {row["name"]: row for row in json.loads(answer.stdout)["roles"]}
    assert [*listed] == DETECTORS.names()
    assert all(row["about"] and "seed" in row["settings"] for row in listed.values())
    told = interp("detect").stdout
    assert (
        "null_query='N/A'" in told and "haystack=''" in told and "gold=needle" in told
    )  # a text that looks like a remark is quoted


def test_a_list_leaves_out_what_cannot_be_written_as_text(shelf):
    [made, tokens] = json.loads(interp("detect", "--json").stdout)["roles"]
    assert made["settings"] == {"n_prompts": 6, "share": 0.5, "strict": False, "words": None, "fails": False, "seed": 0}
    assert tokens["settings"] == {"seed": 0}
    assert "strict=false" in interp("detect").stdout


def test_a_detection_is_stored_printed_and_shown(shelf, tmp_path):
    settings = ["--set", "share=0.25", "--set", "strict=true", "--set", "words=a=b", "--set", "n_prompts=8", "--seed", "2"]
    answer = interp("detect", "made_up", "--model", MODEL, *settings, "--out", tmp_path / "run", "--json")
    assert answer.exit_code == 0, answer.stderr
    told = json.loads(answer.stdout)
    made = load_detection(tmp_path / "run")
    assert made.record.arguments == {"n_prompts": 8, "share": 0.25, "strict": True, "words": "a=b"} and made.record.seed == 2
    assert told["detected"] == [str(head) for head in made.detected] and {row["threshold"] for row in told["heads"]} == {0.25}
    assert [row["label"] for row in told["heads"]] == made.to_dataframe()["label"].tolist()
    shown = interp("show", tmp_path / "run", "--json")
    assert json.loads(shown.stdout) == told
    text = interp("show", tmp_path / "run").stdout
    assert "by made-up score:" in text and "above the calibrated threshold 0.25" in text
    assert "accepted 17" in text and str(made.detected[0]) in text
    table = pd.read_csv(StringIO(interp("show", tmp_path / "run", "--csv").stdout))
    assert table["label"].tolist() == made.to_dataframe()["label"].tolist()
    assert {p.name for p in (tmp_path / "run").glob("*.png")} == {"heads.png"}
    drawn = interp("show", tmp_path / "run", "--figure", tmp_path / "heads.svg")
    assert drawn.exit_code == 0 and (tmp_path / "heads.svg").exists()
    metric = interp("show", tmp_path / "run", "--metric", "frequency", "--json")
    assert json.loads(metric.stdout)["heads"][0]["value"] == pytest.approx(0.4)


def test_a_detection_of_tokens_is_stored_and_shown(shelf, tmp_path):
    answer = interp("detect", "tokens_of", "--model", MODEL, "--out", tmp_path / "run")
    assert answer.exit_code == 0, answer.stderr
    assert "3 preplan, 1 anchor" in answer.stdout and "local heads: L0H1 L2H3" in answer.stdout and "coupling" in answer.stdout
    told = json.loads(interp("show", tmp_path / "run", "--json").stdout)
    assert len(told["tokens"]) == 6 and told["statistics"][0]["observed"] == 0.7


def test_a_finished_detection_is_not_made_again_and_fresh_moves_it_aside(shelf, tmp_path):
    found = tmp_path / "found"
    words = ["detect", "made_up", "--model", MODEL, "--out", found]
    assert interp(*words).exit_code == 0
    assert "nothing was computed" in interp(*words).stderr
    other = interp(*words, "--seed", "1")
    assert_refused(other, 6, "holds another run .seed is 0, requested 1")
    assert interp(*words, "--seed", "1", "--fresh").exit_code == 0
    assert load_detection(found).record.seed == 1 and load_detection(found.with_name("found.1")).record.seed == 0


def test_a_dry_run_says_all_settings_and_stores_nothing(shelf, tmp_path):
    words = ["detect", "made_up", "--model", MODEL, "-n", "4", "--dry-run", "--out", tmp_path / "run"]
    told = json.loads(interp(*words, "--json").stdout)
    assert told["options"] == {"n_prompts": 4, "share": 0.5, "strict": False, "words": None, "fails": False, "seed": 0}
    assert "n_prompts 4" in interp(*words).stdout and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["no_role"], 2, "No detector is called 'no_role'. There are: made_up, tokens_of"),
        (["made_up", "--set", "shape=3"], 2, "Detector 'made_up' has no option 'shape'. There are: n_prompts, share"),
        (["made_up", "--set", "pool=3"], 2, "has no option 'pool'"),
        (["made_up", "--set", "n_prompts"], 2, "write name=value"),
        (["made_up", "--set", "n_prompts=few"], 2, "'n_prompts=few': the value must be a whole number"),
        (["made_up", "--set", "share=half"], 2, "the value must be a number"),
        (["made_up", "--set", "strict=1"], 2, "the value must be true or false"),
        (["made_up", "--set", "n_prompts=3", "-n", "4"], 2, "--n-prompts and --set n_prompts= set the same option"),
        (["tokens_of", "-n", "4"], 2, "Detector 'tokens_of' has no option 'n_prompts'. There are: seed"),
        (["made_up", "--memory", "2GB"], 2, "has no option 'memory'"),
        (["made_up", "--set", "fails=true"], 2, "was asked to fail"),
        (["made_up", "--model", "planted:nothing"], 2, "nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_setting_gets_one_sentence_and_stores_nothing(shelf, tmp_path, words, code, sentence):
    answer = interp("detect", *(() if "--model" in words else ("--model", MODEL)), *words, "--out", tmp_path / "run")
    assert_refused(answer, code, sentence)
    assert not (tmp_path / "run").exists()


# -- interp confirm -----------------------------------------------------------------------------------------------------------


def test_a_detection_is_confirmed_and_shown(found, prompts, tmp_path):
    words = ["confirm", found, "--prompts", prompts, "--ks", "1,3", "--ablation", "zero", "--metric", "logit_diff"]
    answer = interp(*words, "--out", tmp_path / "run", "--json")
    assert answer.exit_code == 0, answer.stderr
    told = json.loads(answer.stdout)
    stored = load_confirmation(tmp_path / "run")
    assert stored.record.seed == 1  # one more than the detection's
    assert stored.record.interventions == ("zero",)
    curve = {(row["positions"], row["group"], row["k"]): row["effect"] for row in told["curve"]}
    assert curve["all", "detected", 1] == pytest.approx(-10, abs=0.01) and curve["end", "bottom", 1] == pytest.approx(
        0, abs=0.01
    )
    shown = interp("show", tmp_path / "run")
    head = "made_up: effect on logit_diff (logits) of ablating the k highest-scoring heads of"
    assert head in shown.stdout and "layer matched" in shown.stdout
    assert re.search(r" all +1 +-10 \(-1\d to -\d+\)", shown.stdout), shown.stdout
    assert json.loads(interp("show", tmp_path / "run", "--json").stdout) == told
    assert (tmp_path / "run" / "confirmation_curve.png").exists()
    table = pd.read_csv(StringIO(interp("show", tmp_path / "run", "--csv").stdout))
    assert len(table) == len(told["curve"])
    again = interp(*words, "--out", tmp_path / "run", "--json")
    assert "nothing was computed" in again.stderr and json.loads(again.stdout) == told


@pytest.mark.parametrize("command", ["confirm", "ablate", "circuit"])
def test_long_work_says_how_well_the_model_does_its_task_before_it_starts(found, prompts, tmp_path, monkeypatch, command):
    def interrupt(ledger, key, values):
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.experiments.experiment.LONG", 0.0)
    monkeypatch.setattr("interp.store.FileLedger.put", interrupt)  # before the first unit is stored
    given = [found] if command == "confirm" else ["--model", MODEL]
    answer = interp(command, *given, "--prompts", prompts, "--metric", "logit_diff", "--out", tmp_path / "run")
    assert answer.exit_code == 130 and re.search(r"is right on \d+ of \d+ prompts of .*; mean logit_diff", answer.stderr)


def test_an_interrupted_confirmation_goes_on_and_ends_in_the_same_numbers(found, prompts, tmp_path, monkeypatch):
    from interp.store import FileLedger

    words = ["confirm", found, "--prompts", prompts, "--ks", "1", "--metric", "logit_diff"]
    put = FileLedger.put

    def put_and_stop(ledger, key, values):
        put(ledger, key, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(FileLedger, "put", put_and_stop)
        stopped = interp(*words, "--out", tmp_path / "run")
    assert stopped.exit_code == 130 and "with 1 unit stored" in stopped.stderr
    resumed = interp(*words, "--memory", "1GB", "--out", tmp_path / "run")
    assert resumed.exit_code == 0 and "Resuming" in resumed.stderr
    assert "started with the default memory budget, which it keeps: --fresh" in resumed.stderr
    interp(*words, "--out", tmp_path / "whole")
    tables = [(tmp_path / name / "sets.parquet").read_bytes() for name in ("run", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "No task is known to need made_up heads: give --task or --prompts"),
        (["--task", "ioy"], 2, "No task is called 'ioy'"),
        (["--task", "ioi", "--prompts", "PROMPTS"], 2, "give one of them"),
        (["--prompts", "nowhere.jsonl"], 2, "There is no file nowhere.jsonl"),
        (["--prompts", "PROMPTS", "--set", "depth=0.5"], 2, "A file of prompts has no option 'depth'"),
        (["--task", "needle", "--set", "deepness=0.5"], 2, "Task 'needle' has no option 'deepness'. There are: n_filler"),
        (["--prompts", "PROMPTS", "--ks", "1,40"], 2, "k=40 needs 40 heads"),
        (["--prompts", "PROMPTS", "--ks", "few"], 2, "is not a list of numbers"),
        (["--prompts", "PROMPTS", "--n-draws", "2"], 2, "n_draws=2 is too few"),
        (["--prompts", "PROMPTS", "--ablation", "patch"], 2, "'patch'"),
        (["--prompts", "PROMPTS", "--positions", "all,middle"], 2, "No position is called 'middle'"),
        (["--prompts", "PROMPTS", "--metric", "rouge"], 2, "'rouge'"),
        (["--prompts", "PROMPTS", "--memory", "much"], 2, "not an amount of memory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_argument_of_confirm_gets_one_sentence_and_stores_nothing(found, prompts, tmp_path, words, code, sentence):
    given = [prompts if word == "PROMPTS" else word for word in words]
    assert_refused(interp("confirm", found, *given, "--out", tmp_path / "run"), code, sentence)
    assert not (tmp_path / "run").exists()


def test_only_detections_of_heads_are_confirmed(shelf, prompts, tmp_path):
    interp("detect", "tokens_of", "--model", MODEL, "--out", tmp_path / "tokens")
    assert_refused(interp("confirm", tmp_path / "tokens", "--prompts", prompts), 2, "holds tokens")
    assert_refused(interp("confirm", tmp_path / "nothing", "--prompts", prompts), 6, "nothing does not exist")


# -- every detector -----------------------------------------------------------------------------------------------------------


SMALL = {"retrieval": {"n_lengths": 2, "n_depths": 2}}


@pytest.mark.parametrize("role", DETECTORS.names())
def test_what_a_detector_finds_can_be_stored_and_read_back(role, tmp_path):
    model = load_model("interp-mini")
    small = {"n_prompts": 8} if "n_prompts" in signature(DETECTORS.get(role)).parameters else {}
    made = detect(model, role, **SMALL.get(role, small))
    save_detection(made, model.facts, tmp_path / "run")
    back = load_detection(tmp_path / "run")
    assert (back.role, back.details, back.prompts, back.record) == (made.role, made.details, made.prompts, made.record)
    assert {name: len(table) for name, table in back.tables.items()} == {
        name: len(table) for name, table in made.tables.items()
    }
    pd.testing.assert_frame_equal(back.to_dataframe(), made.to_dataframe(), check_dtype=False)


SEARCHES = {
    "retrieval": ("--set", "n_lengths=2", "--set", "n_depths=2", "--set", "longest=90", "--set", "min_recall=none"),
    "greedy": ("--set", "mode=greedy", "--set", "n_lengths=2", "--set", "n_depths=1", "--set", "longest=80"),
    "far_context": ("--set", "n_prompts=16"),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_an_interrupted_detection_goes_on_and_ends_in_the_same_numbers(search, tmp_path, monkeypatch):
    from interp.store import FileLedger

    role = "far_context" if search == "far_context" else "retrieval"
    words, put, stored = ["detect", role, *SEARCHES[search]], FileLedger.put, []

    def stop_after_one(ledger, key, values):
        put(ledger, key, values)
        raise KeyboardInterrupt

    def count(ledger, key, values):
        stored.append(key)
        put(ledger, key, values)

    whole = interp(*words, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    with monkeypatch.context() as patches:
        patches.setattr(FileLedger, "put", stop_after_one)
        stopped = interp(*words, "--out", tmp_path / "run")
    assert stopped.exit_code == 130 and "with 1 unit stored" in stopped.stderr
    monkeypatch.setattr(FileLedger, "put", count)
    assert interp(*words, "--out", tmp_path / "run").exit_code == 0
    assert interp(*words, "--out", tmp_path / "again").exit_code == 0
    n_resumed = len(stored) - len({*stored})  # units of the resumed run are a subset of those of the whole one
    assert 0 < n_resumed == len({*stored}) - 1
    first, second = (load_detection(tmp_path / name) for name in ("run", "whole"))
    assert first.to_dataframe().equals(second.to_dataframe())
    for name, table in second.tables.items():
        assert first.tables[name].equals(table)


def test_a_detection_that_is_refused_after_its_passes_leaves_nothing(tmp_path):
    answer = interp("detect", "retrieval", *SEARCHES["retrieval"][:6], "--set", "min_recall=1", "--out", tmp_path / "run")
    assert answer.exit_code == 2 and "requires more than 100%" in answer.stderr
    assert not [*tmp_path.iterdir()]
