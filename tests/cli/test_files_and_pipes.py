"""Paths, pipes and read-only disks on the command line: one sentence each, and no raw error number."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import assert_refused, interp
from tests.support.tiny_models import save_tiny

OBSERVE = ("attention", "--text", "the cat sat", "--metrics", "entropy")
LONG = "a" * 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "observed"
    assert interp(*OBSERVE, "--out", path).exit_code == 0
    return path


@pytest.fixture
def read_only(monkeypatch):
    """Nothing can be made, locked or written."""

    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system", str(getattr(self, "lock_file", self)))

    for name in ("mkdir", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: mode & 2 == 0)


def test_a_finished_run_on_a_read_only_disk_is_reused_and_a_new_one_refused(run, tmp_path, read_only):
    from interp.store import open_run, start_run

    answer = interp(*OBSERVE, "--out", run)
    assert answer.exit_code == 0 and "already holds this run" in answer.stderr
    with start_run(run, open_run(run).spec) as writer:
        assert writer.finished
    assert_refused(interp(*OBSERVE, "--out", tmp_path / "new"), 1, "No run can be stored in .*new: .* is read-only")


def test_names_that_the_file_system_refuses_are_refused_in_a_sentence(run, tmp_path):
    file = tmp_path / "plain.jsonl"
    file.write_text("{}", encoding="utf-8")
    assert_refused(interp("show", file), 6, "plain.jsonl is a file: give the run directory")
    assert_refused(interp("show", tmp_path / LONG), 6, "the name is too long for the file system")
    assert_refused(interp(*OBSERVE, "--out", tmp_path / LONG), 1, "No run can be stored in .*: the name is too long")
    assert_refused(interp(*OBSERVE, "--out", file / "run"), 1, "a part of the path is a file, not a folder")
    assert_refused(interp("attention", "--prompts", LONG), 2, f"There is no file {LONG}")
    assert_refused(interp("show", run, "--figure", tmp_path / f"{LONG}.png"), 1, "the name is too long for the file system")


def test_the_folder_of_a_run_is_named_within_the_limit_of_file_systems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ("ä" * 120)).write_text("the cat sat", encoding="utf-8")
    answer = interp("attention", "--file", "ä" * 120, "--metrics", "entropy")
    assert answer.exit_code == 0, answer.stderr
    assert [len(path.name.encode()) < 220 for path in (tmp_path / "runs").iterdir()] == [True]


def test_the_home_folder_is_written_with_a_tilde_in_every_path(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(run.parent)
    (tmp_path / "text").write_text("the cat sat", encoding="utf-8")
    for words in (
        ("attention", "--file", "~/text", "--metrics", "entropy", "--out", "~/runs/x", "--headvis", "~/headvis"),
        ("show", "~/runs/x", "--figure", "~/a.svg", "--minus", "~/runs/x"),
        ("runs", "~/runs"),
    ):
        assert (answer := interp(*words)).exit_code == 0, answer.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"a.svg", "headvis", "runs"}
    assert not (run.parent / "~").exists()


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_a_closed_pipe_ends_the_command_quietly(run, form):
    words = [sys.executable, "-m", "interp", "show", str(run), *form]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (141, b"")


def test_csv_escapes_what_a_spreadsheet_would_evaluate():
    import pandas as pd

    from interp.store.tables_as_csv import to_csv

    table = pd.DataFrame({"token": ["=1+1", "-", "a\ud800"], "value": [-0.5, 1.0, 2.0]}, dtype=object)
    assert to_csv(table) == "token,value\n'=1+1,-0.5\n'-,1.0\na\\ud800,2.0\n"


def test_half_precision_that_overflows_is_given_as_the_reason_with_exit_code_3(tmp_path):
    from safetensors.torch import load_file, save_file

    from interp import load_model

    folder = save_tiny("llama", tmp_path / "large")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] = (tensors["model.layers.1.mlp.down_proj.weight"] * 6e5).clamp(-6e4, 6e4)
    save_file(tensors, file, {"format": "pt"})
    answer = interp(
        "attention", "-m", folder, "--text", "w1 w2 w3", "--metrics", "entropy", "--dtype", "float16", "--out", tmp_path / "run"
    )
    assert answer.exit_code == 3, answer.stderr
    assert "entropy: undefined for 6 of 18 heads" in answer.stdout and "computes NaN or inf in float16" in answer.stdout
    assert interp("attention", "-m", folder, "--text", "w1 w2 w3", "--out", tmp_path / "full").exit_code == 0
    assert load_model(str(folder), dtype="float16").facts.causal


def test_lone_surrogates_in_tokens_are_escaped_in_tables(run, tmp_path):
    import numpy as np
    import pandas as pd

    from interp.heads import TokenScores
    from interp.store import open_run

    scores = TokenScores("entropy", np.zeros((1, 2)), (("a\ud800", "b"),), "nats", (0.0, None), open_run(run).record)
    scores.to_dataframe().to_parquet(tmp_path / "tokens.parquet")
    assert pd.read_parquet(tmp_path / "tokens.parquet")["token"].tolist() == ["a\\ud800", "b"]
