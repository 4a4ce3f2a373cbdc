"""One type, one equation."""

from inspect import signature

import pytest
import torch

from interp import interventions
from interp.ablation.ablations import NEEDS
from interp.errors import ExtensionError
from interp.heads import Head
from interp.interventions import INTERVENTIONS, HeadInputs, Intervention, InterventionContext
from interp.interventions.intervention import AXES, SITES

PLACE = InterventionContext(
    Head(1, 2),
    torch.tensor([0, 2]),
    torch.arange(3)[None],
    torch.ones(3, 3, dtype=torch.bool).tril()[None],
    torch.arange(3)[None],
)

Q, K, V = torch.randn(3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
SCORES = (Q @ K.mT / 2).masked_fill(~PLACE.visible, -torch.inf)
INPUTS = HeadInputs(
    Q,
    K,
    V,
    PLACE.positions,
    PLACE.keys,
    torch.ones(2, 3, dtype=torch.bool),
    lambda: iter([(slice(0, 3), slice(0, 3), SCORES.softmax(-1))]),
    lambda queries, keys: SCORES[:, queries, keys],
    lambda: torch.stack([Q.norm(dim=-1), Q.norm(dim=-1), Q.norm(dim=-1) + 1], 1),
    0.5,
)


def place(intervention):
    """``PLACE`` with what this intervention reads, and a fresh memory."""
    context = PLACE._replace(inputs=INPUTS, query_slice=slice(0, 3), key_slice=slice(0, 3), memory={})
    if intervention.prepare is not None:
        intervention.prepare(INPUTS, context.memory)
    return context


class Bank:
    def z(self, head, rows, positions):
        return 100.0 * rows[:, None, None] + positions[:, :, None] + torch.zeros(1, 1, 4)


@pytest.fixture
def x():
    return torch.arange(24.0).reshape(2, 3, 4)


SUPPLIED = {
    "means": torch.full((2, 5, 4), 7.0),
    "clean": Bank(),
    "corrupted": Bank(),
    "source_ids": torch.tensor([2, 0, 1]),
    "sinks": torch.tensor([[0, 1, 0], [1, 0, 0], [0, 1, 0]]).bool()[None, :, None].expand(2, 3, 5, 3),
    "targets": torch.tensor([[0, 1, 0], [1, 1, 1], [1, 0, 1]]).bool(),
}
OPTIONS = {"scale": {"factor": 0.5}, "streaming": {"n_sink": 1, "n_recent": 1}}


def build(name):
    """The intervention of this name on one head, with what it needs."""
    constructor = INTERVENTIONS.get(name)
    return constructor([Head(1, 2)], **{need: SUPPLIED[need] for need in constructor.needs}, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", INTERVENTIONS.names())
def test_the_equation_holds_for_every_constructor(name, x):
    intervention = build(name)
    y = x[:, :, :3] if intervention.site in AXES else x
    target = intervention.at(1.0).apply(y, place(intervention))
    assert target.shape == y.shape and intervention.site in SITES
    assert intervention.at(0.0).apply(y, place(intervention)) is y
    torch.testing.assert_close(intervention.at(0.25).apply(y, place(intervention)), y + 0.25 * (target - y))
    torch.testing.assert_close(intervention.at(-1.0).apply(y, place(intervention)), 2 * y - target)


def test_replacements_are_what_the_names_say(x):
    zero, mean, resample, patch = (build(name) for name in ("zero", "mean", "resample", "patch"))
    scale, uniform, attend_to = (build(name) for name in ("scale", "uniform", "attend_to"))
    assert (zero.apply(x, PLACE) == 0).all()
    assert (mean.apply(x, PLACE) == 7).all()
    assert resample.apply(x, PLACE)[:, 2, 0].tolist() == [202, 102]  # rows 0 and 2 get donors 2 and 1, at position 2
    assert patch.apply(x, PLACE)[:, 1, 0].tolist() == [1, 201]
    torch.testing.assert_close(scale.apply(x, PLACE), x / 2)
    assert uniform.apply(x[:, :, :3], PLACE)[1].tolist() == [[1, 0, 0], [0.5, 0.5, 0], pytest.approx([1 / 3] * 3)]
    y = x[:, :, :3]
    assert attend_to.apply(y, PLACE)[0].tolist() == [y[0, 0].tolist(), [0, 1, 0], [0, 1, 0]]  # query 0 cannot see key 1
    assert attend_to.apply(y, PLACE)[1].tolist() == [[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]


@pytest.mark.parametrize("name", INTERVENTIONS.names())
def test_every_intervention_declares_what_it_needs_and_what_it_is(name):
    constructor = INTERVENTIONS.get(name)
    heads, *parameters = signature(constructor).parameters.values()
    assert heads.name == "heads" and parameters[-1].name == "positions"
    assert [p.name for p in parameters[: len(constructor.needs)]] == list(constructor.needs)
    assert all(p.default is not p.empty for p in parameters[len(constructor.needs) :])
    assert set(constructor.needs) <= NEEDS and constructor.about == INTERVENTIONS.describe(name)


def test_a_mean_that_depends_on_the_head_is_looked_up_by_layer_and_head(x):
    means = torch.zeros(2, 5, 4)
    means[1, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert interventions.mean([Head(1, 2)], means).apply(x, PLACE)[1, 0].tolist() == [1, 2, 3, 4]


def test_the_input_is_never_changed_in_place(x):
    before = x.clone()
    for intervention in map(build, INTERVENTIONS.names()):
        intervention.apply(x[:, :, :3] if intervention.site in AXES else x, place(intervention))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("returned", "given"),
    [(None, "NoneType"), (0.5, "float"), (torch.zeros(5), r"\(5,\)"), (torch.zeros(1, 2, 3, 4), r"\(1, 2, 3, 4\)")],
)
def test_what_a_replacement_must_not_return_is_said(returned, given, x):
    odd = Intervention("z", (Head(1, 2),), lambda x, context: returned, "odd")
    with pytest.raises(
        ExtensionError, match=rf"'odd' must return \[batch pos d_head\] \(2, 3, 4\), or what broadcasts to it, not {given}"
    ):
        odd.apply(x, PLACE)
    assert Intervention("z", (Head(1, 2),), lambda x, context: torch.zeros(()), "zero").apply(x, PLACE).eq(0).all()


def test_bad_interventions_are_refused_when_made():
    with pytest.raises(ValueError, match="site 'mlp' is not one of q, k, v, scores, pattern, z"):
        Intervention("mlp", (Head(0, 0),), lambda x, context: x, "odd")
    with pytest.raises(ValueError, match="names no head"):
        interventions.zero([])
    with pytest.raises(ValueError, match="names a head twice: L0H1, L0H1"):
        interventions.zero([Head(0, 1), Head(0, 1)])
    with pytest.raises(ValueError, match="example 1 is its own resample source"):
        interventions.resample([Head(0, 0)], Bank(), torch.tensor([2, 1, 0]))
