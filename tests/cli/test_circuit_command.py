"""`interp circuit`, `interp circuit compare`, `interp show` of what they stored; and the store of circuits."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest

from interp.circuits import (
    Circuit,
    circuit_outcomes,
    compare_circuits,
    faithfulness_curve,
    load_circuit,
    score_agreement,
    score_edges,
)
from interp.circuits.edge_method_and_ablation_names import EDGE_METHODS
from interp.errors import ArtefactInvalid
from interp.graph import Edge, Graph
from interp.models import load_model
from interp.store import delete_run, list_runs, load_circuit_run, open_run, save_circuit
from interp.tasks import make_task, task_from_jsonl
from tests.cli.test_cli import assert_refused, interp
from tests.support.tiny_models import save_tiny

WORDS = ("circuit", "--task", "ioi", "--n-prompts", 4, "--n-draws", 2)


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
    found, curve = load_circuit_run(answer["path"])
    assert found.edges == scores.circuit(20).edges
    assert found.scores == pytest.approx(dict(zip(scores.graph.edges, scores.effects, strict=True)), abs=1e-6)
    assert (answer["n_graph_edges"], answer["requested_size"], answer["n_edges"]) == (479, 20, len(found))
    assert answer["clean"] == pytest.approx(scores.clean.mean(), abs=1e-5)
    assert curve.record == open_run(answer["path"]).record
    own = curve.table.query("n_edges == 20")
    assert own["kind"].tolist() == ["circuit", "random", "random"]
    whole = curve.table.query("share == 1 and kind == 'circuit'")
    assert whole["faithfulness"].item() == pytest.approx(1) and answer["cpr"] == pytest.approx(curve.cpr)


def test_edges_patched_exactly_stand_beside_their_estimates(tmp_path):
    words = (*WORDS, "--steps", 2, "--exact-top", 30, "--size", 60, "--out", tmp_path / "run")
    planned = json.loads(interp(*words, "--dry-run", "--json").stdout)
    assert planned["exact_top"] == 30 and planned["seconds"] > 0
    answer = interp(*words, "--json")
    assert answer.exit_code == 0, answer.stderr
    told, model = json.loads(answer.stdout), load_model("interp-mini")
    task = make_task("ioi", model, n_prompts=4, seed=0)
    scores = score_edges(model, task, method="eap-ig", steps=2, exact_top=30)
    exact = dict(zip(map(str, scores.graph.edges), score_edges(model, task, method="exact").effects, strict=True))
    first, others = told["edges"][:30], told["edges"][30:]
    assert {row["edge"]: row["score"] for row in first} == pytest.approx(
        {row["edge"]: exact[row["edge"]] for row in first}, abs=1e-4
    )
    assert others and all(row["score"] is None and row["in_circuit"] for row in others)
    estimates = [abs(row["estimate"]) for row in others]
    assert estimates == sorted(estimates, reverse=True) and max(estimates) <= min(abs(row["estimate"]) for row in first)
    assert told["agreement"] == pytest.approx(scores.agreement, abs=1e-3) and told["record"]["arguments"]["exact_top"] == 30
    assert load_circuit_run(tmp_path / "run")[0].edges == scores.circuit(60).edges
    assert len(open_run(tmp_path / "run").table("estimates")) == 479
    shown = interp("show", tmp_path / "run").stdout
    assert f"of the 30 edges measured: Spearman {told['agreement']['spearman']:+.2f}" in shown
    assert "The other edges were only estimated and rank below these." in shown and "nan" not in shown


def test_the_fewest_edges_that_recover_a_share_are_found_and_both_sizes_printed(tmp_path):
    words = (*WORDS, "--steps", 2, "--faithfulness", 0.85, "--out", tmp_path / "run")
    planned = json.loads(interp(*words, "--dry-run", "--json").stdout)
    answer = interp(*words, "--json")
    assert answer.exit_code == 0, answer.stderr
    told, (circuit, curve) = json.loads(answer.stdout), load_circuit_run(tmp_path / "run")
    size = curve.size_at(0.85)
    assert told["bisection"] == {"level": 0.85, "size": size} and told["requested_size"] == size and "cpr" not in told
    model = load_model("interp-mini")
    task, test_task = (make_task("ioi", model, n_prompts=4, seed=seed) for seed in (0, 1))
    scores = score_edges(model, task, steps=2)
    assert circuit.edges == scores.circuit(size).edges
    ends = [(n + 0.5) / 479 for n in (size, size - 1)]
    reached, missed = faithfulness_curve(model, test_task, scores, shares=ends, n_draws=0).table["faithfulness"]
    assert reached >= 0.85 > missed and planned["n_units"] >= len(curve.table.query("kind == 'circuit'"))
    shown = interp("show", tmp_path / "run").stdout
    sizes = f"the {size} largest edges recover {reached:.4f}, the {size - 1} largest {missed:.4f}."
    assert f"Bisection for 0.85, on these prompts: {sizes}" in shown


def test_a_threshold_keeps_the_edges_that_reach_it(runs):
    _, answer = runs
    sizes = pd.DataFrame(answer["edges"])["score"].abs()
    assert answer["requested_size"] == (sizes >= 0.5).sum() > 2
    assert sizes.is_monotonic_decreasing


def test_what_is_stored_is_what_was_tested_where_few_edges_have_an_effect(tmp_path, monkeypatch):
    monkeypatch.setattr("interp.circuits.edge_scores.NOISE_FLOOR", 0.1)
    answer = json.loads(interp(*WORDS, "--method", "eap", "--size", 60, "--out", tmp_path / "run", "--json").stdout)
    found, curve = load_circuit_run(tmp_path / "run")
    n, model = answer["n_nonzero"], load_model("interp-mini")
    assert len(found) <= n < 60 and 60 not in curve.table["n_edges"].tolist()
    kept = np.array([[edge in found.edges for edge in found.graph.edges]])
    alone = circuit_outcomes(model, make_task("ioi", model, n_prompts=4, seed=1), kept).mean()
    assert curve.table.query("kind == 'circuit' and n_edges == @n")["outcome"].item() == pytest.approx(alone, abs=1e-5)


def test_a_finished_run_is_left_as_it_is_and_shown(runs):
    path = runs[0]["path"]
    again = interp(*WORDS, "--method", "eap", "--size", 20, "--out", path)
    assert again.exit_code == 0 and "nothing was computed" in again.stderr
    assert f"{runs[0]['n_edges']} of 479 edges of interp-mini" in again.stdout
    assert "random circuits of this size" in again.stdout
    assert {"circuit.json", "circuit.png", "faithfulness.png"} <= {file.name for file in Path(path).iterdir()}
    shown = interp("show", path)
    assert shown.exit_code == 0 and runs[0]["edges"][0]["edge"] in shown.stdout
    table = pd.read_csv(StringIO(interp("show", path, "--csv").stdout))
    assert len(table) == 479 and table["in_circuit"].sum() == runs[0]["n_edges"]
    assert json.loads(interp("show", path, "--json").stdout)["edges"] == runs[0]["edges"]
    assert "ioi on interp-mini: corrupted edge (counterfactual), logit_diff" in shown.stdout
    for words in (("--kind", "heads", "--figure", "a.png"), ("--minus", path, "--figure", "a.png"), ("--metric", "logit_diff")):
        assert_refused(
            interp("show", path, *words), 2, "is drawn as circuit or faithfulness|is a circuit, which has one metric"
        )
    few, every = (interp("show", path, "--top", n).stdout for n in (3, 0))
    assert few.count("logits") < every.count("logits") and "smaller effects" not in every
    assert f"... and {runs[0]['n_edges'] - 3} edges with smaller effects; `interp show DIR --top 0` prints all." in few
    other = interp(*WORDS, "--method", "eap", "--size", 21, "--out", path)
    assert_refused(other, 6, "holds another run .size is 20, requested 21.")


def test_two_circuits_are_compared_as_runs_and_as_files(runs):
    paths = [answer["path"] for answer in runs]
    answer = json.loads(interp("circuit", "compare", *paths, "--json").stdout)
    files = interp("circuit", "compare", *(f"{path}/circuit.json" for path in paths), "--json")
    assert json.loads(files.stdout)["overlap"] == answer["overlap"]
    first, second = (load_circuit_run(path)[0] for path in paths)
    edges, heads = answer["overlap"]
    assert edges["shared"] == len(first.edges & second.edges) > edges["expected"]
    assert heads["shared"] == len({*first.heads} & {*second.heads})
    assert 0 < edges["p_value"] < 0.01 < answer["spearman"] < 1
    assert "by chance" in interp("circuit", "compare", *paths).stdout


def test_a_comparison_says_how_both_were_found(runs, tmp_path):
    paths = [answer["path"] for answer in runs]
    said = json.loads(interp("circuit", "compare", *paths, "--json").stdout)["provenance"]
    records = [answer["record"] for answer in runs]
    assert [facts["method"] for facts in said] == ["eap", "eap-ig"]
    for facts, record in zip(said, records, strict=True):
        assert {name: facts[name] for name in ("model", "weights_digest", "task", "metric")}.items() <= record.items()
        assert facts["ablation"] == record["arguments"]["ablation"] == "counterfactual"
    lines = interp("circuit", "compare", *paths).stdout.splitlines()
    for letter, method in (("A", "eap"), ("B", "eap-ig")):
        [told] = [line.split() for line in lines if line.split()[:1] == [letter]]
        assert told == [letter, "interp-mini", said[0]["weights_digest"], "ioi", method, "logit_diff", "counterfactual"]
    assert "of two models" not in interp("circuit", "compare", *paths).stderr
    content = json.loads((Path(paths[1]) / "circuit.json").read_text())
    content["metadata"]["record"]["weights_digest"] = "0123456789abcdef"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    assert "both called interp-mini and have other weights" in interp("circuit", "compare", paths[0], other).stderr
    del content["metadata"]
    other.write_text(json.dumps(content))
    bare = json.loads(interp("circuit", "compare", paths[0], other, "--json").stdout)["provenance"][1]
    assert {name for name, value in bare.items() if value} == {"model"}


def test_overlap_by_chance_is_that_of_drawing():
    graph = Graph(1, 2, has_mlps=False)  # nine edges: six into heads, three into the logits
    edges = graph.edges
    one, two = Circuit(graph, frozenset(edges[:3])), Circuit(graph, frozenset(edges[1:4]))
    table = compare_circuits(one, replace(two, metadata={"record": {"arguments": {"ablation": "zero"}}}))
    assert table[["ablation_first", "ablation_second"]].values.tolist() == [["", "zero"]] * 2
    row = table.iloc[0]
    assert (row["pool"], row["shared"], row["jaccard"], row["expected"]) == (9, 2, 0.5, 1.0)
    assert row["p_value"] == pytest.approx((3 * 6 + 1) / 84)  # of 84 draws of three, 18 share two and one all
    scored = [
        replace(one, scores=dict(zip(edges, values, strict=True)))
        for values in ([*map(float, range(9))], [-v / 2 for v in range(9)])
    ]
    assert score_agreement(*scored) == pytest.approx(1)
    with pytest.raises(ValueError, match="compare circuits of one model"):
        compare_circuits(one, Circuit(Graph(2, 2), frozenset({Edge.parse("input->m0")})))


def test_a_run_of_a_circuit_is_listed_and_deleted(runs, tmp_path):
    path = tmp_path / "one"
    copytree(runs[0]["path"], path)
    [entry] = list_runs(tmp_path)
    assert (entry.kind, entry.task, entry.n_layers, entry.n_heads) == ("circuit", "ioi", 4, 4)
    assert load_circuit(path / "circuit.json").model == "interp-mini"
    delete_run(tmp_path, "one")
    assert not path.exists()


def changed(path, folder, **values):
    """A copy of the run whose manifest says something else of the circuit."""
    copytree(path, folder)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["details"]["circuit"] |= values
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(("method", "n_hints"), [("eap", 1), ("exact", 0)])
def test_the_exact_method_is_recommended_only_where_it_was_not_taken(runs, tmp_path, method, n_hints):
    shown = interp("show", changed(runs[0]["path"], tmp_path / "run", method=method, n_nonzero=7)).stdout
    assert "Only 7 edges have an effect above rounding" in shown and shown.count("--method exact") == n_hints


def test_a_circuit_from_before_there_was_a_choice_of_ablation_is_shown(runs, tmp_path):
    path = changed(runs[0]["path"], tmp_path / "old")
    manifest = json.loads((path / "run.json").read_text())
    del manifest["record"]["arguments"]["ablation"]
    (path / "run.json").write_text(json.dumps(manifest))
    shown = interp("show", path)
    assert shown.exit_code == 0 and "corrupted (counterfactual)" in shown.stdout


def test_a_circuit_file_that_the_run_did_not_write_is_refused(runs, tmp_path):
    path = changed(runs[0]["path"], tmp_path / "run")
    file = path / "circuit.json"
    file.write_text(file.read_text().replace('"in_graph": false', '"in_graph": true', 1))
    with pytest.raises(ArtefactInvalid, match=r"circuit\.json is not the file that the run wrote"):
        load_circuit_run(path)


def test_a_run_of_another_kind_is_no_circuit(runs, tmp_path):
    with pytest.raises(ArtefactInvalid, match="is not a run directory"):
        load_circuit_run(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of tiny models: llama, and gemma2, whose heads' outputs are changed by a norm before they are added."""
    return {name: save_tiny(name, tmp_path_factory.mktemp("models") / f"tiny-{name}") for name in ("llama", "gemma2")}


def pairs(path, n, **changed):
    """A file of ``n`` pairs of prompts of three and four words; the last line is ``changed``, where None takes a key out."""
    rows = []
    for i in range(n):
        tail = " w4" * (i % 2)
        pair = {"clean": f"w{i} w2 w{i + 9}{tail}", "corrupted": f"w{i + 1} w2 w5{tail}"}
        rows.append(pair | {"answer": "w7", "distractor": f"w{i + 20}"})
    rows[-1] |= changed
    path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows), encoding="utf-8")
    return path


def test_prompts_of_ones_own_are_halved_one_to_find_and_one_to_test(models, tmp_path):
    words = ("circuit", "--model", models["llama"], "--prompts", pairs(tmp_path / "nine.jsonl", 9), "--method", "exact")
    answer = interp(*words, "--size", 60, "--n-draws", 1, "--seed", 3, "--out", tmp_path / "run", "--json")
    assert answer.exit_code == 0, answer.stderr
    model = load_model(str(models["llama"]))
    whole = task_from_jsonl(tmp_path / "nine.jsonl", model)
    found, tested = whole.halves(3)
    assert (len(found), len(tested)) == (5, 4) and not {e.clean for e in found} & {e.clean for e in tested}
    assert {e.clean for e in whole} == {e.clean for e in (*found, *tested)}
    assert [e.clean for e in found] != [e.clean for e in whole.halves(4)[0]]
    scores = score_edges(model, found, method="exact")
    circuit, curve = load_circuit_run(tmp_path / "run")
    assert circuit.edges == scores.circuit(60).edges
    assert curve.clean == pytest.approx(faithfulness_curve(model, tested, scores, shares=(1.0,), n_draws=0).clean, abs=1e-5)
    assert curve.clean != pytest.approx(float(scores.clean.mean()), abs=1e-2)
    told = json.loads(answer.stdout)
    assert (told["n_discovery_prompts"], told["n_test_prompts"]) == (5, 4)
    assert "Found on 5 prompts, tested on 4 others" in interp("show", tmp_path / "run").stdout
    assert "nothing was computed" in interp(*words, "--size", 60, "--n-draws", 1, "--seed", 3, "--out", tmp_path / "run").stderr
    assert_refused(interp(*words, "--size", 60, "--n-draws", 1, "--seed", 4, "--out", tmp_path / "run"), 6, "holds another run")


def test_clusters_of_prompts_are_halved_whole_and_named(models, tmp_path):
    file, labels = pairs(tmp_path / "nine.jsonl", 9), "abacbdaca"
    rows = [json.loads(line) | {"cluster": label} for line, label in zip(file.read_text().splitlines(), labels, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ("circuit", "--model", models["llama"], "--prompts", file, "--method", "exact", "--size", 60, "--n-draws", 1)
    answer = interp(*words, "--out", tmp_path / "run")
    assert answer.exit_code == 0, answer.stderr
    assert "Found on 5 prompts in 2 clusters, tested on 4 others in 2 clusters." in answer.stdout
    assert "over clusters of prompts), with all other edges corrupted" in answer.stdout
    file.write_text("\n".join(json.dumps(row | {"cluster": "a" if i else "z"}) for i, row in enumerate(rows)), encoding="utf-8")
    refused = interp(*words, "--out", tmp_path / "other")
    assert_refused(refused, 2, "one half of the clusters of prompts and tested on the other, .* has 2 in all: give 4 or more")


@pytest.mark.parametrize(
    ("n", "changed", "sentence"),
    [
        (5, {"corrupted": None}, "1 of the 5 prompts of .*jsonl have no corrupted version that differs"),
        (
            3,
            {},
            "found on one half of the prompts and tested on the other, at least 2 each, and .* has 3 in all: give 4 or more",
        ),
        (1, {}, "needs at least 2 of them"),
        (5, {"corrupted": "w1 w2"}, "line 5: The clean prompt has 4 tokens and the corrupted one 3"),
        (5, {"answer": None}, "line 5: The key 'answer' is missing"),
    ],
    ids=["no corrupted prompt", "too few", "one", "lengths differ", "no answer"],
)
def test_prompts_that_show_nothing_are_refused_in_a_sentence(models, tmp_path, monkeypatch, n, changed, sentence):
    file = pairs(tmp_path / "mine.jsonl", n, **changed)
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--dry-run",)):
        assert_refused(interp("circuit", "--model", models["llama"], "--prompts", file, *more), 2, sentence)
    assert [file] == list(tmp_path.iterdir())


def test_prompts_that_stand_twice_in_a_file_are_refused(models, tmp_path):
    file = pairs(tmp_path / "mine.jsonl", 1)
    file.write_text("\n".join([file.read_text()] * 5))
    words = ("circuit", "--model", models["llama"], "--prompts", file, "--method", "eap")
    assert_refused(interp(*words), 2, "line 2: The clean prompt is that of line 1 and would count twice")


def test_a_circuit_that_was_saved_from_python_is_shown(tmp_path):
    model = load_model("interp-mini")
    scores = score_edges(model, make_task("ioi", model, n_prompts=4, seed=0), method="eap")
    curve = faithfulness_curve(model, make_task("ioi", model, n_prompts=4, seed=1), scores, shares=(0.05, 1.0), n_draws=1)
    save_circuit(scores.circuit(30), scores, curve, tmp_path / "run", {"kind": "circuit"})
    shown = interp("show", tmp_path / "run")
    assert shown.exit_code == 0, shown.stderr
    assert f"{len(scores.circuit(30))} of 479 edges" in shown.stdout and "the 23 largest edges recover" in shown.stdout


def test_what_corrupted_edges_show_is_chosen_and_named(models, tmp_path):
    file = pairs(tmp_path / "mine.jsonl", 9, corrupted=None)
    words = ("circuit", "--model", models["llama"], "--prompts", file, "--method", "exact", "--size", 60, "--n-draws", 1)
    answer = interp(*words, "--ablation", "zero", "--out", tmp_path / "run")
    assert answer.exit_code == 0, answer.stderr
    assert "with all other edges corrupted (zero)" in answer.stdout
    model = load_model(str(models["llama"]))
    scores = score_edges(model, task_from_jsonl(file, model).halves(0)[0], method="exact", ablation="zero")
    told = json.loads(interp("show", tmp_path / "run", "--json").stdout)
    assert told["edges"][0]["score"] == pytest.approx(scores.effects[abs(scores.effects).argmax()], abs=1e-5)
    assert told["record"]["arguments"]["ablation"] == "zero"


def test_what_has_no_circuit_is_refused_in_a_sentence(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    file = pairs(tmp_path / "in" / "mine.jsonl", 6)
    words = ("circuit", "--prompts", file, "--method", "exact")
    assert_refused(
        interp(*words, "--model", models["gemma2"]),
        2,
        "tiny-gemma2 has no edges: in a Gemma2ForCausalLM model a norm acts on attention output before",
    )
    words = (*words, "--model", models["llama"])
    assert_refused(interp(*words, "--metric", "accuracy"), 2, "have the same accuracy")
    assert_refused(
        interp(*words, "--threshold", 1000), 2, r"threshold 1e\+03 leaves no edge.* The largest effect is [\d.]+ logits"
    )
    assert_refused(interp(*words, "--size", 1), 2, "The top 1 edges form no circuit")
    assert [tmp_path / "in"] == list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_circuit_by_acdc_says_its_threshold(tmp_path):
    answer = interp(
        *WORDS[:3], "-n", 2, "--n-draws", 1, "--method", "acdc", "--threshold", 0.5, "--out", tmp_path / "a", "--json"
    )
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert said["record"]["arguments"]["threshold"] == 0.5 and said["requested_size"] == said["n_nonzero"] > 0
    kept = pd.DataFrame(said["edges"]).query("in_circuit")
    assert kept["score"].abs().min() >= 0.5 and "cpr" not in said


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--task", "ioi", "--method", "EAP"], 2, f"No method is called 'EAP'. There are: {', '.join(EDGE_METHODS)}, acdc."),
        (["--task", "iou"], 2, "No task is called 'iou'"),
        ([], 2, "Give either --task or --prompts FILE.jsonl"),
        (["--task", "ioi", "--size", 3, "--threshold", 1], 2, "give one of them"),
        (["--task", "ioi", "--size", 3, "--method", "acdc"], 2, "give --threshold instead of --size"),
        (
            ["--task", "ioi", "--exact-top", 9, "--method", "exact"],
            2,
            "exact estimates nothing, so exact_top=9 has no edges to choose",
        ),
        (["--task", "ioi", "--faithfulness", 85], 2, "--faithfulness 85 is not between 0 and 1"),
        (
            ["--task", "ioi", "--faithfulness", 0.9, "--size", 9],
            2,
            "--size and --faithfulness each decide which edges are kept",
        ),
        (["--task", "ioi", "--faithfulness", 0.9, "--method", "acdc"], 2, "give --threshold instead of --faithfulness"),
        (["--task", "ioi", "--threshold", 0], 2, "give a number above 0"),
        (["--task", "ioi", "--threshold", "nan"], 2, "nan is no size of an effect"),
        (["--task", "ioi", "-n", 2, "--method", "eap", "--threshold", 1000], 2, "leaves no edge: give a lower one"),
        (["--task", "ioi", "-n", 2, "--method", "eap", "--metric", "accuracy"], 2, "has no gradient"),
        (["--task", "ioi", "--ablation", "uniform"], 2, "No ablation of edges is called 'uniform'. There are: counterfactual"),
        (
            ["--task", "ioi", "--ablation", "zero", "--method", "acdc"],
            2,
            "acdc replaces edges by those of the corrupted prompt",
        ),
        (["compare", "one"], 2, "`compare` needs two circuits: write `interp circuit compare A B`"),
        (["copare", "one", "two"], 2, "`interp circuit` has no action 'copare': write `interp circuit compare A B`"),
        (["compare", "nowhere", "nowhere.json"], 6, "cannot be read"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_leaves_nothing(words, code, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(interp("circuit", *words), code, sentence)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["circuit --task ioi", "ablate --task ioi", "attention --task ioi", "detect sinks", "confirm run"]
)
def test_a_seed_below_zero_is_refused_before_anything_is_computed(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = interp(*words.split(), "--seed", -1)
    assert refused.exit_code == 2 and "'--seed'" in refused.stderr and "it must be at least 0." in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_would_be_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = json.loads(interp(*WORDS, "--dry-run", "--json").stdout)
    assert (answer["method"], answer["steps"]) == ("eap-ig", 10)
    assert answer["n_units"] > 1 and answer["seconds"] > 0
    assert answer["bytes"] > 1 << 20
    assert not list(tmp_path.iterdir())
