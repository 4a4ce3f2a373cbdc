"""Variants of a run: the interventions that are applied together in one changed run of a sweep."""

from interp.heads import Head
from interp.interventions import Intervention

Variant = tuple[Intervention, ...]


def heads_of(variant: Variant) -> tuple[Head, ...]:
    """All heads that the variant changes, in order, each once."""
    return tuple(dict.fromkeys(head for intervention in variant for head in intervention.heads))


def first_layer(variant: Variant) -> int:
    """The lowest layer that the variant changes."""
    return min(head.layer for intervention in variant for head in intervention.heads)


def resumable(variant: Variant) -> bool:
    """Whether the variant can be resumed from the clean pass.

    Patterns and scores may be changed in its first layer only: above it, the clean rows no longer hold.
    """
    first = first_layer(variant)
    return all(i.site == "z" or all(head.layer == first for head in i.heads) for i in variant)


def describe(variant: Variant) -> str:
    """The interventions of the variant as text."""
    return "; ".join(map(str, variant))
