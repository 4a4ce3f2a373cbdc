"""Plants roles: chooses their positions, writes them into a host model, and returns it with its ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from inspect import Parameter, signature
from math import inf

import numpy as np
import torch

from interp.heads import Head
from interp.models.embedded import PLANTED
from interp.models.memory import check_device_and_dtype
from interp.models.planted.blueprint import Blueprint, Noise, Sizes
from interp.models.planted.host_architectures import gpt2, llama
from interp.models.planted.placement import check_placement, lookup, random_massive_layer, random_placement
from interp.models.planted.planted_model import PlantedMassiveActivation, PlantedModel
from interp.models.planted.residual_coordinates import MASSIVE, ResidualCoordinates
from interp.models.planted.roles import FAMILIES, ROLES
from interp.models.planted.vocabulary import DELIMITER, Vocabulary
from interp.models.wrap_model import wrap_model
from interp.options_text import parse_options

SHORTEST, SMALLEST_NOISE = 14, 32


def plant(
    roles: str | Sequence[str] | Mapping[Head, str],
    *,
    seed: int = 0,
    n_layers: int = 4,
    n_heads: int = 6,
    n_kv_heads: int | None = None,
    d_head: int | None = None,
    length: int = 32,
    n_names: int = 9,
    n_fillers: int = 10,
    sharpness: float = 30.0,
    gain: float = 10.0,
    noise_scores: float = 0.5,
    noise_writes: float = 0.3,
    noise_everywhere: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
) -> PlantedModel:
    """A transformer with ``roles`` planted among noise heads; the same arguments give the same weights.

    ``roles`` is a family (``mini_ioi``), role names at random positions, or a role for each head. The host is GPT-2 or, with
    ``n_kv_heads``, a Llama with that many key/value heads. A matching key scores ``sharpness`` (30: hard attention, vanishing
    gradients; 4 to 8: soft), and a head that predicts writes a logit of ``gain``. Noise heads have scores of standard deviation
    ``noise_scores`` and write ``noise_writes`` times the norm of a token's direction: to coordinates that nothing reads, or
    ``noise_everywhere`` (the ground truth then no longer holds exactly). Raises LookupError for unknown roles, ValueError for sizes
    that do not fit.
    """
    options = {name: value for name, value in locals().items() if name in _parameters()}
    check_device_and_dtype(device, dtype)
    family = roles if isinstance(roles, str) else "custom"
    if isinstance(roles, str):
        roles = lookup(roles, FAMILIES, "family of roles")
    vocabulary, rng = Vocabulary(n_names, n_fillers), np.random.default_rng([seed, 0])
    sizes = _sizes(vocabulary, length, n_layers, n_heads, n_kv_heads, d_head)
    _check_strengths(sharpness, gain, noise_scores, noise_writes)
    places = dict(sorted(roles.items())) if isinstance(roles, Mapping) else random_placement(roles, n_layers, n_heads, rng)
    check_placement(places, n_layers, n_heads)
    space = ResidualCoordinates(vocabulary, length, sizes.d_model - _smallest(vocabulary, length, 0), gain, seed)
    recipes = {head: ROLES[role].recipe(space) for head, role in places.items()}
    noise = Noise(noise_scores, noise_writes, noise_everywhere)
    layer = random_massive_layer(places, rng)
    blueprint = Blueprint(recipes, space, sharpness, sizes, noise, layer)
    with torch.random.fork_rng(devices=[]):  # creating a Hugging Face module draws weights
        hf, axis = (gpt2 if n_kv_heads is None else llama)(blueprint, rng)
    changed = [f"{key}={value}" for key, value in options.items() if value != _parameters()[key].default]
    name = ",".join([PLANTED + family, *changed])
    model = wrap_model(hf.to(device, getattr(torch, dtype)), vocabulary.tokenizer(), name=name)
    massive = None if layer is None else PlantedMassiveActivation(layer, DELIMITER, axis, MASSIVE)
    return PlantedModel(model, places, {"family": family, **options, **asdict(sizes)}, massive, blueprint)


def plant_by_name(name: str, *, device: str = "cpu", dtype: str = "float32") -> PlantedModel:
    """What ``planted:FAMILY`` or ``planted:FAMILY,seed=3,sharpness=6`` names, with options of ``plant``.

    Raises LookupError for unknown families and options, ValueError for a value of another kind.
    """
    family, *options = name.removeprefix(PLANTED).split(",")
    return plant(family, device=device, dtype=dtype, **parse_options(options, _parameters(), "A planted model"))


def _parameters() -> dict[str, Parameter]:
    """The options of ``plant`` that change the model."""
    return {name: p for name, p in signature(plant).parameters.items() if name not in ("roles", "dtype", "device")}


def _smallest(vocabulary: Vocabulary, length: int, n_noise: int = SMALLEST_NOISE) -> int:
    """Smallest width of the residual stream: all coordinates and the vector of ones."""
    return ResidualCoordinates.size_without_noise(vocabulary, length) + n_noise + 1


def _sizes(
    vocabulary: Vocabulary, length: int, n_layers: int, n_heads: int, n_kv_heads: int | None, d_head: int | None
) -> Sizes:
    """Sizes in which every placement fits, unless ``d_head`` is given; raises ValueError for what never does."""
    grouped = n_kv_heads is None or (n_kv_heads > 0 and n_heads % n_kv_heads == 0 and (d_head or 0) % 2 == 0)
    if length < SHORTEST or min(n_layers, n_heads) < 1 or not grouped:
        raise ValueError(
            f"length={length}, n_layers={n_layers}, n_heads={n_heads}, n_kv_heads={n_kv_heads}, d_head={d_head} cannot be planted: "
            f"length must be at least {SHORTEST}, the longest prompt, and n_heads a multiple of n_kv_heads, with an even d_head."
        )
    smallest = _smallest(vocabulary, length)
    if n_kv_heads is not None:
        width = n_heads * -(-smallest // n_heads)  # Llama wants a multiple
        return Sizes(n_layers, n_heads, n_kv_heads, d_head or 2 * ((length + 1) // 2 + len(vocabulary) + 8), width)
    d_head = d_head or max(len(vocabulary) + length + 7, -(-smallest // n_heads))
    if n_heads * d_head < smallest:
        raise ValueError(
            f"n_heads={n_heads} times d_head={d_head} is the width of a GPT-2, and {smallest} are needed for {len(vocabulary)} tokens "
            f"and length={length}: take a larger d_head."
        )
    return Sizes(n_layers, n_heads, None, d_head, n_heads * d_head)


def _check_strengths(sharpness: float, gain: float, noise_scores: float, noise_writes: float) -> None:
    if not (0 < sharpness < inf and 0 < gain < inf and 0 <= noise_scores < inf and 0 <= noise_writes < inf):
        raise ValueError(
            f"sharpness={sharpness}, gain={gain}, noise_scores={noise_scores}, noise_writes={noise_writes} cannot be planted: the first "
            f"two must be positive, the others at least 0, and all finite."
        )
