"""What every task promises, whatever the tokenizer."""

import re
import subprocess
import sys
from functools import cache

import pytest
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.tokenizer_only_models import NOT_STARTING, bare_model, task_model

TASK_NAMES = [
    "agreement",
    "antonyms",
    "colored_objects",
    "docstring",
    "facts",
    "gendered_pronoun",
    "greater_than",
    "induction",
    "ioi",
    "key_value",
    "needle",
    "plan_following",
]
PAIRS = [(name, model) for name in TASK_NAMES for model in ("word", "bpe", "piece")]
N = 14


@cache
def _made(name: str, model: str):
    from interp.tasks import make_task, write_prompts

    return task_model(model), write_prompts(name, task_model(model), N, seed=3), make_task(name, task_model(model), N, seed=3)


@pytest.fixture(params=PAIRS, ids="-".join)
def made(request):
    """Model, prompts and task of every combination."""
    return _made(*request.param)


def bare(text: str) -> str:
    return re.sub(r"\s|<nl>", "", text)


def test_these_are_all_the_tasks():
    from interp.tasks import TASKS, task_names

    assert task_names() == TASK_NAMES
    assert all(TASKS.get(name).name == name and TASKS.get(name).about and TASKS.get(name).paper for name in TASK_NAMES)


def test_listing_tasks_imports_no_torch():
    code = "import sys, interp.tasks as t; [t.TASKS.get(n) for n in t.task_names()]; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_clean_and_corrupted_prompts_differ_and_have_equal_lengths(made):
    _, prompts, task = made
    assert len(task) == N and task.has_corrupted
    for prompt, example in zip(prompts, task, strict=True):
        assert prompt.clean != prompt.corrupted and example.clean != example.corrupted
        assert len(example.clean) == len(example.corrupted)


def test_token_ids_spell_the_text_and_begin_with_the_start_token(made):
    model, prompts, task = made
    for prompt, example in zip(prompts, task, strict=True):
        assert example.clean[0] == model.facts.bos_token_id and model.facts.bos_token_id not in example.clean[1:]
        assert bare(model.to_string(example.clean[1:])) == bare(prompt.clean)
        assert bare(model.to_string(example.corrupted[1:])) == bare(prompt.corrupted)


def test_answers_are_one_token_each_and_never_distractors(made):
    model, prompts, task = made
    for prompt, example in zip(prompts, task, strict=True):
        assert [w.strip() for w in model.to_str_tokens(example.answers)] == list(prompt.answers)
        assert [w.strip() for w in model.to_str_tokens(example.distractors)] == list(prompt.distractors)
        assert example.answers and example.distractors and not set(example.answers) & set(example.distractors)


def test_an_answer_is_the_token_that_the_continued_text_has_there(made):
    model, prompts, task = made
    for prompt, example in zip(prompts, task, strict=True):
        space = "" if prompt.answers[0].isdigit() else " "
        continued = model.to_tokens(f"{prompt.clean}{space}{prompt.answers[0]}")
        assert continued == [*example.clean, example.answers[0]]


def test_every_prompt_has_the_declared_marks_and_they_hold_the_marked_text(made):
    from interp.tasks import TASKS

    model, prompts, task = made
    assert task.marks == sorted(TASKS.get(task.name).marks)
    for prompt, example in zip(prompts, task, strict=True):
        assert set(example.marks) == set(prompt.marks)
        for name, (start, end) in prompt.marks.items():
            shown = bare(model.to_string(example.clean[slice(*example.marks[name])]))
            assert (
                shown.startswith(bare(prompt.clean[start:end])) if end == start + 1 else shown == bare(prompt.clean[start:end])
            )


def test_prompts_are_all_different(made):
    _, prompts, _ = made
    assert len({prompt.clean for prompt in prompts}) == N


def test_same_seed_same_examples_and_fewer_prompts_are_the_first_ones(made):
    from interp.tasks import make_task

    model, _, task = made
    again = make_task(task.name, model, 5, seed=3)
    assert again.examples == task.examples[:5]
    assert again.digest() == task.select(range(5)).digest() != make_task(task.name, model, 5, seed=4).digest()


def test_the_hash_seed_of_python_does_not_change_the_prompts():
    code = (
        "from tests.support.tokenizer_only_models import task_model as m\nfrom interp.tasks import write_prompts as w, task_names as t\n"
        "print([w(n, m('word'), 3) for n in t()])"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_the_task_remembers_all_its_arguments():
    from interp.tasks import make_task

    task = make_task("needle", task_model("word"), 2, seed=5, n_filler=3)
    assert task.arguments == {"n_prompts": 2, "seed": 5, "n_filler": 3, "n_competing": 2, "depth": None}
    assert (task.name, task.metric) == ("needle", "logit_diff")


def test_words_that_the_tokenizer_cuts_are_never_used():
    from interp.tasks import write_prompts

    text = " ".join(f"{p.clean} {p.corrupted}" for p in write_prompts("ioi", task_model("bpe"), 150))
    assert "Mary" in text and "Lisa" not in text
    begin = {p.clean.split()[0] for p in write_prompts("ioi", task_model("bpe"), 150)}
    assert not begin & set(NOT_STARTING) and begin & {"Mary", "John", "Tom", "James", "Dan", "Anna"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"name": "oii"}, LookupError, "No task is called 'oii'. There are: agreement, antonyms, colored_objects, docstring"),
        ({"name": "ioi", "n_prompts": 0}, ValueError, "n_prompts=0 is too few"),
        (
            {"name": "ioi", "n_promts": 4},
            LookupError,
            "no option 'n_promts'. There are: corruption. Did you mean 'n_prompts'",
        ),
        ({"name": "ioi", "corupted": "abc"}, LookupError, "Task 'ioi' has no option 'corupted'. There are: corruption."),
        ({"name": "greater_than", "depth": 1}, LookupError, "no option 'depth'. It has no options."),
        ({"name": "facts", "n_shots": "a"}, TypeError, "n_shots must be an int, not str."),
        ({"name": "ioi", "corruption": "xyz"}, ValueError, "corruption='xyz' is not one of abc, flip."),
        ({"name": "facts", "n_prompts": 505}, ValueError, "has only 504 distinct prompts"),
        ({"name": "facts", "n_shots": 27}, ValueError, "n_shots=27 is outside 0 to 26, the number of other countries"),
        ({"name": "antonyms", "n_shots": 19}, ValueError, "n_shots=19 is outside 0 to 18: every pair is used once"),
        ({"name": "agreement", "n_shots": 12}, ValueError, "n_shots=12 is outside 0 to"),
        ({"name": "colored_objects", "n_solved": 3}, ValueError, "n_solved=3 is not 1 or 2"),
        ({"name": "facts", "n_prompts": 85, "held_out": True}, ValueError, "has only 84 distinct prompts"),
        ({"name": "docstring", "n_skipped": 4}, ValueError, "n_skipped=4 is outside 0 to 3"),
        ({"name": "needle", "depth": 1.5}, ValueError, "depth=1.5 is outside 0"),
        ({"name": "needle", "n_filler": -1}, ValueError, "n_filler=-1 is negative"),
        ({"name": "needle", "n_competing": 0}, ValueError, "n_competing=0 is too few"),
        ({"name": "key_value", "n_pairs": 2}, ValueError, "n_pairs=2 is too few"),
        ({"name": "induction", "n_chunks": 1}, ValueError, "n_chunks=1 is too few"),
        ({"name": "plan_following", "n_steps": 5, "n_people": 7}, ValueError, "n_steps=5 is outside 2 to 4"),
        ({"name": "plan_following", "n_people": 2}, ValueError, "n_steps=3 is outside 2 to 2: n_people=2 are told of"),
        ({"name": "colored_objects", "n_objects": 2}, ValueError, "n_objects=2 is too few"),
        ({"name": "needle", "n_filler": 90}, ValueError, "word takes at most 512: shorten it"),
        ({"name": "key_value", "n_pairs": 300}, ValueError, "needs at least 600 words that are single tokens of word"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_allowed(call, error, message):
    from interp.tasks import make_task

    with pytest.raises(error, match=re.escape(message)):
        make_task(model=task_model("word"), **call)


def test_a_model_that_cuts_years_otherwise_cannot_do_greater_than():
    from interp.tasks import make_task
    from interp.tasks.words_and_templates import YEAR_NOUNS

    ids = {
        letter: i
        for i, letter in enumerate(
            ["<unk>", "<s>", *(f"\u2581{word}" for word in [*YEAR_NOUNS, "The", "the", "year"]), "\u2581"]
        )
    }
    letters = Tokenizer(models.Unigram([(piece, -5.0) for piece in ids], unk_id=0, byte_fallback=False))
    letters.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    without_digits = bare_model(T.PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="<unk>"), "no-digits")
    with pytest.raises(
        ValueError, match=r"years that end in a token of two digits, one or four .* no-digits cuts them otherwise"
    ):
        make_task("greater_than", without_digits)


def test_a_model_without_a_tokenizer_is_refused():
    from interp.tasks import make_task

    with pytest.raises(ValueError, match="was loaded without a tokenizer"):
        make_task("ioi", bare_model(None))


@pytest.mark.parametrize("task", ["ioi", "induction"])
def test_a_planted_model_is_refused_with_the_prompts_that_it_comes_with(task):
    from interp.models import load_model
    from interp.tasks import make_task

    with pytest.raises(
        ValueError, match=r"comes with prompts in them: .* planted\.prompts\('ioi'\), .*interp\.tasks\.Example\(\*prompt\)"
    ):
        make_task(task, load_model("planted:mini_ioi"), 4)
