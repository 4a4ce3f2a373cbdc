"""`interp circuit`, `interp circuit compare`, `interp show` of what they stored; and the store of circuits."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from interp.circuits import Circuit, compare_circuits, load_circuit, score_agreement, score_edges
from interp.errors import ArtefactInvalid
from interp.graph import Edge, Graph
from interp.models import load_model
from interp.store import delete_run, load_found_circuit, open_run, run_history
from interp.tasks import make_task
from tests.test_cli import assert_refused, interp

WORDS = ("circuit", "--task", "ioi", "--n-prompts", 4, "--draws", 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two searches of the embedded model, as JSON: eap of 20 edges, and eap-ig of another seed and threshold."""
    folder = tmp_path_factory.mktemp("runs")
    first = interp(*WORDS, "--method", "eap", "--size", 20, "--out", folder / "eap", "--json")
    second = interp(*WORDS, "--steps", 2, "--seed", 5, "--threshold", 0.5, "--out", folder / "ig", "--json")
    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
    return json.loads(first.stdout), json.loads(second.stdout)


def test_the_scores_are_those_of_the_function_and_the_largest_are_kept(runs):
    answer, _ = runs
    model = load_model("interp-mini")
    scores = score_edges(model, make_task("ioi", model, n_prompts=4, seed=0), method="eap")
    found, curve = load_found_circuit(answer["path"])
    assert found.edges == scores.circuit(20).edges
    assert found.scores == pytest.approx(dict(zip(scores.graph.edges, scores.effects, strict=True)), abs=1e-6)
    assert (answer["n_all"], answer["asked"], answer["n_edges"]) == (479, 20, len(found))
    assert answer["clean"] == pytest.approx(scores.clean.mean(), abs=1e-5)
    assert curve.record == open_run(answer["path"]).record
    own = curve.table.query("n_edges == 20")
    assert own["kind"].tolist() == ["found", "random", "random"]
    whole = curve.table.query("share == 1 and kind == 'found'")
    assert whole["faithfulness"].item() == pytest.approx(1) and answer["cpr"] == pytest.approx(curve.cpr)


def test_a_threshold_keeps_the_edges_that_reach_it(runs):
    _, answer = runs
    sizes = pd.DataFrame(answer["edges"])["score"].abs()
    assert answer["asked"] == (sizes >= 0.5).sum() > 2
    assert sizes.is_monotonic_decreasing


def test_a_finished_run_is_left_as_it_is_and_shown(runs):
    path = runs[0]["path"]
    again = interp(*WORDS, "--method", "eap", "--size", 20, "--out", path)
    assert again.exit_code == 0 and "nothing was computed" in again.stderr
    assert f"{runs[0]['n_edges']} of 479 edges of interp-mini" in again.stdout
    assert "random ones of that size" in again.stdout
    assert {"circuit.json", "circuit.png", "faithfulness.png"} <= {file.name for file in Path(path).iterdir()}
    shown = interp("show", path)
    assert shown.exit_code == 0 and runs[0]["edges"][0]["edge"] in shown.stdout
    table = pd.read_csv(StringIO(interp("show", path, "--csv").stdout))
    assert len(table) == 479 and table["in_circuit"].sum() == runs[0]["n_edges"]
    assert json.loads(interp("show", path, "--json").stdout)["edges"] == runs[0]["edges"]
    other = interp(*WORDS, "--method", "eap", "--size", 21, "--out", path)
    assert_refused(other, 6, "holds another run")


def test_two_circuits_are_compared_as_runs_and_as_files(runs):
    paths = [answer["path"] for answer in runs]
    answer = json.loads(interp("circuit", "compare", *paths, "--json").stdout)
    files = interp("circuit", "compare", *(f"{path}/circuit.json" for path in paths), "--json")
    assert json.loads(files.stdout)["overlap"] == answer["overlap"]
    first, second = (load_found_circuit(path)[0] for path in paths)
    edges, heads = answer["overlap"]
    assert edges["shared"] == len(first.edges & second.edges) > edges["expected"]
    assert heads["shared"] == len({*first.heads} & {*second.heads})
    assert 0 < edges["p_value"] < 0.01 < answer["spearman"] < 1
    assert "by chance" in interp("circuit", "compare", *paths).stdout


def test_overlap_by_chance_is_that_of_drawing():
    graph = Graph(1, 2, has_mlps=False)  # nine edges: six into heads, three into the logits
    edges = graph.edges
    one, two = Circuit(graph, frozenset(edges[:3])), Circuit(graph, frozenset(edges[1:4]))
    row = compare_circuits(one, two).iloc[0]
    assert (row["pool"], row["shared"], row["jaccard"], row["expected"]) == (9, 2, 0.5, 1.0)
    assert row["p_value"] == pytest.approx((3 * 6 + 1) / 84)  # of 84 draws of three, 18 share two and one all
    scored = [
        replace(one, scores=dict(zip(edges, values, strict=True)))
        for values in ([*map(float, range(9))], [-v / 2 for v in range(9)])
    ]
    assert score_agreement(*scored) == pytest.approx(1)
    with pytest.raises(ValueError, match="edges of two models are not the same"):
        compare_circuits(one, Circuit(Graph(2, 2), frozenset({Edge.parse("input->m0")})))


def test_a_run_of_a_circuit_is_listed_and_deleted(runs, tmp_path):
    path = tmp_path / "one"
    copytree(runs[0]["path"], path)
    [entry] = run_history(tmp_path)
    assert (entry.kind, entry.task, entry.n_layers, entry.n_heads) == ("circuit", "ioi", 4, 4)
    assert load_circuit(path / "circuit.json").model == "interp-mini"
    delete_run(tmp_path, "one")
    assert not path.exists()


def test_a_run_of_another_kind_is_no_circuit(runs, tmp_path):
    with pytest.raises(ArtefactInvalid, match="is not a run directory"):
        load_found_circuit(tmp_path)


@pytest.mark.slow
def test_a_circuit_by_acdc_says_its_threshold(tmp_path):
    answer = interp(
        *WORDS[:3], "-n", 2, "--draws", 1, "--method", "acdc", "--threshold", 0.5, "--out", tmp_path / "a", "--json"
    )
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert said["record"]["arguments"]["threshold"] == 0.5 and said["asked"] == said["n_alive"] > 0
    kept = pd.DataFrame(said["edges"]).query("in_circuit")
    assert kept["score"].abs().min() >= 0.5 and "cpr" not in said


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--task", "ioi", "--method", "EAP"], 2, "No method is called 'EAP'. There are: exact, eap, eap-ig, acdc."),
        (["--task", "iou"], 2, "No task is called 'iou'"),
        ([], 2, "Give --task."),
        (["--task", "ioi", "--size", 3, "--threshold", 1], 2, "give one of them"),
        (["--task", "ioi", "--size", 3, "--method", "acdc"], 2, "give --threshold instead of --size"),
        (["--task", "ioi", "--threshold", 0], 2, "give a number above 0"),
        (["--task", "ioi", "-n", 2, "--method", "eap", "--threshold", 1000], 2, "leaves no edge: give a lower one"),
        (["--task", "ioi", "-n", 2, "--method", "eap", "--metric", "accuracy"], 2, "has no gradient"),
        (["compare", "one"], 2, "is no comparison: write `interp circuit compare A B`"),
        (["compare", "nowhere", "nowhere.json"], 6, "cannot be read"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_leaves_nothing(words, code, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(interp("circuit", *words), code, sentence)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_would_be_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = json.loads(interp(*WORDS, "--dry-run", "--json").stdout)
    assert (answer["n_edges"], answer["method"], answer["steps"]) == (479, "eap-ig", 10)
    assert not list(tmp_path.iterdir())
