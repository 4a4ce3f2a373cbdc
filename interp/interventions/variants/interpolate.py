"""Interpolation of a pattern to the identity or to uniform attention (SoftPAG, HeadHunter, arXiv 2506.10978)."""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import Intervention, Positions, intervention
from interp.interventions.variants._rows import check_share, lags


@intervention(source="HeadHunter and SoftPAG, arXiv 2506.10978", neutral={"u": 0.0})
def interpolate(heads: Iterable[Head], u: float = 1.0, to: str = "identity", positions: Positions = "all") -> Intervention:
    """A share ``u`` of every row is replaced by the query itself (``to=identity``) or by uniform attention (``to=uniform``)."""
    check_share("interpolate", u=u)
    if to not in ("identity", "uniform"):
        raise ValueError(f"interpolate: to={to!r} is neither identity nor uniform.")

    def rows(x, at):
        target = ((lags(at) == 0) if to == "identity" else at.visible).to(x.dtype).expand_as(x)
        return target / target.sum(-1, keepdim=True).clamp(min=1)

    return Intervention("pattern", tuple(heads), rows, f"{to} {u:g}", positions, strength=u, alike=True)
