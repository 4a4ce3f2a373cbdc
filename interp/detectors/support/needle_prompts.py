"""Needle-in-a-haystack prompts at every length and depth of a grid, built from token ids so that every span is exact.

Needles are of three kinds, or your own. ``texts``: odd sentences, part of which answers a question; ``secrets``: the secret
word of a person, drawn anew for every prompt; ``repeats``: random tokens, the first of which is shown again, without words.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import NamedTuple

import numpy as np

from interp.detectors.support.haystack_texts import SECRET_NAMES, Haystack, filler, read_haystack
from interp.engine.sweep.outcome import check_single_tokens
from interp.files import user_path
from interp.models.model import Model
from interp.tasks.needle import set_aside
from interp.tasks.task import Example, Span
from interp.tasks.tokenise import token_spans, unknown_words
from interp.tasks.words_and_templates import NEEDLE_QUESTIONS, NEEDLE_TEMPLATES, WORDS

KINDS = ("texts", "secrets", "repeats")
LONGEST = 5000
"""Longest prompt in tokens, for models with a longer context."""

QUESTION = " Question: {question} Answer:"
BEFORE = "It is so."  # needles are tokenized as following another sentence
REPEATED = 9
SECRETS = set_aside(WORDS)

TEXTS = (
    {
        "needle": "The lighthouse keeper of Varnholt feeds eleven grey herons every morning before breakfast.",
        "answer": "eleven grey herons every morning before breakfast",
        "question": "What does the lighthouse keeper of Varnholt feed, and when?",
    },
    {
        "needle": "The only way across the Lurian marsh is to follow the copper lanterns until the second windmill.",
        "answer": "to follow the copper lanterns until the second windmill",
        "question": "What is the only way across the Lurian marsh?",
    },
    {
        "needle": "The clock in the museum of Ostrel stopped when a violin teacher leaned her ladder against it.",
        "answer": "when a violin teacher leaned her ladder against it",
        "question": "When did the clock in the museum of Ostrel stop?",
    },
    {
        "needle": "Captain Tolland keeps his maps of the desert inside a broken piano behind the bakery.",
        "answer": "inside a broken piano behind the bakery",
        "question": "Where does Captain Tolland keep his maps of the desert?",
    },
    {
        "needle": "The blue safe in the harbour office opens with the birthday of the youngest rope maker.",
        "answer": "with the birthday of the youngest rope maker",
        "question": "How does the blue safe in the harbour office open?",
    },
)


class Needle(NamedTuple):
    """Token ids of a ``sentence``, the span of it that is the answer, and the ``question``; equal ``name`` means equal text."""

    name: int
    sentence: tuple[int, ...]
    answer_span: Span
    question: tuple[int, ...]

    @property
    def answer(self) -> tuple[int, ...]:
        return self.sentence[slice(*self.answer_span)]


@dataclass(frozen=True)
class Trial:
    """A prompt that contains its answer word for word.

    ``tokens`` end right before the answer; ``span`` is the answer inside them, ``context`` the part in which it could be; the
    first ``n_shared_prefix`` tokens are those of the haystack. ``rivals`` are tokens of the context other than the answer.
    ``depth`` is in percent. Trials of one ``needle`` share its text.
    """

    tokens: tuple[int, ...]
    span: Span
    context: Span
    answer: tuple[int, ...]
    rivals: frozenset[int]
    n_shared_prefix: int
    needle: int
    length: int
    depth: int


class Grid(NamedTuple):
    """Trials, the token ids they begin with, and the kind of needles."""

    trials: list[Trial]
    prefix: tuple[int, ...]
    kind: str


def hide_needles(
    model: Model, needles: str, haystack: str, lengths: tuple[int, int, int], n_depths: int, n_needles: int, seed: int
) -> Grid:
    """``n_needles`` prompts for each length and depth.

    ``needles`` is a kind, ``auto`` (the first kind the tokenizer covers) or a JSONL file; ``haystack`` a text file or ''.
    ``lengths`` are the shortest and longest prompt in tokens (0: the context) and how many lengths. Raises ValueError for a
    needle that cannot be located in its sentence or exceeds the context, and for unknown kinds and words.
    """
    shortest, longest, n_lengths = lengths
    if min(shortest, n_lengths, n_depths, n_needles) < 1:
        raise ValueError(
            f"shortest={shortest}, n_lengths={n_lengths}, n_depths={n_depths}, n_needles={n_needles}: each must be at least 1."
        )
    rng = Random(f"needles/{seed}")
    kind = _kind(model) if needles == "auto" else needles
    pool = _regular_tokens(model)
    rng.shuffle(pool)
    n_trials = n_lengths * n_depths * n_needles
    hidden = [*_needles(model, kind, pool[: len(pool) // 2], n_trials, n_needles, rng)]
    start = (model.facts.bos_token_id,) if model.facts.prepend_bos and model.facts.bos_token_id is not None else ()
    least = len(start) + max(len(n.sentence) + len(n.question) for n in hidden)
    most = min(model.facts.max_length or LONGEST, longest or LONGEST) - max(len(n.answer) for n in hidden)
    if least > most:
        raise ValueError(
            f"The longest needle has {least} tokens with its question, but only {max(most, 0)} fit besides its answer: use "
            f"shorter needles, a larger longest, or a model with a longer context than {model.facts.name}."
        )
    sizes = np.unique(np.linspace(max(least, min(shortest, most // 2)), most, n_lengths).round().astype(int)).tolist()
    depths = np.linspace(0, 100, n_depths).round().astype(int).tolist()
    if kind == "repeats":
        hay = Haystack(tuple(rng.choices(pool[len(pool) // 2 :], k=most)), tuple(range(most + 1)))  # a sentence each
    else:
        hay = read_haystack(model, haystack, most) if haystack else filler(model, most, rng)
    cells = [(size, depth) for size in sizes for depth in depths for _ in range(n_needles)]
    trials = [_hide(hay, start, needle, size, depth) for needle, (size, depth) in zip(hidden, cells, strict=False)]
    return Grid(trials, (*start, *hay.tokens), kind)


def trials_from_prompts(model: Model, examples: Sequence[Example], mark: str) -> list[Trial]:
    """Prompts of a task as trials; the first answer of each must be a token of the span called ``mark``.

    The context ends before the mark ``question``, if there is one. Rivals are the answers of other prompts that the context
    contains, or else all of its tokens. Raises ValueError for a missing mark, an answer outside of it or of several tokens.
    """
    check_single_tokens(examples, "Detectors of retrieval")
    trials, answers = [], {example.answers[0] for example in examples}
    for i, example in enumerate(examples):
        if mark not in example.marks:
            raise ValueError(f"Prompt {i} has no mark {mark!r}. It has: {', '.join(example.marks) or 'none'}.")
        tokens, answer, (first, last) = example.clean, example.answers[0], example.marks[mark]
        if answer not in tokens[first:last]:
            raise ValueError(
                f"The answer token of prompt {i} is not in its {mark!r} span: mark the text that it is copied from."
            )
        at = tokens.index(answer, first)
        start, end = int(model.facts.prepend_bos), example.marks.get("question", (len(tokens) - 1,))[0]
        others = frozenset(tokens[start:end]) - {answer}
        depth = 10 * round(10 * (at - start) / max(end - 1 - start, 1))
        rivals = others & answers or others
        trials.append(Trial(tokens, (at, at + 1), (start, end), (answer,), rivals, 0, i, len(tokens), depth))
    return trials


def _hide(hay: Haystack, start: tuple[int, ...], needle: Needle, length: int, depth: int) -> Trial:
    room = length - len(start) - len(needle.sentence) - len(needle.question)
    at = hay.insertion(room, depth)
    shared = (*start, *hay.tokens[:at])
    tokens = (*shared, *needle.sentence, *hay.tokens[at:room], *needle.question)
    span = (len(shared) + needle.answer_span[0], len(shared) + needle.answer_span[1])
    context = (len(start), len(tokens) - len(needle.question))
    rivals = frozenset(tokens[slice(*context)]) - set(needle.answer)
    return Trial(tokens, span, context, needle.answer, rivals, len(shared), needle.name, length, depth)


def _kind(model: Model) -> str:
    """The first kind whose words the tokenizer covers."""
    if model.tokenizer is None:
        return "repeats"
    forms = [form.format(name=SECRET_NAMES[0], word="") for form in (*NEEDLE_TEMPLATES, *NEEDLE_QUESTIONS)]
    words = {"texts": [text for needle in TEXTS for text in needle.values()], "secrets": [*SECRETS, *SECRET_NAMES, *forms]}
    return next((kind for kind, texts in words.items() if not unknown_words(model, " ".join(texts))), "repeats")


def _needles(model: Model, kind: str, pool: list[int], n_trials: int, n_needles: int, rng: Random) -> Iterator[Needle]:
    """The needle of each trial; the first ``n_needles`` of ``texts`` or of a file alternate."""
    if kind == "repeats":
        size = min(REPEATED, len(pool))
        if size < 2:
            raise ValueError(f"{model.facts.name} has {size} ordinary tokens, too few to repeat: use another kind of needles.")
        for i in range(n_trials):
            tokens = tuple(rng.sample(pool, size))
            yield Needle(i, tokens, (1, size), tokens[:1])
    elif kind == "secrets":
        for i in range(n_trials):
            name, word = rng.choice(SECRET_NAMES), rng.choice(SECRETS)
            form, question = rng.choice(NEEDLE_TEMPLATES), rng.choice(NEEDLE_QUESTIONS)
            yield _tokenize(model, i, form.format(name=name, word=word), word, " " + question.format(name=name))
    else:
        known = TEXTS if kind == "texts" else _read(kind)
        if n_needles > len(known):
            raise ValueError(f"n_needles={n_needles} is more than the {len(known)} needles available: use fewer.")
        tokenized = [
            _tokenize(model, i, n["needle"], n["answer"], QUESTION.format(question=n["question"]))
            for i, n in enumerate(known[:n_needles])
        ]
        yield from islice(cycle(tokenized), n_trials)


def _tokenize(model: Model, name: int, sentence: str, answer: str, question: str) -> Needle:
    """A needle as token ids. Raises ValueError if the answer is not a run of whole tokens of the sentence."""
    unknown = unknown_words(model, sentence + question)
    if unknown:
        raise ValueError(f"{model.facts.name} does not know {', '.join(map(repr, unknown))}: use another needle.")
    text, before = f"{BEFORE} {sentence}", model.to_tokens_without_special(BEFORE)
    ids, at = model.to_tokens_without_special(text), text.rfind(answer)
    if at > len(BEFORE) and ids[: len(before)] == before:
        span = token_spans(model, text, {"answer": (at, at + len(answer))}, len(ids))["answer"]
        ids, (first, last) = ids[len(before) :], (i - len(before) for i in span)
        if "".join(model.to_string(ids[first:last]).split()) == "".join(answer.split()):
            return Needle(name, tuple(ids), (first, last), tuple(model.to_tokens_without_special(question)))
    raise ValueError(
        f"The answer {answer!r} is not a run of whole tokens in the needle {sentence!r} for {model.facts.name}: use a part of the needle "
        f"that begins and ends at word boundaries."
    )


def _read(path: str) -> list[dict[str, str]]:
    """The needles of a JSONL file. Raises ValueError for an unknown kind and, with the line number, for an invalid line."""
    if not path.endswith(".jsonl"):
        raise ValueError(f"needles={path!r} is unknown. Use auto, {', '.join(KINDS)} or the path of a .jsonl file.")
    needles = []
    for i, line in enumerate(user_path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                needles.append({key: str(json.loads(line)[key]) for key in ("needle", "answer", "question")})
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{path}, line {i}: expected {{"needle": ..., "answer": ..., "question": ...}}.') from error
    if not needles:
        raise ValueError(f"{path} contains no needle: write one JSON object per line.")
    return needles


def _regular_tokens(model: Model) -> list[int]:
    special = set(model.tokenizer.all_special_ids) if model.tokenizer is not None else {model.facts.bos_token_id}
    return [i for i in range(model.facts.d_vocab) if i not in special]
