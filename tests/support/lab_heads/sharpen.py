"""Sharper attention: the weights of a row are raised to a power and normalised again."""

from interp.interventions import Intervention, intervention


@intervention()
def sharpen(heads, power: float = 2.0, positions="all") -> Intervention:
    """The head's attention weights are raised to a power and normalised again."""

    def rows(weights, context):
        sharp = weights**power
        return sharp / sharp.sum(-1, keepdim=True).clamp(min=1e-30)

    return Intervention("pattern", tuple(heads), rows, f"sharpen {power:g}", positions)
