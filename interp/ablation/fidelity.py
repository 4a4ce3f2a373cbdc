"""Fidelity of heads under an attention variant: rows of the unchanged pass and of the variant, side by side, each head by itself.

The pass stays as it is, and the variant's rows are computed from the same queries and keys. For a mask whose kept keys are normalised
again, total variation is 1 - retained mass and KL(variant to unchanged) is -ln(retained mass). What a head's output is worth to the model
is another question: ``ablate_heads(ablation=variant)`` answers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_observer import Observation, observe
from interp.engine.attention.attention_rows import AttentionRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.interventions import Intervention
    from interp.models.model import Model
    from interp.tasks.token_batch import Prompts


def fidelity(model: Model, prompts: Prompts, variants: Sequence[Intervention], *, memory: int | None = None) -> Observation:
    """``FIDELITY_METRICS`` of every head in one pass over the prompts; heads that no intervention changes agree with themselves.

    ``memory`` is in bytes in addition to the loaded model. Raises ValueError for a variant that leaves patterns as they are, and as
    ``interp.engine.observe`` does.
    """
    for variant in variants:
        check_changes_patterns(variant)
    return observe(model, prompts, FIDELITY_METRICS, intervene=variants, memory=memory, compare=True)


def check_changes_patterns(variant: Intervention) -> None:
    """Raises ValueError for a variant that leaves patterns as they are."""
    if variant.site not in ("scores", "pattern"):
        raise ValueError(
            f"{variant.label} changes {variant.site} and no pattern, so that there is nothing to compare row by row: measure it with "
            f"`interp ablate --ablation {variant.label}`."
        )


def _variant(rows: AttentionRows) -> Tensor:
    assert rows.variant is not None
    return rows.variant


def _density(rows: AttentionRows) -> Tensor:
    return (_variant(rows) > 0).sum(-1) / rows.n_visible[:, None].clamp(min=1)


def _retained_mass(rows: AttentionRows) -> Tensor:
    return (rows.pattern * (_variant(rows) > 0)).sum(-1)


def _oracle_mass(rows: AttentionRows) -> Tensor:
    count = (_variant(rows) > 0).sum(-1, keepdim=True)
    largest = rows.pattern.sort(-1, descending=True).values.cumsum(-1)
    return torch.where(count > 0, largest.gather(-1, (count - 1).clamp(min=0)), 0)[..., 0]


def _total_variation(rows: AttentionRows) -> Tensor:
    return (rows.pattern - _variant(rows)).abs().sum(-1) / 2


def _kl(rows: AttentionRows) -> Tensor:
    new, least = _variant(rows), torch.finfo(torch.float32).tiny
    return (new * (new.clamp(min=least).log() - rows.pattern.clamp(min=least).log())).sum(-1)


def _output_error(rows: AttentionRows) -> Tensor:
    old = rows.output(rows.pattern)
    return (rows.output(_variant(rows)) - old).norm(dim=-1) / old.norm(dim=-1).clamp(min=1e-30)


FIDELITY_METRICS = [
    AttentionMetric(name, "query", unit, bounds, function, "shared measures of sparse attention")
    for name, function, unit, bounds in (
        ("density", _density, "share of visible keys", (0.0, 1.0)),
        ("retained_mass", _retained_mass, "share of attention", (0.0, 1.0)),
        ("oracle_mass", _oracle_mass, "share of attention", (0.0, 1.0)),
        ("total_variation", _total_variation, "share of attention", (0.0, None)),
        ("kl", _kl, "nats", (None, None)),
        ("output_error", _output_error, "share of the output", (0.0, None)),
    )
]
"""Mean over rows of: keys with weight under the variant; the unchanged row's mass on them; its mass on as many of its largest keys, the
best that a mask of this size retains; total variation; KL divergence from the unchanged row to the variant's; relative change of the
output."""
