"""Stochastically subsampled attention (Information Pathways, arXiv 2306.01705): only some keys are visible, drawn at random.

All queries and heads of a layer share the draw, and every layer and ``seed`` has another one. Each key is drawn by itself, so that the
share of visible keys is ``rate`` on average; the paper draws a fixed number. With ``local`` above 0 keys are moved by up to so many tokens
and a window is laid over the moved ones instead, which keeps near pairs more often (recalled form; no code was published). A query always
sees itself.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_least, check_share, lags, mask, uniform


@intervention(source="Information Pathways, arXiv 2306.01705", neutral={"rate": 1.0})
def information_pathways(
    heads: Iterable[Head], rate: float = 0.25, local: int = 0, seed: int = 0, positions: Positions = "all"
) -> Intervention:
    """The head attends to a random share ``rate`` of the tokens, the same for all queries; ``local`` prefers near ones."""
    check_share("information_pathways", rate=rate)
    check_least("information_pathways", 0, local=local, seed=seed)

    def keep(at):
        drawn = uniform(at.keys, seed, at.head.layer)[:, None]
        lag = lags(at)
        if local and rate < 1:
            return (lag == 0) | ((lag + (2 * drawn - 1) * local).abs() < rate * local)
        return (lag == 0) | (drawn < rate)

    return mask(heads, f"pathways {rate:g} local {local} seed {seed}", keep, positions)
