"""A token of the Hub in the environment is written nowhere: no file of a run, no message, no page."""

import os
import subprocess
import sys

import pytest

from tests.cli.test_cli import ROOT
from tests.support.dashboard_apps import address, new_session, open_address
from tests.support.tiny_models import save_tiny

CANARY = "hf_CANARYcanary0123456789abcdefghijkl"
NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")


def interp_with_token(folder, *words):
    """Output and errors of a command that has the token in its environment and in the file of huggingface_hub."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "token").write_text(CANARY)
    tokens = dict.fromkeys(NAMES, CANARY)
    more = {"HF_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "apps")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "interp", *map(str, words)]
    done = subprocess.run(command, capture_output=True, cwd=folder, env={**os.environ, **tokens, **more}, check=False)
    return done.returncode, done.stdout + done.stderr


def leaks(folder):
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and "home" not in path.parts and CANARY.encode() in path.read_bytes()
    ]


@pytest.mark.slow
def test_no_command_writes_the_token(tmp_path):
    model = save_tiny("llama", tmp_path / "model")
    gated = ("attention", "--model", "gated/model", "--text", "a", "--offline")
    told = [
        interp_with_token(tmp_path, "attention", "--model", model, "--text", "w1 w2 w3", "--out", tmp_path / "run", "--json"),
        interp_with_token(tmp_path, *gated),
        interp_with_token(tmp_path, *gated, "--debug"),
        interp_with_token(tmp_path, "attention", "--model", model, "--text", "", "--debug"),
        interp_with_token(tmp_path, "version", "--json"),
        interp_with_token(tmp_path, "doctor", model),
    ]
    assert [code for code, _ in told] == [0, 4, 4, 2, 0, 0], told
    assert not [said for _, said in told if CANARY.encode() in said]
    assert (tmp_path / "run" / "run.json").is_file() and not leaks(tmp_path)


def test_no_page_shows_the_token(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.chdir(tmp_path)
    app = open_address(new_session("attention"), model="gated/model", task="nothing", head="L99H0")
    app.text_input(key="another-name").set_value("gated/model")
    next(button for button in app.button if button.label == "Load").click().run()
    shown = [element.value for element in (*app.markdown, *app.caption, *app.warning, *app.info, *app.error, *app.code)]
    assert app.warning and any("gated/model" in said for said in shown)
    assert not [said for said in (*shown, *address(app).values()) if CANARY in said]
    assert not leaks(tmp_path)
