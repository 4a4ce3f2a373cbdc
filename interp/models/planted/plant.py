"""Plants roles: chooses their positions, writes them into a host model, and returns it with its ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from inspect import Parameter, signature
from math import inf

import numpy as np
import torch

from interp.heads import Head
from interp.models.embedded import PLANTED
from interp.models.memory import check_device_and_dtype
from interp.models.planted.head_roles import FAMILIES, ROLES, Blueprint, Sizes
from interp.models.planted.host_architectures import gpt2, llama
from interp.models.planted.planted_model import PlantedMassiveActivation, PlantedModel
from interp.models.planted.residual_coordinates import MASSIVE, ResidualCoordinates
from interp.models.planted.vocabulary import DELIMITER, Vocabulary
from interp.models.wrap_model import wrap_model
from interp.options_text import parse_options
from interp.registry import check_name

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
    ``noise_everywhere`` (the ground truth then no longer holds exactly). Raises LookupError (roles), ValueError (sizes).
    """
    options = {name: value for name, value in locals().items() if name in _parameters()}
    check_device_and_dtype(device, dtype)
    family = roles if isinstance(roles, str) else "custom"
    if isinstance(roles, str):
        check_name(roles, FAMILIES, "family of roles")
        roles = FAMILIES[roles]
    for role in roles.values() if isinstance(roles, Mapping) else roles:
        check_name(role, ROLES, "role")
    vocabulary, rng = Vocabulary(n_names, n_fillers), np.random.default_rng([seed, 0])
    sizes = _sizes(vocabulary, length, n_layers, n_heads, n_kv_heads, d_head)
    if not (0 < sharpness < inf and 0 < gain < inf and 0 <= noise_scores < inf and 0 <= noise_writes < inf):
        given = f"sharpness={sharpness}, gain={gain}, noise_scores={noise_scores}, noise_writes={noise_writes}"
        needed = "the first two must be positive, the others at least 0, and all finite"
        raise ValueError(f"{given} cannot be planted: {needed}.")
    places = dict(sorted(roles.items())) if isinstance(roles, Mapping) else _random_placement(roles, n_layers, n_heads, rng)
    _check_placement(places, n_layers, n_heads)
    n_noise = SMALLEST_NOISE + sizes.d_model - _smallest(vocabulary, length)
    space = ResidualCoordinates(vocabulary, length, n_noise, gain, seed)
    recipes = {head: ROLES[role].recipe(space) for head, role in places.items()}
    sinks = [head.layer for head, role in places.items() if role == "hidden_sink"]
    layer = int(rng.integers(min(sinks))) if sinks else None  # of the massive activation: before all hidden sinks
    blueprint = Blueprint(recipes, space, sharpness, sizes, noise_scores, noise_writes, noise_everywhere, layer)
    with torch.random.fork_rng(devices=[]):  # creating a Hugging Face module draws weights
        hf, axis = (gpt2 if n_kv_heads is None else llama)(blueprint, rng)
    changed = [f"{key}={value}" for key, value in options.items() if value != _parameters()[key].default]
    name = ",".join([PLANTED + family, *changed])
    model = wrap_model(hf.to(device, getattr(torch, dtype)), vocabulary.tokenizer(), name=name)
    massive = None if layer is None else PlantedMassiveActivation(layer, DELIMITER, axis, MASSIVE)
    return PlantedModel(model, places, {"family": family, **options, **asdict(sizes)}, massive, blueprint)


def plant_by_name(name: str, *, device: str = "cpu", dtype: str = "float32") -> PlantedModel:
    """What ``planted:FAMILY`` or ``planted:FAMILY,seed=3,sharpness=6`` names, with options of ``plant``. Raises LookupError for
    unknown families and options, ValueError for a value of another kind."""
    family, *options = name.removeprefix(PLANTED).split(",")
    return plant(family, device=device, dtype=dtype, **parse_options(options, _parameters(), "A planted model"))


def _parameters() -> dict[str, Parameter]:
    """The options of ``plant`` that change the model."""
    return {name: p for name, p in signature(plant).parameters.items() if name not in ("roles", "dtype", "device")}


def _random_placement(names: Sequence[str], n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[Head, str]:
    """A random head for each role; each level has its own layer, in ascending order."""
    roles = [(ROLES[name].level, name) for name in names]
    levels = sorted({level for level, _ in roles if level is not None} | ({0} if "hidden_sink" in names else set()))
    if len(levels) > n_layers:
        raise ValueError(f"{len(levels)} levels of roles do not fit into n_layers={n_layers}: {', '.join(names)}.")
    layers = dict(zip(levels, sorted(rng.choice(n_layers, len(levels), replace=False).tolist()), strict=True))
    free = [Head(*divmod(int(i), n_heads)) for i in rng.permutation(n_layers * n_heads)]
    found: dict[Head, str] = {}
    for level, name in sorted(roles, key=lambda role: role[0] is None):
        choices = [head for head in free if head not in found and (level is None or head.layer == layers[level])]
        if not choices:
            sizes = f"{len(names)} roles in {n_layers} layers x {n_heads} heads"
            raise ValueError(f"No head is left for {name!r}: {sizes}. Take more heads.")
        found[choices[0]] = name
    return dict(sorted(found.items()))


def _check_placement(places: Mapping[Head, str], n_layers: int, n_heads: int) -> None:
    """Raises ValueError for a head that does not exist, or a role placed before what it reads."""
    for head, name in places.items():
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            there = f"layers 0-{n_layers - 1} and heads 0-{n_heads - 1}"
            raise ValueError(f"{name!r} cannot be planted at {head}: there are {there}.")
        below = {other for place, other in places.items() if place.layer < head.layer}
        missing = [need for need in ROLES[name].requires if need not in below]
        if missing or (name == "hidden_sink" and head.layer == 0):
            reads = missing[0] if missing else "a neuron"
            raise ValueError(f"{name!r} at {head} reads {reads}, and no earlier layer has one: plant it there.")


def _smallest(vocabulary: Vocabulary, length: int) -> int:
    """Smallest width of the residual stream: all coordinates and the vector of ones."""
    return ResidualCoordinates(vocabulary, length, SMALLEST_NOISE, gain=1.0, seed=0).size + 1


def _sizes(
    vocabulary: Vocabulary, length: int, n_layers: int, n_heads: int, n_kv_heads: int | None, d_head: int | None
) -> Sizes:
    """Sizes in which every placement fits, unless ``d_head`` is given; raises ValueError for what never does."""
    grouped = n_kv_heads is None or (n_kv_heads > 0 and n_heads % n_kv_heads == 0 and (d_head or 0) % 2 == 0)
    if length < SHORTEST or min(n_layers, n_heads) < 1 or not grouped:
        given = f"length={length}, n_layers={n_layers}, n_heads={n_heads}, n_kv_heads={n_kv_heads}, d_head={d_head}"
        needed = f"length must be at least {SHORTEST}, the longest prompt, and n_heads a multiple of n_kv_heads"
        raise ValueError(f"{given} cannot be planted: {needed}, with an even d_head.")
    smallest = _smallest(vocabulary, length)
    if n_kv_heads is not None:
        width = n_heads * -(-smallest // n_heads)  # Llama wants a multiple
        return Sizes(n_layers, n_heads, n_kv_heads, d_head or 2 * ((length + 1) // 2 + len(vocabulary) + 8), width)
    d_head = d_head or max(len(vocabulary) + length + 7, -(-smallest // n_heads))
    if n_heads * d_head < smallest:
        needed = f"{smallest} are needed for {len(vocabulary)} tokens and length={length}"
        width = f"n_heads={n_heads} times d_head={d_head} is the width of a GPT-2"
        raise ValueError(f"{width}, and {needed}: take a larger d_head.")
    return Sizes(n_layers, n_heads, None, d_head, n_heads * d_head)
