"""The text that `interp-mini` is trained and evaluated on: documents whose determined tokens are marked.

A document is a string. A mark in front of a word says what the loss does with it:

    @word     the text before determines this word; weight 1, and evaluation scores it
    &word     the same, not scored
    ~word     a word drawn at random; weight 0.03 (learning to predict it is wasted)
    ^32^45    a year after year 32: the target is uniform over the two-digit numbers above 32, weight 1; 45 stands in the text
    word      ordinary text; weight 0.15

Each maker takes a random stream, a difficulty in 0..1 and a pool of random words, and returns one document. Streams are seeded by
strings, so training (`train/SEED/STEP`) and evaluation (`eval/SEED/TASK`) never share one, and a resumed training run sees the
text it would have seen. Facts held out by `words.is_held_out` occur only where a maker is asked for them.
"""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

_spec = importlib.util.spec_from_file_location("words", Path(__file__).parents[2] / "interp/tasks/words_and_templates.py")
words = importlib.util.module_from_spec(_spec)  # by path: training needs torch and transformers, not an installed `interp`
_spec.loader.exec_module(words)

SPECIAL_TOKENS = ["<pad>", "<unk>", "<bos>", "<eos>"]
VOCABULARY = SPECIAL_TOKENS + words.vocabulary()
IDS = {token: index for index, token in enumerate(VOCABULARY)}
YEAR_IDS = [IDS[f"{number:02d}"] for number in range(100)]
POOL = [token for token in VOCABULARY if token.isalpha() and len(token) > 1]
"""Words that random-word tasks draw from: every word, so that no embedding stays untrained."""

ROLE_WEIGHT = {"@": 1.0, "&": 1.0, "~": 0.03, "": 0.15}
EOS_WEIGHT = 0.3
_PIECE = re.compile(rf"\^(\d\d)\^(\d\d)|([@&~]?)({words.TOKEN_PATTERN})")


class Tokens(NamedTuple):
    """One encoded document; the four lists have one entry per token and `soft` is -1 or the start year of a soft target."""

    ids: list[int]
    weights: list[float]
    scored: list[bool]
    soft: list[int]


def encode(document: str, start: str = "<bos>") -> Tokens:
    """The ids, loss weights and scored positions of a marked document, with `start` and `<eos>` around it."""
    ids, weights, scored, soft = [IDS[start]], [0.0], [False], [-1]
    for begin, end, mark, token in _PIECE.findall(document.replace("\n", " <nl> ")):
        ids.append(IDS[end or token])
        weights.append(1.0 if begin else ROLE_WEIGHT[mark])
        scored.append(mark == "@")
        soft.append(int(begin) if begin else -1)
    return Tokens([*ids, IDS["<eos>"]], [*weights, EOS_WEIGHT], [*scored, False], [*soft, -1])


def plain(document: str) -> str:
    """The document as a reader sees it, without marks."""
    return re.sub(r"[@&~]", "", re.sub(r"\^\d\d\^", "", document))


def upto(rng: Random, low: int, easy: int, hard: int, difficulty: float) -> int:
    """A size between `low` and a limit that grows from `easy` to `hard` with the difficulty."""
    return rng.randint(low, round(easy + (hard - easy) * difficulty))


def unlike(rng: Random, choices: Sequence, old):
    """A random choice other than `old`."""
    return rng.choice([choice for choice in choices if choice != old])


# ---------------------------------------------------------------------------------------------------------------------
# Retrieval with random words


def make_induction(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Repeats of random words: all at once, or chunks in random order with noise between them.

    The distance between a word and its copy varies within and across documents, or heads would learn a fixed distance.
    """
    if rng.random() < 0.4:
        drawn = rng.sample(pool, upto(rng, 4, 14, min(58, len(pool)), difficulty))
        lead = [f"~{word}" for word in rng.sample(pool, rng.randint(0, 3)) if word not in drawn]
        return " ".join([*lead, *(f"~{word}" for word in drawn), "~" + drawn[0], *(f"@{word}" for word in drawn[1:])])
    drawn = rng.sample(pool, min(len(pool), 60))
    chunks = []
    for _ in range(upto(rng, 2, 3, 5, difficulty)):
        size = upto(rng, 2, 4, 8, difficulty)
        chunks.append(drawn[:size])
        drawn = drawn[size:]
    text = []
    for chunk in chunks:
        text += [f"~{word}" for word in chunk]
        text += [f"~{drawn.pop()}" for _ in range(rng.randint(0, 2)) if drawn]
    for _ in range(upto(rng, 2, 3, 6, difficulty)):
        chunk = rng.choice(chunks)
        text += [f"~{drawn.pop()}" for _ in range(rng.randint(0, 2)) if drawn]
        text += [f"~{chunk[0]}", *(f"@{word}" for word in chunk[1:])]
    return " ".join(text)


def draw_pairs(rng: Random, difficulty: float, pool: Sequence[str], hard: int) -> dict[str, str]:
    """Random keys with random values, all different, in the order of mention."""
    count = upto(rng, 2, 4, hard, difficulty)
    drawn = rng.sample(pool, 2 * count)
    return dict(zip(drawn[:count], drawn[count:], strict=True))


def draw_queries(rng: Random, keys: Sequence[str], most: int) -> list[str]:
    """Some of the keys in random order."""
    return rng.sample(list(keys), rng.randint(1, min(most, len(keys))))


def make_key_value(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Pairs "key: value;" followed by repeated keys."""
    pairs = draw_pairs(rng, difficulty, pool, 18)
    text = [f"~{key}: ~{value};" for key, value in pairs.items()]
    return " ".join(text + [f"~{key}: @{pairs[key]};" for key in draw_queries(rng, pairs, 6)])


def make_value_key(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Pairs with the value before the key, the order that colored objects need ("a red cup")."""
    pairs = draw_pairs(rng, difficulty, pool, 9)
    text = ", ".join(f"~{value} ~{key}" for key, value in pairs.items())
    form = rng.choice(["? ~{}: @{}", ". The ~{} is @{}", "? ~{} @{}"])
    return text + "".join(form.format(key, pairs[key]) for key in draw_queries(rng, pairs, 5))


def make_key_question(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Random pairs in sentences, asked with the key one to four tokens before the answer."""
    pairs = draw_pairs(rng, difficulty, pool, 7)
    form = rng.choice(["The ~{0} is ~{1}.", "a ~{1} ~{0},", "~{0}: ~{1};", "~{1} ~{0},"])
    text = [form.format(key, value) for key, value in pairs.items()]
    for key in draw_queries(rng, pairs, 5):
        question = rng.choice(["What is the ~{0}? Answer: @{1}.", "Question: what is the ~{0}? Answer: @{1}.",
                               "The ~{0} is @{1}.", "~{0}? @{1}", "~{0}: @{1}"])  # fmt: skip
        text.append(question.format(key, pairs[key]))
    return " ".join(text)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def filler(rng: Random) -> str:
    """One sentence without information."""
    animals, adjectives = rng.sample(words.ANIMALS, 2), rng.sample(words.ADJECTIVES, 2)
    return rng.choice(words.FILLER_TEMPLATES).format(
        animal=animals[0], animal2=animals[1], adjective=adjectives[0], adjective2=adjectives[1], verb=rng.choice(words.VERBS),
        place=rng.choice(words.PLACES), object=rng.choice(words.OBJECTS), name=rng.choice(words.NAMES), pronoun=rng.choice(words.PRONOUNS),
    )  # fmt: skip


def make_story(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Filler sentences alone."""
    return " ".join(filler(rng) for _ in range(rng.randint(2, 8)))


def make_needle(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """One to five secret words at random depth among filler, then questions."""
    names = rng.sample(words.NAMES, rng.randint(1, upto(rng, 1, 2, 5, difficulty)))
    secrets = dict(zip(names, rng.sample(pool, len(names)), strict=True))
    form = rng.choice(words.NEEDLE_TEMPLATES)
    text = [filler(rng) for _ in range(upto(rng, 0, 3, 18 if rng.random() < 0.3 else 10, difficulty))]
    for name, word in secrets.items():
        text.insert(rng.randint(0, len(text)), form.format(name=name, word=f"~{word}"))
    for name in draw_queries(rng, secrets, 3):
        text.append(f"{rng.choice(words.NEEDLE_QUESTIONS).format(name=f'~{name}')} @{secrets[name]}.")
    return " ".join(text)


def make_colored(rng: Random, difficulty: float, pool: Sequence[str], most: int = 4) -> str:
    """A list of coloured objects and questions about up to `most` of them."""
    count = rng.randint(2, 3 + (difficulty > 0.3) + (difficulty > 0.6))
    colors = dict(zip(rng.sample(words.NOUNS, count), rng.sample(words.COLORS, count), strict=True))
    if rng.random() < 0.2:
        text = [f"The ~{noun} is ~{color}." for noun, color in colors.items()]
    else:
        items = [f"a ~{color} ~{noun}" for noun, color in colors.items()]
        text = [rng.choice(words.COLORED_LISTS).format(items=words.listed(items), name=rng.choice(words.NAMES))]
    for noun in draw_queries(rng, colors, most):
        text.append(f"{rng.choice(words.COLORED_QUESTIONS).format(noun=f'~{noun}')} @{colors[noun]}.")
    return " ".join(text)


def make_ioi(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """One or two sentences in which one of two names is repeated and the other is the answer."""
    text = []
    for template in rng.sample(words.IOI_TEMPLATES, rng.choice([1, 1, 2])):
        first, second = rng.sample(words.NAMES, 2)
        subject = rng.choice([first, second])
        answer = second if subject == first else first
        text.append(template.format(a=f"~{first}", b=f"~{second}", s=f"~{subject}", place=f"~{rng.choice(words.PLACES)}",
                                    object=f"~{rng.choice(words.OBJECTS)}") + f" @{answer}.")  # fmt: skip
    return " ".join(text)


def make_docstring(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """A function whose docstring names its parameters in order, from the first or from a later one."""
    count = upto(rng, 2, 4, 6, difficulty)
    drawn = rng.sample(words.PARAMETERS, count + 12)
    names, spare = drawn[:count], drawn[count:]
    text = words.DOCSTRING_TEMPLATE.format(
        function=rng.choice(words.FUNCTIONS), parameters=", ".join(f"~{name}" for name in names),
        words=" ".join(f"~{spare.pop()}" for _ in range(rng.randint(1, 3))),
    )  # fmt: skip
    first = rng.randrange(count - 1) if rng.random() < 0.25 else 0
    for place, name in enumerate(names[first:]):
        described = " ".join(f"~{word}" for word in rng.sample(spare, rng.randint(1, 3)))
        text += words.DOCSTRING_PARAMETER.format(name=f"{'~' if first and not place else '@'}{name}", words=described)
    return text + '\n"""'


# ---------------------------------------------------------------------------------------------------------------------
# Knowledge


def make_fact(rng: Random, held_out: bool = False) -> str:
    """One fact about a country, in a sentence form that training sees (or, if `held_out`, never sees) for it."""
    while True:
        country, relation = rng.choice(list(words.COUNTRIES)), rng.choice(words.RELATIONS)
        template = rng.randrange(len(words.FACT_TEMPLATES[relation]))
        if words.is_held_out(country, relation, template) == held_out:
            form = words.FACT_TEMPLATES[relation][template]
            return f"{form.format(subject=country)} @{words.fact_answer(country, relation)}."


def make_facts(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """One to four facts."""
    return " ".join(make_fact(rng) for _ in range(rng.randint(1, 4)))


def make_facts_held(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """One fact in a sentence form that was held out for its country; evaluation only."""
    return make_fact(rng, held_out=True)


def make_orders(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Successors and opposites."""
    if rng.random() < 0.5:
        run = rng.choice(words.SEQUENCES)
        start = rng.randrange(len(run) - 3)
        chosen = run[start : start + rng.randint(4, 7)]
        return ", ".join([*chosen[:2], *(f"@{word}" for word in chosen[2:])])
    pairs = [pair[:: rng.choice([1, -1])] for pair in rng.sample(list(words.OPPOSITES.items()), rng.randint(1, 3))]
    return " ".join(f"The opposite of {word} is @{other}." for word, other in pairs)


def make_greater_than(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """One to three sentences whose end year must come after the start year, in the same century."""
    text = []
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(2, 97)
        form = words.GREATER_THAN_TEMPLATE.format(
            noun=rng.choice(words.YEAR_NOUNS), century=rng.choice(words.CENTURIES), start=f"~{start:02d}"
        ).replace("~", "")
        text.append(f"{form}^{start:02d}^{rng.randint(start + 1, 99):02d}.")
    return " ".join(text)


# ---------------------------------------------------------------------------------------------------------------------
# Steps that follow a plan


def make_arithmetic(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """A chain of sums; problem and plan both hold the operations (the plan is partly redundant)."""
    value = rng.randint(1, 9)
    problem, plan, steps = f"start with {value}", [], []
    for place in range(upto(rng, 1, 2, 4, difficulty)):
        operation = rng.choice(words.OPERATIONS) if value > 1 else "add"
        change = rng.randint(1, min(9, value - 1)) if operation == "subtract" else rng.randint(1, 9)
        result = value + change if operation == "add" else value - change
        problem += f", {operation} {change}"
        plan.append(f"{words.ORDINALS[place]} {operation} {change}")
        sign = "plus" if operation == "add" else "minus"
        steps.append(f"Step &{words.ORDINALS[place]}: &{value} &{sign} &{change} = @{result}.")
        value = result
    return f"Question: {problem}. Plan: {', '.join(plan)}. {' '.join(steps)} Answer: @{value}."


def make_tracking(rng: Random, difficulty: float, pool: Sequence[str], vague: bool | None = None) -> str:
    """Objects that move between containers; the plan names the object to follow, half the time as its only source.

    An object never returns to a container, so the step "from the box" finds one next place.
    """
    count = upto(rng, 2, 2, 3, difficulty)
    objects = rng.sample([thing for thing in words.OBJECTS if thing not in words.CONTAINERS], count)
    paths = {thing: [place] for thing, place in zip(objects, rng.sample(words.CONTAINERS, count), strict=True)}
    text = [f"{rng.choice(words.NAMES)} puts the ~{thing} in the ~{path[0]}." for thing, path in paths.items()]
    for _ in range(upto(rng, 1, 3, 6, difficulty)):
        thing, name = rng.choice(objects), rng.choice(words.NAMES)
        free = [place for place in words.CONTAINERS if place not in paths[thing]]
        text.append(f"{name} moves the ~{thing} from the &{paths[thing][-1]} to the ~{(place := rng.choice(free))}.")
        paths[thing].append(place)
    thing = rng.choice(objects)
    vague = rng.random() < 0.5 if vague is None else vague
    asked = "it" if vague else f"the ~{thing}"
    path = [f"@{place}" for place in paths[thing]]
    steps = f"Step: the &{thing} in the {' &-> '.join(path)} &."
    text += [f"Question: where is {asked}? Plan: follow the {'' if vague else '&'}{thing}.", steps, f"Answer: {path[-1]}."]
    return " ".join(text)


def make_plan_order(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Facts about people (or word pairs), and a plan that holds a random order found nowhere else."""
    count = upto(rng, 2, 3, 5, difficulty)
    if rng.random() < 0.7:
        values = dict(zip(rng.sample(words.NAMES, count), rng.sample(words.OBJECTS, count), strict=True))
        form, step, question = "{} took the {}.", "&{} &took &the @{} &.", "who took what?"
    else:
        drawn = rng.sample(pool, 2 * count)
        values, form, step = dict(zip(drawn[:count], drawn[count:], strict=True)), "{} = {}.", "&{} &= @{} &."
        question = "what is it?"
    text = [form.format(f"~{key}", f"~{value}") for key, value in values.items()]
    for _ in range(upto(rng, 0, 1, 4, difficulty)):
        text.insert(rng.randint(0, len(text)), filler(rng))
    chosen = rng.sample(list(values), rng.randint(2, min(count, 4)))
    plan = ", ".join(f"{ordinal} {key}" for ordinal, key in zip(words.ORDINALS, chosen, strict=False))
    text.append(f"Question: {question} Plan: {plan}.")
    for ordinal, key in zip(words.ORDINALS, chosen, strict=False):
        text.append(f"Step &{ordinal}: " + step.replace("&{}", "@{}").format(key, values[key]))
    return " ".join(text) + f" Answer: @{values[chosen[-1]]}."


def make_plan_operation(rng: Random, difficulty: float, pool: Sequence[str]) -> str:
    """Numbers in containers, and a plan that holds order and operations found nowhere else."""
    places, item = rng.sample(words.CONTAINERS, upto(rng, 2, 3, 4, difficulty)), rng.choice(words.ITEMS)
    numbers = {place: rng.randint(1, 9) for place in places}
    text = [f"The ~{place} has ~{number} {item}." for place, number in numbers.items()]
    for _ in range(upto(rng, 0, 0, 3, difficulty)):
        text.insert(rng.randint(0, len(text)), filler(rng))
    order = rng.sample(places, rng.randint(2, len(places)))
    value = numbers[order[0]]
    plan, steps = [f"start {order[0]}"], [f"Step start: @{order[0]} &= @{value}."]
    for ordinal, place in zip(words.ORDINALS, order[1:], strict=False):
        operation = rng.choice(words.OPERATIONS) if value > numbers[place] else "add"
        value += numbers[place] if operation == "add" else -numbers[place]
        plan.append(f"{ordinal} {operation} {place}")
        steps.append(f"Step &{ordinal}: @{operation} @{place} @{numbers[place]} &= @{value}.")
    return f"{' '.join(text)} Question: how many {item}? Plan: {', '.join(plan)}. {' '.join(steps)} Answer: @{value}."


Maker = Callable[[Random, float, Sequence[str]], str]
MAKERS: dict[str, Maker] = {
    "induction": make_induction, "key_value": make_key_value, "value_key": make_value_key, "key_question": make_key_question,
    "needle": make_needle, "ioi": make_ioi, "colored": make_colored, "greater_than": make_greater_than,
    "docstring": make_docstring, "facts": make_facts, "orders": make_orders, "arithmetic": make_arithmetic,
    "tracking": make_tracking, "plan_order": make_plan_order, "plan_operation": make_plan_operation, "story": make_story,
}  # fmt: skip


def make_document(rng: Random, shares: dict[str, float], difficulty: float, pool: Sequence[str], sections: bool) -> Tokens:
    """One encoded training document; with `sections`, some are several texts after `#` marks and some start with `#` alone.

    The text that begins at `#` sees nothing before it, which invites the model to use `#` as a second start token.
    """

    def one() -> str:
        return MAKERS[rng.choices(list(shares), list(shares.values()))[0]](rng, difficulty, pool)

    if not sections:
        return encode(one())
    document = one()
    if rng.random() < 0.2:
        document = "# " + "\n# ".join([document, *(one() for _ in range(rng.randint(1, 2)))])
        return encode(document) if rng.random() < 0.75 else encode(document[2:], start="#")
    return encode(document, start="#") if rng.random() < 0.2 else encode(document)


def pack(documents: Callable[[], Tokens], rows: int, width: int, tries: int = 16) -> list[list[Tokens]]:
    """Whole documents for `rows` rows of at most `width` tokens; a document that fits nowhere is dropped."""
    packed: list[list[Tokens]] = [[] for _ in range(rows)]
    room = [width] * rows
    misses = 0
    while misses < tries:
        document = documents()
        fits = [row for row in range(rows) if room[row] >= len(document.ids)]
        if not fits:
            misses += 1
            continue
        row = min(fits, key=room.__getitem__)
        packed[row].append(document)
        room[row] -= len(document.ids)
    return packed
