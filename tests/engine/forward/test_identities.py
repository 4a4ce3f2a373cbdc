"""What one pass captures fits together, in every layer of every tiny model: rows, z, what heads write, the residual stream."""

import pytest
import torch

from interp import interventions
from interp.engine import run
from interp.heads import Head
from tests.engine.attention.test_attention_observer import with_sinks
from tests.support.tiny_models import tiny_tokens

LAYERS = range(3)


def captured(model, *sites, intervene=()):
    """The sites of all layers, of two texts."""
    names = [f"{site}.{layer}" for site in sites for layer in range(model.facts.n_layers)]
    return run(model, tiny_tokens(2, 11), capture=names, intervene=intervene)


def test_rows_of_a_pattern_are_shares_of_what_stands_before(model):
    done = captured(model, "pattern")
    for layer, window in zip(LAYERS, model.facts.sliding_windows, strict=True):
        pattern = done[f"pattern.{layer}"]
        assert (pattern.sum(-1) - 1).abs().max() <= 1e-5
        assert pattern.min() >= 0
        assert not pattern.triu(1).any()
        assert window is None or not pattern.tril(-window).any()


def test_rows_beside_a_learned_sink_sum_to_less_than_one():
    done = captured(with_sinks(), "pattern")
    for pattern in done.activations.values():
        assert pattern.min() >= 0 and not pattern.triu(1).any()
        assert pattern.sum(-1).min() > 0 and pattern.sum(-1).max() < 0.99


def test_a_pattern_times_values_is_z_and_its_transpose_is_not(model):
    done = captured(model, "pattern", "v", "z")
    for layer in LAYERS:
        pattern, v, z = (done[f"{site}.{layer}"] for site in ("pattern", "v", "z"))
        v = v.repeat_interleave(model.facts.group_size, 2)
        z = z.view(v.shape)
        apart = [(torch.einsum(f"bh{axes},bkhd->bqhd", pattern, v) - z).abs().amax((0, 1, 3)) for axes in ("qk", "kq")]
        assert apart[0].max() <= 1e-5
        assert apart[1].min() > 0.1  # of every head


def test_the_residual_stream_grows_by_what_attention_and_mlp_write(model):
    done = captured(model, "resid_pre", "attn_out", "mlp_out", "resid_post")
    for layer in LAYERS:
        before, attention, mlp, after = (done[f"{site}.{layer}"] for site in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        assert (before + attention + mlp - after).abs().max() <= 1e-4 * after.abs().max()
        assert min(attention.abs().max(), mlp.abs().max()) > 1e-2 * after.abs().max()


@pytest.mark.parametrize("changed", [False, True])
def test_what_heads_write_adds_up_to_the_output_of_attention(model, changed):
    change = [interventions.zero([Head(layer, 3) for layer in LAYERS])] if changed else []
    done = captured(model, "result", "attn_out", intervene=change)
    for layer in LAYERS:
        result = done[f"result.{layer}"]
        bias = getattr(model.layout.outputs[layer], "bias", None)
        total = result.sum(2) + (0 if bias is None else bias)
        if model.facts.architecture.startswith("Gemma2"):  # normed before it is added
            total = model.layout.blocks[layer].post_attention_layernorm(total)
        assert (result[:, :, 3] == 0).all() == changed
        assert (total - done[f"attn_out.{layer}"]).abs().max() <= 1e-5 * total.abs().max()
