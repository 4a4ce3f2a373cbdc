"""No number comes out of a road that differs from the plain model: each is checked before its first number, and says by how much."""

import sys
from dataclasses import fields

import pytest
import torch
import transformers as T
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.modeling_utils import AttentionInterface
from transformers.models.llama.modeling_llama import eager_attention_forward

from interp.ablation import ablate_heads
from interp.engine import capture_attention, run
from interp.engine.attention import attention_interface
from interp.engine.attention.last_query_rows_and_prefix_cache import read_last_queries
from interp.engine.sweep import change_patterns, readout, resume_from_layer
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import uniform, zero
from interp.metrics import observe_attention
from interp.metrics.outcomes import OUTCOMES
from interp.models import wrap_model
from interp.models.model import record_of
from interp.models.plain_model_reference import relative_error
from interp.tasks.task import Example, Task
from tests.engine.attention.test_attention_observer import with_sinks
from tests.support.tiny_models import tiny_hf, tiny_tokens

TASK = Task("t", tuple(Example(tuple(row), tuple(row), (5,), (6,)) for row in tiny_tokens(2, 9).tolist()), "logit_diff")


def test_a_view_of_transformer_lens_that_is_not_the_model_is_refused_with_its_difference():
    model = wrap_model(
        T.GPT2LMHeadModel(T.GPT2Config(**{**tiny_hf("gpt2").config.to_diff_dict(), "scale_attn_weights": False})).eval()
    )
    with pytest.raises(ValueError, match=r"TransformerLens's view of .* differs from the model by [0-9.e-]+ of its logits"):
        run(model, tiny_tokens(1, 5))


def attention_with(**changes):
    from dataclasses import replace

    right = attention_interface.attend
    return lambda call: right(replace(call, **{name: change(call) for name, change in changes.items()}))


FAULTS = {
    "scale": {"scale": lambda call: call.scale * 1.02},
    "causality": {"causal": lambda call: not call.causal, "mask": lambda call: None},
    "one head": {"v": lambda call: torch.cat([call.v[:, :1] * 1.02, call.v[:, 1:]], 1)},
    "positions": {"k": lambda call: call.k.roll(1, 2)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sweep_whose_attention_differs_falls_back_and_says_so(fault, monkeypatch):
    model = wrap_model(tiny_hf("llama"))
    wanted = ablate_heads(model, TASK, ablation="zero")
    wrong = attention_with(**FAULTS[fault])
    monkeypatch.setattr(attention_interface, "attend", wrong)
    monkeypatch.setattr(sys.modules["interp.engine.sweep.clean_pass"], "attend", wrong)
    with pytest.warns(UserWarning, match=r"differs from the model by .* of its logits; using the slower hooked backend"):
        found = ablate_heads(model, TASK, ablation="zero")
    assert found.values == pytest.approx(wanted.values, abs=1e-4)


def test_attention_that_differs_is_not_observed(monkeypatch):
    from interp.engine.attention import attention_rows

    right = attention_rows._block_output
    monkeypatch.setattr(attention_rows, "_block_output", lambda *args: right(*args) * 1.01)
    with pytest.raises(ValueError, match=r"cannot be observed: with the engine's attention it differs from the plain model by"):
        observe_attention(wrap_model(tiny_hf("llama")), tiny_tokens(1, 5), ["entropy"])


TERMS = {
    "softcap": lambda: wrap_model(tiny_hf("gemma2")),
    "mask": lambda: wrap_model(tiny_hf("mistral")),
    "slopes": lambda: wrap_model(tiny_hf("bloom")),
    "sinks": with_sinks,
}
READERS = {
    "metrics": lambda model, tokens: observe_attention(model, tokens, ["entropy"]),
    "patterns": capture_attention,
    "last rows": lambda model, tokens: read_last_queries(model, tokens, 2, lambda rows: None),
}
NOT_OBSERVED = r"cannot be observed: with the engine's attention it differs from the plain model by"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("term", TERMS)
def test_rows_that_lack_a_term_of_the_scores_are_refused_whoever_reads_them(term, reader, monkeypatch):
    READERS[reader](TERMS[term](), tiny_tokens(2, 9))
    right = attention_interface.AttentionInputs
    place = [field.name for field in fields(right)].index(term)
    monkeypatch.setattr(attention_interface, "AttentionInputs", lambda *given: right(*given[:place], None, *given[place + 1 :]))
    with pytest.raises(ValueError, match=NOT_OBSERVED):
        READERS[reader](TERMS[term](), tiny_tokens(2, 9))


@pytest.mark.parametrize("reader", READERS)
def test_a_term_of_the_scores_that_nothing_here_knows_is_refused_whoever_reads_them(reader, monkeypatch):
    def tempered(module, query, key, value, mask, scaling, **extra):
        return eager_attention_forward(module, query, key, value, mask, scaling * module.config.temperature, **extra)

    monkeypatch.setitem(AttentionInterface._global_mapping, "tempered", tempered)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "tempered", eager_mask)
    hf = tiny_hf("llama")
    hf.config.temperature = 1.0
    hf.set_attn_implementation("tempered")
    READERS[reader](wrap_model(hf), tiny_tokens(2, 9))
    hf.config.temperature = 0.5
    with pytest.raises(ValueError, match=NOT_OBSERVED):
        READERS[reader](wrap_model(hf), tiny_tokens(2, 9))


def test_a_norm_left_out_is_found(monkeypatch):
    model = wrap_model(tiny_hf("llama"))
    wanted = ablate_heads(model, TASK, ablation="zero")
    right = readout.Readout.__init__

    def without_norm(self, *args):
        right(self, *args)
        self.final_norm = torch.nn.Identity()

    monkeypatch.setattr(readout.Readout, "__init__", without_norm)
    with pytest.warns(
        UserWarning, match="logit_diff of a resumed run is not that of its logits; using the slower hooked backend"
    ):
        found = ablate_heads(model, TASK, ablation="zero")
    assert found.values == pytest.approx(wanted.values, abs=1e-4)


def test_differences_are_relative_to_the_spread_of_the_logits():
    wanted = torch.tensor([[1000.0, 1001.0, 999.0]])
    assert relative_error(wanted + torch.tensor([0.0, 0.01, 0.0]), wanted) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("positions", ["end", "all"])
def test_a_sweep_proves_the_attention_of_the_positions_that_it_recomputes(positions, monkeypatch):
    model, calls = wrap_model(tiny_hf("llama")), []
    wanted = ablate_heads(model, TASK, ablation="zero", positions=positions)
    right = resume_from_layer.attend_after

    def halved(call, k_before, *rest):
        calls.append(k_before.shape[2])
        return right(call, k_before / 2, *rest)

    monkeypatch.setattr(resume_from_layer, "attend_after", halved)
    if positions == "all":  # of equally long prompts: nothing comes before
        found = ablate_heads(model, TASK, ablation="zero")
        assert not calls
    else:
        with pytest.warns(
            UserWarning, match=r"a resumed run differs from the model by .* of its logits; using the slower hooked"
        ):
            found = ablate_heads(model, TASK, ablation="zero", positions="end")
        assert min(calls) > 1
    assert found.values == pytest.approx(wanted.values, abs=1e-4)


def test_a_sweep_proves_the_rows_of_patterns_that_it_changes_above_another_change(monkeypatch):
    model = wrap_model(tiny_hf("llama"))
    variants = [(zero([Head(0, 1)]), uniform([Head(2, 3)]))]
    arguments = model, TASK, variants, OUTCOMES.get("logit_diff")
    wanted = sweep(*arguments, record=record_of(model))
    right = change_patterns.read_rows
    monkeypatch.setattr(change_patterns, "read_rows", lambda *given, **options: right(*given, **options) * 1.5)
    with pytest.warns(UserWarning, match=r"a resumed run differs from the model by .* of its logits; using the slower hooked"):
        found = sweep(*arguments, record=record_of(model))
    assert found.values == pytest.approx(wanted.values, abs=1e-4) and abs(wanted.effects).max() > 1e-3
