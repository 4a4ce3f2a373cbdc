"""Planting: roles are given places, written into a host, and kept with what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from inspect import signature
from itertools import islice
from random import Random
from typing import Any

import numpy as np

from interp.heads import Head
from interp.models.model import Model
from interp.models.planted.blueprint import Blueprint, Noise, Sizes
from interp.models.planted.ground_truth import Edge, Trace, structural_edges, trace
from interp.models.planted.hosts import gpt2, llama
from interp.models.planted.prompts import ANSWERED_BY, PROMPTS, PlantedPrompt
from interp.models.planted.roles import FAMILIES, ROLES
from interp.models.planted.space import MASSIVE, Space
from interp.models.planted.vocabulary import DELIMITER, Vocabulary

PREFIX = "planted:"
TOLERANCE = 1e-6
SHORTEST, SMALLEST_NOISE = 14, 32


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Exact mean effects on the logit difference of prompts of one kind, in logits, ``effect = changed - clean``.

    ``clean`` and ``corrupted`` are the mean logit differences themselves. ``edges`` holds every structural edge, corrupted alone
    (what is not there has no effect); ``ablations`` every planted head, zeroed at all positions.
    """

    prompts: tuple[PlantedPrompt, ...]
    clean: float
    corrupted: float
    edges: dict[Edge, float]
    ablations: dict[Head, float]

    @property
    def active_edges(self) -> list[Edge]:
        """Edges whose effect is larger than 1e-6 logits."""
        return [edge for edge, effect in self.edges.items() if abs(effect) > TOLERANCE]


@dataclass(frozen=True, eq=False)
class Planted:
    """A Model and its ground truth: ``roles`` by head (every other head is noise) and where its massive activation is, if it has one.

    ``massive`` has the ``layer`` that writes it (it is in every residual after that), the ``token`` that carries it, the ``dimension``
    of the residual stream and the ``value``.
    """

    model: Model
    roles: dict[Head, str]
    settings: dict[str, Any]
    massive: dict[str, Any] | None
    _blueprint: Blueprint

    @property
    def vocabulary(self) -> Vocabulary:
        return self._blueprint.space.vocabulary

    def heads(self, role: str) -> list[Head]:
        """The heads with this role, in order. Raises LookupError for a role that is not planted."""
        found = [head for head, name in self.roles.items() if name == role]
        if not found:
            raise LookupError(
                f"No head of {self.model.facts.name} is {role!r}. There are: {', '.join(sorted(set(self.roles.values())))}."
            )
        return found

    @cached_property
    def structural_edges(self) -> list[Edge]:
        """Edges (writer, reader) by which something that is read can reach the logits; see ``ground_truth.py``."""
        return structural_edges(self._blueprint)

    def trace(self, tokens: Sequence[Sequence[int]], **changes: Any) -> Trace:
        """The exact pass over token ids [batch pos], changed as in ``ground_truth.trace``."""
        return trace(self._blueprint, np.array(tokens), **changes)

    def tasks(self) -> list[str]:
        """Kinds of prompts that a planted head answers."""
        return [kind for kind, roles in ANSWERED_BY.items() if roles & set(self.roles.values())]

    def prompts(self, kind: str, n_prompts: int = 8, seed: int = 0) -> list[PlantedPrompt]:
        """Prompts of one kind (``repeats``, ``ioi`` or ``needle``), all of one length. Raises LookupError for an unknown kind."""
        if kind not in PROMPTS:
            raise LookupError(f"No prompts are called {kind!r}. There are: {', '.join(PROMPTS)}.")
        return list(islice(PROMPTS[kind](Random(seed), self.vocabulary, self._blueprint.space.length), n_prompts))

    def counterfactual(self, kind: str, n_prompts: int = 8, seed: int = 0) -> Counterfactual:
        """The exact effects on ``n_prompts`` prompts of one kind."""
        prompts = self.prompts(kind, n_prompts, seed)
        clean = [p.clean for p in prompts]
        other = self.trace([p.corrupted for p in prompts])
        before = _logit_diff(self.trace(clean), prompts)
        edges = {e: _logit_diff(self.trace(clean, edges=[e], corrupted=other), prompts) - before for e in self.structural_edges}
        ablations = {head: _logit_diff(self.trace(clean, without=[head]), prompts) - before for head in self.roles}
        return Counterfactual(tuple(prompts), before, _logit_diff(other, prompts), edges, ablations)

    def manifest(self) -> dict[str, Any]:
        """All of it as JSON: settings, roles, edges, and the counterfactual of every task on 8 prompts."""
        found = {kind: self.counterfactual(kind) for kind in self.tasks()}
        return {
            **self.settings,
            "weights": self.model.facts.weights,
            "roles": {str(head): role for head, role in self.roles.items()},
            "massive": self.massive,
            "structural_edges": [list(edge) for edge in self.structural_edges],
            "counterfactuals": {
                kind: {
                    "clean": c.clean,
                    "corrupted": c.corrupted,
                    "tolerance": TOLERANCE,
                    "active_edges": [list(edge) for edge in c.active_edges],
                    "effects": {f"{writer}->{reader}": effect for (writer, reader), effect in c.edges.items()},
                    "ablations": {str(head): effect for head, effect in c.ablations.items()},
                }
                for kind, c in found.items()
            },
        }


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
) -> Planted:
    """A transformer with ``roles`` planted among heads of random noise; the same arguments give the same weights.

    ``roles`` is a family (``mini_ioi``), role names for random places, or a role for each head. The host is GPT-2, or with
    ``n_kv_heads`` a Llama with so many key/value heads. A matching key scores ``sharpness`` (30: attention is hard, and gradients
    vanish; 4 to 8: soft), and a head that predicts writes a logit of ``gain``. Heads of noise have scores of standard deviation
    ``noise_scores`` and write ``noise_writes`` times what a token's direction is long: where nobody reads, or ``noise_everywhere``
    (then the ground truth no longer holds exactly). Raises LookupError for unknown roles, ValueError for what does not fit.
    """
    options = {name: value for name, value in locals().items() if name not in ("roles", "dtype", "device")}
    import torch

    from interp.models.wrap import wrap_model

    family = roles if isinstance(roles, str) else "custom"
    if isinstance(roles, str):
        roles = _known(roles, FAMILIES, "family of roles")
    vocabulary, rng = Vocabulary(n_names, n_fillers), np.random.default_rng([seed, 0])
    places = dict(sorted(roles.items())) if isinstance(roles, Mapping) else _placed(roles, n_layers, n_heads, rng)
    _check(places, n_layers, n_heads)
    sizes = _sizes(vocabulary, length, n_layers, n_heads, n_kv_heads, d_head)
    space = Space(vocabulary, length, sizes.d_model - _smallest(vocabulary, length, 0), gain, seed)
    recipes = {head: ROLES[role].recipe(space) for head, role in places.items()}
    noise = Noise(noise_scores, noise_writes, noise_everywhere)
    blueprint = Blueprint(recipes, space, sharpness, sizes, noise, _neuron_layer(places, rng))
    with torch.random.fork_rng(devices=[]):  # a Hugging Face module draws weights when it is made
        hf, axis = (gpt2 if n_kv_heads is None else llama)(blueprint, rng)
    changed = (f"{name}={value}" for name, value in options.items() if value != _defaults()[name])
    model = wrap_model(
        hf.to(device, getattr(torch, dtype)), vocabulary.tokenizer(), name=",".join([f"{PREFIX}{family}", *changed])
    )
    massive = None
    if blueprint.neuron is not None:
        massive = {"layer": blueprint.neuron, "token": DELIMITER, "dimension": axis, "value": MASSIVE}
    return Planted(model, places, {"family": family, **options, **asdict(sizes)}, massive, blueprint)


def plant_by_name(name: str, *, device: str = "cpu", dtype: str = "float32") -> Planted:
    """What ``planted:FAMILY`` or ``planted:FAMILY,seed=3,sharpness=6`` names, with options of ``plant``.

    Raises LookupError for unknown families and options, ValueError for a value of another kind.
    """
    family, *options = name.removeprefix(PREFIX).split(",")
    given = {key: _read(key, value) for key, _, value in (option.partition("=") for option in options)}
    return plant(family, device=device, dtype=dtype, **given)


def _defaults() -> dict[str, Any]:
    """The options of ``plant`` that make a different model."""
    options = {name: p.default for name, p in signature(plant).parameters.items() if p.kind is p.KEYWORD_ONLY}
    return {name: value for name, value in options.items() if name not in ("dtype", "device")}


def _read(option: str, value: str) -> Any:
    default = _known(option, _defaults(), "option of a planted model")
    if isinstance(default, bool):
        return _known(value, {"True": True, "False": False}, f"value of {option}")
    try:
        return int(value) if default is None else type(default)(value)
    except ValueError:
        raise ValueError(f"{option}={value} is not a number that a planted model can take.") from None


def _placed(names: Sequence[str], n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[Head, str]:
    """A random head for each role: every level has a layer of its own, levels rising."""
    roles = [(_known(name, ROLES, "role").level, name) for name in names]
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


def _check(places: Mapping[Head, str], n_layers: int, n_heads: int) -> None:
    """Raises ValueError for a head that does not exist, or a role that stands before what it reads."""
    for head, name in places.items():
        role = _known(name, ROLES, "role")
        if not (0 <= head.layer < n_layers and 0 <= head.head < n_heads):
            raise ValueError(
                f"{name!r} cannot be planted at {head}: there are layers 0-{n_layers - 1} and heads 0-{n_heads - 1}."
            )
        below = {other for place, other in places.items() if place.layer < head.layer}
        missing = [need for need in role.needs if need not in below]
        if missing or (name == "hidden_sink" and head.layer == 0):
            reads = missing[0] if missing else "a neuron"
            raise ValueError(f"{name!r} at {head} reads {reads}, and there is none in an earlier layer: plant it there.")


def _neuron_layer(places: Mapping[Head, str], rng: np.random.Generator) -> int | None:
    """A random layer before all hidden sinks."""
    sinks = [head.layer for head, role in places.items() if role == "hidden_sink"]
    return int(rng.integers(min(sinks))) if sinks else None


def _smallest(vocabulary: Vocabulary, length: int, n_noise: int = SMALLEST_NOISE) -> int:
    """Width of the residual stream for all coordinates and the vector of ones."""
    return Space.size_without_noise(vocabulary, length) + n_noise + 1


def _sizes(
    vocabulary: Vocabulary, length: int, n_layers: int, n_heads: int, n_kv_heads: int | None, d_head: int | None
) -> Sizes:
    """Sizes in which every placement fits, unless ``d_head`` is given; raises ValueError for what never does."""
    if length < SHORTEST or n_heads % (n_kv_heads or n_heads) or (n_kv_heads and (d_head or 0) % 2):
        raise ValueError(
            f"length={length}, n_heads={n_heads}, n_kv_heads={n_kv_heads}, d_head={d_head} cannot be planted: length must be at least "
            f"{SHORTEST}, the longest prompt, n_heads a multiple of n_kv_heads, and d_head even where there is one."
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


def _known(name: str, known: Mapping[str, Any], kind: str) -> Any:
    if name not in known:
        raise LookupError(f"No {kind} is called {name!r}. There are: {', '.join(known)}.")
    return known[name]


def _logit_diff(found: Trace, prompts: Sequence[PlantedPrompt]) -> float:
    last = found.logits[:, -1]
    return float(np.mean([row[p.answers[0]] - row[p.distractors[0]] for row, p in zip(last, prompts, strict=True)]))
