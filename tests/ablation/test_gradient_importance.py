"""Gradient importance is the mean size of each example's own slope, by gates, by difference quotients and by attribution_patching."""

import numpy as np
import pytest
import torch

from interp.ablation import ablate_heads, gradient_importance, normalise_layers
from interp.engine.forward.run import run
from interp.engine.gradients import attribution_patching
from interp.engine.gradients.attribution_patching import head_gate_gradients
from interp.engine.sweep.sweep import sweep
from interp.heads import Head, HeadScores
from interp.interventions import scale
from interp.metrics.outcomes import OUTCOMES
from interp.models import load_hooked_transformer, wrap_model
from interp.models.model import Model, record_of
from interp.records import RunRecord
from interp.tasks.texts_as_task import as_task
from tests.models.test_hooked_transformer import BASE, save
from tests.support.sweep_cases import random_task, some_heads
from tests.support.tiny_models import TINY, tiny, tiny_hf, tiny_tokens

LOSS = OUTCOMES.get("answer_loss")


@pytest.fixture(params=TINY)
def exact(request):
    """Each tiny architecture in float64, as far as its modules go; OPT with GELU, since a quotient across a kink of ReLU is no slope."""
    hf = tiny_hf(request.param).double()
    if request.param == "opt":
        for block in hf.model.decoder.layers:
            block.activation_fn = torch.nn.GELU()
    return wrap_model(hf, name=f"exact {request.param}")


def texts():
    return [tiny_tokens(1, n, seed=n)[0].tolist() for n in (5, 12, 12, 9)]


def answer_loss(model, gates, example):
    logits = gated_logits(model, gates, example.clean)[-1]
    return logits.logsumexp(-1) - logits[list(example.answers)].logsumexp(-1)


def text_loss(model, gates, tokens):
    return torch.nn.functional.cross_entropy(gated_logits(model, gates, tokens)[:-1], torch.tensor(tokens[1:]))


def gated_logits(model, gates, tokens):
    """Logits [pos d_vocab] of the Hugging Face module with the z of each head times its gate."""
    handles = []
    for layer, projection in enumerate(model.layout.outputs):

        def multiply(module, args, layer=layer):
            z = args[0].unflatten(-1, (model.facts.n_heads, -1))
            return ((z * gates[layer][:, None]).flatten(-2), *args[1:])

        handles.append(projection.register_forward_pre_hook(multiply))
    try:
        return model.hf(input_ids=torch.tensor([tokens])).logits[0].float()
    finally:
        for handle in handles:
            handle.remove()


def slopes_by_gates(model, losses):
    """d loss / d gate of each loss by itself, [n_layers n_heads n_examples]."""
    found = []
    for loss in losses:
        gates = torch.ones(model.facts.n_layers, model.facts.n_heads, requires_grad=True)
        found.append(torch.autograd.grad(loss(gates), gates)[0])
    return torch.stack(found, -1).double().numpy()


def close(found, expected, share=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("name", TINY)
def test_slopes_of_a_task_equal_those_of_gates_on_each_example_alone(name):
    model, task = tiny(name), random_task()
    expected = slopes_by_gates(model, [lambda gates, e=e: answer_loss(model, gates, e) for e in task])
    close(head_gate_gradients(model, task, LOSS), expected)
    found = gradient_importance(model, task)
    close(found.values, np.abs(expected).mean(-1))
    assert found.unit == "nats" and found.bounds == (0.0, None) and found.record.metric == "answer_loss"


@pytest.mark.parametrize("name", TINY)
def test_slopes_of_texts_of_different_lengths_equal_those_of_gates_on_each_alone(name):
    model = tiny(name)
    expected = slopes_by_gates(model, [lambda gates, t=t: text_loss(model, gates, t) for t in texts()])
    close(gradient_importance(model, texts()).values, np.abs(expected).mean(-1))


def test_slopes_are_difference_quotients_of_the_exact_sweep(exact):
    task, step = random_task(), 1e-3
    heads = some_heads(exact, every=3)
    record = record_of(exact)
    up, down = (
        sweep(exact, task, [(scale([h], factor),) for h in heads], LOSS, record=record).values
        for factor in (1 + step, 1 - step)
    )
    quotients = (up - down) / (2 * step)
    assert np.abs(quotients).max() > 1e-2
    found = head_gate_gradients(exact, task, LOSS)
    close(np.stack([found[h.layer, h.head] for h in heads]), quotients, share=0.01)


def test_slopes_of_texts_are_difference_quotients_of_runs_with_a_scaled_head(exact):
    step, tokens = 1e-3, texts()[1]
    found = head_gate_gradients(exact, as_task(exact, [tokens]), None)[:, :, 0]

    def loss(head, factor):
        logits = run(exact, tokens, intervene=[scale([head], factor)]).logits[0, :-1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:])))

    heads = some_heads(exact, every=5)
    quotients = np.array([(loss(h, 1 + step) - loss(h, 1 - step)) / (2 * step) for h in heads])
    close(np.array([found[h] for h in heads]), quotients, share=0.01)


@pytest.mark.parametrize("metric", ["answer_loss", "logit_diff"])
def test_importance_is_the_mean_size_of_the_attribution_of_zeroed_heads(model, metric):
    estimate = ablate_heads(model, random_task(), estimator="attribution", ablation="zero", metric=metric)
    expected = np.abs(estimate.effects).mean(1).reshape(model.facts.n_layers, -1)
    close(gradient_importance(model, random_task(), metric).values, expected)


def test_slopes_that_cancel_between_examples_still_count(monkeypatch, gpt2):
    """Four examples with slopes +1 -1 +1 -1: each has size 1. Gradients that are never cleared have sizes 1 0 1 0."""
    slopes = np.zeros((3, 5, 4))
    slopes[1, 2] = [1, -1, 1, -1]
    monkeypatch.setattr(attribution_patching, "head_gate_gradients", lambda *args: slopes)
    assert gradient_importance(gpt2, texts()).values[1, 2] * 4 == 4
    assert np.abs(np.cumsum(slopes[1, 2])).sum() == 2


def test_the_copied_script_gives_another_number(llama):
    """Its gates keep their gradient from example to example: it sums |sum so far| where each example's own size is meant."""
    task = random_task()
    gates = torch.ones(3, 6, requires_grad=True)
    total = torch.zeros(3, 6)
    for example in task:
        answer_loss(llama, gates, example).backward()
        total += gates.grad.abs()
    ours = gradient_importance(llama, task).values
    assert np.abs(total.numpy() / len(task) - ours).max() > 0.3 * ours.max()


def test_a_head_without_output_weights_scores_exactly_0():
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].self_attn.o_proj.weight.view(60, 6, 8)[:, 4] = 0
    for prompts in (random_task(), texts()):
        values = gradient_importance(wrap_model(hf), prompts).values
        assert values[1, 4] == 0 and (np.delete(values.ravel(), 10) > 0).all()


@pytest.mark.parametrize("prompts", [random_task(), texts()], ids=["task", "texts"])
def test_a_model_without_a_known_layout_gives_the_same_numbers(model, prompts):
    blind = Model(model.facts, model.tokenizer, model.hf, None, model.bridge)
    close(gradient_importance(blind, prompts).values, gradient_importance(model, prompts).values)


def test_a_toy_has_importances_that_are_difference_quotients(tmp_path):
    config = {**BASE, "act_fn": "gelu_new", "d_vocab": 97, "d_vocab_out": 97}
    toy, task, step = load_hooked_transformer(save(tmp_path, config), dtype="float64"), random_task(), 1e-3
    heads = toy.facts.heads()[::4]
    with pytest.warns(UserWarning, match="using the slower hooked backend"):
        up, down = (
            sweep(toy, task, [(scale([h], f),) for h in heads], LOSS, record=record_of(toy)).values
            for f in (1 + step, 1 - step)
        )
    found = head_gate_gradients(toy, task, LOSS)
    close(np.stack([found[h] for h in heads]), (up - down) / (2 * step), share=0.01)


def test_the_same_number_whatever_is_run_together(llama, monkeypatch):
    one_by_one = np.mean([gradient_importance(llama, [t]).values for t in texts()], axis=0)
    close(gradient_importance(llama, texts()).values, one_by_one)
    monkeypatch.setattr(attribution_patching, "LOGITS", 1)
    close(gradient_importance(llama, texts()).values, one_by_one)


def test_normalised_layers_have_length_1_and_keep_their_order():
    values = np.array([[3.0, 4, 0], [0, 0, 0], [np.nan, 5, 12]])
    scores = HeadScores("x", values, "nats", (0.0, None), RunRecord("m", "", ""), "not asked for")
    found = normalise_layers(scores)
    np.testing.assert_allclose(found.values, [[0.6, 0.8, 0], [0, 0, 0], [np.nan, 5 / 13, 12 / 13]])
    assert scores.values[0, 0] == 3 and found.nan_reason == "not asked for" and found.top(1) == [Head(2, 2)]


def test_what_has_no_gradient_is_refused(llama):
    for metric in ("kl", "accuracy"):
        with pytest.raises(ValueError, match=f"Metric '{metric}' has no gradient"):
            gradient_importance(llama, random_task(), metric)
    with pytest.raises(ValueError, match="Metric 'logit_diff' is computed at a task's answers, and texts have none"):
        gradient_importance(llama, texts(), "logit_diff")
    with pytest.raises(ValueError, match="Text 1 has one token, which leaves no next token to predict"):
        gradient_importance(llama, [[5, 6], [7]])
    with pytest.raises(ValueError, match="Prompt 0 has no tokens: give at least one"):
        gradient_importance(llama, "")
