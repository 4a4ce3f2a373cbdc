"""`interp runs`: the stored runs of a folder; and `--revision`, which belongs to models of the Hub."""

import json

import pytest

from tests.cli.test_cli import assert_refused, interp


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an observation, an interrupted run and something else."""
    from interp.store import start_run

    path = tmp_path_factory.mktemp("runs")
    answer = interp("attention", "--text", "the cat", "--metrics", "entropy", "--out", path / "observed")
    assert answer.exit_code == 0, answer.stderr
    with start_run(path / "stopped", {"kind": "ablation", "model": "gpt2", "task": "ioi"}):
        pass
    (path / "notes").mkdir()
    return path


def test_stored_runs_are_listed_with_kind_model_task_status_and_size(folder):
    entries = {entry["name"]: entry for entry in json.loads(interp("runs", folder, "--json").stdout)["runs"]}
    assert {*entries} == {"observed", "stopped"}
    observed = entries["observed"]
    assert (observed["kind"], observed["model"], observed["task"]) == ("attention", "interp-mini", "text")
    assert observed["status"] == "finished" and observed["nbytes"] > 0 and observed["path"] == str(folder / "observed")
    assert (entries["stopped"]["status"], entries["stopped"]["model"]) == ("interrupted", "gpt2")
    printed = interp("runs", folder).stdout
    assert "observed" in printed and "interrupted" in printed and "notes" not in printed


def test_a_folder_without_runs_is_named_and_a_missing_one_refused(tmp_path):
    assert f"{tmp_path} holds no runs" in " ".join(interp("runs", tmp_path).stdout.split())
    assert_refused(interp("runs", tmp_path / "nowhere"), 2, "There is no folder .*nowhere")


@pytest.mark.parametrize(
    "words", ["ablate --task ioi", "attention --text a", "circuit --task ioi", "detect retrieval", "doctor"]
)
def test_a_revision_of_a_model_that_is_not_of_the_hub_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(interp(*words.split(), "--revision", "main"), 2, "revision='main' belongs to models of the Hub")
    assert not list(tmp_path.iterdir())
