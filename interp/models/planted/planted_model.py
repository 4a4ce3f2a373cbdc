"""A planted model with its ground truth: roles, structural edges, and exact effects under a counterfactual."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import numpy as np

from interp._short_repr import short_repr
from interp.heads import Head
from interp.models.model import Model
from interp.models.planted.analytic_ground_truth import PlantedEdge, Trace, structural_edges, trace
from interp.models.planted.head_roles import Blueprint
from interp.models.planted.prompts import ANSWERED_BY, PROMPTS, PlantedPrompt
from interp.models.planted.vocabulary import Vocabulary

TOLERANCE = 1e-6


@short_repr
@dataclass(frozen=True, eq=False)
class GroundTruthEffects:
    """Exact mean effects on the logit difference of prompts of one kind, in logits, ``effect = changed - clean``. ``clean`` and
    ``corrupted`` are the mean logit differences themselves. ``edges`` holds every structural edge, corrupted alone (all others
    have no effect); ``ablations`` every planted head, zeroed at all positions."""

    prompts: tuple[PlantedPrompt, ...]
    clean: float
    corrupted: float
    edges: dict[PlantedEdge, float]
    ablations: dict[Head, float]

    @property
    def active_edges(self) -> list[PlantedEdge]:
        """Edges whose effect is larger than 1e-6 logits."""
        return [edge for edge, effect in self.edges.items() if abs(effect) > TOLERANCE]


class PlantedMassiveActivation(NamedTuple):
    """The MLP of ``layer`` writes ``value`` on one ``dimension`` of the residual stream of every ``token``, where it stays."""

    layer: int
    token: int
    dimension: int
    value: float


@short_repr
@dataclass(frozen=True, eq=False)
class PlantedModel:
    """A Model and its ground truth: ``roles`` by head (all others are noise), ``settings``, massive activation."""

    model: Model
    roles: dict[Head, str]
    settings: dict[str, Any]
    massive: PlantedMassiveActivation | None
    _blueprint: Blueprint

    @property
    def vocabulary(self) -> Vocabulary:
        return self._blueprint.space.vocabulary

    def heads(self, role: str) -> list[Head]:
        """The heads with this role, in order. Raises LookupError for a role that is not planted."""
        found = [head for head, name in self.roles.items() if name == role]
        if not found:
            known = ", ".join(sorted(set(self.roles.values())))
            raise LookupError(f"No head of {self.model.facts.name} is {role!r}. There are: {known}.")
        return found

    @cached_property
    def structural_edges(self) -> list[PlantedEdge]:
        """Structural edges (writer, reader); see ``exact_computation.py``."""
        return structural_edges(self._blueprint)

    def trace(self, tokens: Sequence[Sequence[int]], **changes: Any) -> Trace:
        """The exact pass over token ids [batch pos]; ``changes`` as in ``ground_truth.trace``."""
        return trace(self._blueprint, np.array(tokens), **changes)

    def tasks(self) -> list[str]:
        """Kinds of prompts that a planted head answers."""
        return [kind for kind, roles in ANSWERED_BY.items() if roles & set(self.roles.values())]

    def prompts(self, kind: str, n_prompts: int = 8, seed: int = 0) -> list[PlantedPrompt]:
        """Prompts of one kind (``repeats``, ``ioi`` or ``needle``), all of one length. Raises LookupError for an unknown kind."""
        if kind not in PROMPTS:
            raise LookupError(f"No prompts are called {kind!r}. There are: {', '.join(PROMPTS)}.")
        return list(islice(PROMPTS[kind](Random(seed), self.vocabulary, self._blueprint.space.length), n_prompts))

    def ground_truth_effects(self, kind: str, n_prompts: int = 8, seed: int = 0) -> GroundTruthEffects:
        """The exact effects on ``n_prompts`` prompts of one kind."""
        prompts = self.prompts(kind, n_prompts, seed)
        clean = [p.clean for p in prompts]
        other = self.trace([p.corrupted for p in prompts])
        before = _logit_diff(self.trace(clean), prompts)

        def effect(**changes: Any) -> float:
            return _logit_diff(self.trace(clean, **changes), prompts) - before

        edges = {edge: effect(corrupted_edges=[edge], corrupted=other) for edge in self.structural_edges}
        ablations = {head: effect(ablated_heads=[head]) for head in self.roles}
        return GroundTruthEffects(tuple(prompts), before, _logit_diff(other, prompts), edges, ablations)

    def manifest(self) -> dict[str, Any]:
        """Settings, roles, edges and the effects of every task on 8 prompts, as JSON."""
        found = {kind: self.ground_truth_effects(kind) for kind in self.tasks()}
        return {
            **self.settings,
            "weights": self.model.facts.weights_digest,
            "roles": {str(head): role for head, role in self.roles.items()},
            "massive": self.massive and self.massive._asdict(),
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


def _logit_diff(found: Trace, prompts: Sequence[PlantedPrompt]) -> float:
    last = found.logits[:, -1]
    return float(np.mean([row[p.answers[0]] - row[p.distractors[0]] for row, p in zip(last, prompts, strict=True)]))
