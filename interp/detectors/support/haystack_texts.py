"""Haystacks for needles: the token ids of a text and where its sentences end."""

import re
from bisect import bisect_right
from dataclasses import dataclass
from random import Random

from interp.files import user_path
from interp.models.model import Model
from interp.tasks.tokenise import offsets, unknown_words
from interp.tasks.words_and_templates import ADJECTIVES, ANIMALS, FILLER_TEMPLATES, NAMES, OBJECTS, PLACES, PRONOUNS, VERBS

FILLER_NAMES, SECRET_NAMES = NAMES[:40], NAMES[40:]
"""Names that may occur in the filler, and names that only needles use."""

LONGEST_TOKEN = 16  # characters; a generous average that limits how much of a long file is tokenized


@dataclass(frozen=True)
class Haystack:
    """Token ids, and the numbers of tokens after which a sentence ends, ascending from 0."""

    tokens: tuple[int, ...]
    ends: tuple[int, ...]

    def insertion(self, n: int, depth: int) -> int:
        """Where a needle goes into the first ``n`` tokens: at ``depth`` percent, moved back to the end of a sentence."""
        return n if depth == 100 else self.ends[bisect_right(self.ends, int(n * depth / 100)) - 1]


def read_haystack(model: Model, path: str, n: int) -> Haystack:
    """The first ``n`` tokens of a text file. Raises ValueError if it has fewer, or words the model does not know."""
    text = user_path(path).read_text(encoding="utf-8")
    hay = of_text(model, text[: LONGEST_TOKEN * n], n)
    if len(hay.tokens) < n:
        raise ValueError(f"{path} has {len(hay.tokens)} tokens, and {n} are needed: use a longer text or a smaller longest.")
    return hay


def filler(model: Model, n: int, rng: Random) -> Haystack:
    """``n`` tokens of uninformative sentences."""
    sentences = [_sentence(rng) for _ in range(n // 4 + 1)]  # the shortest has 5 words and a full stop
    return of_text(model, " ".join(sentences), n)


def of_text(model: Model, text: str, n: int) -> Haystack:
    """The first ``n`` tokens of a text; a sentence ends with a full stop, question or exclamation mark before white space."""
    unknown = unknown_words(model, text)
    if unknown:
        raise ValueError(f"{model.facts.name} does not know {', '.join(map(repr, unknown[:5]))}: use another haystack.")
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
