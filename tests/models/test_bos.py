"""Whether prompts begin with BOS: by the tokenizer, by convention where the model bears it out, or by choice."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from interp.experiments import ConfirmationSpec, DetectionSpec
from interp.models import load_model, wrap_model
from interp.models.bos import set_bos
from interp.models.model import record_of
from tests.support.tiny_models import tiny, tiny_hf, tiny_tokenizer

BOS = 256


def letters():
    """A tokenizer of bytes that has a BOS token and does not add it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, "<s>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def raises_after_bos(tokens):
    """A GPT-2 whose only head reads a direction that BOS alone has, and writes one that raises the logits of ``tokens``."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=257, n_positions=128, n_embd=16, n_layer=1, n_head=1, bos_token_id=BOS, tie_word_embeddings=False
    )
    hf = transformers.GPT2LMHeadModel(config)
    block, embedding = hf.transformer.h[0], hf.transformer.wte.weight.data
    hf.transformer.wpe.weight.data.zero_()
    embedding[:, :2] = 0
    embedding[BOS] = 0
    embedding[BOS, 0] = 1
    for weight in (block.attn.c_attn.weight, block.attn.c_proj.weight, block.mlp.c_proj.weight, hf.lm_head.weight):
        weight.data.zero_()
    block.attn.c_attn.weight.data[0, 2 * 16] = 5
    block.attn.c_proj.weight.data[0, 1] = 1
    hf.lm_head.weight.data[tokens, 1] = 1
    return hf


def ids(text):
    return letters()(text)["input_ids"]


def test_the_convention_is_kept_where_bos_helps_the_model():
    model = wrap_model(raises_after_bos(ids("etaoinshr ")), letters())
    assert (model.facts.prepend_bos, model.facts.bos_reason) == (True, "")
    assert model.to_tokens("ab") == [BOS, *ids("ab")]
    assert record_of(model).bos == "always"


def test_the_convention_is_left_where_bos_harms_the_model():
    model = wrap_model(raises_after_bos(ids("QXZ#$%&")), letters())
    facts = model.facts
    assert not facts.prepend_bos
    assert facts.bos_token_id == BOS
    worse, better = (float(word) for word in facts.bos_reason.split() if word[0].isdigit())
    assert worse > better
    assert facts.bos_reason == f"loss {worse:.2f} nats with BOS, {better:.2f} without"
    assert model.to_tokens("ab") == ids("ab")
    assert record_of(model).bos == "never"


def test_the_convention_is_kept_where_bos_changes_nothing():
    assert wrap_model(raises_after_bos([]), letters()).facts.prepend_bos


@pytest.mark.parametrize(("bos", "start"), [("always", [BOS]), ("never", [])])
def test_a_choice_stands_above_what_the_model_shows(bos, start):
    for raised in ("etaoinshr ", "QXZ#$%&"):
        model = wrap_model(raises_after_bos(ids(raised)), letters(), bos=bos)
        assert model.to_tokens("ab") == [*start, *ids("ab")]
        assert record_of(model).bos == bos


def test_a_choice_that_is_the_convention_is_the_same_run_and_another_one_is_not():
    spec = DetectionSpec(role="previous_token")
    digests = {bos: spec.digest(load_model("interp-mini", bos=bos)) for bos in ("auto", "always", "never")}
    assert digests["auto"] == digests["always"] != digests["never"]
    assert spec.on(load_model("interp-mini")).bos == "auto"
    assert spec.on(load_model("interp-mini", bos="never")).bos == "never"


def test_planted_models_can_be_read_without_bos():
    model = load_model("planted:mini_ioi,seed=3", bos="never")
    assert model.facts.bos_token_id not in model.to_tokens("Mary")


def test_a_choice_that_a_model_does_not_have_is_refused():
    with pytest.raises(ValueError, match="bos='sometimes' is not one of: auto, always, never"):
        load_model("interp-mini", bos="sometimes")
    with pytest.raises(ValueError, match="bos='never' belongs to causal models"):
        set_bos(wrap_model(tiny_hf("bert"), tiny_tokenizer(around=True)), "never")
    without = tiny_tokenizer()
    without.bos_token = None
    with pytest.raises(ValueError, match="bos='always' needs a BOS token"):
        wrap_model(tiny_hf("llama"), without, bos="always")
    assert tiny("bert").facts.bos == ""


def test_a_detection_is_confirmed_with_the_bos_that_it_was_made_with(tmp_path):
    detected = DetectionSpec(role="previous_token", options={"n_prompts": 2}, bos="never")
    assert detected.run(tmp_path / "found").record.bos == "never"
    confirmation = ConfirmationSpec(detection=str(tmp_path / "found"), task="induction", ks=(1,), n_prompts=4)
    assert confirmation.load_model().facts.bos == "never"
    assert ConfirmationSpec(detection=confirmation.detection, bos="always").load_model().facts.bos == "always"
