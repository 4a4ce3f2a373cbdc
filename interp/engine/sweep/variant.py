"""Variants of a run: the interventions that are applied together in one changed run of a sweep."""

from collections.abc import Sequence

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
    """Whether the variant can be resumed from the clean pass: the changes of its first layer are added to the clean output there, so that
    no head may be changed twice."""
    return len(heads_of(variant)) == sum(len(intervention.heads) for intervention in variant)


def changes_patterns(variants: Sequence[Variant]) -> bool:
    """Whether any of the variants changes patterns or scores."""
    return any(intervention.inside_attention for variant in variants for intervention in variant)


def pattern_changes(variants: Sequence[Variant]) -> list[tuple[Intervention, Head]]:
    """The changes of patterns and scores that act on clean rows: those of a variant's first layer."""
    first = ((i, head, first_layer(v)) for v in variants for i in v if i.inside_attention for head in i.heads)
    return list(dict.fromkeys((i, head) for i, head, layer in first if head.layer == layer))


def reads_whole_text(variants: Sequence[Variant], layer: int) -> bool:
    """Whether any of the variants has a change in this layer that reads the whole text."""
    return any(i.needs_whole_text and head.layer == layer for variant in variants for i in variant for head in i.heads)


def describe(variant: Variant) -> str:
    """The interventions of the variant as text."""
    return "; ".join(map(str, variant))
