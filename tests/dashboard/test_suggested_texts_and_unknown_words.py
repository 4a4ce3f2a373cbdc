"""The user's own text: sentences in words that the model knows, unknown words named and kept out of scores, encoders."""

import numpy as np
import pytest

from interp.heads import Head
from interp.metrics import observe_attention
from interp.models import load_model
from interp_dashboard import suggested_texts_and_unknown_words
from interp_dashboard.model_cache import model_cache
from interp_dashboard.page_definition import pages
from tests.support.dashboard_apps import address, new_session, open_address, save_encoder, viewer_data
from tests.support.tiny_models import save_tiny

UNKNOWN = "The cat sat on the mat because the cat was tired."
CAUSAL_ONLY = ("ablate", "circuit", "retrieval", "tokens")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = str(save_encoder(tmp_path_factory.mktemp("models") / "encoder"))
    model_cache().add(path)
    return path


def opened(page, **query):
    app = open_address(new_session(page), **query)
    assert not app.exception
    return app


def warned(app):
    return [said.value.replace("\\", "") for said in app.warning]


def test_the_suggested_sentence_has_no_unknown_token():
    app, mini = opened("attention", task=""), load_model("interp-mini")
    text = app.text_area(key="field:text").value
    assert mini.unknown_id not in mini.to_tokens(text) and len(viewer_data(app)["tokens"]) == len(mini.to_tokens(text))
    assert not app.warning and "text" not in address(app)


def test_a_vocabulary_that_knows_no_sentence_gives_its_own_words(tmp_path):
    path = str(save_tiny("llama", tmp_path / "tiny"))
    model_cache().add(path)
    model = load_model(path)
    first, second = suggested_texts_and_unknown_words.suggested_texts(path, model.facts.weights_digest)
    assert first not in suggested_texts_and_unknown_words.SUGGESTIONS[0] and first != second
    for text in (first, second):
        assert model.unknown_id not in model.to_tokens_without_special(text) != []


def test_a_prompt_is_suggested_that_the_model_continues(tmp_path):
    app = opened("tokens", texts="", **{"preplan_anchor.n_null_draws": "20"})
    assert not app.error and not app.warning and app.text_area(key="field:prompt").value.endswith("Question : who took what ?")
    path = str(save_tiny("llama", tmp_path / "tiny"))
    model_cache().add(path)
    weights = load_model(path).facts.weights_digest
    texts = suggested_texts_and_unknown_words
    assert texts.suggested_prompt(path, weights) == texts.suggested_texts(path, weights)[0]


def test_two_different_sentences_are_suggested_for_a_comparison():
    app = opened("compare", task="", task_b="")
    assert app.text_area(key="field:text").value != app.text_area(key="field:text_b").value
    assert not app.error and not app.warning and not any("same prompt" in said.value for said in app.info)


def test_a_text_that_was_emptied_stays_empty():
    app = opened("attention", task="")
    app.text_area(key="field:text").set_value("").run()
    assert app.text_area(key="field:text").value == "" and "The prompt is empty" in app.error[0].value


@pytest.mark.parametrize("page", ["attention", "heads", "compare"])
def test_unknown_words_are_named(page):
    said = [text for text in warned(opened(page, task="", text=UNKNOWN)) if "does not know" in text]
    assert len(said) == 1 and "mat, because, tired" in said[0]


def test_unknown_words_of_other_pages_are_named():
    pairs = (
        ("ablate", {"mode": "manual", "task": "", "text": UNKNOWN}),
        ("tokens", {"texts": "", "prompt": UNKNOWN, "response": "the cat"}),
    )
    for page, query in pairs:
        assert "mat, because, tired" in warned(opened(page, **query))[0]


def test_the_original_word_is_beside_the_unknown_token():
    tokens = viewer_data(opened("attention", task="", text=f"{UNKNOWN} <unk>"))["tokens"]
    assert tokens == [
        "<bos>",
        "The",
        "cat",
        "sat",
        "on",
        "the",
        "mat<unk>",
        "because<unk>",
        "the",
        "cat",
        "was",
        "tired<unk>",
        ".",
        "<unk>",
    ]
    app = opened("tokens", texts="", prompt="the mat", response="the cat sat because the cat sat")
    table = next(element.value for element in app.dataframe if "waad" in element.value)
    assert list(table["token"])[:7] == ["<bos>", "the", "mat<unk>", "the", "cat", "sat", "because<unk>"]


def test_unknown_tokens_are_no_repetition():
    mini = load_model("interp-mini")
    ids = mini.to_tokens(UNKNOWN)
    found = observe_attention(mini, ids, ["induction_score", "duplicate_token_score"])
    rows = np.isfinite(found["induction_score"][0, 0, 0].numpy())
    assert np.flatnonzero(rows).tolist() == [9], "the second 'cat'; the second 'the' would copy an unknown word"
    assert np.flatnonzero(np.isfinite(found["duplicate_token_score"][0, 0, 0].numpy())).tolist() == [8, 9]
    assert found.heads("induction_score")[Head(0, 2)] < 0.1, "it attends two tokens back"


def test_an_id_with_another_meaning_counts_as_a_repetition():
    """GPT-2's tokenizer names the end of a text as its unknown token."""
    mini = load_model("interp-mini")
    assert mini.unknown_id == 1
    mini.tokenizer.unk_token = mini.tokenizer.eos_token
    assert mini.unknown_id is None


@pytest.mark.parametrize("page", ["attention", "heads", "compare"])
def test_an_encoder_opens_on_an_own_text(page, encoder):
    app = opened(page, model=encoder)
    assert not app.error and not app.warning
    assert app.selectbox(key="own").disabled and "need a causal language model" in app.selectbox(key="own").help.replace(
        "\\", ""
    )
    assert app.text_area(key="field:text").value


def test_a_task_in_the_address_of_an_encoder_is_refused_with_the_reason(encoder):
    app = opened("attention", model=encoder, task="ioi")
    assert not app.error and "custom text is shown instead of the task ioi" in warned(app)[0]


def test_pages_that_an_encoder_cannot_have_are_grey_and_say_why(encoder):
    assert [name for name, page in sorted(pages().items()) if page.causal_only] == [*CAUSAL_ONLY]
    app = opened("attention", model=encoder)
    assert any("Tokens, Retrieval, Ablate, Circuit need a causal language model" in said.value for said in app.sidebar.caption)
    for name in CAUSAL_ONLY:
        app = opened(name, model=encoder)
        assert not app.error and "need a causal language model" in app.info[0].value and len(app.info) == 1
    assert not opened("heads", model="interp-mini").sidebar.caption[1:]


def test_detectors_are_not_offered_for_an_encoder(encoder):
    app = opened("heads", model=encoder, roles="yes")
    assert app.toggle(key="no-roles").disabled and not app.error
