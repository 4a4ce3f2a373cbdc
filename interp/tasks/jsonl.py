"""The user's own prompts: one JSON object per line. A JSON array, and CSV, with the same keys are read too (``_prompt_file_rows.py``).

{"clean": "Paris is in", "corrupted": "Rome is in", "answer": "France", "distractor": "Italy", "marks": {"subject": "Paris"}}

``clean`` and ``answer`` are needed; null is as good as nothing. ``answer`` and ``distractor`` are a word or a list of words. A
mark is a piece of ``clean`` that occurs once, or its [start, end] characters. Without ``corrupted`` the clean prompt stands in
for it, and the task's ``has_corrupted`` is False: everything that compares the two (patching, resampling from corrupted) should
refuse such a task. ``cluster``, a text or a number, says which prompts are alike; all prompts have it or none. Blank lines are
skipped. How an answer is joined to its prompt is said in ``tokenise.py``.
"""

import hashlib
import json
import warnings
from math import isfinite
from pathlib import Path
from typing import Any

from interp._check_argument_types import checks_arguments
from interp.files import read_file
from interp.models.model import Model
from interp.tasks._prompt_file_rows import FORMS, KEYS, prompt_rows, what_bytes_are
from interp.tasks.task import Prompt, Span, Task
from interp.tasks.tokenise import to_example

RESERVED = ("all", "end")


@checks_arguments
def task_from_jsonl(path: str | Path, model: Model, metric: str | None = None, *, chat: bool = False) -> Task:
    """The prompts of a file as a task named after it; metric: ``logit_diff`` if all have distractors, else ``answer_logprob``.
    ``-`` is standard input. ``chat``: each clean and each corrupted prompt is the user's message in the model's chat template, which ends
    where the answer begins; marks stay on their words. For an encoder, which answers nothing, only the clean prompts and their marks are
    read, and ``answer`` may be missing. Raises ValueError with the line number for anything that
    cannot be used, and FileNotFoundError for a missing file."""
    name, data = read_file(path)
    content = _text_of(name, data)
    examples, places = [], {}
    for place, line in prompt_rows(name, content):
        try:
            examples.append(to_example(model, read_prompt(line, answered=model.facts.causal), chat=chat))
            if (first := places.setdefault(examples[-1].prompt, place)) != place:
                raise ValueError(f"The clean prompt is that of {first} and would count twice: keep one of them.")
            if (examples[-1].cluster is None) != (examples[0].cluster is None):
                with_it, without = (
                    ("This prompt", "the first") if examples[0].cluster is None else ("The first prompt", "this one")
                )
                raise ValueError(f"{with_it} has the key 'cluster', and {without} has none: give it to all prompts or to none.")
        except ValueError as error:
            raise ValueError(f"{name}, {place}: {error}") from None
    if not examples:
        raise ValueError(f"{name} holds no prompts: write one JSON object per line.")
    judged = metric or ("logit_diff" if all(e.distractors for e in examples) else "answer_logprob")
    n_without = sum(not e.distractors for e in examples)
    if metric is None and 0 < n_without < len(examples):
        warnings.warn(
            f"{name}: {n_without} of {len(examples)} prompts have no distractor, so that the metric of all is answer_logprob.",
            stacklevel=2,
        )
    path = Path(name)
    arguments = {"file": path.name, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    arguments |= {"chat": True} if chat else {}
    return Task(path.stem, tuple(examples), judged, arguments)


def read_prompt(line: str, *, answered: bool = True) -> Prompt:
    """The prompt written in one line of JSON; ``answered``: it must have an answer. Raises ValueError for anything else."""
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"This is not JSON ({error.msg} at character {error.pos + 1}).") from None
    except RecursionError:
        raise ValueError("This is JSON of absurd depth.") from None
    if not isinstance(row, dict):
        raise ValueError(f"This is {line.strip()[:30]!r}, not a JSON object with keys {', '.join(KEYS)}.")
    for key in row:
        if key not in KEYS:
            raise ValueError(f"Unknown key {key!r}. There are: {', '.join(KEYS)}.")
    for key in ("clean", "answer") if answered else ("clean",):
        if key not in row:
            raise ValueError(f"The key {key!r} is missing.")
    clean = _text("clean", row["clean"])
    corrupted = _text("corrupted", row.get("corrupted", clean))
    answers, distractors = (_words(key, row.get(key, [])) for key in ("answer", "distractor"))
    if answered and not answers:
        raise ValueError("'answer' is an empty list: give at least one word.")
    return Prompt(clean, corrupted, answers, distractors, _marks(clean, row.get("marks", {})), _cluster(row.get("cluster")))


def _text_of(name: str, data: bytes) -> str:
    if what := what_bytes_are(data):
        raise ValueError(f"{name} looks like {what}: {FORMS}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{name}, line {line}: this is not UTF-8 text. Save the file as UTF-8.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without its nulls: tables written as JSON have null where a cell is empty."""
    keys = [key for key, _ in pairs]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ValueError(f"The key {twice[0]!r} occurs twice.")
    return {key: value for key, value in pairs if value is not None}


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {json.dumps(value)}: give a text.")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{key!r} is {json.dumps(value)}, which holds half a character: write the character itself.")
    return value


def _words(key: str, value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_text(key, word) for word in words))


def _cluster(value: Any) -> str | None:
    """The cluster as text: 7 is the same in JSON and in a cell of CSV."""
    if type(value) in (int, float) and isfinite(value):
        return json.dumps(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'cluster' is {json.dumps(value)}: give a text or a number.")
    return None if value is None else _text("cluster", value)


def _marks(clean: str, value: Any) -> dict[str, Span]:
    if not isinstance(value, dict):
        raise ValueError(f"'marks' is {json.dumps(value)}: give an object of names and pieces of the clean text.")
    for name in value:
        if not name or name in RESERVED:
            raise ValueError(f"A mark cannot be called {name!r}: {' and '.join(RESERVED)} are positions that every prompt has.")
    return {name: _span(clean, name, piece) for name, piece in value.items()}


def _span(clean: str, name: str, piece: Any) -> Span:
    if isinstance(piece, str) and piece:
        times = clean.count(piece)
        if times != 1:
            found = f"{piece!r} occurs {times} times in the clean text"
            raise ValueError(f"Mark {name!r}: {found}; it must occur once, or give [start, end].")
        return clean.index(piece), clean.index(piece) + len(piece)
    match piece:
        case [int(start), int(end)] if 0 <= start < end <= len(clean) and bool not in map(type, piece):
            return start, end
    wanted = f"a piece of the clean text or [start, end] within 0 to {len(clean)}"
    raise ValueError(f"Mark {name!r} is {json.dumps(piece)}: give {wanted}.")
