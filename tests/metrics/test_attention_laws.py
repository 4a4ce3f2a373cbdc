"""Laws of attention metrics for rows of any kind: bounds, closed forms, and that a head's number does not depend on where it stands."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from tests.support.pattern_cases import given, random_pattern, unpadded, visible_keys

NAMES = ("entropy", "attention_distance", "prev_token_score")
ROUNDING = 2e-6


@dataclass(frozen=True)
class Rows:
    """What a text and its heads may be; ``block`` weights are read at once."""

    length: int
    n_heads: int
    peak: float
    causal: bool
    window: int | None
    block: int
    seed: int

    def read(self, pattern):
        """The metrics of a pattern [1 head query key], each [head query]."""
        found = given(pattern, *NAMES, causal=self.causal, window=self.window, block=self.block)
        return {name: found[name][0, 0] for name in NAMES}

    def seen(self):
        """Which keys each query sees, [query key]."""
        return visible_keys(unpadded(1, self.length), self.causal, self.window)[0, 0]


@st.composite
def rows(draw):
    length, causal = draw(st.integers(1, 13)), draw(st.booleans())
    window = draw(st.none() | st.integers(1, length)) if causal else None
    sizes = draw(st.integers(1, 5)), draw(st.floats(0, 30))
    return Rows(length, *sizes, causal, window, draw(st.sampled_from([1, 7, 60, 1 << 18])), draw(st.integers(0, 2**31)))


@pytest.mark.slow
@for_all(rows(), st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_every_metric_keeps_the_laws(case, random):
    n, seen, place = case.length, case.seen(), torch.arange(case.length)
    pattern = random_pattern(1, case.n_heads, unpadded(1, n), case.causal, case.window, peak=case.peak, seed=case.seed)[0]
    n_keys = seen.sum(-1).float()
    shift = (place - int(case.window != 1)).clamp(min=0)
    known = [seen / n_keys[:, None], torch.eye(n), torch.eye(n)[shift]]
    pattern = torch.cat([pattern, torch.stack(known)[None]], 1)
    found = case.read(pattern)

    assert found["entropy"].min() >= 0
    assert (found["entropy"] <= n_keys.log() + ROUNDING).all()
    farthest = ((place[:, None] - place).abs() * seen).amax(-1)
    assert found["attention_distance"].min() >= 0
    assert (found["attention_distance"] <= farthest * (1 + ROUNDING)).all()
    before = found["prev_token_score"][:, 1:]
    assert not before.isnan().any() and ((before >= 0) & (before <= 1 + ROUNDING)).all()

    uniform, itself, shifted = range(case.n_heads, case.n_heads + 3)
    torch.testing.assert_close(found["entropy"][uniform], n_keys.log(), rtol=0, atol=ROUNDING)
    assert found["attention_distance"][itself].tolist() == found["entropy"][itself].tolist() == [0.0] * n
    assert before[itself].tolist() == [0.0] * (n - 1)
    assert before[shifted].tolist() == found["attention_distance"][shifted, 1:].tolist() == (place - shift)[1:].tolist()

    order = list(range(len(pattern[0])))
    random.shuffle(order)
    for name, values in case.read(pattern[:, order]).items():
        torch.testing.assert_close(values, found[name][order], rtol=0, atol=ROUNDING * n, equal_nan=True)
