"""`interp variants`, `interp fidelity` and `interp generate`."""

import json

import pytest

from interp.ablation import build_variant
from interp.heads import Head
from interp.interventions import INTERVENTIONS
from tests.cli.test_cli import interp
from tests.support.tiny_models import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


def test_variants_are_listed_with_their_papers_and_neutral_settings():
    said = interp("variants", "--json")
    listed = {row["name"]: row for row in json.loads(said.stdout)["variants"]}
    assert {"window", "heavy_hitters", "landmark"} <= set(listed) and "zero" not in listed
    assert listed["window"]["options"] == {"size": 64} and "2004.05150" in listed["window"]["source"]
    assert listed["window"]["neutral"] == f"size={1 << 30}" and listed["local_linear"]["neutral"] == "ridge=inf"
    assert listed["agent"]["neutral"] is None
    for name, row in listed.items():
        if row["neutral"] is not None and not INTERVENTIONS.get(name).needs:
            build_variant(f"{name}:{row['neutral']}", [Head(0, 0)])
    printed = interp("variants").stdout
    assert "2306.14048" in printed and "ridge=inf" in printed


def test_fidelity_is_stored_shown_and_drawn(folder, tmp_path):
    out = tmp_path / "run"
    words = ("fidelity", "--variant", "window:size=2", "--text", "w5 w9 w12 w7 w30", "--model", folder, "--out", out)
    first = interp(*words, "--json")
    assert first.exit_code == 0, first.output
    details = json.loads(first.stdout)["details"]
    assert set(details["metrics"]) == {"density", "retained_mass", "oracle_mass", "total_variation", "kl", "output_error"}
    shown = interp("show", out)
    assert shown.exit_code == 0 and "window:size=2" in shown.stdout
    assert interp("show", out, "--figure", tmp_path / "map.png", "--metric", "kl").exit_code == 0
    again = interp(*words)
    assert again.exit_code == 0 and (tmp_path / "map.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--variant", "nope"), "No attention variant is called 'nope'"),
        (("--variant", "window:size=0"), "size=0 is too small"),
        (("--variant", "mixture_of_heads:k=1"), "changes z and no pattern"),
        (("--variant", "isolate_span"), "isolate_span needs targets"),
    ],
)
def test_what_fidelity_cannot_measure_is_said_in_a_sentence(folder, words, sentence):
    said = interp("fidelity", *words, "--text", "w5 w9", "--model", folder)
    assert said.exit_code == 2 and sentence in said.stderr and "Traceback" not in said.output


def test_generate_prints_the_unchanged_continuation_and_that_of_each_variant(folder):
    words = ("generate", "--text", "w5 w9 w12 w7 w30", "--model", folder, "-n", "6")
    said = interp(*words, "--variant", "window:size=2", "--variant", "top_keys:k=1000", "--json")
    assert said.exit_code == 0, said.output
    unchanged, window, neutral = json.loads(said.stdout)["continuations"]
    assert len(unchanged["tokens"]) == 6 and unchanged["n_same"] == 6
    assert neutral["tokens"] == unchanged["tokens"] and neutral["n_same"] == 6
    assert window["tokens"] != unchanged["tokens"] and window["n_same"] < 6
    printed = interp(*words, "--variant", "window:size=2", "--heads", "L0H1").stdout
    assert printed.startswith("unchanged:\n") and "window:size=2 (" in printed
    assert interp("generate", "--model", folder).exit_code == 2
    assert "L9H0" in interp(*words, "--variant", "window:size=2", "--heads", "L9H0").stderr
