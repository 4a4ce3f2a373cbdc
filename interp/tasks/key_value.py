"""Key-value retrieval: pairs of random words, then one key again.

    tin: horn; lamp: ice; wave: salt; lamp:        -> ice (not salt)

In the corrupted prompt the asked key and another one have traded places, so that the other one's value, the distractor, should
follow. The first pair is never asked for: GPT-2 has other tokens for a word that begins a text.
"""

from collections.abc import Iterator
from random import Random

from interp.tasks import Prompt, WordFilter, mark, read_marks, task_definition
from interp.tasks.words_and_templates import KEY_VALUE_TEMPLATE, WORDS


@task_definition(metric="logit_diff", marks=("key", "value", "query"), paper="Liu et al. 2023, arXiv 2307.03172")
def key_value(rng: Random, usable: WordFilter, n_pairs: int = 8) -> Iterator[Prompt]:
    """The value that was given for a key (random words)."""
    if n_pairs < 3:
        raise ValueError(f"n_pairs={n_pairs} is too few: give at least 3 (the first one is never asked for).")
    pool = usable(WORDS, 2 * n_pairs)

    def text(pairs: list[tuple[str, str]], key: str) -> str:
        listed = [KEY_VALUE_TEMPLATE.format(key=k, value=v) for k, v in pairs]
        return " ".join([*listed, f"{mark('query', key)}:"])

    while True:
        words = rng.sample(pool, 2 * n_pairs)
        pairs = list(zip(words[:n_pairs], words[n_pairs:], strict=True))
        target, other = rng.sample(range(1, n_pairs), 2)
        (key, value), (foil_key, foil) = pairs[target], pairs[other]
        swapped = pairs.copy()
        swapped[target], swapped[other] = (foil_key, value), (key, foil)
        pairs[target] = (mark("key", key), mark("value", value))
        clean, marks = read_marks(text(pairs, key))
        yield Prompt(clean, read_marks(text(swapped, key))[0], (value,), (foil,), marks)
