"""How words, answers and marks become tokens."""

import re

import pytest
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.tokenizer_only_models import bare_model, task_model


def example(model, clean, answer="Mary", corrupted=None, **fields):
    from interp.tasks import Prompt, to_example

    return to_example(
        model, Prompt(clean, corrupted or clean, (answer,), fields.pop("distractors", ()), fields.pop("marks", {}))
    )


def letters_model():
    """One token a letter, so that most words are several tokens; space is a token."""
    known = {letter: i for i, letter in enumerate(["<unk>", *'abcdefgh "'])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return bare_model(T.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), "letters")


def test_a_prompt_becomes_the_ids_that_the_vocabulary_gives():
    model = task_model("word")
    ids = model.tokenizer.get_vocab()
    made = example(model, "Mary gave a ring to", "John", marks={"subject": (0, 4), "gift": (12, 16)})
    assert made.clean == tuple(ids[t] for t in ("<bos>", "Mary", "gave", "a", "ring", "to"))
    assert made.answers == (ids["John"],)
    assert made.marks == {"subject": (1, 2), "gift": (4, 5)}


def test_a_leading_space_belongs_to_the_token_in_bpe():
    model = task_model("bpe")
    ids = model.tokenizer.get_vocab()
    made = example(
        model, "John gave a ring to Mary, and Mary gave it to", marks={"first": (0, 4), "second": (20, 24), "comma": (24, 25)}
    )
    assert made.answers == (ids["ĠMary"],)
    assert model.to_str_tokens([made.clean[made.marks["second"][0]], made.clean[made.marks["first"][0]]]) == [" Mary", "John"]
    assert made.clean[made.marks["comma"][0]] == ids[","]


@pytest.mark.parametrize("name", ["word", "bpe"])
def test_digits_follow_digits_without_a_space(name):
    model = task_model(name)
    made = example(model, "The war lasted from the year 1732 to the year 17", "45", marks={"start": (31, 33)})
    assert model.to_str_tokens(made.answers) == ["45"] and model.to_str_tokens(made.clean[-1:])[0].strip() == "17"
    assert model.to_str_tokens(made.clean[slice(*made.marks["start"])]) == ["32"]


def test_an_answer_may_bring_its_own_space():
    model = task_model("bpe")
    assert example(model, "I see", " Mary").answers == example(model, "I see", "Mary").answers


def test_a_space_at_the_end_does_no_harm_where_the_tokenizer_ignores_it():
    model = task_model("word")
    assert example(model, "I see ", "Mary").answers == example(model, "I see", "Mary").answers


def test_after_a_quotation_mark_the_form_without_a_space_is_taken():
    model = letters_model()
    assert example(model, 'a "', "b").answers == (model.tokenizer.get_vocab()["b"],)


def test_after_a_letter_no_form_without_a_space_is_tried():
    model = letters_model()
    assert example(model, "a", "b").answer_tokens == tuple(model.tokenizer.get_vocab()[letter] for letter in " b")


@pytest.mark.parametrize("corrupted", ["I see Mary the", "I see John the"])
def test_an_answer_of_several_tokens_follows_both_prompts_but_for_its_last(corrupted):
    model = task_model("word")
    ids = model.tokenizer.get_vocab()
    made = example(model, "I see Mary the", "red old cup", corrupted, marks={"name": (6, 10)})
    assert made.clean == tuple(ids[word] for word in "<bos> I see Mary the red old".split())
    assert made.corrupted == tuple(ids[word] for word in f"<bos> {corrupted} red old".split())
    assert made.answers == (ids["cup"],) and made.marks == {"name": (3, 4), "end": (4, 7)}
    assert made.prompt == made.clean[:5] and made.answer_tokens == tuple(ids[word] for word in ("red", "old", "cup"))
    assert made.n_answer_tokens == 3 and example(model, "I see", "red").n_answer_tokens == 1


def test_prompt_and_answer_must_fit_into_the_context():
    model = task_model("word")
    assert len(example(model, "the " * 509 + "cup", "red old cup"[:7]).clean) == 512
    with pytest.raises(ValueError, match="Prompt and answer have 514 tokens, of which word reads 512"):
        example(model, "the " * 509 + "cup", "red old cup")


def test_a_mark_of_several_tokens_covers_them_all():
    model = task_model("word")
    made = example(model, "The secret word of John is tin. So the secret word of John is", "tin", marks={"needle": (0, 31)})
    assert made.marks == {"needle": (1, 9)}


@pytest.mark.parametrize("name", ["word", "bpe", "piece"])
def test_marks_after_a_newline_are_where_they_should_be(name):
    text = 'def read(self, size):\n"""text\n\n:param size: line\n:param'
    made = example(task_model(name), text, "size", marks={"described": (38, 42)})
    assert text[38:42] == "size"
    assert task_model(name).to_string(made.clean[slice(*made.marks["described"])]).strip() == "size"


@pytest.mark.parametrize(
    ("name", "clean", "answer", "message"),
    [
        ("word", "I see", "zebra", "word does not know 'zebra': use another word"),
        ("word", "I see", "red zebra", "word does not know 'zebra': use another word"),
        ("word", "I see", "zesty red zebra", "word does not know 'zesty', 'zebra': use another word"),
        ("word", "I see", " ", "An answer or distractor is empty"),
        ("word", "The zesty banana is", "red", "word does not know 'zesty', 'banana': use other words"),
        ("word", "<bos> I see", "red", "begins with <bos>, which word adds by itself"),
        ("bpe", "I see ", "Mary", "Remove the space at its end."),
        ("bpe", "I see ", " Mary", "Remove the space at its end."),
        ("word", "one, two, 3", "4", "If they are meant to stand apart, write ' 4'."),
        ("word", "the " * 512, "cup", "has 513 tokens, word takes at most 512"),
    ],
)
def test_what_cannot_be_used_is_named(name, clean, answer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        example(task_model(name), clean, answer)


@pytest.mark.parametrize(
    ("name", "clean", "answer", "message"),
    [
        (
            "bpe",
            "I see",
            "Lisa",
            "'Lisa' is 2 tokens of bpe (' Lis', 'a') after '...I see'; such an answer must be the only one",
        ),
        ("bpe", "I see\n", "Lisa", "'Lisa' is 4 tokens of bpe ('L', 'i', 's', 'a') after '...I see\\n'; such an answer"),
        ("word", "I see", "red cup", "'red cup' is 2 tokens of word ('red', 'cup')"),
        (
            "word",
            "I see",
            "red",
            "'old cup' is 2 tokens of word ('old', 'cup') after '...I see'; an answer or distractor must be one",
        ),
    ],
)
def test_several_tokens_beside_a_distractor_are_refused(name, clean, answer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        example(task_model(name), clean, answer, distractors=("Tom" if answer != "red" else "old cup",))


def test_unequal_lengths_are_shown_token_by_token():
    with pytest.raises(ValueError, match=re.escape("has 3 tokens and the corrupted one 4: <bos>|I|see and <bos>|I|see|red")):
        example(task_model("word"), "I see", corrupted="I see red")


def test_a_mark_on_white_space_is_refused():
    with pytest.raises(ValueError, match=r"Mark 'gap' .* holds no token"):
        example(task_model("word"), "I see", marks={"gap": (1, 2)})


def test_a_prompt_of_exactly_the_longest_length_is_taken():
    assert len(example(task_model("word"), "the " * 510 + "cup", "the").clean) == 512


def test_the_end_of_text_token_that_a_user_writes_is_not_an_unknown_word():
    made = example(task_model("bpe"), "I see <|end|> I see", "Mary")
    assert made.clean.count(0) == 2


def test_the_word_filter_keeps_order_and_says_what_is_missing():
    from interp.tasks import WordFilter

    usable = WordFilter(task_model("bpe"), "my_task")
    assert usable(["Tom", "Lisa", "Mary", "zebra"]) == ["Tom", "Mary"]
    assert usable(["Sarah", "Tom"], 1, after="") == ["Tom"] and usable(["Sarah", "Tom"]) == ["Sarah", "Tom"]
    message = (
        "Task 'my_task' needs at least 3 words that are single tokens of bpe after 'The', and found 2 among 4 (Tom, Lisa, Mary,"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        usable(["Tom", "Lisa", "Mary", "zebra"], 3)


def test_two_tokenizers_do_not_share_verdicts():
    from interp.tasks import WordFilter

    assert WordFilter(task_model("bpe"), "t")(["Lisa", "Mary"], 1) == ["Mary"]
    assert WordFilter(task_model("word"), "t")(["Lisa", "Mary"], 1) == ["Lisa", "Mary"]
