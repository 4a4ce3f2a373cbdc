"""PlantedModel circuits of five families: what each way of finding edges and heads makes of them, on 20 seeds, against the recipes.

The ground truth is computed from the recipes, without a weight and without the engine (``exact_computation.py``). Even seeds are
planted in a GPT-2, in double precision where nothing else is said; odd ones in a Llama with grouped heads, whose norms and softmax
are single precision in any case.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads
from interp.circuits import (
    EdgeScores,
    auroc,
    backup_heads,
    circuit_outcomes,
    compare_circuits,
    head_overlap,
    path_patch,
    path_patch_stages,
    score_edges,
)
from interp.engine.edges.edge_patching import graph_of
from interp.graph import Edge, Node
from interp.heads import Head, HeadScores
from interp.models.planted import PlantedModel, plant
from interp.models.planted.planted_model import GroundTruthEffects
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import edge_of

N_SEEDS = 20


def seeds(n_quick: int) -> pytest.MarkDecorator:
    """All seeds, of which the first few are no slow tests: even ones plant into GPT-2, odd ones into Llama."""
    marked = [pytest.param(seed, marks=[pytest.mark.slow] if seed >= n_quick else []) for seed in range(N_SEEDS)]
    return pytest.mark.parametrize("seed", marked)


SEEDS = seeds(1)
SHARP, SOFT = 30.0, 6.0


class Case(NamedTuple):
    """A family, the prompts it answers, and how many of its edges are structural, active, and active above the floor of 1e-6 of the
    largest effect, with sharp heads; then how many are active with soft ones."""

    family: str
    kind: str
    structural: int
    active: int
    above_floor: int
    active_if_soft: int

    def __str__(self) -> str:
        return f"{self.family}-{self.kind}"


CASES = [
    Case("mini_ioi", "ioi", 17, 9, 9, 12),
    Case("repeats", "repeats", 8, 3, 3, 3),
    Case("backup", "ioi", 24, 15, 14, 18),  # input -> value of the backup: 3e-6 logits where others have 10
    Case("double_s_inhibition", "ioi", 17, 3, 3, 11),
    Case("two_tasks", "repeats", 13, 3, 3, 3),
    Case("two_tasks", "needle", 13, 3, 3, 3),
]
EACH = pytest.mark.parametrize("case", CASES, ids=str)


def planted(family: str, seed: int, sharpness: float = SHARP, dtype: str = "float64") -> PlantedModel:
    """4 layers x 4 heads with 17 positions and 23 tokens; Llamas have 2 key/value heads."""
    sizes = {"n_heads": 4, "length": 17, "n_names": 7, "n_kv_heads": 2 if seed % 2 else None}
    return plant(family, seed=seed, sharpness=sharpness, dtype=dtype, **sizes)


def task_of(kind: str, prompts: Iterable, *, swapped: bool = False) -> Task:
    """Prompts as a task; ``swapped`` asks for the clean answer after the corrupted prompt."""
    examples = [Example(*prompt) for prompt in prompts]
    sides = [Example(e.corrupted, e.clean, e.answers, e.distractors, e.marks) for e in examples] if swapped else examples
    return Task(kind, tuple(sides), "logit_diff")


class Scored(NamedTuple):
    """Scores of a case, the true effect of every edge of the graph, and which edges are active and structural."""

    source: PlantedModel
    scores: EdgeScores
    found: GroundTruthEffects
    truth: np.ndarray
    active: np.ndarray
    structural: np.ndarray


@lru_cache(maxsize=60)
def scored(case: Case, sharpness: float, seed: int, method: str = "exact", dtype: str = "float64") -> Scored:
    source = planted(case.family, seed, sharpness, dtype)
    found = source.ground_truth_effects(case.kind, 6 if case.kind == "ioi" else 3)
    scores = score_edges(source.model, task_of(case.kind, found.prompts), method=method)
    effects = {edge_of(*edge): effect for edge, effect in found.edges.items()}
    active = {edge_of(*edge) for edge in found.active_edges}
    edges = scores.graph.edges
    assert effects.keys() <= set(edges)
    truth = np.array([effects.get(edge, 0.0) for edge in edges])
    return Scored(source, scores, found, truth, *(np.array([e in known for e in edges]) for known in (active, effects)))


# -- edges --------------------------------------------------------------------------------------------------------------------


@seeds(2)
@pytest.mark.parametrize("sharpness", [SHARP, SOFT])
@EACH
def test_exact_scores_are_the_ground_truth_of_every_edge(case, sharpness, seed):
    at = scored(case, sharpness, seed)
    n_active, n_above = (case.active, case.above_floor) if sharpness == SHARP else (case.active_if_soft,) * 2
    found = at.scores.values.mean(1)
    assert np.abs(found - at.truth).max() < (1e-4 if seed % 2 else 1e-9)  # of all edges, those of noise heads among them
    assert (at.structural.sum(), at.active.sum(), at.scores.n_nonzero) == (case.structural, n_active, n_above)
    assert seed % 2 or auroc(found, at.active) == 1.0
    assert auroc(at.scores.effects, at.active) == pytest.approx((n_above + n_active) / (2 * n_active))
    # against what is there and carries nothing a perfect score can do no better: the rest of it ties with all other edges
    assert auroc(at.scores.effects, at.structural) == pytest.approx((n_above + case.structural) / (2 * case.structural))
    assert n_active < case.structural


@SEEDS
@EACH
def test_in_single_precision_scores_are_the_ground_truth_to_what_a_score_of_attention_rounds(case, seed):
    at = scored(case, SHARP, seed, dtype="float32")
    rounding = (
        10 * SHARP * np.finfo(np.float32).eps * np.sqrt(at.source.model.facts.d_model)
    )  # of a score, times the logit it moves
    assert np.abs(at.scores.values.mean(1) - at.truth).max() < rounding
    assert auroc(at.scores.effects, np.abs(at.truth) > at.scores.noise_floor) == 1.0


GOLDEN = {
    ("s_inhibition", "name_mover.q"): (-40 / 3, -12.41),
    ("input", "name_mover.k"): (-10, -9.38),
    ("name_mover", "logits"): (-10, -9.17),
    ("input", "s_inhibition.v"): (-28 / 3, -8.70),
    ("input", "duplicate_token.q"): (-28 / 3, -7.18),
    ("duplicate_token", "s_inhibition.k"): (-28 / 3, -6.92),
    ("s_inhibition", "negative_name_mover.q"): (4, 3.72),
    ("input", "negative_name_mover.k"): (3, 2.81),
    ("negative_name_mover", "logits"): (3, 2.75),
    ("input", "name_mover.v"): (0, 0.05),
    ("input", "negative_name_mover.v"): (0, -0.015),
}


def place(source: PlantedModel, role: str) -> str:
    """A node of the ground truth by its role."""
    name, dot, part = role.partition(".")
    return role if name in ("input", "logits") else f"{source.heads(name)[0]}{dot}{part}"


@SEEDS
def test_exact_scores_of_mini_ioi_are_the_numbers_worked_out_by_hand(seed):
    for column, sharpness, tolerance in ((0, SHARP, 1e-4), (1, SOFT, 0.0051)):
        at = scored(CASES[0], sharpness, seed)
        effects = dict(zip(at.scores.graph.edges, at.scores.values.mean(1), strict=True))
        for roles, numbers in GOLDEN.items():
            edge = edge_of(*(place(at.source, role) for role in roles))
            assert effects.pop(edge) == pytest.approx(numbers[column], abs=tolerance), roles
        assert max(map(abs, effects.values())) < 1e-4
        assert (at.scores.clean.mean(), at.scores.corrupted.mean()) == pytest.approx(
            ((6.999998, 6.420038)[column], 0), abs=1e-6
        )


@SEEDS
@EACH
def test_all_edges_corrupted_are_the_corrupted_run_and_none_the_clean_one(case, seed):
    source = planted(case.family, seed, SOFT)
    prompts = source.prompts(case.kind, 3)
    n_edges = len(graph_of(source.model).edges)
    ends = circuit_outcomes(source.model, task_of(case.kind, prompts), np.array([[False], [True]]).repeat(n_edges, 1))
    for outcomes, side in zip(ends, ("corrupted", "clean"), strict=True):
        with torch.no_grad():
            last = source.model.hf(torch.tensor([getattr(p, side) for p in prompts])).logits[:, -1]
        want = [float(row[p.answers[0]] - row[p.distractors[0]]) for row, p in zip(last, prompts, strict=True)]
        assert outcomes == pytest.approx(want, abs=1e-4 if seed % 2 else 1e-9)
    assert ends[1].mean() - ends[0].mean() > 6


@SEEDS
@pytest.mark.parametrize("method", ["eap", "eap-ig"])
@EACH
def test_with_soft_heads_estimates_rank_the_active_edges_first(case, method, seed):
    at = scored(case, SOFT, seed, method)
    active = {edge for edge, is_active in zip(at.scores.graph.edges, at.active, strict=True) if is_active}
    assert set(at.scores.top(len(active))) == active and len(active) == case.active_if_soft
    assert auroc(at.scores.effects, at.active) == 1.0


SATURATED = [  # edges of eap above the floor; active edges that it puts below a thousandth; of the top of eap-ig those that are active
    (CASES[0], 2, 7, 7),
    (CASES[1], 3, 2, 3),
    (CASES[2], 8, 9, 13),
    (CASES[3], 1, 2, 1),
    (CASES[4], 3, 2, 3),
    (CASES[5], 3, 2, 3),
]


@SEEDS
@pytest.mark.parametrize(("case", "alive", "lost", "in_top"), SATURATED, ids=[str(row[0]) for row in SATURATED])
def test_with_sharp_heads_gradients_lose_edges_and_the_floor_shows_it_for_names(case, alive, lost, in_top, seed):
    at = scored(case, SHARP, seed, "eap")
    assert at.scores.n_nonzero == alive
    assert int((np.abs(at.scores.values.mean(1)) < 1e-3 * np.abs(at.truth))[at.active].sum()) == lost
    assert auroc(at.scores.effects, at.active) == pytest.approx((alive + case.active) / (2 * case.active))
    if case.kind == "ioi":
        assert (
            alive < case.above_floor
        )  # repeats and needles: e^-15 is above the floor, so that ranks are right and sizes are not
    steps = scored(case, SHARP, seed, "eap-ig")
    active = {edge for edge, is_active in zip(steps.scores.graph.edges, steps.active, strict=True) if is_active}
    assert len(active & set(steps.scores.top(len(active)))) == in_top
    assert np.abs(steps.scores.effects - steps.truth).max() > 3


@pytest.mark.slow
def test_permuted_scores_tell_nothing():
    rng, areas = np.random.default_rng(0), []
    for seed in range(N_SEEDS):
        at = scored(CASES[0], SOFT, seed, "eap")
        areas.append(np.mean([auroc(rng.permutation(at.scores.values.mean(1)), at.active) for _ in range(25)]))
    n, m = int(at.active.sum()), int((~at.active).sum())
    error = np.sqrt((n + m + 1) / (12 * n * m) / (25 * N_SEEDS))  # of a mean of areas of random ranks
    assert abs(np.mean(areas) - 0.5) < 2.58 * error


# -- heads --------------------------------------------------------------------------------------------------------------------


@SEEDS
def test_a_backup_is_missed_by_single_heads_and_found_by_paths_by_a_second_sweep_and_by_pairs(seed):
    source = planted("backup", seed)
    task = task_of("ioi", source.prompts("ioi", 2))
    [mover], [backup], [negative] = (source.heads(r) for r in ("name_mover", "backup_name_mover", "negative_name_mover"))
    [inhibition], [duplicate] = source.heads("s_inhibition"), source.heads("duplicate_token")
    hidden = {mover, backup, inhibition, duplicate}

    swept = ablate_heads(source.model, task, ablation="zero", pairs=True)
    change = {frozenset(heads): effect for heads, effect in zip(swept.variants, swept.effects.mean(1), strict=True)}
    assert swept.baseline.mean() == pytest.approx(7.0247, abs=1e-4)
    singles = {head: change[frozenset([head])] for head in source.model.facts.heads()}
    want = {mover: -0.0247, backup: -0.0247, negative: 2.9753, inhibition: 0.6022, duplicate: 0.6022}
    assert singles == pytest.approx(dict.fromkeys(singles, 0) | want, abs=1e-4)  # nobody is missed

    harmful = {heads for heads, effect in change.items() if effect < -1}
    assert set().union(*harmful) == hidden and min(map(len, harmful)) == 2
    assert change[frozenset([mover, backup])] == pytest.approx(-10.0247, abs=1e-4)

    again = backup_heads(source.model, task, [mover], ablation="zero")
    assert again[backup] == pytest.approx(-10, abs=1e-4)
    assert {head for head in singles if again[head] < -1} == hidden - {mover}

    logits, queries = path_patch_stages(source.model, task, [("q", "end")], k=3)
    assert logits.top(3) == [mover, negative, backup] and queries.top(1) == [inhibition]
    assert [logits[head] for head in (mover, negative, backup)] == pytest.approx([-10, 3, -0.0247], abs=1e-4)
    assert max(abs(logits[head]) for head in singles if head not in (mover, negative, backup)) < 1e-6
    later = [head for head in singles if head.layer > mover.layer]
    answers = {head: path_patch(source.model, task, [(head, "q")])[mover] for head in later}
    assert answers == pytest.approx(dict.fromkeys(later, 0) | {backup: 9.9753}, abs=1e-4)  # who makes up for the mover


@SEEDS
def test_of_two_s_inhibition_heads_noising_misses_each_and_denoising_finds_each(seed):
    source = planted("double_s_inhibition", seed)
    prompts, [mover] = source.prompts("ioi", 2), source.heads("name_mover")
    pair = [Edge(Node.of(head), Node.of(mover), "q") for head in source.heads("s_inhibition")]
    edges = graph_of(source.model).edges
    kept = np.array([[edge not in gone for edge in edges] for gone in ([], pair[:1], pair[1:], pair)])
    for swapped, alone, joint in ((False, 0, -40 / 3), (True, 5, 5)):
        task = task_of("ioi", prompts, swapped=swapped)
        effects = dict(zip(edges, score_edges(source.model, task, method="exact").effects, strict=True))
        assert [effects[edge] for edge in pair] == pytest.approx([alone] * 2, abs=1e-4)
        none, one, other, both = circuit_outcomes(source.model, task, kept).mean(1)
        assert [one - none, other - none, both - none] == pytest.approx([alone, alone, joint], abs=1e-4)


@SEEDS
def test_two_tasks_share_the_planted_sub_circuit_and_chance_would_rarely_share_an_edge(seed):
    repeats, needles = (scored(case, SHARP, seed) for case in CASES[4:])
    source, graph = repeats.source, repeats.scores.graph
    [shared] = source.heads("previous_token")
    first, second = (at.scores.circuit(at.scores.n_nonzero) for at in (repeats, needles))
    both = {edge_of(*edge) for edge in {*repeats.found.active_edges} & {*needles.found.active_edges}}
    assert first.edges & second.edges == both == {edge_of("input", f"{shared}.v")}
    assert {*first.heads} & {*second.heads} == {shared}
    edges, heads = compare_circuits(first, second).to_dict("records")
    n, chance = len(graph.edges), 1 - comb(len(graph.edges) - 3, 3) / comb(len(graph.edges), 3)
    row = {"pool": n, "n_first": 3, "n_second": 3, "shared": 1, "jaccard": 1 / 5, "expected": 9 / n, "p_value": chance}
    assert {name: edges[name] for name in row} == pytest.approx(row) and chance < 0.05
    row = {"pool": 16, "n_first": 2, "n_second": 2, "shared": 1, "jaccard": 1 / 3, "expected": 1 / 4, "p_value": 1 - 91 / 120}
    row |= {"expected_within_layers": 1 / 4 + 1 / 4, "p_value_within_layers": 1 - (3 / 4) ** 2}
    assert {name: heads[name] for name in row} == pytest.approx(row)  # two of 16 heads: to share one is no evidence

    top = head_overlap(*(importance(source, kind) for kind in ("repeats", "needle")), shares=(1 / 8,)).iloc[0]
    assert (top["k"], top["shared"]) == (2, 1) and top["p_value"] == pytest.approx(heads["p_value"])


def importance(source: PlantedModel, kind: str) -> HeadScores:
    """Effects of removing each head alone."""
    swept = ablate_heads(source.model, task_of(kind, source.prompts(kind, 2)), ablation="zero")
    values = np.zeros((source.model.facts.n_layers, source.model.facts.n_heads))
    for [head], effect in zip(swept.variants, swept.effects.mean(1), strict=True):
        values[Head(*head)] = effect
    return HeadScores("effect", values, swept.unit, (None, None), swept.record)
