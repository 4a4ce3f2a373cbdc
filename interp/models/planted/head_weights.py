"""Weights of planted heads and noise heads: the q, k, v and output columns of one key/value head, over the residual coordinates.

A score term is one column of q and k, a value term one of v and of the output. Query heads that share a key share its columns;
each uses the ones of its own terms. Scores of the offset i - j need positions: without a ``RotaryOffsets`` every entry of the
residual stream's ``position`` is a column; with one they are the discrete Fourier series of a function of i - j, made by rotary
pairs of frequency 2 pi k / length, while all other columns do not rotate. Finally each head is rotated at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from interp.models.planted.head_roles import Blueprint, Recipe
from interp.models.planted.residual_coordinates import ResidualCoordinates

Columns = Float[ndarray, "size d_head"]
INPUT_LENGTH = 3**0.5  # norm of what the embedding writes: token, position and one


@dataclass(frozen=True, eq=False)
class RotaryOffsets:
    """Rotary ``frequencies`` of a head that distinguishes all offsets 0..length-1: 2 pi k / length for pair ``rotating_pairs[k-1]``,
    else 0. The columns of pair p are p and p + d_head/2, as in Hugging Face's Llama."""

    length: int
    frequencies: Float[ndarray, " pairs"]
    rotating_pairs: Int[ndarray, " k"]

    @classmethod
    def random(cls, length: int, d_head: int, rng: Generator) -> RotaryOffsets:
        rotating_pairs = rng.permutation(d_head // 2)[: length // 2]
        frequencies = np.zeros(d_head // 2)
        frequencies[rotating_pairs] = 2 * np.pi * np.arange(1, len(rotating_pairs) + 1) / length
        return cls(length, frequencies, rotating_pairs)

    @property
    def still(self) -> Int[ndarray, " still"]:
        """Columns that do not rotate."""
        pairs = np.flatnonzero(self.frequencies == 0)
        return np.concatenate([pairs, pairs + len(self.frequencies)])

    @property
    def rotating(self) -> tuple[Int[ndarray, " k"], Int[ndarray, " k"]]:
        """First and second column of every pair that rotates."""
        return self.rotating_pairs, self.rotating_pairs + len(self.frequencies)

    def series(self, offsets: Mapping[int, float]) -> tuple[float, Float[ndarray, "2 k"]]:
        """The constant, and the query values in ``rotating``, that score ``offsets`` with keys of (1, 0) in every pair."""
        share = np.where(np.isclose(self.frequencies[self.rotating_pairs], np.pi), 1, 2) / self.length
        angles = np.outer(list(offsets), self.frequencies[self.rotating_pairs])
        sizes = np.array(list(offsets.values()))
        return float(sizes.sum()) / self.length, share * np.stack([sizes @ np.cos(angles), -sizes @ np.sin(angles)])


def group_columns(
    group: Sequence[Recipe | None], blueprint: Blueprint, rotary: RotaryOffsets | None, rng: Generator
) -> list[tuple[Columns, Columns, Columns, Columns]]:
    """q, k, v and output columns of the query heads of one key/value head; None is a noise head. Noise heads get the remaining
    key and value columns and query all of them. Raises ValueError when d_head is too small."""
    space, d_head = blueprint.space, blueprint.sizes.d_head
    planted = [recipe for recipe in group if recipe is not None]
    terms = [_score_terms(recipe, space, rotary) for recipe in planted]
    still = np.arange(d_head) if rotary is None else rotary.still
    keys, key_columns = _shared([keys for _, keys in terms], still, blueprint)
    reads, read_columns = _shared([recipe.reads for recipe in planted], np.arange(d_head), blueprint)

    k, v = np.zeros((space.size, d_head)), np.zeros((space.size, d_head))
    if None in group:
        k, v = _noise_inputs(blueprint, rng) / INPUT_LENGTH, _noise_inputs(blueprint, rng) / np.sqrt(d_head)
    k[:, still[: len(keys)]], v[:, : len(reads)] = keys.T, reads.T
    if rotary is not None and any(recipe.offsets for recipe in planted):
        for columns, value in zip(rotary.rotating, (1.0, 0.0), strict=True):
            k[:, columns] = value * space.one.T

    def of_noise() -> tuple[Columns, Columns]:
        q = blueprint.noise_scores / INPUT_LENGTH * _noise_inputs(blueprint, rng)
        return q, blueprint.noise_writes * _noise_outputs(blueprint, rng)

    def of_role(at: int, recipe: Recipe) -> tuple[Columns, Columns]:
        q, o = np.zeros((space.size, d_head)), np.zeros((space.size, d_head))
        np.add.at(q.T, key_columns[at], terms[at][0])
        np.add.at(o.T, read_columns[at], recipe.writes)
        if rotary is not None and recipe.offsets:
            for columns, values in zip(rotary.rotating, rotary.series(recipe.offsets)[1], strict=True):
                q[:, columns] = values * space.one.T
        return blueprint.sharpness * np.sqrt(d_head) * q, o

    turn_scores, turn_values = _gauge(still, rotary, d_head, rng), _orthogonal(d_head, rng)
    roles = iter(enumerate(planted))
    heads = [of_noise() if recipe is None else of_role(*next(roles)) for recipe in group]
    return [(q @ turn_scores, k @ turn_scores, v @ turn_values, o @ turn_values) for q, o in heads]


def _score_terms(recipe: Recipe, space: ResidualCoordinates, rotary: RotaryOffsets | None) -> tuple[ndarray, ndarray]:
    """Queries and keys of a recipe, with its offsets as far as they are expressed by non-rotating columns."""
    if not recipe.offsets:
        return recipe.queries, recipe.keys
    if rotary is None:
        queries = sum(c * np.eye(space.length, k=offset) for offset, c in recipe.offsets.items()) @ space.position
        keys = space.position
    else:
        queries, keys = rotary.series(recipe.offsets)[0] * space.one, space.one
    return np.concatenate([recipe.queries, queries]), np.concatenate([recipe.keys, keys])


def _shared(parts: Sequence[ndarray], free: ndarray, blueprint: Blueprint) -> tuple[ndarray, list[ndarray]]:
    """The distinct vectors of all parts, and for each part the columns of its own vectors."""
    vectors = {row.tobytes(): row for part in parts for row in part}
    if len(vectors) > len(free):
        needed = f"heads that share a key need {len(vectors)} columns besides their positions, and {len(free)} are free"
        advice = "Use a larger d_head, fewer tokens or a smaller length."
        raise ValueError(f"d_head={blueprint.sizes.d_head} is too small: {needed}. {advice}")
    place = dict(zip(vectors, free, strict=False))
    different = np.array([*vectors.values()]).reshape(-1, blueprint.space.size)
    return different, [np.array([place[row.tobytes()] for row in part], dtype=int) for part in parts]


def _noise_inputs(blueprint: Blueprint, rng: Generator) -> Columns:
    """Random columns that read neither the massive activation nor logits, which would dominate their scores."""
    space = blueprint.space
    seen = 1 - space.massive[0] - space.output.sum(0)
    return rng.standard_normal((space.size, blueprint.sizes.d_head)) * seen[:, None]


def _noise_outputs(blueprint: Blueprint, rng: Generator) -> Columns:
    """Random output columns of mean norm 1: in ``noise`` only, or everywhere except on the massive activation."""
    space = blueprint.space
    where = 1 - space.massive[0] if blueprint.noise_everywhere else space.noise.sum(0)
    return rng.standard_normal((space.size, blueprint.sizes.d_head)) * where[:, None] / np.sqrt(where.sum())


def _gauge(still: ndarray, rotary: RotaryOffsets | None, d_head: int, rng: Generator) -> Float[ndarray, "d_head d_head"]:
    """A random rotation of the non-rotating columns ``still``, and of each rotary pair separately."""
    turn = np.zeros((d_head, d_head))
    turn[np.ix_(still, still)] = _orthogonal(len(still), rng)
    if rotary is not None:
        angle = rng.uniform(0, 2 * np.pi, len(rotary.rotating_pairs))
        first, second = rotary.rotating
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = np.sin(angle), -np.sin(angle)
    return turn


def _orthogonal(n: int, rng: Generator) -> Float[ndarray, "n n"]:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]
