"""The user's own prompts as messages in the chat template of a model's tokenizer."""

import json
import re

import pytest

from tests.support.tiny_models import tiny, tiny_tokenizer
from tests.support.tokenizer_only_models import bare_model, task_model

OPEN, CLOSE = "w1 w2 {{ m['content']%s }} w3", "{% if add_generation_prompt %} w4{% endif %}"
TEMPLATES = {
    "bos": "{{ bos_token }}{% for m in messages %}" + OPEN % "" + "{% endfor %}" + CLOSE,
    "trims": "{{ bos_token }}{% for m in messages %}" + OPEN % "|trim" + "{% endfor %}" + CLOSE,
    "system": "{% for m in messages %}</s> w5 w1 w9 </s>" + OPEN % "" + "{% endfor %}" + CLOSE,
}
ROW = {
    "clean": " w7 w1 w9 w8",
    "corrupted": "w6 w1 w9 w5",
    "answer": "w4",
    "distractor": "w5",
    "marks": {"middle": "w1 w9", "start": [0, 3]},
}


def chat_model(template, **facts):
    """A model of the tiny vocabulary with a chat template; BOS is prepended to other prompts."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return bare_model(tokenizer, "talker", **facts)


def by_transformers(model, text):
    message = [{"role": "user", "content": text}]
    return model.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)


def read(model, path, *rows, **options):
    from interp.tasks import task_from_jsonl

    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return task_from_jsonl(path, model, **options)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_message_has_the_ids_that_transformers_gives_it(template):
    model = chat_model(TEMPLATES[template])
    for text in ("w7 w8", " w1 w2", "w3 "):
        assert model.to_chat_tokens(text) == by_transformers(model, text) != model.to_tokens(text)


def test_a_template_that_writes_bos_is_not_given_a_second_one():
    model, bos = chat_model(TEMPLATES["bos"]), 1
    assert model.facts.prepend_bos and model.to_tokens("w7")[:2] == [bos, *model.to_tokens_without_special("w7")]
    assert model.to_chat_tokens("w7") == [bos, *model.to_tokens_without_special("w1 w2 w7 w3 w4")]
    assert bos not in chat_model(TEMPLATES["system"]).to_chat_tokens("w7")


@pytest.mark.parametrize("template", TEMPLATES)
def test_both_prompts_of_a_pair_are_messages_and_marks_stay_on_their_words(template, tmp_path):
    model = chat_model(TEMPLATES[template])
    (example,) = read(model, tmp_path / "mine.jsonl", ROW, chat=True)
    assert list(example.clean) == by_transformers(model, ROW["clean"])
    assert list(example.corrupted) == by_transformers(model, ROW["corrupted"])
    marked = {name: model.to_string(example.clean[start:end]) for name, (start, end) in example.marks.items()}
    assert marked == {"middle": "w1 w9", "start": "w7"}
    assert [*example.answers, *example.distractors] == model.to_tokens_without_special("w4 w5")


def test_marks_lie_on_the_tokens_of_a_bpe_tokenizer_after_rendering(tmp_path):
    model = task_model("bpe")
    tokenizer = model.tokenizer
    row = {"clean": "John gave a ring to Mary and", "answer": "Mary", "marks": {"first": "John", "gift": "a ring"}}
    tokenizer.chat_template = "{{ bos_token }}user\n{{ messages[0]['content'] }}{{ bos_token + 'a ring\n' }}"
    try:
        (example,) = read(model, tmp_path / "mine.jsonl", row, chat=True)
    finally:
        tokenizer.chat_template = None
    pieces = {name: model.to_string(example.clean[start:end]) for name, (start, end) in example.marks.items()}
    assert pieces == {"first": "John", "gift": " a ring"}
    assert example.answers == tuple(model.to_tokens_without_special("Mary"))  # after a line break, without a space


def test_the_task_says_that_its_prompts_are_messages(tmp_path):
    model = chat_model(TEMPLATES["bos"])
    plain, chat = (read(model, tmp_path / "mine.jsonl", ROW, chat=chat) for chat in (False, True))
    assert plain.arguments | {"chat": True} == chat.arguments != plain.arguments
    assert plain.digest() != chat.digest()


@pytest.mark.parametrize(
    ("template", "text", "message"),
    [
        (None, "w7", "The tokenizer of talker has no chat template: leave out chat (--chat), or load a model that is made"),
        ("{{ raise_exception('no users') }}", "w7", "The chat template of talker fails for 'w7' (no users): leave out chat"),
        ("{{ messages[0]['content'] | upper }}", "w7", "The chat template of talker changes the text 'w7': leave out chat (--chat)"),
        ("{{ messages[0]['content'] * 2 }}", "w7", "The chat template of talker changes the text 'w7'"),
        ("w1 w2", "w7", "The chat template of talker changes the text 'w7'"),
        (TEMPLATES["bos"], "<s> w7", "The text begins with <s>, which the chat template of talker writes by itself: leave it out."),
    ],
)  # fmt: skip
def test_what_cannot_be_a_message_is_refused_with_the_reason(template, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        chat_model(template).to_chat_tokens(text)


def test_an_encoder_and_a_model_without_a_tokenizer_have_no_chat():
    with pytest.raises(ValueError, match=r"tiny-bert is an encoder, which answers no message: leave out chat \(--chat\)\."):
        tiny("bert").to_chat_tokens("w7")
    with pytest.raises(ValueError, match="bare was loaded without a tokenizer"):
        bare_model(None).to_chat_tokens("w7")


def test_a_message_that_is_too_long_with_its_template_is_named_with_its_line(tmp_path):
    model = chat_model(TEMPLATES["bos"], max_length=8)
    read(model, tmp_path / "mine.jsonl", ROW)
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 1: The prompt has 9 tokens, talker takes at most 8: shorten it\."):
        read(model, tmp_path / "mine.jsonl", ROW, chat=True)
