"""Specifications: what they are the same as, what they cost, and that the command line and Python code they give do the same."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from typer.testing import CliRunner

from interp.experiments import (
    AblationSpec,
    AttentionSpec,
    CircuitSpec,
    ConfirmationSpec,
    DetectionSpec,
    UsageError,
    spec_from_json,
    spec_to_json,
)
from interp.records import digest
from interp.store import open_run

ABLATION = AblationSpec(task="ioi", n_prompts=4, seed=3, ablation="zero", heads=("L0H1", "L2H3"))
ATTENTION = AttentionSpec(text="the cat's cat", metrics=("entropy", "windowed_distance:window=3"))
DETECTION = DetectionSpec(role="previous_token", options={"n_prompts": 2, "n_null_draws": 19, "seed": 2})
CIRCUIT = CircuitSpec(task="ioi", n_prompts=2, method="eap", size=40, n_draws=1)
CONFIRMATION = ConfirmationSpec(detection="runs/found", task="needle", task_options={"depth": 0.5}, ks=(1, 2), n_prompts=4)
SPECS = [
    ABLATION,
    AblationSpec(
        prompts="mine.jsonl", estimator="adaptive", top_share=0.3, layers=(0, 2), pairs=True, metric="kl", positions="end"
    ),
    AblationSpec(model="gpt2", task="ioi", device="cuda:1", dtype="bfloat16", revision="main", offline=True, bos="never"),
    ATTENTION,
    AttentionSpec(file="essay.txt", device_map="auto", max_memory="0=10GiB,cpu=20GiB"),
    AttentionSpec(task="ioi", n_prompts=3, seed=5),
    AttentionSpec(file="essay.txt", lines=True, chat=True),
    AttentionSpec(prompts="mine.jsonl", chat=True),
    AblationSpec(prompts="mine.jsonl", chat=True),
    AblationSpec(task="needle", task_options={"n_filler": 3, "depth": 0.5}),
    DETECTION,
    DetectionSpec(role="retrieval", options={"mode": "greedy", "min_recall": None}, revision="v1"),
    CIRCUIT,
    CircuitSpec(prompts="mine.jsonl", chat=True, ablation="mean", threshold=0.25, steps=3, rule="left", metric="logit_diff"),
    CircuitSpec(task="ioi", task_options={"corruption": "flip"}, exact_top=100),
    CONFIRMATION,
    ConfirmationSpec(detection="runs/found", prompts="mine.jsonl", chat=True),
    replace(
        CONFIRMATION, seed=4, ablation="zero", positions=("end",), specificity=("ioi",), device="cuda", metric="logit_diff"
    ),
]


@cache
def mini():
    from interp.models import load_model

    return load_model("interp-mini")


def kind(spec):
    return spec.command


@pytest.fixture
def parsed(monkeypatch):
    """The specification that the command line makes of words."""
    caught = []

    def catch(spec, model=None):
        caught.append(spec)
        raise UsageError("caught")

    for made in (AblationSpec, AttentionSpec, CircuitSpec, ConfirmationSpec, DetectionSpec):
        monkeypatch.setattr(made, "prepare", catch)
    monkeypatch.setattr(ConfirmationSpec, "resolve", lambda spec: spec)

    def parse(words):
        from interp.cli.app import app

        answer = CliRunner().invoke(app, words)
        assert answer.stderr == "caught\n" and answer.exit_code == 2, answer.stderr
        return caught.pop()

    return parse


@pytest.mark.parametrize("spec", SPECS, ids=kind)
def test_the_command_line_reads_back_the_words_of_a_specification(spec, parsed):
    assert parsed(spec.to_argv()) == spec


@pytest.mark.parametrize("spec", SPECS, ids=kind)
def test_a_specification_is_read_back_from_json(spec):
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


def test_words_name_what_differs_from_the_default():
    assert AblationSpec(task="ioi").to_argv() == ["ablate", "--model", "interp-mini", "--task", "ioi"]
    assert DetectionSpec(role="retrieval").to_argv() == ["detect", "retrieval", "--model", "interp-mini"]
    assert ConfirmationSpec(detection="a b").to_argv() == ["confirm", "a b"]
    assert "--n-prompts" not in AblationSpec(prompts="mine.jsonl", n_prompts=9).to_argv()


def test_equal_identities_have_equal_digests_and_folders():
    again = replace(ABLATION, heads=("0.1", "L2H3"))
    assert ABLATION.digest(mini()) == again.digest(mini()) != replace(ABLATION, seed=4).digest(mini())
    assert ABLATION.folder_name(mini()) == f"ioi-interp-mini-zero-{ABLATION.digest(mini())[:8]}"
    assert replace(ABLATION, estimator="adaptive").folder_name(mini()).startswith("ioi-interp-mini-zero-adaptive-")
    assert ATTENTION.folder_name(mini()).startswith("attention-text-interp-mini-")
    assert DETECTION.folder_name(mini()).startswith("previous_token-interp-mini-")
    assert CIRCUIT.folder_name(mini()).startswith("circuit-ioi-interp-mini-eap-")


CHANGES = [
    {"task": "induction"},
    {"n_prompts": 5},
    {"seed": 4},
    {"ablation": "mean"},
    {"estimator": "adaptive"},
    {"positions": "end"},
    {"metric": "kl"},
    {"heads": ("L0H1",)},
    {"heads": (), "layers": (0,)},
    {"pairs": True},
    {"task_options": {"corruption": "flip"}},
    {"top_share": 0.5},
    {"dtype": "float64"},
]


def test_each_of_the_fields_that_change_numbers_changes_the_digest():
    specs = [ABLATION, *(replace(ABLATION, **change) for change in CHANGES)]
    digests = [spec.digest(None if "dtype" in change else mini()) for spec, change in zip(specs, [{}, *CHANGES], strict=True)]
    assert len(set(digests)) == len(specs) == 14


def test_the_order_of_keys_does_not_change_a_digest_and_the_order_of_prompts_does(tmp_path):
    made = ABLATION.prepare(mini())
    assert digest(dict(reversed(made.identity.items()))) == made.digest()
    rows = [{"clean": f"{a} and {b} went to", "corrupted": f"{b} and {a} went to", "answer": "the"} for a, b in NAMES]
    specs = []
    for name, lines in (("a", rows), ("b", rows[::-1]), ("c", [dict(reversed(row.items())) for row in rows])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        specs.append(AblationSpec(prompts=str(tmp_path / name / "mine.jsonl")).prepare(mini()))
    first, turned, keys = (spec.task.digest() for spec in specs)
    assert first == keys != turned  # a mean and a donor are those of all prompts in their order


NAMES = [("Mary", "John"), ("Tom", "James"), ("Dan", "Anna")]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [ABLATION, ATTENTION, DETECTION, CIRCUIT], ids=kind)
def test_five_runs_of_a_specification_write_the_same_bytes(spec, tmp_path):
    """Four here, and one in a process of its own with another seed of hashes."""
    found = [spec.run(tmp_path / f"run{i}", model=mini()).manifest["files"] for i in range(4)]
    words = [sys.executable, "-m", "interp", *spec.to_argv(), "--out", str(tmp_path / "run4")]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"})
    found.append(open_run(tmp_path / "run4").manifest["files"])
    assert found[0] and all(files == found[0] for files in found)


def test_the_code_of_an_ablation_computes_the_stored_effects(tmp_path):
    run = ABLATION.run(tmp_path / "run", model=mini())
    names = {}
    exec(ABLATION.to_python(), names)
    np.testing.assert_allclose(names["table"]["effect"], run.heads()["effect"], rtol=0, atol=1e-5)
    assert names["table"]["label"].tolist() == ["L0H1", "L2H3"] and run.record == names["result"].record


def test_the_code_of_an_observation_computes_the_stored_values(tmp_path):
    run = ATTENTION.run(tmp_path / "run", model=mini())
    names = {}
    exec(ATTENTION.to_python(), names)
    for metric in run.metrics:
        np.testing.assert_allclose(names["observation"].heads(metric).values, run.scores(metric).values, atol=1e-5)


def test_the_code_of_a_file_reads_the_same_text(tmp_path):
    (tmp_path / "a.txt").write_text(ATTENTION.text)
    names = {}
    exec(AttentionSpec(file=str(tmp_path / "a.txt"), metrics=("entropy",)).to_python(), names)
    assert names["prompts"] == mini().to_tokens(ATTENTION.text)


def test_the_code_of_lines_reads_the_same_texts_and_that_of_messages_says_chat(tmp_path):
    (tmp_path / "a.txt").write_text("the cat\n\nthe dog runs\n")
    names = {}
    spec = AttentionSpec(file=str(tmp_path / "a.txt"), lines=True, metrics=("entropy",))
    exec(spec.to_python(), names)
    assert names["prompts"] == spec.prepare(mini()).prompts == [mini().to_tokens(text) for text in ("the cat", "the dog runs")]
    for messages in (replace(spec, chat=True), replace(ATTENTION, chat=True)):
        assert "model.to_chat_tokens(" in messages.to_python()
    for kind in (AblationSpec, AttentionSpec, CircuitSpec):
        assert "interp.task_from_jsonl('mine.jsonl', model, chat=True)" in kind(prompts="mine.jsonl", chat=True).to_python()


def test_the_code_of_a_detection_and_of_its_confirmation_computes_the_stored_tables(tmp_path):
    from interp.store import FileLedger, load_confirmation, load_detection

    DETECTION.run(tmp_path / "found", model=mini())
    names = {}
    exec(DETECTION.to_python(), names)
    np.testing.assert_allclose(
        names["detection"].scores.values, load_detection(tmp_path / "found").scores.values, atol=1e-5, equal_nan=True
    )
    spec = ConfirmationSpec(detection=str(tmp_path / "found"), task="induction", n_prompts=6, ks=(1,), positions=("all",))
    experiment = spec.prepare(mini())
    ledger = FileLedger(tmp_path / "units", {})
    experiment.measure(memory=None, ledger=ledger)
    assert experiment.plan().n_units == ledger.count() and experiment.plan().bytes > 0
    spec.run(tmp_path / "confirmed", model=mini())
    exec(spec.to_python(), names)
    stored, computed = load_confirmation(tmp_path / "confirmed").table["effect"], names["confirmation"].table["effect"]
    np.testing.assert_allclose(np.sort(computed), np.sort(stored), atol=1e-5)


@pytest.mark.parametrize("spec", [CIRCUIT, replace(CIRCUIT, size=None, faithfulness=0.5)], ids=["size", "faithfulness"])
def test_the_code_of_a_circuit_finds_the_stored_edges(spec, tmp_path):
    from interp.store import load_circuit_run

    spec.run(tmp_path / "run", model=mini())
    circuit, curve = load_circuit_run(tmp_path / "run")
    names = {}
    exec(spec.to_python(), names)
    assert names["circuit"].edges == circuit.edges
    assert names["curve"].clean == pytest.approx(curve.clean, abs=1e-5)


def test_the_code_of_acdc_and_of_a_threshold_is_complete():
    for spec in (
        replace(CIRCUIT, method="acdc", size=None),
        replace(CIRCUIT, size=None, threshold=0.5),
        replace(CIRCUIT, size=None, exact_top=40),
        replace(CIRCUIT, size=None, faithfulness=0.9),
    ):
        code = compile(spec.to_python(), "code", "exec")
        assert "interp" in code.co_names
    assert "acdc(model, task" in replace(CIRCUIT, method="acdc", size=None).to_python()


def test_a_finished_run_is_returned_and_fresh_moves_it_aside(tmp_path):
    sentences = []
    first = ATTENTION.run(tmp_path / "run", model=mini(), notify=sentences.append)
    assert ATTENTION.run(tmp_path / "run", model=mini(), notify=sentences.append).manifest == first.manifest
    assert "nothing was computed" in sentences[-1]
    ATTENTION.run(tmp_path / "run", model=mini(), fresh=True, notify=sentences.append)
    assert (tmp_path / "run.1" / "run.json").exists() and "moved to" in sentences[-1]


@pytest.mark.parametrize("spec", [ABLATION, ATTENTION, DETECTION, CIRCUIT], ids=kind)
def test_every_kind_says_its_units_and_bytes_before_it_runs(spec):
    plan = spec.plan(mini())
    assert plan.n_units > 0 and plan.bytes > 0


@pytest.mark.parametrize(
    ("spec", "kind", "sentence"),
    [
        (AblationSpec(), ValueError, "Give either --task or --prompts"),
        (AblationSpec(task="iou"), LookupError, "No task is called 'iou'"),
        (AblationSpec(prompts="none.jsonl"), FileNotFoundError, r"There is no file none\.jsonl"),
        (AblationSpec(task="ioi", estimator="guess"), LookupError, "No estimator is called 'guess'"),
        (AblationSpec(task="ioi", heads=("L0H1",), layers=(0,)), ValueError, "give one of them"),
        (AttentionSpec(text="a", metrics=()), ValueError, "names no metric"),
        (AttentionSpec(text="a", lines=True), ValueError, "--lines reads a file line by line"),
        (AttentionSpec(task="ioi", chat=True), ValueError, "--chat writes your own prompts as messages"),
        (AblationSpec(task="ioi", chat=True), ValueError, "--chat writes your own prompts as messages"),
        (CircuitSpec(task="ioi", chat=True), ValueError, "--chat writes your own prompts as messages"),
        (DetectionSpec(role="retrieval", options={"shape": 3}), LookupError, "Detector 'retrieval' has no option 'shape'"),
        (CircuitSpec(task="ioi", method="acdc", size=3), ValueError, "give --threshold instead of --size"),
    ],
    ids=lambda value: value.command if hasattr(value, "command") else "",
)
def test_what_is_wrong_is_known_before_a_model_is_loaded(spec, kind, sentence, monkeypatch):
    monkeypatch.setattr(type(spec), "load_model", None)  # a call would fail
    with pytest.raises(kind, match=sentence):
        spec.prepare()


def test_specifications_need_neither_torch_nor_the_command_line_nor_the_dashboard():
    code = "import sys, interp.experiments.ablation, interp.experiments.circuit; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "typer", "streamlit", "interp.cli"} & {*loaded}
