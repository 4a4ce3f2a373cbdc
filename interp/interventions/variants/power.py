"""Power re-weighting: every weight to a power, normalised again, which is a softmax at another temperature (arXiv 2501.13428)."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention


@intervention(source="Softplus Attention with Re-weighting, arXiv 2501.13428", neutral={"exponent": 1.0})
def power(heads: Iterable[Head], exponent: float = 3.0, positions: Positions = "all") -> Intervention:
    """Weights become ``weight ** exponent``, normalised again: above 1 the head attends more sharply, below 1 more evenly."""
    if not exponent > 0:
        raise ValueError(f"power: exponent={exponent:g} is not positive: give 1 for the unchanged head.")

    def scores(s, at):
        return s if exponent == 1 else s * exponent

    return Intervention("scores", tuple(heads), scores, f"power {exponent:g}", positions, alike=True)
