"""Prompts that a user wrote into a file."""

import json
import re

import pytest

from tests.support.task_models import task_model

GOOD = {
    "clean": "Mary gave a ring to John and a cup to",
    "corrupted": "Lisa gave a ring to John and a cup to",
    "answer": "Mary",
    "distractor": ["Lisa", "Kate"],
    "marks": {"giver": "Mary", "gift": [12, 16]},
}


@pytest.fixture
def read(tmp_path):
    """Write lines into a file and read them as a task of the word model."""

    def reading(*lines, metric=None, model="word"):
        from interp.tasks import task_from_jsonl

        path = tmp_path / "mine.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return task_from_jsonl(path, task_model(model), metric)

    return reading


def test_a_complete_line_becomes_an_example(read):
    ids = task_model("word").tokenizer.get_vocab()
    task = read(GOOD)
    (example,) = task
    assert (task.name, task.metric, task.has_corrupted) == ("mine", "logit_diff", True)
    assert task.arguments["file"] == "mine.jsonl" and len(task.arguments["sha256"]) == 64
    assert example.corrupted == (example.clean[0], ids["Lisa"], *example.clean[2:])
    assert (example.answers, example.distractors) == ((ids["Mary"],), (ids["Lisa"], ids["Kate"]))
    assert example.marks == {"giver": (1, 2), "gift": (4, 5)}


def test_without_distractors_the_metric_is_the_answer_log_probability(read):
    assert read({"clean": "I see", "answer": "red"}).metric == "answer_logprob"
    assert read(GOOD, {"clean": "I see", "answer": "red"}).metric == "answer_logprob"


def test_a_chosen_metric_is_kept(read):
    assert read(GOOD, metric="prob_diff").metric == "prob_diff"


def test_without_corrupted_the_clean_prompt_stands_in(read):
    task = read({"clean": "I see", "answer": "red"})
    assert task.examples[0].corrupted == task.examples[0].clean and not task.has_corrupted


def test_nulls_are_as_good_as_nothing(read):
    assert (
        read({"clean": "I see", "corrupted": None, "answer": "red", "distractor": None, "marks": None}).metric
        == "answer_logprob"
    )


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_trouble(read):
    line = json.dumps(GOOD).encode()
    assert len(read(b"\xef\xbb\xbf" + line + b"\r", b"", b"   ", line)) == 2


def test_another_content_has_another_fingerprint(read):
    assert read(GOOD).arguments["sha256"] != read(GOOD, GOOD).arguments["sha256"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"clean": "I see", "answer": }', "line 2: This is not JSON (Expecting value at character 30)."),
        (["I see"], "line 2: This is '[\"I see\"]', not a JSON object"),
        (7, "line 2: This is '7', not a JSON object with keys clean, corrupted, answer, distractor, marks."),
        (b"[" * 100000, "line 2: This is JSON of absurd depth."),
        (b'{"clean": "I see", "answer": "red", "clean": "I"}', "line 2: The key 'clean' occurs twice."),
        (b'{"clean": "I \\ud800 see", "answer": "red"}', "line 2: 'clean' is \"I \\ud800 see\", which holds half a character"),
        ({"answer": "red"}, "line 2: The key 'clean' is missing."),
        ({"clean": "I see"}, "line 2: The key 'answer' is missing."),
        (
            {"clean": "I see", "answer": "red", "anser": "red"},
            "line 2: Unknown key 'anser'. There are: clean, corrupted, answer",
        ),
        ({"clean": "I see", "answer": 7}, "line 2: 'answer' is 7: give a text."),
        ({"clean": "", "answer": "red"}, "line 2: 'clean' is \"\": give a text."),
        ({"clean": "I see", "answer": []}, "line 2: 'answer' is an empty list"),
        ({"clean": "I see", "answer": "red cup"}, "line 2: 'red cup' is 2 tokens of word ('red', 'cup')"),
        ({"clean": "I see", "answer": "zebra"}, "line 2: word does not know 'zebra'"),
        ({"clean": "I sea", "answer": "red", "corrupted": "I zee"}, "line 2: word does not know 'zee'"),
        (
            {"clean": "I see", "answer": "red", "corrupted": "I see the"},
            "line 2: The clean prompt has 3 tokens and the corrupted one 4",
        ),
        ({"clean": "I see", "answer": "red", "marks": {"a": "cat"}}, "line 2: Mark 'a': 'cat' occurs 0 times"),
        ({"clean": "I see I", "answer": "red", "marks": {"a": "I"}}, "line 2: Mark 'a': 'I' occurs 2 times"),
        ({"clean": "I see", "answer": "red", "marks": {"a": [2, 9]}}, "line 2: Mark 'a' is [2, 9]: give a piece"),
        ({"clean": "I see", "answer": "red", "marks": {"a": [2, 2]}}, "line 2: Mark 'a' is [2, 2]"),
        ({"clean": "I see", "answer": "red", "marks": {"a": [False, True]}}, "line 2: Mark 'a' is [false, true]"),
        ({"clean": None, "answer": "red"}, "line 2: The key 'clean' is missing."),
        ({"clean": "I see", "answer": "red", "marks": ["a"]}, "line 2: 'marks' is [\"a\"]: give an object"),
        ({"clean": "I see", "answer": "red", "marks": {"end": "see"}}, "line 2: A mark cannot be called 'end'"),
        ({"clean": "I see", "answer": "red", "distractor": "red"}, "line 2: 'red' is both an answer and a distractor"),
        (b'{"clean": "\xff"}', "line 2: this is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named_with_its_number(read, line, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(GOOD, line)


def test_a_file_without_prompts_is_refused(read):
    with pytest.raises(ValueError, match="holds no prompts: write one JSON object per line"):
        read(b"", b"  ")


def test_a_missing_file_is_named(tmp_path):
    from interp.tasks import task_from_jsonl

    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.jsonl\."):
        task_from_jsonl(tmp_path / "none.jsonl", task_model("word"))
