"""What needles are hidden in: a text as token ids, and the places where one of its sentences ends."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from random import Random

from interp.models.model import Model
from interp.tasks.tokenise import offsets, unknown_words
from interp.tasks.words import ADJECTIVES, ANIMALS, FILLER_TEMPLATES, NAMES, OBJECTS, PLACES, PRONOUNS, VERBS

FILLER_NAMES, SECRET_NAMES = NAMES[:40], NAMES[40:]
"""Who may be mentioned in the filler, and who is only asked for."""

LONGEST_TOKEN = 16  # characters, on average and with room to spare: no more of a long file is cut into tokens


@dataclass(frozen=True)
class Haystack:
    """Token ids, and after how many of them a sentence ends, ascending; 0 counts as an end."""

    tokens: tuple[int, ...]
    ends: tuple[int, ...]

    def place(self, n: int, depth: int) -> int:
        """After how many tokens a needle goes into the first ``n``: at ``depth`` percent, moved back to the end of a sentence."""
        return n if depth == 100 else self.ends[bisect_right(self.ends, int(n * depth / 100)) - 1]


def read_haystack(model: Model, path: str, n: int) -> Haystack:
    """The first ``n`` tokens of a text file. Raises ValueError where it has fewer, or words that the model does not know."""
    text = Path(path).read_text(encoding="utf-8")
    found = of_text(model, text[: LONGEST_TOKEN * n], n)
    if len(found.tokens) < n:
        raise ValueError(
            f"{path} has {len(found.tokens)} tokens, and {n} are needed: give a longer text, or a smaller longest=."
        )
    return found


def filler(model: Model, n: int, rng: Random) -> Haystack:
    """``n`` tokens of sentences without information."""
    sentences = [_sentence(rng) for _ in range(n // 4 + 1)]  # the shortest has 5 words and a full stop
    return of_text(model, " ".join(sentences), n)


def random_tokens(pool: list[int], n: int, rng: Random) -> Haystack:
    """``n`` random ids of ``pool``, each a sentence of its own."""
    return Haystack(tuple(rng.choices(pool, k=n)), tuple(range(n + 1)))


def of_text(model: Model, text: str, n: int) -> Haystack:
    """The first ``n`` tokens of a text; a sentence ends with a full stop, question or exclamation mark before white space."""
    unknown = unknown_words(model, text)
    if unknown:
        raise ValueError(f"{model.facts.name} does not know {', '.join(map(repr, unknown[:5]))}: take another haystack.")
    stops = {match.start() for match in re.finditer(r"(?<=[.?!])(?=\s|$)", text)}
    pieces = offsets(model, text)[:n]
    ends = [i + 1 for i, (_, (_, end)) in enumerate(pieces) if end in stops]
    return Haystack(tuple(token for token, _ in pieces), (0, *ends))


def _sentence(rng: Random) -> str:
    lists = {"place": PLACES, "object": OBJECTS, "verb": VERBS, "pronoun": PRONOUNS, "name": FILLER_NAMES}
    drawn = {slot: rng.choice(words) for slot, words in lists.items()}
    drawn["animal"], drawn["animal2"] = rng.sample(ANIMALS, 2)
    drawn["adjective"], drawn["adjective2"] = rng.sample(ADJECTIVES, 2)
    return rng.choice(FILLER_TEMPLATES).format(**drawn)
