"""What is said of a head beside its picture, in a word and a number.

A badge is an attention metric with a short name and, if there is one, the value from which the head is said to play the role. A
page of one's own adds a metric with ``add_badge``. What detectors found of the head in the whole model stands beside (``role_badges``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.detectors import Detection
    from interp.heads import Head


@dataclass(frozen=True)
class Badge:
    """``metric`` as ``observe_attention`` takes it; ``threshold``: from here on the badge is shown in colour."""

    label: str
    metric: str
    threshold: float | None = None
    about: str = ""

    @property
    def name(self) -> str:
        return self.metric.split(":")[0]


_BADGES = [
    Badge("distance", "attention_distance", about="mean distance from query to key in tokens, weighted by attention"),
    Badge("entropy", "entropy", about="mean Shannon entropy of a row in nats"),
    Badge("sink", "sink_share", 0.5, "mean weight on the first four tokens, of the queries from 16 on"),
    Badge("previous", "prev_token_score", 0.5, "mean weight on the token before"),
    Badge("self", "self_attention_score", 0.5, "mean weight on the token itself"),
    Badge("induction", "induction_score", 0.5, "mean weight on the tokens that followed earlier occurrences of the same token"),
]


def add_badge(badge: Badge) -> None:
    """Shows a badge beside every head from now on; one of the same metric is replaced."""
    _BADGES[:] = [known for known in _BADGES if known.metric != badge.metric] + [badge]


def badges() -> tuple[Badge, ...]:
    """All badges in the order in which they are shown."""
    return tuple(_BADGES)


def role_badges(known: Mapping[str, Detection], head: Head) -> list[tuple[str, bool, str]]:
    """Of each role its name with the head's score, whether the head was found to play it, and what the score is compared with."""
    from interp.figures.style import number

    told = []
    for role, found in known.items():
        score = found.scores[head]
        if score == score:
            limit, chance = number(found.threshold), number(found.control[head])
            about = f"{found.scores.name} in {found.scores.unit}; threshold {limit}, with wrong targets {chance}"
            told.append((f"{role.replace('_', ' ')} {number(score)}", score > found.threshold, about))
    return told
