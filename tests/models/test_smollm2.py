"""A pretrained model, SmolLM2-135M: what holds on models of our own making holds there. After `interp models install smollm2`."""

import numpy as np
import pytest
import torch

from interp.heads import Head
from tests.support.zeroed_output import zeroed_output

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
N_LAYERS, N_HEADS = 30, 9


@pytest.fixture(scope="module")
def smollm2():
    from interp.models import installed_names, load_model

    if "smollm2" not in installed_names():
        pytest.skip("SmolLM2 is not installed: interp models install smollm2")
    return load_model("smollm2", offline=True)


@pytest.fixture(scope="module")
def ioi(smollm2):
    from interp import make_task

    return make_task("ioi", smollm2, n_prompts=6, seed=0)


def test_sizes_form_and_prompts(smollm2):
    facts = smollm2.facts
    assert (facts.n_layers, facts.n_heads, facts.n_kv_heads, facts.d_model, facts.d_vocab) == (N_LAYERS, N_HEADS, 3, 576, 49152)
    assert facts.weights_form == "dequantised from Q4_1, Q8_0, F32 (GGUF)"
    assert smollm2.to_string(smollm2.to_tokens("The capital of France is")) == "The capital of France is"
    assert "Hello" in smollm2.to_string(smollm2.to_chat_tokens("Hello"))


def test_every_identity_holds(smollm2):
    from interp.models import doctor

    assert not [check for check in doctor(smollm2) if check.passed is False]


def test_zero_ablation_is_that_of_transformers_with_the_output_weights_zeroed(smollm2, ioi):
    from interp import ablate_heads

    heads = [Head(0, 4), Head(17, 4), Head(18, 6), Head(29, 8)]
    result = ablate_heads(smollm2, ioi, ablation="zero", heads=heads)
    tokens = torch.tensor([example.clean for example in ioi if len(example.clean) == len(ioi.examples[0].clean)])
    ids = [i for i, example in enumerate(ioi) if len(example.clean) == tokens.shape[1]]
    for head, values in zip(heads, result.values, strict=True):
        with zeroed_output(smollm2, head) as module:
            logits = module(tokens).logits[:, -1]
        answers = [[*ioi.examples[i].answers] for i in ids]
        wanted = [
            row[a].mean() - row[[*ioi.examples[i].distractors]].mean() for row, a, i in zip(logits, answers, ids, strict=True)
        ]
        np.testing.assert_allclose(values[ids], torch.stack(wanted), rtol=0, atol=2e-4 * float(logits.std()), err_msg=str(head))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("agreement", 0.9),
        ("antonyms", 0.7),
        ("docstring", 0.9),
        ("facts", 0.7),
        ("gendered_pronoun", 0.8),
        ("greater_than", 0.9),
    ],
)
def test_it_does_the_tasks_that_are_written_for_vocabularies_of_pieces(smollm2, name, least):
    from interp import check_task, make_task

    found = check_task(smollm2, make_task(name, smollm2, n_prompts=16, seed=1))
    assert found.performance.accuracy >= least and found.ci_low > 0


def test_an_answer_of_several_tokens_is_that_of_a_loop_over_transformers(smollm2, tmp_path):
    from interp import ablate_heads, task_from_jsonl

    path, head = tmp_path / "capitals.jsonl", Head(17, 4)
    rows = [("India", "New Delhi"), ("Argentina", "Buenos Aires"), ("Lebanon", "Beirut"), ("France", "Paris")]
    path.write_text("\n".join(f'{{"clean": "The capital of {a} is", "answer": "{b}"}}' for a, b in rows))
    task = task_from_jsonl(path, smollm2)
    assert len({example.n_answer_tokens for example in task}) > 1

    def loop():
        found = []
        for example in task:
            prompt, total = list(example.prompt), 0.0
            for token in example.answer_tokens:
                with torch.no_grad():
                    total += smollm2.hf(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)[token].item()
                prompt.append(token)
            found.append(total)
        return found

    result = ablate_heads(smollm2, task, ablation="zero", heads=[head])
    np.testing.assert_allclose(result.baseline, loop(), rtol=1e-4, atol=1e-4)
    with zeroed_output(smollm2, head):
        np.testing.assert_allclose(result.values[0], loop(), rtol=1e-4, atol=1e-4)


def test_its_induction_and_previous_token_heads_are_found(smollm2):
    from interp.detectors import detect

    induction = detect(smollm2, "induction", n_prompts=16).detected
    assert {Head(18, 6), Head(17, 4)} <= {*induction}
    previous = detect(smollm2, "previous_token", n_prompts=8)
    assert previous.detected[:2] == [Head(16, 0), Head(11, 1)]
