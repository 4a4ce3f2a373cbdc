"""What help shows, and what is said of a command line that cannot be read."""

import re

import pytest
from typer.testing import CliRunner

from interp.cli.detector_settings_table import meaning
from interp.errors import settings_text


def interp(*words):
    from interp.cli.app import app

    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words])


@pytest.mark.parametrize(
    "command", ["ablate", "attention", "circuit", "confirm", "detect", "doctor", "models", "runs", "show", "tasks"]
)
def test_help_shows_no_types_of_python_and_whole_paragraphs(command):
    shown = interp(command, "--help").stdout
    assert not re.search(r"<(bool|str|int|float|path|list)|range>|\[\[", shown)
    assert re.search(r"--json +Write one JSON object", shown) and re.search(r"--help +Show this message", shown)
    paragraph = shown.split("╭")[0].strip().splitlines()
    assert all(
        line.strip() == "" or len(line.rstrip()) > 100 or line.rstrip().endswith((".", "]...", "]", "}")) for line in paragraph
    )


def test_help_shows_examples_and_defaults_whole():
    shown = " ".join(interp("attention", "--help").stdout.replace("│", " ").split())
    assert "entropy,windowed_distance:window=20." in shown and "…" not in shown
    assert "prev_token_score, induction_score]" in shown


def test_help_of_a_role_explains_its_settings():
    shown = interp("detect", "far_context", "--help").stdout
    assert "Heads by the KL divergence" in shown
    assert re.search(r"by_kv_group +false +true or false +by_kv_group restricts all query heads", shown)
    assert re.search(r"fwer +0.05 +a number +family-wise error rate", shown)
    assert "setting, for --set" not in interp("detect", "--help").stdout
    borrowed = interp("detect", "induction", "--help").stdout
    assert re.search(r"period +none +a whole number or none +period is n, by default 50", borrowed)


def test_the_meaning_of_a_setting_is_the_whole_sentence_that_names_it():
    text = "One thing. ``kind`` is ``a`` (this; the default) or ``b``; ``size`` is large. Another."
    assert meaning("kind", text) == "kind is a (this; the default) or b"
    assert meaning("size", text) == "size is large"
    assert meaning("seed", text) == "seed for prompts and null" and meaning("gold", text) == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("circuit --task ioi --size 0", 2, "Invalid value for '--size': it must be at least 1."),
        ("circuit --task ioi --size few", 2, "Invalid value for '--size': it must be a whole number."),
        ("circuit --task ioi --threshold low", 2, "Invalid value for '--threshold': it must be a number."),
        ("circuit --task ioi --method eap --steps 5", 2, "--steps belongs to the methods with eap-ig, and the method is eap"),
        ("circuit --task ioi --method exact --rule left", 2, "--rule belongs to the methods with eap-ig"),
        ("circuit --task ioi --method eap --size 480", 2, "--size 480 is more than the 479 edges of interp-mini"),
        ("models foo", 2, "`interp models` has no action 'foo': write `interp models install NAME`"),
        ("compare a b", 2, "No such command 'compare': `interp circuit compare A B` compares two circuits"),
        ("ablate --prompts .", 2, ". is a folder: give a file."),
        ("ablate --task ioi --model ''", 4, "The name of the model is empty. Embedded models: interp-mini"),
        ("ablate --task ioi --ablation mean:foo=1", 2, "Ablation 'mean' has no option 'foo'. It has no options."),
        ("show nope", 6, "nope does not exist: `interp runs` lists the stored runs."),
    ],
)
def test_a_wrong_command_line_gets_a_plain_sentence(words, code, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = interp(*(word.strip("'") for word in words.split()))
    assert answer.exit_code == code
    assert sentence in " ".join(answer.stderr.replace("│", " ").split())


def test_settings_are_written_without_what_is_not_set():
    values = {"size": None, "prefix_shared": True, "effects": False, "share": 0.12345, "ks": [1, 2], "options": {"n": 3}}
    assert settings_text(values) == "prefix_shared yes, effects no, share 0.1235, ks 1 2, options n=3"
