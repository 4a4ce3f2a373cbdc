"""Badges: scores of a head shown beside its pattern.

A badge is an attention metric with a short name and, for roles, the score from which the head counts as having the role. Scores of
detectors, measured on their own prompts, are shown beside them (``role_badges``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interp.detectors import Detection
from interp.figures.style import number
from interp.heads import Head
from interp_dashboard.formatting import plain


@dataclass(frozen=True)
class Badge:
    """``metric`` as for ``observe_attention``; from ``threshold`` on the badge is coloured; ``about`` says what is measured."""

    label: str
    metric: str
    threshold: float | None
    about: str

    @property
    def name(self) -> str:
        return self.metric.split(":")[0]


_BADGES = (
    Badge("distance", "attention_distance", None, "mean distance from query to key in tokens, weighted by attention"),
    Badge("entropy", "entropy", None, "mean entropy of an attention row, in nats"),
    Badge("sink", "sink_mass", 0.5, "mean attention to the first four tokens, of queries from position 16 on"),
    Badge("previous", "prev_token_score", 0.5, "mean attention to the previous token"),
    Badge("self", "self_attention_score", 0.5, "mean attention to the query's own token"),
    Badge("induction", "induction_score", 0.5, "mean attention to the tokens after earlier occurrences of the query's token"),
)


def badges() -> tuple[Badge, ...]:
    """All badges in display order."""
    return _BADGES


def role_badges(known: Mapping[str, Detection], head: Head) -> list[tuple[str, bool, str]]:
    """Of each role its name with the head's score, whether the score exceeds the threshold, and an explanation."""
    rows = []
    for role, found in known.items():
        score = found.scores[head]
        if score == score:
            limit, chance = number(found.threshold[head]), number(found.control[head])
            about = f"Detector, on its own prompts: {found.scores.name} in {found.scores.unit}."
            about += f" Threshold {limit}, null {chance}"
            rows.append((f"{plain(role)} {number(score)}", bool(found.above_threshold[head]), about))
    return rows
