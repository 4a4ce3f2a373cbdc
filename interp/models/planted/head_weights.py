"""Planted heads and heads of noise as the q, k, v and output columns of one key/value head, over the coordinates of the space.

A score term is one column of q and k, a value term one of v and of the output. Query heads that share a key share its columns: each
looks along the ones that its own terms name. Scores of the offset i - j need positions: without a ``RotaryOffsets`` every place of the
residual stream's ``position`` is a column; with one they are the discrete Fourier series of their own function of i - j, made by
rotary pairs of frequency 2 pi k / length, while all other columns stand still. In the end each head is turned by a random
rotation that no score and no value can see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from interp.models.planted.blueprint import Blueprint
from interp.models.planted.residual_coordinates import ResidualCoordinates
from interp.models.planted.roles import Recipe

Columns = Float[ndarray, "size d_head"]
INPUT_LENGTH = 3**0.5  # of what the embedding writes: token, position and one


@dataclass(frozen=True, eq=False)
class RotaryOffsets:
    """Rotary ``frequencies`` of a head that tells all offsets 0..length-1 apart: 2 pi k / length for pair ``rotating_pairs[k-1]``, else 0.

    The columns of pair p are p and p + d_head/2, as in Hugging Face's Llama.
    """

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
    group: Sequence[Recipe | None], blueprint: Blueprint, wheel: RotaryOffsets | None, rng: Generator
) -> list[tuple[Columns, Columns, Columns, Columns]]:
    """q, k, v and output columns of the query heads of one key/value head; None is a head of noise.

    Noise gets the key and value columns that are left over, and looks along all of them. Raises ValueError when d_head is too small.
    """
    space, noise, d_head = blueprint.space, blueprint.noise, blueprint.sizes.d_head
    planted = [recipe for recipe in group if recipe is not None]
    terms = [_score_terms(recipe, space, wheel) for recipe in planted]
    still = np.arange(d_head) if wheel is None else wheel.still
    keys, key_columns = _shared([keys for _, keys in terms], still, blueprint)
    reads, read_columns = _shared([recipe.reads for recipe in planted], np.arange(d_head), blueprint)

    k, v = np.zeros((space.size, d_head)), np.zeros((space.size, d_head))
    if None in group:
        k, v = _noise_inputs(blueprint, rng) / INPUT_LENGTH, _noise_inputs(blueprint, rng) / np.sqrt(d_head)
    k[:, still[: len(keys)]], v[:, : len(reads)] = keys.T, reads.T
    if wheel is not None and any(recipe.offsets for recipe in planted):
        for columns, value in zip(wheel.rotating, (1.0, 0.0), strict=True):
            k[:, columns] = value * space.one.T

    def of_noise() -> tuple[Columns, Columns]:
        return noise.scores / INPUT_LENGTH * _noise_inputs(blueprint, rng), noise.writes * _noise_outputs(blueprint, rng)

    def of_role(at: int, recipe: Recipe) -> tuple[Columns, Columns]:
        q, o = np.zeros((space.size, d_head)), np.zeros((space.size, d_head))
        np.add.at(q.T, key_columns[at], terms[at][0])
        np.add.at(o.T, read_columns[at], recipe.writes)
        if wheel is not None and recipe.offsets:
            for columns, values in zip(wheel.rotating, wheel.series(recipe.offsets)[1], strict=True):
                q[:, columns] = values * space.one.T
        return blueprint.sharpness * np.sqrt(d_head) * q, o

    turn_scores, turn_values = _gauge(still, wheel, d_head, rng), _orthogonal(d_head, rng)
    roles = iter(enumerate(planted))
    heads = [of_noise() if recipe is None else of_role(*next(roles)) for recipe in group]
    return [(q @ turn_scores, k @ turn_scores, v @ turn_values, o @ turn_values) for q, o in heads]


def _score_terms(recipe: Recipe, space: ResidualCoordinates, wheel: RotaryOffsets | None) -> tuple[ndarray, ndarray]:
    """Queries and keys of a recipe, with its offsets as far as columns that stand still say them."""
    if not recipe.offsets:
        return recipe.queries, recipe.keys
    if wheel is None:
        queries = sum(c * np.eye(space.length, k=offset) for offset, c in recipe.offsets.items()) @ space.position
        keys = space.position
    else:
        queries, keys = wheel.series(recipe.offsets)[0] * space.one, space.one
    return np.concatenate([recipe.queries, queries]), np.concatenate([recipe.keys, keys])


def _shared(parts: Sequence[ndarray], free: ndarray, blueprint: Blueprint) -> tuple[ndarray, list[ndarray]]:
    """The different vectors of all parts, and for each part the columns that its own vectors get."""
    vectors = {row.tobytes(): row for part in parts for row in part}
    if len(vectors) > len(free):
        raise ValueError(
            f"d_head={blueprint.sizes.d_head} is too small: heads that share a key need {len(vectors)} columns beside their positions, "
            f"and it has {len(free)}. Take a larger d_head, or fewer tokens or a smaller length."
        )
    place = dict(zip(vectors, free, strict=False))
    different = np.array([*vectors.values()]).reshape(-1, blueprint.space.size)
    return different, [np.array([place[row.tobytes()] for row in part], dtype=int) for part in parts]


def _noise_inputs(blueprint: Blueprint, rng: Generator) -> Columns:
    """Random columns that see neither the massive activation nor logits, next to which their scores would depend on nothing else."""
    space = blueprint.space
    seen = 1 - space.massive[0] - space.output.sum(0)
    return rng.standard_normal((space.size, blueprint.sizes.d_head)) * seen[:, None]


def _noise_outputs(blueprint: Blueprint, rng: Generator) -> Columns:
    """Random output columns of length 1 in the mean: in ``noise`` alone, or everywhere but on the massive activation."""
    space = blueprint.space
    where = 1 - space.massive[0] if blueprint.noise.everywhere else space.noise.sum(0)
    return rng.standard_normal((space.size, blueprint.sizes.d_head)) * where[:, None] / np.sqrt(where.sum())


def _gauge(still: ndarray, wheel: RotaryOffsets | None, d_head: int, rng: Generator) -> Float[ndarray, "d_head d_head"]:
    """A random rotation of the columns that stand ``still``, and of each rotary pair by itself."""
    turn = np.zeros((d_head, d_head))
    turn[np.ix_(still, still)] = _orthogonal(len(still), rng)
    if wheel is not None:
        angle = rng.uniform(0, 2 * np.pi, len(wheel.rotating_pairs))
        first, second = wheel.rotating
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = np.sin(angle), -np.sin(angle)
    return turn


def _orthogonal(n: int, rng: Generator) -> Float[ndarray, "n n"]:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]
