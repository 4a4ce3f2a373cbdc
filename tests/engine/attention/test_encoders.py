"""Encoders of text and images are loaded and observed, and refused wherever a next token is needed."""

import pytest
import torch
import transformers as T
from typer.testing import CliRunner

from interp import ablate_heads, observe_attention
from interp.cli.app import app
from interp.engine.attention.attention_interface import attention_hooks
from interp.engine.attention.attention_observer import observing, prepare_inputs
from interp.engine.gradients.attribution_patching import attribute
from interp.engine.sweep.sweep import clean_outcome, sweep
from interp.interventions import zero
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.models import doctor, load_model, wrap_model
from interp.records import RunRecord
from interp.tasks import make_task, task_from_jsonl
from tests.support.reference_metrics import FORMULAS, eager_pattern, reference_metrics_of, same
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import D_VOCAB, ENCODERS, tiny, tiny_hf, tiny_images, tiny_tokenizer, tiny_tokens

SIZES = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 5}
TEXT = {**SIZES, "vocab_size": D_VOCAB, "max_position_embeddings": 64}
IMAGE = {**SIZES, "image_size": (8, 10), "patch_size": 2, "num_channels": 2}
MORE = {
    "bert body": (lambda: T.BertModel(T.BertConfig(**TEXT)), (97, 64)),
    "roberta": (lambda: T.RobertaForMaskedLM(T.RobertaConfig(**TEXT, pad_token_id=1)), (97, 62)),
    "distilbert": (
        lambda: T.DistilBertForMaskedLM(
            T.DistilBertConfig(vocab_size=D_VOCAB, dim=40, hidden_dim=56, n_layers=3, n_heads=5, max_position_embeddings=64)
        ),
        (97, 64),
    ),
    "vit body": (lambda: T.ViTModel(T.ViTConfig(**IMAGE)), (0, 21)),
    "deit": (lambda: T.DeiTForImageClassification(T.DeiTConfig(**IMAGE, num_labels=11)), (11, 22)),
}


def inputs_of(name):
    return {"pixel_values": tiny_images(2)} if name == "vit" else {"input_ids": tiny_tokens(2, 7)}


def random_module(name):
    torch.manual_seed(0)
    hf = MORE[name][0]().eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.copy_(parameter * 8 if parameter.dim() > 1 else parameter + 0.1 * torch.randn_like(parameter))
    return hf


@pytest.mark.parametrize(("name", "d_vocab", "max_length"), [("bert", 97, 64), ("vit", 11, 21)])
def test_facts_of_an_encoder_state_its_sizes(name, d_vocab, max_length):
    facts = tiny(name).facts
    assert (facts.n_layers, facts.n_heads, facts.d_head, facts.d_mlp, facts.d_model) == (3, 5, 8, 56, 40)
    assert (facts.d_vocab, facts.max_length, facts.positions) == (d_vocab, max_length, "learned")
    assert (facts.causal, facts.prepend_bos, facts.sliding_windows) == (False, False, (None,) * 3)
    assert tiny(name).layout is None


@pytest.mark.parametrize("name", MORE)
def test_other_encoders_state_their_logits_and_usable_positions(name):
    facts = wrap_model(random_module(name)).facts
    assert (facts.d_vocab, facts.max_length, facts.d_mlp) == (*MORE[name][1], 56)
    assert not facts.causal and facts.positions == "learned"


def test_a_bert_that_is_a_decoder_is_causal():
    facts = wrap_model(T.BertLMHeadModel(T.BertConfig(**TEXT, is_decoder=True))).facts
    assert facts.causal


def test_an_encoder_gets_its_tokenizers_own_tokens_around_a_text():
    model = tiny("bert")
    assert model.to_tokens("w1 w2") == [1, 5, 6, 2]
    assert model.to_tokens_without_special("w1 w2") == [5, 6]
    assert observe_attention(model, "w1 w2", ["entropy"]).words == (("<s>", "w1", "w2", "</s>"),)


@pytest.mark.parametrize("name", [*ENCODERS, "bert body", "vit body"])
def test_an_encoder_folder_loads_as_what_it_was_saved_as(name, tmp_path):
    hf = random_module(name) if name in MORE else tiny_hf(name)
    hf.save_pretrained(tmp_path)
    if name == "bert":
        tiny_tokenizer(around=True).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert model.facts.architecture == type(hf).__name__
    assert model.facts.weights_digest == wrap_model(hf).facts.weights_digest
    inputs = inputs_of(name.split()[0])
    with torch.no_grad():
        assert torch.equal(model.hf(**inputs)[0], hf(**inputs)[0])
    assert (model.tokenizer is not None) == (name == "bert")


@pytest.mark.parametrize("block", [1, 7, 300, 1 << 18])
@pytest.mark.parametrize("name", ENCODERS)
def test_streamed_metrics_are_those_of_the_full_pattern(name, block):
    inputs = inputs_of(name)
    wanted = reference_metrics_of(eager_pattern(tiny_hf(name), **inputs), causal=False)
    found = observe_attention(tiny(name), *inputs.values(), FORMULAS, block=block)
    for metric in FORMULAS:
        assert same(found[metric], wanted[metric]), metric


@pytest.mark.parametrize("name", ["bert body", "roberta", "distilbert", "vit body", "deit"])
def test_the_same_holds_for_other_encoders(name):
    inputs = inputs_of("vit" if MORE[name][1][0] in (0, 11) else "bert")
    wanted = reference_metrics_of(eager_pattern(random_module(name), **inputs), causal=False)
    found = observe_attention(wrap_model(random_module(name)), *inputs.values(), FORMULAS, block=200)
    for metric in FORMULAS:
        assert same(found[metric], wanted[metric]), metric


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_padding_on_either_side_leaves_a_text_as_it_is_alone(name, left):
    make = tiny_hf if name == "bert" else random_module
    tokens = tiny_tokens(3, 7)
    token_mask = torch.tensor([[i < n for i in range(7)] for n in (7, 4, 2)])
    token_mask = token_mask.flip(-1) if left else token_mask
    found = observe_attention(wrap_model(make(name)), tokens, FORMULAS, token_mask=token_mask, block=60)
    for row in range(3):
        alone = tokens[row : row + 1, token_mask[row]]
        wanted = reference_metrics_of(eager_pattern(make(name), input_ids=alone), causal=False)
        for metric in FORMULAS:
            assert same(found[metric][:, row : row + 1, :, token_mask[row]], wanted[metric]), metric
            assert found[metric][:, row, :, ~token_mask[row]].isnan().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_observing_changes_neither_the_output_nor_the_model(name):
    model, inputs = tiny(name), inputs_of(name)
    texts, _ = prepare_inputs(model, *inputs.values())
    with torch.no_grad():
        plain = model.hf(**inputs).logits
        with observing(model, attention_metrics(FORMULAS), texts, block=90):
            observed = model.hf(**inputs).logits
        assert torch.equal(model.hf(**inputs).logits, plain)
    assert same(observed, plain)


def test_a_patch_grid_need_not_be_square():
    grid = observe_attention(tiny("vit"), tiny_images(3), ["entropy"]).prompts.grid
    assert grid == (4, 5, 1)


@pytest.mark.parametrize(
    ("name", "prompts", "sentence"),
    [
        ("vit", "w1 w2", "reads images, not tokens"),
        ("vit", [[5, 6]], "reads images, not tokens"),
        ("vit", torch.randn(1, 2, 10, 8), r"Input image size \(10\*8\) doesn't match"),
        ("bert", tiny_images(1), "reads tokens, not images"),
        ("bert", [[5] * 65], "65 tokens, more than the 64"),
        ("bert", [[5, 6], [7, 97]], "Prompt 1 has token id 97, and tiny-bert has ids 0 to 96: give ids"),
    ],
)
def test_what_an_encoder_cannot_read_is_refused(name, prompts, sentence):
    with pytest.raises(ValueError, match=sentence):
        observe_attention(tiny(name), prompts, ["entropy"])


def test_several_texts_are_observed_as_each_alone():
    texts = ["w1 w2 w1", "w3 w4 w5 w6 w7"]
    both = observe_attention(tiny("bert"), texts, ["entropy"])["entropy"]
    assert both.shape == (3, 2, 5, 7)
    for i, text in enumerate(texts):
        alone = observe_attention(tiny("bert"), text, ["entropy"])["entropy"]
        torch.testing.assert_close(both[:, i : i + 1, :, : alone.shape[-1]], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: T.AlbertForMaskedLM(T.AlbertConfig(**TEXT, embedding_size=16)),
            r"\(AlbertForMaskedLM\) uses one attention module for several layers",
        ),
        (lambda: T.DebertaV2ForMaskedLM(T.DebertaV2Config(**TEXT)), "DebertaV2ForMaskedLM does not compute attention through"),
        (lambda: T.MPNetForMaskedLM(T.MPNetConfig(**TEXT)), "MPNetForMaskedLM does not compute attention through"),
    ],
    ids=["one module for all layers", "disentangled", "relative positions"],
)
def test_attention_that_is_not_handed_over_layer_by_layer_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        observe_attention(wrap_model(make()), tiny_tokens(1, 5), ["entropy"])


def test_a_bias_inside_the_mask_is_refused_and_not_taken_for_a_mask():
    config = T.BeitConfig(**{**IMAGE, "image_size": 8}, use_relative_position_bias=True)
    hf = T.BeitForImageClassification(config).eval()
    pixels = torch.randn(1, 2, 8, 8)
    with torch.no_grad(), attention_hooks(hf, {}):
        for name, parameter in hf.named_parameters():
            if "relative_position_bias_table" in name:
                parameter.fill_(0.5)
        with pytest.raises(ValueError, match="BeitAttention adds a bias to scores"):
            hf(pixels)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_self_check_of_an_encoder_is_sound_and_says_what_does_not_apply(name):
    checks = {check.name: check for check in doctor(tiny(name))}
    assert not [c for c in checks.values() if c.passed is False]
    measured = {"weights_finite", "logits_equal_hugging_face", "pattern_rows_sum_to_one", "pattern_times_v_is_z"}
    assert measured <= {name for name, check in checks.items() if check.passed}
    skipped = {name for name, check in checks.items() if check.passed is None}
    assert {"pattern_is_causal", "layout_gives_logits", "bos_as_stated"} <= skipped
    assert ("residual_adds_up" in skipped) == (name == "bert")


REFUSED = "needs a causal language model, and .* is an encoder"


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("task", ["ioi", "induction"])
def test_a_task_is_refused(name, task):
    with pytest.raises(ValueError, match=f"Task '{task}' {REFUSED}"):
        make_task(task, tiny(name), 4)


def test_of_a_file_of_prompts_an_encoder_reads_the_texts_and_their_marks(tmp_path):
    model, file = tiny("bert"), tmp_path / "prompts.jsonl"
    file.write_text(
        '{"clean": "w1 w2 w9", "marks": {"subject": "w9"}}\n'
        '{"clean": "w4 w1", "corrupted": "w4 w5 w6", "answer": "no token", "marks": {"subject": "w4"}}\n'
    )
    task = task_from_jsonl(file, model)
    assert [list(example.clean) for example in task] == [model.to_tokens("w1 w2 w9"), model.to_tokens("w4 w1")]
    assert [example.marks["subject"] for example in task] == [(3, 4), (1, 2)]  # <s> comes first, </s> last
    assert not task.has_corrupted
    found, wanted = (observe_attention(model, prompts, ["entropy"]) for prompts in (task, ["w1 w2 w9", "w4 w1"]))
    assert found.words == wanted.words and torch.equal(found["entropy"].nan_to_num(), wanted["entropy"].nan_to_num())
    with pytest.raises(ValueError, match=f"A sweep {REFUSED}"):
        ablate_heads(model, task)


def test_several_texts_have_the_values_that_each_has_alone():
    model, texts = tiny("bert"), ["w1 w2 w9", "w4 w1 w4 w8 w1", "w3"]
    together = observe_attention(model, texts, ["entropy", "received_attention"])
    for row, text in enumerate(texts):
        alone = observe_attention(model, text, ["entropy", "received_attention"])
        for name in ("entropy", "received_attention"):
            n = len(model.to_tokens(text))
            torch.testing.assert_close(together[name][:, row, :, :n], alone[name][:, 0], rtol=0, atol=1e-5)
            assert together[name][:, row, :, n:].isnan().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_sweeps_estimates_and_outcomes_are_refused(name):
    model, outcome, variants = tiny(name), OUTCOMES.get("logit_diff"), [(zero(tiny(name).facts.heads()[:1]),)]
    record = RunRecord(model.facts.name, "", model.facts.weights_digest, dtype="float32", device="cpu")
    for run in (
        lambda: sweep(model, random_task(), variants, outcome, record=record),
        lambda: attribute(model, random_task(), variants, outcome, record=record),
        lambda: clean_outcome(model, random_task(), outcome),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            run()


def test_the_command_line_refuses_to_ablate_an_encoder_in_one_sentence(tmp_path):
    tiny_hf("bert").save_pretrained(tmp_path / "bert")
    tiny_tokenizer(around=True).save_pretrained(tmp_path / "bert")
    words = ["ablate", "--model", str(tmp_path / "bert"), "--task", "induction", "--out", str(tmp_path / "run")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 2
    assert "is an encoder" in " ".join(answer.stderr.split())
    assert not (tmp_path / "run").exists()
