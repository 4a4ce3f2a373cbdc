"""What parts write for the answer: it adds up to the logit difference, TransformerLens finds the same, planted heads have their gains."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from interp.circuits import direct_logit_attribution, direct_logit_attribution_from
from interp.circuits.factual_recall_and_suppression import residual_contributions
from interp.engine.forward.run import plain_logits
from interp.figures import head_map
from interp.graph import Node
from interp.heads import Head
from interp.models import wrap_model
from interp.models.planted import plant
from interp.tasks.task import Example, Task
from tests.engine.edges.test_edge_patching import WITH_EDGES, examples
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_hf


def logit_diffs(model, task):
    """From whole forward passes, an example at a time."""
    found = []
    with torch.no_grad():
        for e in task:
            row = plain_logits(model, [e])[0]
            found.append(float(row[list(e.answers)].mean() - row[list(e.distractors)].mean()))
    return np.array(found)


@pytest.mark.parametrize("name", WITH_EDGES)
def test_the_parts_add_up_to_the_logit_difference(name):
    model, task = tiny(name), random_task()  # two lengths, two answers
    found = direct_logit_attribution(model, task)
    want = logit_diffs(model, task)
    assert found.values.shape == (len(found.writers), len(task))
    assert np.abs(want).min() > 1e-2
    np.testing.assert_allclose(found.values.sum(0) + found.biases, want, rtol=0, atol=1e-5 * np.abs(found.values).max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", WITH_EDGES)
def test_the_parts_of_a_model_in_half_precision_add_up_to_what_its_last_residual_says(name, dtype):
    model, task = wrap_model(tiny_hf(name).to(dtype), name="half"), random_task()
    found = direct_logit_attribution(model, task)
    hf = tiny_hf(name).to(dtype)
    exact = wrap_model(hf, name="read in single precision")
    with exact.lock, torch.no_grad():
        last = residual_contributions(exact, task).final_residual.float()
        logits = exact.layout.unembed.float()(exact.layout.final_norm.float()(last))
    want = [float(row[list(e.answers)].mean() - row[list(e.distractors)].mean()) for row, e in zip(logits, task, strict=True)]
    np.testing.assert_allclose(found.values.sum(0) + found.biases, want, rtol=0, atol=1e-5 * np.abs(found.values).max())
    assert np.abs(found.biases).max() < np.abs(found.values).max()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gpt_neox"])
def test_transformerlens_finds_the_same(name):
    from transformer_lens.tools import analysis

    hf = tiny_hf(name)  # its own weights: compatibility mode writes into them
    constants = ("c_attn.bias", "query_key_value.bias", "ln_1.bias", "input_layernorm.bias")
    with torch.no_grad():
        for parameter in (p for n, p in hf.named_parameters() if n.endswith(constants)):
            parameter.zero_()  # it folds what is the same in all values into the output's bias, where it is no head's
    model, prompts = wrap_model(hf, name=f"folded {name}"), examples()
    ours = direct_logit_attribution(model, Task("random", tuple(prompts), "logit_diff"))
    bridge = model.bridge
    bridge.enable_compatibility_mode(disable_warnings=True)
    tokens, answers, distractors = (
        torch.tensor([getattr(e, side) for e in prompts]) for side in ("clean", "answers", "distractors")
    )
    theirs = {}
    for unit in ("head", "component"):
        found = analysis.direct_logit_attribution(bridge, tokens, answers[:, 0], distractors[:, 0], unit=unit)
        theirs |= dict(zip(found.labels, found.attribution.detach().numpy(), strict=True))
    for node, row in zip(ours.writers, ours.values, strict=True):
        label = {
            "input": ("embed", "pos_embed"),
            "mlp": (f"{node.layer}_mlp_out",),
            "head": (str(Head(node.layer, node.head)),),
        }[node.kind]
        want = sum(theirs[part] for part in label if part in theirs)
        np.testing.assert_allclose(row, want, rtol=0, atol=1e-5 * np.abs(ours.values).max())


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_planted_heads_write_their_gains_and_those_that_work_through_others_nothing(n_kv_heads):
    for seed in range(3):
        planted = plant("mini_ioi", seed=seed, n_kv_heads=n_kv_heads, dtype="float64")
        task = Task("ioi", tuple(Example(*p) for p in planted.prompts("ioi", 6)), "logit_diff")
        found = direct_logit_attribution(planted.model, task)
        gains = {planted.heads("name_mover")[0]: 10, planted.heads("negative_name_mover")[0]: -3}
        for head in planted.model.facts.heads():  # S-inhibition, the duplicate head and all noise: nothing
            assert found.heads[head] == pytest.approx(gains.get(head, 0), abs=1e-3), str(head)
        assert found.values[0] == pytest.approx([0] * 6, abs=1e-3)
        for keys, share in (("io", 1), ("s1", 0), ("s2", 0)):  # movers read the name that is not suppressed
            from_there = direct_logit_attribution_from(planted.model, task, keys)
            assert {head: from_there[head] for head in gains} == pytest.approx(
                {h: share * g for h, g in gains.items()}, abs=1e-3
            )
        assert found.to_dataframe()["component"].head(2).tolist() == [str(Node.of(head)) for head in gains]


def test_the_table_holds_every_part_with_its_interval_and_the_map_is_drawn():
    model = tiny("llama")
    found = direct_logit_attribution(model, random_task())
    table = found.to_dataframe()
    assert len(table) == 1 + 3 * (6 + 1) + 1 and table["n"].eq(5).all()
    assert (table["ci_low"] <= table["logits"]).all() and (table["logits"] <= table["ci_high"]).all()
    assert table["logits"].sum() == pytest.approx(logit_diffs(model, random_task()).mean(), abs=1e-4)
    row = table.set_index("component").loc["a2.h5"]
    assert (row["layer"], row["head"], row["logits"]) == (2, 5, pytest.approx(found.heads[Head(2, 5)]))
    drawn: Any = head_map(found.heads)
    np.testing.assert_array_equal(drawn.data[0].z, found.heads.values)
    assert "positive = promotes the answer" in drawn.layout.title.text


@pytest.mark.parametrize("name", ["gpt2", "mistral", "phi"])
def test_what_heads_read_at_all_keys_adds_up_to_what_they_write(name):
    model, task = tiny(name), random_task().select([0, 1, 2])
    parts = [direct_logit_attribution_from(model, task, keys) for keys in ("middle", "end", (0, 1, *range(5, 10)))]
    whole = direct_logit_attribution(model, task).heads
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(sum(part.values for part in parts), whole.values, rtol=0, atol=1e-5 * scale)
    assert (np.abs(parts[0].values).max() > 1e-2 * scale) == (name != "mistral")  # whose window ends behind it
    with pytest.raises(LookupError, match="No position is called 'subject'"):
        direct_logit_attribution_from(model, task, "subject")


def test_what_has_no_direct_logits_is_refused():
    bare = Task("bare", tuple(Example(e.clean, e.corrupted, e.answers, ()) for e in examples()), "answer_logprob")
    with pytest.raises(ValueError, match="example 0 of task 'bare' has none"):
        direct_logit_attribution(tiny("gemma2"), bare)  # before it is run: it has no edges
    with pytest.raises(ValueError, match="tiny-gemma2 has no edges"):
        direct_logit_attribution(tiny("gemma2"), random_task())


class CappedLlama(transformers.LlamaForCausalLM):
    """Soft-caps its logits, as Gemma 2 does, and has no norms behind attention and MLP."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        cap = self.config.final_logit_softcapping
        output.logits = torch.tanh(output.logits / cap) * cap
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cap_on_logits_leaves_no_sum(dtype):
    llama = tiny_hf("llama")
    config = transformers.LlamaConfig(**{**llama.config.to_diff_dict(), "final_logit_softcapping": 3.0})
    hf = CappedLlama(config).eval()
    hf.load_state_dict(llama.state_dict())
    model = wrap_model(hf.to(dtype), name="capped")
    with pytest.raises(ValueError, match="logit_diff of capped is not a sum over components: CappedLlama caps"):
        direct_logit_attribution(model, random_task())
