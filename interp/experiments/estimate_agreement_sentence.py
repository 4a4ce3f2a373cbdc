"""How well the estimate that chose what was measured agrees with the exact effects, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.store import StoredRun


def agreement_sentence(run: StoredRun) -> str:
    """The agreement of gradient estimates with the exact effects of the heads or edges that they chose; empty for other runs."""
    agreement = run.manifest["details"].get("agreement")
    if not agreement:
        return ""
    edges = run.manifest["details"].get("kind") == "circuit"
    what = "edges" if edges else "heads"
    rank = "undefined" if agreement["spearman"] is None else f"{agreement['spearman']:+.2f}"
    sign_share = "an undefined share" if agreement["same_sign"] is None else f"{agreement['same_sign']:.0%}"
    return (
        f"Estimate and exact effect of the {agreement['n']:,} {what} measured: Spearman {rank}, {agreement['top_overlap']:.0%} of the top "
        f"{agreement['k']:,} shared, {sign_share} with the same sign. The other {what} were only estimated"
        f"{' and rank below these' * edges}."
    )
