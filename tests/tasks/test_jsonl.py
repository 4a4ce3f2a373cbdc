"""Prompts that a user wrote into a file."""

import json
import re

import pytest

from tests.support.tokenizer_only_models import task_model

GOOD = {
    "clean": "Mary gave a ring to John and a cup to",
    "corrupted": "Lisa gave a ring to John and a cup to",
    "answer": "Mary",
    "distractor": ["Lisa", "Kate"],
    "marks": {"giver": "Mary", "gift": [12, 16]},
}
OTHER = {"clean": "I see", "answer": "red"}


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
    with pytest.warns(UserWarning, match="1 of 2 prompts have no distractor, so that the metric of all is answer_logprob"):
        assert read(GOOD, {"clean": "I see", "answer": "red"}).metric == "answer_logprob"


def test_an_answer_of_several_tokens_makes_the_metric_its_log_probability(read):
    task = read({"clean": "I see", "answer": "red cup"}, {"clean": "The cup is", "answer": "red"})
    assert task.metric == "answer_logprob" and [e.n_answer_tokens for e in task] == [2, 1]


def test_one_prompt_with_two_answers_of_several_tokens_is_a_repeat(read):
    with pytest.raises(ValueError, match="line 2: The clean prompt is that of line 1"):
        read({"clean": "I see", "answer": "red cup"}, {"clean": "I see", "answer": "old cup"})


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


@pytest.mark.filterwarnings("ignore:.*have no distractor")
def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_trouble(read):
    assert len(read(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r", b"", b"   ", OTHER)) == 2


@pytest.mark.filterwarnings("ignore:.*have no distractor")
def test_another_content_has_another_fingerprint(read):
    assert read(GOOD).arguments["sha256"] != read(GOOD, OTHER).arguments["sha256"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"clean": "I see", "answer": }', "line 2: This is not JSON (Expecting value at character 30)."),
        (["I see"], "line 2: This is '[\"I see\"]', not a JSON object"),
        (7, "line 2: This is '7', not a JSON object with keys clean, corrupted, answer, distractor, marks, cluster."),
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
        ({"clean": "I see", "answer": "red cup", "distractor": "old"}, "line 2: 'red cup' is 2 tokens of word ('red', 'cup')"),
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
        (GOOD | {"distractor": "Kate"}, "line 2: The clean prompt is that of line 1 and would count twice: keep one of them."),
        (b'{"clean": "\xff"}', "line 2: this is not UTF-8 text"),
        (
            OTHER | {"cluster": "a"},
            "line 2: This prompt has the key 'cluster', and the first has none: give it to all prompts or to none.",
        ),
        (OTHER | {"cluster": True}, "line 2: 'cluster' is true: give a text or a number."),
        (OTHER | {"cluster": float("nan")}, "line 2: 'cluster' is NaN: give a text or a number."),
        (OTHER | {"cluster": " "}, "line 2: 'cluster' is \" \": give a text."),
    ],
)
def test_a_bad_line_is_named_with_its_number(read, line, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(GOOD, line)


def test_a_prompt_that_lacks_the_cluster_of_the_others_is_named(read):
    message = "line 2: The first prompt has the key 'cluster', and this one has none: give it to all prompts or to none."
    with pytest.raises(ValueError, match=re.escape(message)):
        read(GOOD | {"cluster": "giving"}, OTHER, {"clean": "I see a", "answer": "red", "cluster": "seeing"})


def test_clusters_are_texts_or_numbers_and_the_same_in_every_form(read, tmp_path):
    from interp.tasks import task_from_jsonl

    rows = [{"clean": "I see", "answer": "red", "cluster": 7}, {"clean": "I see a", "answer": "red", "cluster": "7"}]
    rows.append({"clean": "Mary gave", "answer": "red", "cluster": "giving"})
    task, array, table = read(*rows), tmp_path / "array.json", tmp_path / "table.csv"
    assert task.clusters == ["7", "7", "giving"] and task.n_clusters == 2 and task.size_text == "3 prompts in 2 clusters"
    array.write_text(json.dumps(rows), encoding="utf-8")
    write_csv(table, [["clean", "answer", "cluster"], *(list(row.values()) for row in rows)])
    for file in (array, table):
        assert task_from_jsonl(file, task_model("word")).clusters == task.clusters


@pytest.mark.filterwarnings("ignore:.*have no distractor")
def test_without_the_key_there_are_no_clusters(read):
    task = read(GOOD, OTHER | {"cluster": None})
    assert task.clusters is None and task.n_clusters is None and "clusters" not in task.provenance


def test_a_file_without_prompts_is_refused(read):
    with pytest.raises(ValueError, match="holds no prompts: write one JSON object per line"):
        read(b"", b"  ")


def test_a_missing_file_is_named(tmp_path):
    from interp.tasks import task_from_jsonl

    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.jsonl\."):
        task_from_jsonl(tmp_path / "none.jsonl", task_model("word"))


def test_answers_and_distractors_that_are_one_token_count_once(read):
    ids = task_model("word").tokenizer.get_vocab()
    (example,) = read(GOOD | {"answer": ["Mary", " Mary"], "distractor": ["Lisa", "Kate", " Lisa"]})
    assert (example.answers, example.distractors) == ((ids["Mary"],), (ids["Lisa"], ids["Kate"]))


def write_csv(path, rows):
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.filterwarnings("ignore:.*have no distractor")
def test_a_json_array_and_csv_are_read_as_the_same_prompts(read, tmp_path):
    from interp.tasks import task_from_jsonl

    whole = read(GOOD, {"clean": "I see", "answer": "red"})
    array, table = tmp_path / "array.json", tmp_path / "table.csv"
    array.write_text(json.dumps([GOOD, {"clean": "I see", "answer": "red"}], indent=2), encoding="utf-8")
    cells = [GOOD["clean"], GOOD["corrupted"], "Mary", json.dumps(GOOD["distractor"]), json.dumps(GOOD["marks"])]
    write_csv(table, [["clean", "corrupted", "answer", "distractor", "marks"], cells, ["I see", "", "red", "", ""]])
    for file in (array, table):
        assert task_from_jsonl(file, task_model("word")).examples == whole.examples, file


def test_prompts_are_read_from_standard_input_and_from_the_home_folder(read, tmp_path, monkeypatch):
    import io

    from interp.tasks import task_from_jsonl

    whole = read(GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert task_from_jsonl("~/mine.jsonl", task_model("word")).examples == whole.examples
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(GOOD).encode())))
    task = task_from_jsonl("-", task_model("word"))
    assert task.examples == whole.examples and task.name == "stdin"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"clean\tanswer\nI see\tred\n", "looks like TSV with the columns clean, answer: give JSON Lines"),
        (b"clean;answer\nI see;red\n", "looks like CSV with semicolons with the columns clean, answer"),
        (b"prompt,target\nI see,red\n", "looks like CSV with the columns prompt, target"),
        (b"Once upon a time, I saw.\nIt was red.\n", "looks like plain text: give JSON Lines"),
        (json.dumps(GOOD, indent=2).encode(), "looks like JSON with an object over several lines: give JSON Lines"),
        (b'[{"clean": "I see",\n"answer": }]', "looks like a JSON array, but line 2, character 11 is not JSON"),
        (b'[{"clean": "I see", "answer": "red"}, 7]', "prompt 2: This is '7', not a JSON object"),
        (b"clean,answer\nI see,red\nI see\n", "line 3: This row has 1 cell, and the header 2."),
        (b"clean,answer,anser\nI see,red,red\n", "line 2: Unknown key 'anser'"),
        (b"clean,answer,answer\nI see,red,red\n", "line 2: The key 'answer' occurs twice."),
        (b"PK\x03\x04rest", "looks like a ZIP file or an Excel workbook"),
        ("\ufeffa".encode("utf-16-le"), "looks like text in UTF-16"),
    ],
)
def test_a_file_of_another_form_is_told_what_it_looks_like(tmp_path, content, message):
    from interp.tasks import task_from_jsonl

    (tmp_path / "prompts").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        task_from_jsonl(tmp_path / "prompts", task_model("word"))
