"""What the `interp` command answers, and with which exit code."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.models.test_hooked_transformer import BASE, save
from tests.support.tiny_models import save_tiny, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
N_LAYERS, N_HEADS = 3, 6


def interp(*words):
    from interp.cli.app import app

    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local model folder: the tiny llama of the test bed with its tokenizer."""
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def prompts(tmp_path):
    """Five prompts of four and five words, with a mark and a distractor."""
    path = tmp_path / "five.jsonl"
    rows = []
    for i in range(5):
        tail = " w4" * (i % 2)
        pair = {"clean": f"w{i} w2 w3 w{i + 9}{tail}", "corrupted": f"w{i + 1} w2 w3 w5{tail}"}
        rows.append(pair | {"answer": "w7", "distractor": f"w{i + 20}", "marks": {"subject": f"w{i + 9}"}})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def ablation(folder, prompts, tmp_path):
    """The words of a small ablation, without --out."""
    return ["ablate", "--model", folder, "--prompts", prompts, "--ablation", "zero"]


def test_help_names_every_command_and_every_exit_code():
    answer = interp("--help")
    assert answer.exit_code == 0
    for command in ("ablate", "show", "models", "tasks", "doctor", "version"):
        assert command in answer.stdout
    assert "3 finished with failed checks" in " ".join(answer.stdout.split())
    assert "130 interrupted" in " ".join(answer.stdout.split())


def test_version_and_tasks_and_models_answer_in_json():
    assert json.loads(interp("version", "--json").stdout)["packages"]["transformer-lens"]
    assert "ioi" in [task["name"] for task in json.loads(interp("tasks", "--json").stdout)["tasks"]]
    assert json.loads(interp("models", "--json").stdout)["default"] == "interp-mini"


def test_doctor_tells_an_unsound_model_from_a_sound_one_by_its_exit_code(folder, monkeypatch):
    from interp.models.selfcheck import CHECKS

    assert interp("doctor", folder).exit_code == 0
    monkeypatch.setitem(CHECKS, "residual_adds_up", lambda run: (0.5, 0.1, ""))
    answer = interp("doctor", folder, "--json")
    assert answer.exit_code == 3, answer.stderr
    told = json.loads(answer.stdout)
    assert not told["passed"] and [c["name"] for c in told["checks"] if c["passed"] is False] == ["residual_adds_up"]


def test_an_ablation_stores_one_row_a_head_and_show_reads_it(ablation, tmp_path):
    answer = interp(*ablation, "--out", tmp_path / "run", "--json")
    assert answer.exit_code == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert len(told["heads"]) == N_LAYERS * N_HEADS
    shown = interp("show", tmp_path / "run", "--json")
    assert json.loads(shown.stdout)["heads"] == told["heads"]
    sizes = [abs(row["effect"]) for row in told["heads"]]
    assert sizes == sorted(sizes, reverse=True)


def test_show_prints_the_ranking_with_its_sign_and_its_record(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    answer = interp("show", tmp_path / "run")
    assert answer.exit_code == 0
    assert "negative = the head helped" in answer.stdout
    assert "logit_diff" in answer.stdout
    assert all(f"L{layer}H{head}" in answer.stdout for layer in range(N_LAYERS) for head in range(N_HEADS))


def test_a_run_of_a_newer_version_is_refused_with_exit_code_6(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 3}))
    sentence = "is of version 3 of the run format; this interp reads version 2. Open it with the interp that wrote it."
    assert_refused(interp("show", tmp_path / "run"), 6, sentence)


def test_show_as_csv_has_the_same_rows(ablation, tmp_path):
    from io import StringIO

    import pandas as pd

    told = json.loads(interp(*ablation, "--out", tmp_path / "run", "--json").stdout)
    table = pd.read_csv(StringIO(interp("show", tmp_path / "run", "--csv").stdout))
    assert table["label"].tolist() == [row["label"] for row in told["heads"]]


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_show_draws_a_figure_of_each_kind(ablation, tmp_path, ending):
    interp(*ablation, "--out", tmp_path / "run")
    answer = interp("show", tmp_path / "run", "--figure", tmp_path / f"heads.{ending}")
    assert answer.exit_code == 0, answer.stderr
    start = (tmp_path / f"heads.{ending}").read_bytes()[:300]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<" in start


def test_a_run_directory_holds_its_pictures(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    pictures = {"heads.png", "ranking.png"}
    assert pictures <= {path.name for path in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "ranking.png").unlink()  # as after a kill between the last table and the pictures
    interp(*ablation, "--out", tmp_path / "run")
    assert pictures <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_finished_run_is_not_computed_again_and_says_so(ablation, tmp_path):
    first = interp(*ablation, "--out", tmp_path / "run", "--json")
    written = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    again = interp(*ablation, "--out", tmp_path / "run", "--json")
    assert again.exit_code == 0
    assert "nothing was computed" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ("200KB", "1MB", "started with a memory budget of 200,000 bytes, which it keeps: --fresh"),
        ("200KB", None, ""),
        ("200KB", "0.2MB", ""),
        (None, "200KB", "started with the default memory budget, which it keeps: --fresh"),
    ],
)
def test_a_resumed_run_keeps_the_memory_budget_it_was_begun_with(ablation, tmp_path, monkeypatch, first, then, said):
    from interp.store import FileLedger

    def budget(text):
        return [] if text is None else ["--memory", text]

    def put_and_stop(ledger, key, values):
        put(ledger, key, values)
        raise KeyboardInterrupt

    put, units = FileLedger.put, []
    with monkeypatch.context() as patches:
        patches.setattr(FileLedger, "put", put_and_stop)
        assert interp(*ablation, *budget(first), "--out", tmp_path / "run").exit_code == 130
    monkeypatch.setattr(FileLedger, "put", lambda ledger, key, values: (units.append(key), put(ledger, key, values)))
    resumed = interp(*ablation, *budget(then), "--out", tmp_path / "run")
    assert resumed.exit_code == 0, resumed.stderr
    in_resumed = len(units)
    interp(*ablation, *budget(first), "--out", tmp_path / "whole")
    assert len(units) == in_resumed + in_resumed + 1  # the resumed run lacked none but the one that was stored
    assert said in resumed.stderr and ("started with" in resumed.stderr) == bool(said)
    details = [json.loads((tmp_path / name / "run.json").read_text())["details"] for name in ("run", "whole")]
    assert details[0]["memory"] == details[1]["memory"] == (200_000 if first else None)
    assert (tmp_path / "run" / "heads.parquet").read_bytes() == (tmp_path / "whole" / "heads.parquet").read_bytes()


def test_a_budget_that_would_not_do_does_not_keep_a_run_from_going_on(ablation, tmp_path, monkeypatch):
    from interp.store import FileLedger

    def put_and_stop(ledger, key, values):
        put(ledger, key, values)
        raise KeyboardInterrupt

    put, small = FileLedger.put, ("--memory", "2KB", "--out", tmp_path / "run")
    assert_refused(interp(*ablation, *small), 5, "2,?000|1.95 KiB")
    assert not (tmp_path / "run").exists()
    with monkeypatch.context() as patches:
        patches.setattr(FileLedger, "put", put_and_stop)
        assert interp(*ablation, "--out", tmp_path / "run").exit_code == 130
    assert interp(*ablation, *small, "--dry-run").exit_code == 5
    resumed = interp(*ablation, *small)
    assert resumed.exit_code == 0 and "which it keeps: --fresh" in resumed.stderr
    finished = interp(*ablation, *small)
    assert finished.exit_code == 0 and "nothing was computed" in finished.stderr
    assert_refused(interp(*ablation, *small, "--fresh"), 5, "1.95 KiB")


def test_more_than_nine_tenths_of_the_free_memory_is_refused(ablation, tmp_path, monkeypatch):
    from interp.models import memory

    run = [*ablation, "--out", tmp_path / "run"]
    monkeypatch.setattr(memory, "_control_group_memory", list)
    free = 10**9
    monkeypatch.setattr(memory, "_system_memory", lambda: free)
    needed = json.loads(interp(*run, "--dry-run", "--json").stdout)["bytes"]
    for free, code in ((int(needed / 0.89), 0), (int(needed / 0.91), 5)):  # noqa: B007 - read by the lambda
        assert interp(*run, "--fresh").exit_code == code
    assert_refused(interp(*run, "--fresh"), 5, "This sweep of .* needs about")


def test_fresh_moves_the_earlier_run_aside(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    answer = interp(*ablation, "--out", tmp_path / "run", "--fresh")
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "run" / "run.json").exists()
    assert (tmp_path / "run.1" / "run.json").exists()


def test_fresh_does_not_move_a_folder_that_is_no_run(ablation, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    answer = interp(*ablation, "--out", tmp_path / "thesis", "--fresh")
    assert answer.exit_code == 6
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


def test_another_run_in_the_folder_is_refused_and_kept(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    answer = interp(*ablation, "--seed", "1", "--out", tmp_path / "run")
    assert answer.exit_code == 6
    assert "seed is 0, requested 1" in answer.stderr
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_the_default_folder_is_named_after_what_was_asked(ablation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert interp(*ablation).exit_code == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("five-tiny-llama-zero-")
    assert len(made.name) == len("five-tiny-llama-zero-") + 8


def test_a_dry_run_says_time_and_bytes_and_stores_nothing(ablation, tmp_path):
    answer = interp(*ablation, "--out", tmp_path / "run", "--dry-run", "--json")
    told = json.loads(answer.stdout)
    assert answer.exit_code == 0
    assert told["bytes"] > 0
    assert told["n_units"] >= 2  # prompts of two lengths
    assert not (tmp_path / "run").exists()


def test_chosen_heads_layers_and_pairs_decide_the_rows(ablation, tmp_path):
    def labels(name, *words):
        answer = interp(*ablation, *words, "--out", tmp_path / name, "--json")
        assert answer.exit_code == 0, answer.stderr
        return sorted(row["label"] for row in json.loads(answer.stdout)["heads"])

    assert labels("heads", "--heads", "L0H1,2.4") == ["L0H1", "L2H4"]
    assert labels("layers", "--layers", "0,2") == sorted(f"L{layer}H{head}" for layer in (0, 2) for head in range(N_HEADS))
    assert labels("pairs", "--heads", "L0H1,L2H4", "--pairs") == ["L0H1", "L0H1+L2H4", "L2H4"]


def test_a_pair_is_shown_with_its_interaction_and_is_not_counted_among_the_heads(ablation, tmp_path):
    interp(*ablation, "--heads", "L0H1,L2H4", "--pairs", "--out", tmp_path / "run")
    shown, told = (interp("show", tmp_path / "run", *words).stdout for words in ([], ["--json"]))
    assert "With 5 prompts no p-value can be below 0.062, so that no head can reach q <= 0.05: use more prompts." in shown
    rows = {row["label"]: row for row in json.loads(told)["heads"]}
    columns = [f"{rows['L0H1+L2H4'][name]:+.3f}" for name in ("interaction", "interaction_ci_low", "interaction_ci_high")]
    (line,) = (line for line in shown.splitlines() if "L0H1+L2H4" in line)
    assert line.split()[-4:] == [columns[0], columns[1], "to", columns[2]]


def test_attribution_ranks_all_heads_and_adaptive_says_how_far_to_believe_it(ablation, tmp_path):
    estimated = json.loads(interp(*ablation, "--estimator", "attribution", "--out", tmp_path / "all", "--json").stdout)
    assert len(estimated["heads"]) == N_LAYERS * N_HEADS
    answer = interp(*ablation, "--estimator", "adaptive", "--ablation", "zero", "--out", tmp_path / "top")
    assert "estimate" in answer.stdout.lower()
    shown = json.loads(interp("show", tmp_path / "top", "--json").stdout)
    assert len(shown["heads"]) == 4  # 0.2 * 18 heads, rounded
    assert shown["details"]["agreement"]["n"] == 4


@pytest.mark.parametrize("estimator", ["attribution", "adaptive"])
def test_a_model_whose_parts_are_not_known_can_be_estimated(prompts, tmp_path, estimator):
    toy = {**BASE, "d_vocab": 97, "d_vocab_out": 97}
    (tmp_path / "toy").mkdir()
    tiny_tokenizer().save_pretrained(save(tmp_path / "toy", toy))
    words = ["ablate", "--model", tmp_path / "toy", "--prompts", prompts, "--estimator", estimator, "--out", tmp_path / "run"]
    answer = interp(*words, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert len(json.loads(answer.stdout)["heads"]) == {"attribution": 15, "adaptive": 3}[estimator]


# --- bad input: one sentence, the right code, nothing stored ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--heads", "L3H0"], 2, "Head L3H0 does not exist: .* has layers 0-2 and heads 0-5"),
        (["--heads", "fifth"], 2, "'fifth' is not a head: write L5H1"),
        (["--layers", "1-7"], 2, "Layer 7 does not exist: .* has layers 0-2"),
        (["--layers", "2-1"], 2, "is not a list of numbers: write 0,2-4"),
        (["--heads", "L0H1", "--layers", "0"], 2, "give one of them"),
        (["--metric", "logitdiff"], 2, "No metric is called 'logitdiff'. There are: accuracy, answer_logprob"),
        (["--ablation", "remove"], 2, "No ablation is called 'remove'. There are: agent, amplify_span, attend_to"),
        (["--positions", "needle"], 2, "needle"),
        (["--memory", "lots"], 2, "not an amount of memory: write 2GB"),
        (["--memory", "2KB"], 5, "budget of"),
        (["--top-share", "0", "--estimator", "adaptive"], 2, "top_share is 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_argument_gets_one_sentence_and_stores_nothing(ablation, tmp_path, words, code, sentence):
    answer = interp(*ablation, *words, "--out", tmp_path / "run")
    assert_refused(answer, code, sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"clean": "w1 w2", "answer": "w3"', "line 2: This is not JSON"),
        ('{"clean": "w1 w2"}', "line 2: The key 'answer' is missing"),
        ('{"clean": "w1 w2", "answer": "w3", "distractor": "w4", "corrupted": "w1"}', "line 2: The clean prompt has 3 tokens"),
        ('{"clean": "w1 w2", "answer": "w3 w4", "distractor": "w5"}', "line 2: 'w3 w4' is 2 tokens"),
        ('{"clean": "w1 zebra", "answer": "w3"}', "line 2: .* does not know 'zebra'"),
    ],
    ids=["not JSON", "no answer", "lengths differ", "answer of two tokens", "unknown word"],
)
def test_a_malformed_prompt_is_named_by_its_line(folder, tmp_path, line, sentence):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"clean": "w1 w2", "answer": "w3", "distractor": "w4"}\n' + line + "\n")
    assert_refused(interp("ablate", "--model", folder, "--prompts", path, "--out", tmp_path / "run"), 2, sentence)


def test_an_empty_or_missing_prompt_file_is_refused(folder, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    assert_refused(interp("ablate", "--model", folder, "--prompts", tmp_path / "empty.jsonl"), 2, "holds no prompts")
    assert_refused(interp("ablate", "--model", folder, "--prompts", tmp_path / "none.jsonl"), 2, "There is no file")


def test_a_check_of_own_prompts_answers_in_sentences_and_in_json(folder, prompts):
    words = ["tasks", "check", prompts, "--model", folder]
    sentences, found = interp(*words).stdout, json.loads(interp(*words, "--json").stdout)
    assert found["n_prompts"] == 5 and found["verdict"] in " ".join(sentences.split("\n"))
    assert "is right on" in sentences and "differ at" in sentences and "gap" in sentences


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "nix"], "No task is called 'nix'"),
        (["check", "no.jsonl"], "There is no file no.jsonl"),
        (["check"], "`check` needs one task or one file: write `interp tasks check TASK`"),
        (["chek", "ioi"], "`interp tasks` has no action 'chek'"),
        (["check", "ioi", "--set", "corruption=abd"], "corruption='abd' is not one of"),
    ],
)
def test_a_check_that_cannot_be_made_gets_one_sentence(words, sentence):
    answer = interp("tasks", *words)
    assert answer.exit_code == 2 and sentence in answer.stderr


def test_an_option_of_the_task_is_set_by_name():
    answer = interp("ablate", "--task", "needle", "--set", "n_filler=2", "-n", 3, "--dry-run", "--json")
    assert json.loads(answer.stdout)["arguments"]["n_filler"] == 2
    wrong = interp("circuit", "--task", "ioi", "--set", "n_filler=2", "--dry-run")
    assert wrong.exit_code == 2 and "Task 'ioi' has no option 'n_filler'" in wrong.stderr


def test_accuracy_stands_before_any_effect_in_ablate_and_show(ablation, tmp_path):
    first = interp(*ablation, "--out", tmp_path / "run").stdout
    shown = interp("show", tmp_path / "run").stdout
    for text in (first, shown):
        assert "tiny-llama is right on" in text and text.index("is right on") < text.index("effect =")


def test_prompts_in_clusters_are_counted_in_both_ways(folder, ablation, prompts, tmp_path):
    rows = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    prompts.write_text("\n".join(json.dumps(row | {"cluster": i % 2}) for i, row in enumerate(rows)), encoding="utf-8")
    answer = interp(*ablation, "--out", tmp_path / "run")
    assert answer.exit_code == 0, answer.stderr
    assert "5 prompts in 2 clusters: intervals and q are over clusters." in answer.stdout
    assert (
        "With 2 clusters no p-value can be below 0.5, so that no head can reach q <= 0.05: use more clusters." in answer.stdout
    )
    shown = interp("show", tmp_path / "run").stdout
    assert "n_examples 5, n_clusters 2, task_digest" in shown and "['0'" not in shown
    prompts.write_text("\n".join(json.dumps(row | {"cluster": "a"}) for row in rows), encoding="utf-8")
    sentence = "An interval over clusters of prompts needs at least 2 of them, and five has 1: add prompts"
    assert_refused(interp(*ablation, "--out", tmp_path / "other"), 2, sentence)


def test_neither_or_both_of_task_and_prompts_is_refused(prompts):
    assert_refused(interp("ablate"), 2, "Give either --task or --prompts")
    assert_refused(interp("ablate", "--task", "ioi", "--prompts", prompts), 2, "--task ioi and --prompts .* exclude each other")


def test_an_unknown_task_is_answered_with_the_list():
    assert_refused(interp("ablate", "--task", "ioy"), 2, "No task is called 'ioy'. There are: .*induction, ioi")


def test_an_unavailable_model_is_code_4(tmp_path):
    assert_refused(interp("ablate", "--task", "ioi", "--model", "someone/some-model", "--offline"), 4, "someone/some-model")
    assert_refused(interp("doctor", tmp_path / "no-such-folder"), 4, "no-such-folder")


def test_a_folder_with_truncated_weights_is_code_4(folder, tmp_path):
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(interp("doctor", broken), 4, "model.safetensors")


def test_a_damaged_or_foreign_run_directory_is_code_6(ablation, tmp_path):
    interp(*ablation, "--out", tmp_path / "run")
    (tmp_path / "run" / "heads.parquet").write_bytes(b"PAR1")
    assert_refused(interp("show", tmp_path / "run"), 6, "is not the file that the run wrote")
    assert_refused(interp("show", tmp_path), 6, "is not a run directory")
    manifest = json.loads((tmp_path / "run" / "run.json").read_text()) | {"schema": 99}
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    assert_refused(interp("show", tmp_path / "run"), 6, "of version 99")


def test_an_error_is_one_json_object_when_json_was_asked():
    answer = interp("ablate", "--task", "ioy", "--json")
    assert json.loads(answer.stdout) == {"error": answer.stderr.strip(), "exit_code": 2}


def test_a_traceback_is_shown_with_debug_alone():
    assert "Traceback" not in interp("ablate", "--task", "ioy").stderr
    assert "Traceback" in interp("ablate", "--task", "ioy", "--debug").stderr


def test_an_unknown_option_is_a_usage_error():
    assert interp("ablate", "--tsk", "ioi").exit_code == 2


def assert_refused(answer, code, sentence):
    import re

    assert answer.exit_code == code, answer.stderr
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1, answer.stderr
    assert re.search(sentence, lines[0]), lines[0]
    assert "Unexpected" not in lines[0]


# --- whole processes -------------------------------------------------------------------------------------------------


def start(words, cwd):
    # A process started in the background by a shell may ignore SIGINT, and its children with it.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from interp.cli import main; main()"
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_interrupted_ablation_says_how_to_resume_and_resumes_to_the_same_table(folder, tmp_path):
    rows = [
        {"clean": " ".join(f"w{(i * j) % 90}" for j in range(1, 4 + i % 12)), "answer": "w7", "distractor": "w8"}
        for i in range(72)
    ]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["ablate", "--model", folder, "--prompts", tmp_path / "many.jsonl", "--memory", "1MB"]
    process = start([*words, "--out", "stopped"], tmp_path)
    deadline = time.monotonic() + 200
    while process.poll() is None and not list(tmp_path.glob("stopped/units/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "stored in stopped" in said.strip().splitlines()[-1] and "Traceback" not in said
    assert "interp ablate --model" in said
    resumed, whole = interp(*words, "--out", tmp_path / "stopped"), interp(*words, "--out", tmp_path / "whole")
    assert (resumed.exit_code, whole.exit_code) == (0, 0), resumed.stderr + whole.stderr
    assert "Resuming" in resumed.stderr
    assert "Resuming" not in whole.stderr
    assert (tmp_path / "stopped" / "heads.parquet").read_bytes() == (tmp_path / "whole" / "heads.parquet").read_bytes()
