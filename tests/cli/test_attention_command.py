"""What `interp attention` reads and stores, how `interp show` shows it, and what both refuse."""

import json
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from interp.heads import Head
from tests.cli.test_cli import assert_refused, interp
from tests.support.tiny_models import save_tiny, tiny

N_LAYERS, N_HEADS, GROUP = 3, 6, 3
TEXT = "w3 w5 w9 w3 w5 w7 w3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local model folder: the tiny llama of the test bed with its tokenizer."""
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def prompts(tmp_path):
    """Two prompts of three and five words, each with a mark."""
    path = tmp_path / "two.jsonl"
    rows = [
        {"clean": "w1 w2 w9", "answer": "w7", "marks": {"subject": "w9"}},
        {"clean": "w4 w1 w4 w8 w1", "answer": "w7", "marks": {"subject": "w8"}},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def read(folder, tmp_path):
    """Runs `interp attention` of the tiny model, for entropy unless words name other metrics; its directory is ``out``."""

    def call(*words, out="run"):
        metrics = [] if "--metrics" in words else ["--metrics", "entropy"]
        return interp("attention", "--model", folder, *words, *metrics, "--out", tmp_path / out)

    return call


def stored(answer, path):
    from interp.store import open_run

    assert answer.exit_code == 0, answer.stderr
    return open_run(path)


def patterns(text=TEXT):
    """Whole patterns [layer head query key] of the tiny model, by hooks."""
    from interp.engine import run

    done = run(tiny("llama"), text, capture=[f"pattern.{layer}" for layer in range(N_LAYERS)])
    return np.stack([done[f"pattern.{layer}"][0].numpy() for layer in range(N_LAYERS)])


# --- what is stored --------------------------------------------------------------------------------------------------


def test_stored_numbers_are_those_of_the_whole_pattern(read, tmp_path):
    run = stored(read("--text", TEXT, "--metrics", "entropy,prev_token_score,windowed_distance:window=3"), tmp_path / "run")
    pattern = patterns()
    length = pattern.shape[-1]
    entropy = -(pattern * np.log(np.where(pattern > 0, pattern, 1))).sum(-1)
    gap = np.clip(np.arange(length)[:, None] - np.arange(length), 0, 3)
    expected = {
        "entropy": entropy.mean(-1),
        "prev_token_score": pattern[..., np.arange(1, length), np.arange(length - 1)].mean(-1),
        "windowed_distance": (pattern * gap).sum(-1).mean(-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(run.scores(name).values, values, atol=1e-5)
    np.testing.assert_allclose(run.token_scores("entropy").values[0], entropy.mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(run.arrays()["entropy"][:, 0], entropy, atol=1e-5)


def test_a_run_holds_one_row_a_head_and_a_token_and_says_how_it_was_made(read, tmp_path):
    run = stored(read("--text", TEXT, "--metrics", "entropy,received_attention,windowed_distance:window=4"), tmp_path / "run")
    heads, tokens = run.heads(), run.table("tokens")
    assert len(heads) == 3 * N_LAYERS * N_HEADS and (heads["kv_head"] == heads["head"] // GROUP).all()
    assert len(tokens) == 3 * 8 and tokens.query("metric == 'entropy'")["token"].tolist() == ["<s>", *TEXT.split()]
    assert run.record.task == "text" and run.record.arguments == {"n_tokens": 8} and "window=4" in run.record.metric
    assert "window=4" in run.scores("windowed_distance").record.caption() and "8 tokens" in run.scores().record.caption()
    assert {path.name for path in run.path.glob("*.png")} == {f"heads-{name}.png" for name in run.metrics}


def test_a_file_is_one_text_and_is_named_with_its_digest(read, tmp_path):
    (tmp_path / "essay.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("w9 ", "w9\n\n").encode())
    from_file = stored(read("--file", tmp_path / "essay.txt", out="file"), tmp_path / "file")
    from_text = stored(read("--text", TEXT, out="text"), tmp_path / "text")
    pd.testing.assert_frame_equal(from_file.heads(), from_text.heads())
    assert from_file.record.task == "essay.txt" and len(from_file.record.arguments["sha256"]) == 64


def test_each_line_of_a_file_is_a_text_of_its_own(read, tmp_path):
    (tmp_path / "two.txt").write_bytes(b"w1 w2 w9\r\n\n  \nw4 w1 w4 w8 w1\n")
    run = stored(read("--file", tmp_path / "two.txt", "--lines"), tmp_path / "run")
    assert run.table("tokens").groupby("example").size().tolist() == [4, 6]
    assert {"lines": True, "n_prompts": 2, "n_tokens": 10}.items() <= run.record.arguments.items()
    assert_refused(
        read("--text", TEXT, "--lines", out="other"), 2, "--lines reads a file line by line: give --file, or leave it out."
    )
    (tmp_path / "long.txt").write_text("w1\n\n" + "w2 " * 90)
    answer = read("--file", tmp_path / "long.txt", "--lines", out="other")
    assert_refused(answer, 2, "long.txt, line 3 has 91 tokens, more than the 64 of")


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_file_that_is_longer_than_the_context_is_named_with_both_lengths(read, folder, tmp_path, more):
    (tmp_path / "long.txt").write_text("w2 " * 90)
    sentence = (
        f"long.txt has 91 tokens, more than the 64 of {folder}'s context: shorten it, or load a model with a longer context."
    )
    assert_refused(read("--file", tmp_path / "long.txt", *more), 2, sentence)
    assert_refused(read("--text", "w2 " * 90, *more), 2, sentence.replace("long.txt", "The text"))


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """The folder of the tiny model with a chat template."""
    folder = save_tiny("llama", tmp_path_factory.mktemp("models") / "talker")
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}w1 {{ messages[0].content }}{% if add_generation_prompt %} w2{% endif %}"
    )
    return folder


def test_chat_reads_texts_and_prompts_as_messages_and_says_so(talker, prompts, tmp_path):
    def read(*words, out):
        return stored(
            interp("attention", "--model", talker, *words, "--metrics", "entropy", "--out", tmp_path / out), tmp_path / out
        )

    plain, chat = read("--text", TEXT, out="plain"), read("--text", TEXT, "--chat", out="chat")
    assert chat.table("tokens")["token"].tolist() == ["<s>", "w1", *TEXT.split(), "w2"]
    assert chat.record.arguments == {"chat": True, "n_tokens": 10} and plain.record.arguments == {"n_tokens": 8}
    own = read("--prompts", prompts, "--chat", out="own")
    assert own.record.arguments["chat"] is True and own.record.arguments["n_tokens"] == 14
    assert "chat yes" in interp("show", tmp_path / "own").stdout


def test_a_confirmation_can_read_messages_too(talker, prompts, tmp_path):
    def run(*words):
        answer = interp(*words)
        assert answer.exit_code == 0, answer.stderr

    run("detect", "previous_token", "--model", talker, "--set", "n_prompts=2", "--out", tmp_path / "found")
    how = [
        "--prompts",
        prompts,
        "--chat",
        "--ks",
        "1",
        "--positions",
        "end",
        "--metric",
        "answer_logprob",
        "--out",
        tmp_path / "done",
    ]
    run("confirm", tmp_path / "found", *how)
    assert "chat yes" in interp("show", tmp_path / "done").stdout


def test_chat_without_a_template_or_with_a_task_is_refused(read, folder):
    sentence = rf"The tokenizer of {folder} has no chat template: leave out chat \(--chat\), or load a model that is made for"
    assert_refused(read("--text", TEXT, "--chat"), 2, sentence)
    sentence = (
        "--chat writes your own prompts as messages, and the prompts of the task ioi are texts to be continued: leave it out"
    )
    assert_refused(read("--task", "ioi", "--chat"), 2, sentence)


def test_an_encoder_reads_lines_and_prompts_without_answers(tmp_path):
    from tests.support.tiny_models import tiny_hf, tiny_tokenizer

    bert = tmp_path / "bert"
    tiny_hf("bert").save_pretrained(bert)
    tiny_tokenizer(around=True).save_pretrained(bert)
    (tmp_path / "two.txt").write_text("w1 w2 w9\nw4 w1\n")
    (tmp_path / "two.jsonl").write_text('{"clean": "w1 w2 w9"}\n{"clean": "w4 w1"}\n')
    tables = []
    for name, words in {"lines": ["--file", "two.txt", "--lines"], "prompts": ["--prompts", "two.jsonl"]}.items():
        answer = interp("attention", "--model", bert, words[0], tmp_path / words[1], *words[2:], "--out", tmp_path / name)
        tables.append(stored(answer, tmp_path / name).heads())
    pd.testing.assert_frame_equal(*tables)
    answer = interp("ablate", "--model", bert, "--prompts", tmp_path / "two.jsonl", "--out", tmp_path / "none")
    assert_refused(answer, 2, "A sweep needs a causal language model, and .* is an encoder")
    answer = interp("attention", "--model", bert, "--file", tmp_path / "two.txt", "--chat", "--out", tmp_path / "none")
    assert_refused(answer, 2, "is an encoder, which answers no message: leave out chat")


def test_prompts_of_different_lengths_leave_no_padding_in_the_tables(read, prompts, tmp_path):
    run = stored(read("--prompts", prompts, "--metrics", "entropy,received_attention"), tmp_path / "run")
    tokens = run.table("tokens").query("metric == 'received_attention'")
    assert tokens.groupby("example").size().tolist() == [4, 6]
    assert run.record.arguments["n_prompts"] == 2 and run.record.arguments["n_tokens"] == 10
    alone = patterns("w1 w2 w9")
    seen = alone.sum(2) / np.arange(4, 0, -1)
    np.testing.assert_allclose(run.token_scores("received_attention").values[0, :4], seen.mean((0, 1)), atol=1e-5)


def test_the_prompts_of_a_task_are_read_on_the_embedded_model(tmp_path):
    answer = interp("attention", "--task", "ioi", "-n", "3", "--seed", "5", "--out", tmp_path / "run", "--json")
    told = json.loads(answer.stdout)
    assert answer.exit_code == 0, answer.stderr
    assert told["record"]["task"] == "ioi" and told["record"]["seed"] == 5 and told["record"]["arguments"]["n_prompts"] == 3
    assert {row["label"] for row in told["heads"]} == {str(Head(layer, head)) for layer in range(4) for head in range(4)}


def test_default_metrics_are_registered():
    from interp.experiments import AttentionSpec

    assert len(AttentionSpec().attention_metrics()) == 6


def test_the_default_folder_is_named_after_what_was_read(folder, prompts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert interp("attention", "--model", folder, "--prompts", prompts, "--metrics", "entropy").exit_code == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("attention-two-tiny-llama-") and len(made.name) == len("attention-two-tiny-llama-") + 8


def test_a_finished_run_is_not_read_again(read, tmp_path, monkeypatch):
    first = read("--text", TEXT, "--json")
    monkeypatch.setattr("interp.engine.attention.attention_observer.observe", None)  # a call would fail
    (tmp_path / "run" / "heads-entropy.png").unlink()  # as after a kill between the last table and the pictures
    again = read("--text", TEXT, "--json")
    assert again.exit_code == 0 and "nothing was computed" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (tmp_path / "run" / "heads-entropy.png").exists()


def test_fresh_moves_the_earlier_run_aside_once_the_new_one_is_read(read, tmp_path):
    read("--text", TEXT)
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert read("--text", "w1 " * 64, "--fresh").exit_code == 2  # too long: the earlier run stays where it is
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    answer = read("--text", "w1 w2", "--fresh")
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "run.1" / "run.json").read_bytes() == before
    assert json.loads((tmp_path / "run" / "run.json").read_text())["record"]["arguments"] == {"n_tokens": 3}


@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_folder_that_holds_something_else_is_kept_and_known_before_reading(read, tmp_path, monkeypatch, more):
    monkeypatch.setattr(
        "interp.engine.attention.attention_observer.observe", None
    )  # a call would fail otherwise than with code 6
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("words")
    assert read("--text", TEXT, *more).exit_code == 6
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_another_observation_in_the_folder_is_refused_and_kept(read, tmp_path):
    read("--text", TEXT, "--metrics", "entropy")
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert_refused(
        read("--text", TEXT, "--metrics", "entropy,confidence"),
        6,
        "holds another run .metrics is entropy, requested entropy confidence",
    )
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_an_interrupt_stores_nothing(read, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.engine.attention.attention_observer.observe", stop)
    assert_refused(read("--text", TEXT), 130, "nothing was stored")
    assert not (tmp_path / "run").exists()


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_show_names_every_metric_with_its_highest_heads(read, tmp_path):
    run = stored(read("--text", TEXT, "--metrics", "entropy,confidence"), tmp_path / "run")
    answer = interp("show", tmp_path / "run", "--top", "2")
    assert answer.exit_code == 0, answer.stderr
    for name in ("entropy", "confidence"):
        (line,) = (line for line in answer.stdout.splitlines() if line.strip().startswith(name))
        first, second, third = run.scores(name).top(3, by="highest")
        assert f"{first} " in line and f"{second} " in line and f"{third} " not in line
    assert "text on" in answer.stdout and "ablation" not in answer.stdout


def test_show_ranks_the_heads_of_one_metric(read, tmp_path):
    run = stored(read("--text", TEXT, "--metrics", "entropy,confidence"), tmp_path / "run")
    order = [str(head) for head in run.scores("confidence").top(18)]
    table = pd.read_csv(StringIO(interp("show", tmp_path / "run", "--metric", "confidence", "--csv").stdout))
    assert table["label"].tolist() == order and set(table["metric"]) == {"confidence"}
    told = json.loads(interp("show", tmp_path / "run", "--metric", "confidence", "--json").stdout)
    assert [row["label"] for row in told["heads"]] == order
    both = json.loads(interp("show", tmp_path / "run", "--json").stdout)["heads"]
    assert [row["metric"] for row in both] == ["entropy"] * 18 + ["confidence"] * 18
    assert_refused(
        interp("show", tmp_path / "run", "--metric", "noise"), 2, "no metric 'noise'. There are: entropy, confidence"
    )


def test_a_text_of_one_token_has_no_number_and_says_why(read, tmp_path):
    answer = read("--text", "w3", "--metrics", "entropy,induction_score", "--json")
    run = stored(answer, tmp_path / "run")
    assert np.isnan(run.scores("induction_score").values).all()
    assert {row["value"] for row in json.loads(answer.stdout)["heads"] if row["metric"] == "induction_score"} == {None}
    said = "induction_score: undefined for 18 of 18 heads: the row sees no key after an earlier occurrence of its token."
    for words in ([], ["--metric", "induction_score"]):
        shown = interp("show", tmp_path / "run", *words).stdout
        assert said in shown and "nan" not in shown
    assert "entropy:" not in interp("show", tmp_path / "run").stdout


@pytest.mark.parametrize("drawing", ["heads", "layers", "tokens"])
def test_show_draws_heads_layers_and_tokens(read, tmp_path, drawing):
    read("--text", TEXT, "--metrics", "entropy,confidence")
    file = tmp_path / f"{drawing}.svg"
    answer = interp("show", tmp_path / "run", "--metric", "confidence", "--kind", drawing, "--figure", file)
    assert answer.exit_code == 0, answer.stderr
    drawn = file.read_text()
    assert "confidence" in drawn and "8 tokens" in drawn and ("w9" in drawn) == (drawing == "tokens")


def test_show_draws_the_difference_of_two_runs(read, tmp_path):
    a, b = read("--text", TEXT, out="a"), read("--text", "w1 w2 w3", out="b")
    assert (a.exit_code, b.exit_code) == (0, 0)
    words = ["--metric", "entropy", "--minus", tmp_path / "b", "--figure", tmp_path / "d.json"]
    assert interp("show", tmp_path / "a", *words).exit_code == 0
    drawn = json.loads((tmp_path / "d.json").read_text())
    first, second = (stored(a, tmp_path / name).scores("entropy")[0, 0] for name in "ab")
    assert drawn["data"][0]["hovertext"][0][0].endswith(f"{first - second:.3g} nats".replace("-", "−"))
    assert "minus" in drawn["layout"]["annotations"][0]["text"]


def test_an_ablation_can_be_drawn_by_layer_but_has_no_tokens(folder, prompts, tmp_path):
    interp("ablate", "--model", folder, "--prompts", prompts, "--ablation", "zero", "--out", tmp_path / "run")
    show = ["show", tmp_path / "run", "--figure", tmp_path / "a.png"]
    assert interp(*show, "--kind", "layers").exit_code == 0
    assert_refused(interp(*show, "--kind", "tokens"), 2, "is drawn as heads or layers or ranking, not as tokens")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "cake", "--figure", "a.png"], "'cake' is no figure. There are: heads, layers, waad_fai, tokens"),
        (["--minus", "elsewhere"], "--minus needs --figure"),
        (["--minus", "elsewhere", "--figure", "a.png", "--kind", "tokens"], "A difference is drawn as heads"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(read, tmp_path, words, sentence):
    read("--text", TEXT, "--metrics", "entropy")
    assert_refused(interp("show", tmp_path / "run", *words), 2, sentence)


def test_metrics_are_listed_with_unit_parameters_and_source():
    told = json.loads(interp("metrics", "--json").stdout)
    rows = {row["name"]: row for row in told["attention"]}
    assert rows["windowed_distance"]["parameters"]["window"] == 10 and rows["windowed_distance"]["unit"] == "tokens"
    assert all(row["about"] and row["unit"] and row["paper"] for row in rows.values())
    assert "logit_diff" in [row["name"] for row in told["answers"]]
    printed = interp("metrics").stdout
    assert all(name in printed for name in rows)


def test_help_names_the_commands():
    said = interp("--help").stdout
    assert "attention" in said and "metrics" in said


# --- bad input: one sentence, the right code, nothing stored ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "The text or task to read is missing: give one of --text, --file, --task, --prompts. Tasks: agreement"),
        (["--text", "w1", "--task", "ioi"], 2, "--text and --task do not go together"),
        (["--text", " \n"], 2, "--text is empty"),
        (["--file", "none.txt"], 2, "There is no file none.txt"),
        (["--prompts", "none.jsonl"], 2, "There is no file none.jsonl"),
        (["--task", "ioy"], 2, "No task is called 'ioy'. There are"),
        (
            ["--text", "w1", "--metrics", "entropi"],
            2,
            "No attention metric is called 'entropi'. There are: argmax_offsets, attention_distance",
        ),
        (["--text", "w1", "--metrics", "entropy:window=3"], 2, "Metric 'entropy' has no option 'window'. It has no options."),
        (["--text", "w1", "--metrics", "windowed_distance:window=x"], 2, "'window=x': the value must be a whole number"),
        (["--text", "w1", "--metrics", "entropy,entropy"], 2, "names entropy twice"),
        (["--text", "w1", "--metrics", " ,"], 2, "names no metric"),
        (["--text", "w1", "--metrics", "spatial_distance"], 2, "is a metric of image patches"),
        (["--text", "w1", "--memory", "lots"], 2, "not an amount of memory: write 2GB"),
        (["--text", "w1", "--memory", "2KB"], 5, "is the budget"),
        (["--text", "w1 " * 64], 2, "65 tokens, more than the 64 of .*'s context"),
        (["--task", "ioi", "-n", "0"], 2, "n_prompts=0 is too few"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_wrong_argument_gets_one_sentence_and_stores_nothing(read, tmp_path, capfd, words, code, sentence):
    assert_refused(read(*words), code, sentence)
    assert capfd.readouterr().err == ""  # nor does a library say anything of its own
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("content", "sentence"), [(b" \n", "is empty"), (b"caf\xe9", "is not UTF-8 text .byte 3")])
def test_a_file_without_text_is_refused(read, tmp_path, content, sentence):
    (tmp_path / "a.txt").write_bytes(content)
    assert_refused(read("--file", tmp_path / "a.txt"), 2, sentence)
    assert not (tmp_path / "run").exists()


def test_a_mark_that_the_prompts_lack_is_answered_with_those_they_have(read, prompts, tmp_path):
    words = ["--prompts", prompts, "--metrics", "future_attention:positions="]
    assert_refused(read(*words[:-1], words[-1] + "needle"), 2, "No position is called 'needle' .* There are: all, end, subject")
    assert not (tmp_path / "run").exists()
    assert read(*words[:-1], words[-1] + "subject").exit_code == 0


def test_words_that_the_model_does_not_know_are_counted(read):
    assert "does not know all words: 2 of 4 tokens are unknown" in read("--text", "w1 zebra giraffe").stderr
    assert "does not know" not in read("--text", "w1 w2", out="known").stderr
