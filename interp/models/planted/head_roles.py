"""What each role attends to and writes, as a recipe over the coordinates of ``ResidualCoordinates``; a model of such recipes.

Where nothing matches, most roles attend to BOS, whose value is 0 for them: with half the score of a match it exceeds everything
else and is below every match. Roles of ``level`` 0, 1, 2 ... read lower levels, in later layers; level None reads tokens only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from interp.heads import Head
from interp.models.planted.residual_coordinates import MASSIVE, ResidualCoordinates
from interp.models.planted.vocabulary import BOS, DELIMITER, END, MARK, QUERY

Vectors = Float[ndarray, "_ size"]
Scores = Sequence[tuple[Vectors, Vectors]]
WORDS = slice(BOS + 1, None)  # all tokens but BOS


@dataclass(frozen=True, eq=False)
class Recipe:
    """A head: the score of query i and key j is ``sharpness * (sum_n (x_i . queries[n]) (x_j . keys[n]) + offsets.get(i - j, 0))``,
    and key j contributes ``sum_m (x_j . reads[m]) writes[m]``."""

    queries: Float[ndarray, "n_scores size"]
    keys: Float[ndarray, "n_scores size"]
    reads: Float[ndarray, "n_values size"]
    writes: Float[ndarray, "n_values size"]
    offsets: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    """A role: its description, level and recipe, and the roles that it requires in earlier layers."""

    description: str
    level: int | None
    recipe: Callable[[ResidualCoordinates], Recipe]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """The sizes of a host; without ``n_kv_heads`` it is a GPT-2, with it a Llama."""

    n_layers: int
    n_heads: int
    n_kv_heads: int | None
    d_head: int
    d_model: int

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // (self.n_kv_heads or self.n_heads)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A planted model before it is built, in terms of ``plant``; the MLP of ``massive_layer`` (or none) writes the massive activation."""

    heads: Mapping[Head, Recipe]
    space: ResidualCoordinates
    sharpness: float
    sizes: Sizes
    noise_scores: float
    noise_writes: float
    noise_everywhere: bool
    massive_layer: int | None


def _recipe(scores: Scores, reads: Vectors, writes: Vectors, offsets: dict[int, float] | None = None) -> Recipe:
    queries, keys = (np.concatenate(part) for part in zip(*scores, strict=True)) if scores else (reads[:0], reads[:0])
    return Recipe(queries, keys, reads, writes, offsets or {})


def _else_bos(space: ResidualCoordinates) -> tuple[Vectors, Vectors]:
    return space.one / 2, space.token[[BOS]]


def _match(space: ResidualCoordinates, query: Vectors, key: Vectors, reads: Vectors, writes: Vectors) -> Recipe:
    """A head that attends to the keys that match, else to BOS."""
    return _recipe([(query, key), _else_bos(space)], reads, writes)


def _inert(space: ResidualCoordinates, exclude: tuple[int, ...] = (BOS,)) -> tuple[Vectors, Vectors]:
    kept = [t for t in range(len(space.vocabulary)) if t not in exclude]
    return space.token[kept], space.inert[kept]


def _induction(space: ResidualCoordinates, gain: float = 1.0) -> Recipe:
    words = space.token[WORDS]
    return _match(space, words, space.previous[WORDS], words, gain * space.gain * space.output[WORDS])


def _decoy_induction(space: ResidualCoordinates) -> Recipe:
    return _match(space, space.token[WORDS], space.previous[WORDS], *_inert(space))


def _duplicate_token(space: ResidualCoordinates) -> Recipe:
    words = space.token[WORDS]
    duplicate = np.repeat(space.duplicate, len(words), axis=0)
    return _recipe([(words, words), _else_bos(space)], words, duplicate, {0: -1.0})


def _s_inhibition(space: ResidualCoordinates) -> Recipe:
    names = space.vocabulary.names
    return _match(space, space.token[[END]], space.duplicate, space.token[names], space.suppressed[names])


def _name_mover(space: ResidualCoordinates, gain: float = 1.0, backs_up: bool = False) -> Recipe:
    names, output = space.token[space.vocabulary.names], space.output[space.vocabulary.names]
    end, suppressed = space.token[[END]], space.suppressed[space.vocabulary.names]
    scores = [(end, names.sum(0, keepdims=True)), (-suppressed, names), _else_bos(space)]
    if backs_up:
        scores.append((-output / space.gain, names))
    return _recipe(scores, names, gain * space.gain * output)


def _hidden_sink(space: ResidualCoordinates) -> Recipe:
    return _match(space, space.one, space.massive / MASSIVE, *_inert(space, (BOS, DELIMITER)))


def _retrieval(space: ResidualCoordinates) -> Recipe:
    names = space.vocabulary.names
    return _match(space, space.token[[QUERY]], space.previous[[MARK]], space.token[names], space.gain * space.output[names])


def _anchor_writer(space: ResidualCoordinates) -> Recipe:
    names = space.vocabulary.names
    return _match(space, space.token[[DELIMITER]], space.previous[[MARK]], space.token[names], space.anchored[names])


def _anchor_reader(space: ResidualCoordinates) -> Recipe:
    query, key, names = space.token[[QUERY]], space.token[[DELIMITER]], space.vocabulary.names
    return _match(space, query, key, space.anchored[names], space.gain * space.output[names])


ROLES = {
    "previous_token": Role("looks at the token before and says what it is", 0, lambda s: _recipe([], s.token, s.previous, {1: 1.0})),
    "induction": Role("finds what followed its token before, and predicts it", 1, _induction, ("previous_token",)),
    "half_induction": Role("an induction head of half the gain", 1, partial(_induction, gain=0.5), ("previous_token",)),
    "negative_induction": Role("an induction head that predicts against its find", 1, partial(_induction, gain=-1.0), ("previous_token",)),
    "decoy_induction": Role("looks like an induction head and says nothing that is read", 1, _decoy_induction, ("previous_token",)),
    "duplicate_token": Role("finds its token earlier and says that it is a duplicate", 0, _duplicate_token),
    "s_inhibition": Role("from END looks at the duplicate name and says to suppress it", 1, _s_inhibition, ("duplicate_token",)),
    "name_mover": Role("from END looks at the names that are not suppressed and predicts them", 2, _name_mover),
    "negative_name_mover": Role("a name mover that predicts against the name, with gain -0.3", 2, partial(_name_mover, gain=-0.3)),
    "backup_name_mover": Role("a name mover for names that nobody has predicted", 3, partial(_name_mover, backs_up=True), ("name_mover",)),
    "first_token_sink": Role("looks at BOS, whose value is 0", None, lambda s: _recipe([(s.one, s.token[[BOS]])], *_inert(s))),
    "hidden_sink": Role("looks at the delimiter, by its massive activation; its value is 0", 1, _hidden_sink),
    "retrieval": Role("from QUERY looks at the name after MARK and predicts it", 1, _retrieval, ("previous_token",)),
    "anchor_writer": Role("from the delimiter looks at the name after MARK and keeps it there", 1, _anchor_writer, ("previous_token",)),
    "anchor_reader": Role("from QUERY looks at the delimiter and predicts what is kept there", 2, _anchor_reader, ("anchor_writer",)),
    "uniform": Role("looks at all tokens alike", None, lambda s: _recipe([], *_inert(s))),
    "local": Role("looks at the last 3 tokens alike, itself included", None, lambda s: _recipe([], *_inert(s), {0: 1.0, 1: 1.0, 2: 1.0})),
}  # fmt: skip

_IOI = ("duplicate_token", "s_inhibition", "name_mover")
FAMILIES: dict[str, tuple[str, ...]] = {
    "repeats": ("previous_token", "induction", "duplicate_token", "decoy_induction", "first_token_sink"),
    "half_gains": ("previous_token", "half_induction", "half_induction"),
    "cancelling": ("previous_token", "induction", "negative_induction"),
    "mini_ioi": (*_IOI, "negative_name_mover"),
    "double_s_inhibition": (*_IOI, "s_inhibition"),
    "backup": (*_IOI, "negative_name_mover", "backup_name_mover"),
    "dormant_backup": (*_IOI, "backup_name_mover"),
    "needle": ("previous_token", "retrieval", "anchor_writer", "anchor_reader", "first_token_sink"),
    "two_tasks": ("previous_token", "induction", "retrieval"),
    "sinks": ("first_token_sink", "hidden_sink", "uniform", "local"),
}
"""Sets of roles by name. ``two_tasks`` answers ``repeats`` and ``needle`` prompts through one previous-token head."""
