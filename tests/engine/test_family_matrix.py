"""Families of transformers, each number of the engine against the plain model."""

import json

import pytest
from typer.testing import CliRunner

from interp.circuits import score_edges
from interp.cli.family_matrix_output import as_markdown, counts
from interp.engine import run
from interp.family_matrix import CHECKS, build, family_matrix
from interp.heads import Head
from interp.interventions import uniform

FEW = ["gpt2", "llama", "gemma2", "bart", "falcon_h1", "jamba", "encoder:roberta"]


@pytest.fixture(scope="module")
def few():
    return family_matrix(FEW).set_index(["family", "check"])


def test_no_cell_of_seven_families_is_wrong(few):
    assert not few["verdict"].isin(["WRONG", "CRASH", "not built"]).any(), few[few["verdict"] != "right"]
    assert counts(few.reset_index()) == {"measured": 7, "right": 4, "refused": 3, "wrong": 0, "not built": 0}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_cell_of_a_plain_decoder_is_right(few, family):
    assert (few.loc[family]["verdict"] == "right").all()


@pytest.mark.parametrize(
    ("family", "check", "sentence"),
    [
        ("gemma2", "exact_edges", "a norm acts on attention output"),
        ("bart", "left_padding", "pad these prompts on the right"),
        ("falcon_h1", "zero_sweep", "are not known"),
        ("jamba", "zero_sweep", "JambaForCausalLM: a layer computes no attention through transformers' interface"),
        ("roberta", "zero_sweep", "needs a causal language model"),
    ],
)
def test_what_a_family_cannot_do_is_refused_in_a_sentence(few, family, check, sentence):
    assert few.loc[(family, check), "verdict"] == "refused"
    assert sentence in few.loc[(family, check), "note"]


def test_the_command_writes_the_table(tmp_path):
    from interp.cli.app import app

    page = tmp_path / "families.md"
    answer = CliRunner().invoke(app, ["doctor", "--matrix", "--families", "gpt2", "--json", "--out", str(page)])
    assert answer.exit_code == 0, answer.output
    assert [row["check"] for row in json.loads(answer.stdout)["cells"]] == list(CHECKS)
    assert "| gpt2 |" in page.read_text()


@pytest.mark.survey
@pytest.mark.timeout(3600)
def test_no_cell_of_any_family_is_wrong():
    table = family_matrix()
    bad = table[table["verdict"].isin(["WRONG", "CRASH"])]
    assert bad.empty, as_markdown(bad)
    assert counts(table)["right"] >= 80


@pytest.mark.parametrize("ablation", ["counterfactual", "mean", "zero"])
@pytest.mark.parametrize("family", ["jamba", "qwen3_next"])
def test_edges_of_a_model_with_layers_without_attention_are_refused_in_a_sentence(family, ablation):
    case = build(family, "decoder")
    with pytest.raises(ValueError, match="a layer computes no attention through transformers' interface"):
        score_edges(case.model, case.task.select([0, 1]), ablation=ablation)


@pytest.mark.parametrize("family", ["jamba", "bamba"])
def test_a_hooked_pass_of_a_model_with_layers_without_attention_is_refused_in_a_sentence(family):
    case = build(family, "decoder")
    with pytest.raises(ValueError, match=r"TransformerLens's view of \w+ \(\w+\) has layers without attention: hooked passes"):
        run(case.model, case.texts[0], intervene=[uniform([Head(1, 2)])])
