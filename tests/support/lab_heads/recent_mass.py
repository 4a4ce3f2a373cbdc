"""Weight on recent tokens: the share of a row on the last ``n`` tokens, the current one included."""

from interp.metrics import AttentionMetric


def _recent_mass(rows, n):
    distance = rows.query_positions[:, :, None] - rows.key_positions[:, None]
    recent = (distance >= 0) & (distance < n)
    return (rows.pattern * recent[:, None]).sum(-1)


recent_mass = AttentionMetric(
    name="recent_mass",
    axis="query",
    unit="weight",
    bounds=(0.0, 1.0),
    function=_recent_mass,
    paper="our lab notes, 2026",
    parameters={"n": 4},
)
