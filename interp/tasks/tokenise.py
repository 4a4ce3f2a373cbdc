"""From text to token ids: the only place where a task meets a tokenizer.

An answer is one token that follows the prompt, or the only answer of several tokens. A space is put between them, except
between two digits ("to the year 17" and "32"), and where the prompt ends or the answer begins with white space. Where the
spaced form is not one token and the prompt does not end in a letter or digit of the Latin script, the form without a space is
tried ('He said "' and 'Yes'; scripts that write no spaces).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from interp.models.chat_template import chat_parts
from interp.models.embedded import PLANTED
from interp.models.model import Model
from interp.tasks.task import END, Example, Prompt, Span

PLANTED_ADVICE = (
    "A planted model knows words of its own and comes with prompts in them: planted = interp.models.plant(...) has planted.prompts('ioi'), "
    "each of which interp.tasks.Example(*prompt) makes an example; or write --prompts in its words (name0, word0 ...)."
)
MADE_UP = "qomvashtor"
"""A word that nobody uses: a vocabulary of pieces cuts it."""

_SINGLE: WeakKeyDictionary[Any, dict[tuple[str, str], bool]] = WeakKeyDictionary()


class WordFilter:
    """Keeps the words that a task can use with one model: those that are a single known token. ``verdicts`` says of every word that the
    task asked for whether it was kept wherever it was asked for."""

    def __init__(self, model: Model, task: str) -> None:
        model.facts.check_causal(f"Task {task!r}")
        self.model, self.task = model, task
        self.verdicts: dict[str, bool] = {}

    def __call__(self, words: Iterable[str], at_least: int = 2, *, after: str = "The") -> list[str]:
        """The words that add exactly one known token to the text ``after``, in order (``after=""``: at the start of a text).
        Raises ValueError when fewer than ``at_least`` remain."""
        words = list(words)
        kept = self.single(words, after=after)
        self.verdicts |= {word: self.verdicts.get(word, True) and word in kept for word in words}
        if len(kept) < at_least:
            shown = ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")
            needed = f"{at_least} words that are single tokens of {self.model.facts.name} after {after!r}"
            found = f"found {len(kept)} among {len(words)} ({shown})"
            advice = PLANTED_ADVICE if self.model.facts.name.startswith(PLANTED) else "Use another task or another model."
            raise ValueError(f"Task {self.task!r} needs at least {needed}, and {found}. {advice}")
        return kept

    def single(self, words: Iterable[str], *, after: str = "The") -> list[str]:
        """As calling it, for words that the task can do without: none of them is counted or missed. Verdicts are remembered for as long
        as the tokenizer lives."""
        words = list(words)
        self.model.to_tokens_without_special("")  # says so if there is no tokenizer
        known = _SINGLE.setdefault(self.model.tokenizer, {})
        new = [word for word in words if (after, word) not in known]
        for word, pieces in zip(new, continuations(self.model, after, new), strict=True):
            known[after, word] = pieces is not None and len(pieces) == 1 and not _is_unknown(self.model, word, pieces)
        return [word for word in words if known[after, word]]

    @cached_property
    def whole_words(self) -> bool:
        """Whether the vocabulary is one of whole words, such as that of `interp-mini`, to which a made-up word is unknown."""
        return bool(unknown_pieces(self.model, MADE_UP))


def to_example(model: Model, prompt: Prompt, *, chat: bool = False) -> Example:
    """The prompt as token ids, with marks as half-open token spans. ``chat``: the clean and the corrupted prompt are each the
    user's message in the model's chat template, and the answer begins its reply. Of an encoder, which answers nothing, only the
    clean prompt is read, and the answer is a placeholder. Raises ValueError for a word that the vocabulary lacks, a prompt that
    is too long, an answer of several tokens beside others or distractors, a distractor that is not one token, a mark without
    tokens, clean and corrupted prompts of different lengths, and with ``chat`` as ``chat_parts``."""
    prompt = _in_chat(model, prompt) if chat else prompt
    if not model.facts.causal:
        text = tuple(check(model, prompt.clean))
        return Example(text, text, (0,), (), token_spans(model, prompt.clean, prompt.marks, len(text)), prompt.cluster)
    clean, corrupted = (check(model, text, complete=chat) for text in (prompt.clean, prompt.corrupted))
    if len(clean) != len(corrupted):
        pieces = " and ".join("|".join(model.to_str_tokens(ids)) for ids in (clean, corrupted))
        lengths = f"The clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}"
        raise ValueError(f"{lengths}: {pieces}. Make them equal, position by position.")
    if (forced := answer_tokens(model, prompt)) is not None:
        return _with_forced_answer(model, prompt, clean, corrupted, forced)
    answers, distractors = (next_ids(model, prompt.clean, words) for words in (prompt.answers, prompt.distractors))
    both = [word for word, i in zip(prompt.answers, answers, strict=True) if i in distractors]
    if both:
        raise ValueError(f"{both[0]!r} is both an answer and a distractor.")
    marks = token_spans(model, prompt.clean, prompt.marks, len(clean))
    return Example(tuple(clean), tuple(corrupted), tuple(answers), tuple(distractors), marks, prompt.cluster)


def answer_tokens(model: Model, prompt: Prompt) -> list[int] | None:
    """The ids that an answer of several tokens adds to the prompt; None where each answer is one token, or none at all. Raises ValueError
    for such an answer beside others or beside distractors."""
    found = continuations(model, prompt.clean, prompt.answers)
    for word, pieces in zip(prompt.answers, found, strict=True):
        if pieces is None or len(pieces) < 2 or not word.strip() or _is_unknown(model, word, pieces):
            continue
        if len(prompt.answers) > 1 or prompt.distractors:
            shown = ", ".join(map(repr, model.to_str_tokens(pieces)))
            raise ValueError(
                f"{word!r} is {len(pieces)} tokens of {model.facts.name} ({shown}) after {f'...{prompt.clean[-30:]}'!r}; such an "
                f"answer must be the only one, without a distractor: leave these out, or use another word."
            )
        return pieces
    return None


def _with_forced_answer(model: Model, prompt: Prompt, clean: list[int], corrupted: list[int], answer: list[int]) -> Example:
    """The example of an answer of several tokens, which follow both prompts but for the last."""
    length, n_forced, limit = len(clean), len(answer) - 1, model.facts.max_length
    if limit is not None and length + n_forced > limit:
        raise ValueError(
            f"Prompt and answer have {length + n_forced + 1} tokens, of which {model.facts.name} reads {limit}: shorten them."
        )
    marks = token_spans(model, prompt.clean, prompt.marks, length) | {END: (length - 1, length + n_forced)}
    forced = answer[:-1]
    return Example((*clean, *forced), (*corrupted, *forced), (answer[-1],), (), marks, prompt.cluster)


def check(model: Model, text: str, *, complete: bool = False) -> list[int]:
    """Token ids of a prompt; a ``complete`` one holds its special tokens already. ValueError for unknown words, a start token that would be
    doubled, or more tokens than the model takes."""
    ids = model.to_tokens_without_special(text) if complete else model.to_tokens(text)
    facts, tokenizer = model.facts, model.tokenizer
    unknown = unknown_words(model, text)
    if unknown:
        raise ValueError(f"{facts.name} does not know {', '.join(map(repr, unknown))}: use other words, or another model.")
    if not complete and facts.prepend_bos and tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        raise ValueError(f"The prompt begins with {tokenizer.bos_token}, which {facts.name} adds by itself: leave it out.")
    if facts.max_length is not None and len(ids) > facts.max_length:
        raise ValueError(f"The prompt has {len(ids)} tokens, {facts.name} takes at most {facts.max_length}: shorten it.")
    return ids


def unknown_words(model: Model, text: str) -> list[str]:
    """The pieces of the text that the tokenizer replaces by its unknown token, each once."""
    # A tokenizer may use its end-of-text token as the unknown one; written out by the user it is what it says.
    return list(dict.fromkeys(piece for piece in unknown_pieces(model, text) if piece != model.tokenizer.unk_token))


def unknown_pieces(model: Model, text: str) -> list[str]:
    """The pieces of the text that the tokenizer replaces by its unknown token, in order."""
    tokenizer = model.tokenizer
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id not in model.to_tokens_without_special(text):
        return []
    return [text[start:end].strip() for i, (start, end) in offsets(model, text) if i == tokenizer.unk_token_id]


def next_ids(model: Model, prompt: str, words: Sequence[str]) -> list[int]:
    """For each word the id of the one token that it adds to the prompt. ValueError for a word that adds none or several."""
    found = []
    for word, pieces in zip(words, continuations(model, prompt, words), strict=True):
        if pieces is None or len(pieces) != 1 or _is_unknown(model, word, pieces):
            raise ValueError(_not_one_token(model, prompt, word, pieces))
        found.append(pieces[0])
    return found


def continuations(model: Model, prompt: str, words: Sequence[str]) -> list[list[int] | None]:
    """For each word the ids that it adds to the prompt; None where appending it changes the prompt's own tokens."""
    ids = model.to_tokens_without_special(prompt) if prompt else []

    def added(texts: list[str]) -> list[list[int] | None]:
        longer = model.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [list(row[len(ids) :]) if list(row[: len(ids)]) == ids else None for row in longer]

    found = added([_continued(prompt, word) for word in words])
    if prompt and not prompt[-1].isspace() and not (prompt[-1].isascii() and prompt[-1].isalnum()):
        missed = [i for i, pieces in enumerate(found) if pieces is None or len(pieces) != 1]
        for i, pieces in zip(missed, added([prompt + words[i] for i in missed]), strict=True):
            found[i] = pieces if pieces is not None and len(pieces) == 1 else found[i]
    return found


def token_spans(model: Model, text: str, marks: dict[str, Span], length: int) -> dict[str, Span]:
    """Half-open token spans of character spans, in a prompt of ``length`` tokens (special tokens included)."""
    if not marks:
        return {}
    places = [span for _, span in offsets(model, text)]
    shift = length - len(places)
    found = {}
    for name, (start, end) in marks.items():
        inside = [i for i, (a, b) in enumerate(places) if a < end and b > start]
        if not inside:
            raise ValueError(f"Mark {name!r} ({start}:{end} in the text, {text[start:end]!r}) holds no token.")
        found[name] = (inside[0] + shift, inside[-1] + 1 + shift)
    return found


def offsets(model: Model, text: str) -> list[tuple[int, Span]]:
    """Each token's id and character span, without a start token; for an encoder with its special tokens, whose span is empty."""
    if not getattr(model.tokenizer, "is_fast", False):
        raise ValueError(f"The tokenizer of {model.facts.name} does not say where tokens lie in a text: load its fast version.")
    special = not model.facts.causal
    encoding = model.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return list(zip(encoding["input_ids"], encoding["offset_mapping"], strict=True))


def _in_chat(model: Model, prompt: Prompt) -> Prompt:
    """The prompt in the model's chat template; marks keep their words, of which the template may remove white space at the ends."""
    before, message, after = chat_parts(model, prompt.clean)
    start, end = len(before), len(before) + len(message)
    shift = start - prompt.clean.index(message)
    marks = {name: (max(a + shift, start), min(b + shift, end)) for name, (a, b) in prompt.marks.items()}
    corrupted = "".join(chat_parts(model, prompt.corrupted))
    return replace(prompt, clean=f"{before}{message}{after}", corrupted=corrupted, marks=marks)


def _continued(prompt: str, word: str) -> str:
    """The prompt with the word after it; a space that is there already is never doubled."""
    if prompt.endswith(" "):
        return prompt + word.lstrip(" ")
    joined = not prompt or prompt[-1].isspace() or word[:1].isspace() or (prompt[-1].isdigit() and word[:1].isdigit())
    return f"{prompt}{word}" if joined else f"{prompt} {word}"


def _is_unknown(model: Model, word: str, pieces: list[int]) -> bool:
    return model.tokenizer.unk_token_id in pieces and word.strip() != model.tokenizer.unk_token


def _not_one_token(model: Model, prompt: str, word: str, pieces: list[int] | None) -> str:
    name, tail = model.facts.name, repr(f"...{prompt[-30:]}")
    if not word.strip():
        return "An answer or distractor is empty: give one word."
    if pieces and _is_unknown(model, word, pieces):
        unknown = unknown_words(model, word) or [word]
        return f"{name} does not know {', '.join(map(repr, unknown))}: use another word, or another model."
    if pieces is None:
        apart = f"If they are meant to stand apart, write {' ' + word!r}."
        hint = "Remove the space at its end." if prompt[-1].isspace() else apart
        return f"Appending {word!r} changes the last tokens of the prompt {tail}. {hint}"
    shown = ", ".join(map(repr, model.to_str_tokens(pieces)))
    return f"{word!r} is {len(pieces)} tokens of {name} ({shown}) after {tail}; an answer or distractor must be one: use another word."
