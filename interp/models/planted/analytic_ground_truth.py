"""What a planted model computes, derived from the recipes of its heads in double precision: patterns, logits, effects.

No weight is read, so that the model and its ground truth are independent computations. Noise heads are omitted: they
write where no planted head and no logit reads. A writer is ``input`` or a head (``L1H4``), a reader a head's query, key or value
(``L2H0.q``) or ``logits``. An edge is *structural* when its writer writes something that its reader reads and a path leads on to the
logits. It is *active* under a counterfactual when corrupting it alone changes the outcome.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import softmax

from interp.heads import Head
from interp.models.planted.head_roles import Blueprint, Recipe
from interp.models.planted.residual_coordinates import ResidualCoordinates

PlantedEdge = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Trace:
    """One pass: output of each writer [batch pos size], pattern of each head [batch query key], logits [batch pos d_vocab]."""

    outputs: dict[str, Float[ndarray, "batch pos size"]]
    patterns: dict[Head, Float[ndarray, "batch query key"]]
    logits: Float[ndarray, "batch pos d_vocab"]


def trace(
    blueprint: Blueprint,
    tokens: Int[ndarray, "batch pos"],
    *,
    ablated_heads: Collection[Head] = (),
    corrupted_edges: Collection[PlantedEdge] = (),
    corrupted: Trace | None = None,
) -> Trace:
    """The pass in which ``ablated_heads`` write nothing and ``corrupted_edges`` carry the outputs of ``corrupted``."""
    heads, space = blueprint.heads, blueprint.space
    outputs = {"input": space.embed(tokens)}
    patterns: dict[Head, Float[ndarray, "batch query key"]] = {}

    def input_of(reader: str) -> Float[ndarray, "batch pos size"]:
        return sum(
            (corrupted.outputs[w] if corrupted and (w, reader) in corrupted_edges else now for w, now in outputs.items()),
            start=np.zeros((*tokens.shape, space.size)),
        )

    for _, layer in groupby(sorted(heads), key=lambda head: head.layer):
        new = {}
        for head in layer:
            recipe, (q, k, v) = heads[head], (input_of(f"{head}.{part}") for part in "qkv")
            by_content = (q @ recipe.queries.T) @ (k @ recipe.keys.T).swapaxes(1, 2)
            scores = blueprint.sharpness * (by_content + _by_offset(recipe, tokens.shape[1]))
            patterns[head] = softmax(np.where(np.tri(tokens.shape[1], dtype=bool), scores, -np.inf), axis=-1)
            new[str(head)] = patterns[head] @ (v @ recipe.reads.T) @ recipe.writes * (head not in ablated_heads)
        outputs |= new
    return Trace(outputs, patterns, input_of("logits") @ space.output.T)


def structural_edges(blueprint: Blueprint) -> list[PlantedEdge]:
    """Every structural edge, readers in the order of the layers."""
    heads, space = blueprint.heads, blueprint.space
    writes = {"input": np.concatenate([space.token, space.position, space.one])}
    edges: list[PlantedEdge] = []
    for _, layer in groupby(sorted(heads), key=lambda head: head.layer):
        new = {}
        for head in layer:
            for part, reads in zip("qkv", _readings(heads[head], space), strict=True):
                edges += [(w, f"{head}.{part}") for w, what in writes.items() if _meet(what, reads)]
            new[str(head)] = heads[head].writes
        writes |= new
    edges += [(w, "logits") for w, what in writes.items() if _meet(what, space.output)]
    leading = {"logits"}
    for writer, reader in reversed(edges):
        leading |= {writer} if reader.split(".")[0] in leading else set()
    return [(writer, reader) for writer, reader in edges if reader.split(".")[0] in leading]


def _readings(recipe: Recipe, space: ResidualCoordinates) -> tuple[ndarray, ndarray, ndarray]:
    place = space.position if recipe.offsets else space.position[:0]
    return np.concatenate([recipe.queries, place]), np.concatenate([recipe.keys, place]), recipe.reads


def _meet(written: ndarray, read: ndarray) -> bool:
    return bool((np.abs(written).max(0, initial=0) * np.abs(read).max(0, initial=0)).any())


def _by_offset(recipe: Recipe, length: int) -> Float[ndarray, "query key"]:
    return sum((c * np.eye(length, k=-offset) for offset, c in recipe.offsets.items()), start=np.zeros((length, length)))
