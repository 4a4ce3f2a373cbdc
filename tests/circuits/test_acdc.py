"""ACDC: what it keeps of planted circuits, by which order, and that trials made together decide as trials one by one."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from interp.circuits import EdgeScores, acdc, circuit_outcomes
from interp.engine.edges.edge_patching import graph_of
from interp.graph import Edge
from interp.models import wrap_model
from interp.models.model import Model
from interp.models.planted import PlantedModel, plant
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import edge_of
from tests.support.tiny_models import tiny


@cache
def planted(family: str = "mini_ioi") -> PlantedModel:
    return plant(family, seed=3)


def task_of(source: PlantedModel, n: int = 2) -> Task:
    return Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", n)), "logit_diff")


def kept(scores: EdgeScores) -> set[Edge]:
    return set(scores.top(scores.n_nonzero))


def active(source: PlantedModel) -> set[Edge]:
    return {edge_of(*edge) for edge in source.ground_truth_effects("ioi").active_edges}


@pytest.mark.parametrize("options", [{"metric": "kl", "threshold": 0.005}, {"threshold": 0.5, "abs_value_threshold": True}])
def test_the_active_edges_of_a_planted_circuit_are_kept_and_no_others(options):
    source = planted()
    scores = acdc(source.model, task_of(source), **options)
    assert kept(scores) == active(source) and len(active(source)) == 9
    assert scores.circuit(scores.n_nonzero).edges == active(source)


def test_by_the_logit_difference_heads_against_the_answer_go_as_a_gain():
    source = planted()
    [negative] = source.heads("negative_name_mover")
    against = {edge for edge in active(source) if negative in (edge.writer[1:], edge.reader[1:])}
    assert len(against) == 3
    assert kept(acdc(source.model, task_of(source), threshold=0.5)) == active(source) - against


@cache
def small(kind: str, scale: float) -> Model:
    """Two layers of three heads, with fresh weights times ``scale``; the blocks of gpt_neox are parallel."""
    torch.manual_seed(1)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=31, n_positions=16, n_embd=24, n_layer=2, n_head=3, n_inner=28, bos_token_id=1, eos_token_id=2
        )
        hf = GPT2LMHeadModel(config)
    else:
        sizes = {"vocab_size": 31, "max_position_embeddings": 16, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2}
        hf = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, hidden_size=24, num_attention_heads=3, intermediate_size=28))
    with torch.no_grad():
        for weight in hf.parameters():
            weight.mul_(scale if weight.dim() > 1 else 1)
    return wrap_model(hf.eval(), name=f"small-{kind}")


def one_by_one(model: Model, task: Task, threshold: float) -> set[Edge]:
    """ACDC by its definition: one run of the whole model for each edge, nothing left out."""
    graph = graph_of(model)
    gone = np.zeros(len(graph.edges), dtype=bool)

    def harm(gone: np.ndarray) -> float:
        return float(circuit_outcomes(model, task, ~gone[None], "kl").mean())

    now = harm(gone)
    for i in reversed(range(len(graph.edges))):
        tried = gone.copy()
        tried[i] = True
        then = harm(tried)
        if then - now < threshold:
            gone, now = tried, then
    return {edge for edge, dropped in zip(graph.edges, gone, strict=True) if not dropped}


def pairs() -> Task:
    return Task("pairs", (example((3, 4, 6, 9), (3, 8, 6, 9)), example((9, 4, 6, 7, 5), (9, 4, 8, 7, 5))), "logit_diff")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_trials_made_together_decide_as_trials_one_by_one(kind):
    model = small(kind, 10.0)
    found = acdc(model, pairs(), metric="kl", threshold=0.003)
    slow = one_by_one(model, pairs(), 0.003)
    assert kept(found) == slow
    assert 10 < len(slow) < len(found.graph.edges) - 10


def example(clean: tuple[int, ...], corrupted: tuple[int, ...]) -> Example:
    return Example(clean, corrupted, (5,), (7,))


def test_an_untrained_model_keeps_nothing_at_the_threshold_of_the_planted_one():
    scores = acdc(small("gpt2", 1.0), pairs(), threshold=0.5, abs_value_threshold=True)
    assert scores.n_nonzero == 0
    with pytest.raises(ValueError, match="form no circuit"):
        scores.circuit(1)


def test_a_backup_that_stands_in_keeps_the_primary_and_itself_out_together():
    source = planted("dormant_backup")
    [mover], [backup] = source.heads("name_mover"), source.heads("backup_name_mover")
    writers = {
        edge.writer[1:] for edge in kept(acdc(source.model, task_of(source), threshold=0.5)) if edge.reader.kind == "logits"
    }
    assert len(writers & {mover, backup}) == 1  # greedy: whichever is left last carries the answer


def test_bad_input_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"threshold=0\.0 is not above 0"):
        acdc(tiny("gpt2"), pairs(), threshold=0.0)
    with pytest.raises(LookupError, match="'nothing'"):
        acdc(tiny("gpt2"), pairs(), metric="nothing")
    with pytest.raises(ValueError, match="no effect to attribute to edges"):
        acdc(tiny("gpt2"), Task("same", (example((3, 4, 6), (3, 4, 6)), example((3, 4, 5), (3, 8, 6))), "accuracy"))
