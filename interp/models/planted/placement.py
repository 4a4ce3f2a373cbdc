"""Which head gets which role: drawn at random, or given and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.heads import Head
from interp.models.planted.roles import ROLES
from interp.registry import check_name


def random_placement(names: Sequence[str], n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[Head, str]:
    """A random head for each role; each level has its own layer, in ascending order."""
    roles = [(lookup(name, ROLES, "role").level, name) for name in names]
    levels = sorted({level for level, _ in roles if level is not None} | ({0} if "hidden_sink" in names else set()))
    if len(levels) > n_layers:
        raise ValueError(f"{len(levels)} levels of roles do not fit into n_layers={n_layers}: {', '.join(names)}.")
    layers = dict(zip(levels, sorted(rng.choice(n_layers, len(levels), replace=False).tolist()), strict=True))
    free = [Head(*divmod(int(i), n_heads)) for i in rng.permutation(n_layers * n_heads)]
    found: dict[Head, str] = {}
    for level, name in sorted(roles, key=lambda role: role[0] is None):
        choices = [head for head in free if head not in found and (level is None or head.layer == layers[level])]
        if not choices:
            raise ValueError(
                f"No head is left for {name!r}: {len(names)} roles in {n_layers} layers x {n_heads} heads. Take more heads."
            )
        found[choices[0]] = name
    return dict(sorted(found.items()))


def check_placement(places: Mapping[Head, str], n_layers: int, n_heads: int) -> None:
    """Raises ValueError for a head that does not exist, or a role placed before what it reads."""
    for head, name in places.items():
        role = lookup(name, ROLES, "role")
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise ValueError(
                f"{name!r} cannot be planted at {head}: there are layers 0-{n_layers - 1} and heads 0-{n_heads - 1}."
            )
        below = {other for place, other in places.items() if place.layer < head.layer}
        missing = [need for need in role.requires if need not in below]
        if missing or (name == "hidden_sink" and head.layer == 0):
            reads = missing[0] if missing else "a neuron"
            raise ValueError(f"{name!r} at {head} reads {reads}, and no earlier layer has one: plant it there.")


def random_massive_layer(places: Mapping[Head, str], rng: np.random.Generator) -> int | None:
    """A random layer before all hidden sinks."""
    sinks = [head.layer for head, role in places.items() if role == "hidden_sink"]
    return int(rng.integers(min(sinks))) if sinks else None


def lookup(name: str, entries: Mapping[str, Any], kind: str) -> Any:
    """The entry of this name. Raises LookupError, listing them, for a name that is not among them."""
    check_name(name, entries, kind)
    return entries[name]
