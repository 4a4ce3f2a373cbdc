"""Ablation results written by hand, for tests that need numbers but no model."""

import numpy as np

from interp.models.model import ModelFacts

N_LAYERS, N_HEADS, N_EXAMPLES = 3, 5, 17
FACTS = ModelFacts(
    name="m", architecture="none", n_layers=N_LAYERS, n_heads=N_HEADS, n_kv_heads=2, d_model=40, d_head=8, d_mlp=56, d_vocab=97,
    max_length=64, positions="none", sliding_windows=(None,) * N_LAYERS, parallel_attn_mlp=False, causal=True, prepend_bos=False,
    bos_token_id=None, n_parameters=1, dtype="float32", revision="", weights_digest="0",
)  # fmt: skip
SIZES = {"n_layers": N_LAYERS, "n_heads": N_HEADS, "n_kv_heads": 2}


def sweep_result(effects, variants=None, *, baseline=None, record=None, **fields):
    """An ablation with these effects [n_variants n_examples]; the variants are by default all heads, layer by layer."""
    from interp.ablation import AblationResult
    from interp.heads import Head
    from interp.records import RunRecord

    effects = np.asarray(effects, dtype=float)
    baseline = np.full(effects.shape[1], 4.0) if baseline is None else np.asarray(baseline, dtype=float)
    heads = [(Head(*divmod(i, N_HEADS)),) for i in range(len(effects))]
    values = baseline + effects
    made = {"ablation": "zero", "positions": "all", "metric": "logit_diff", "unit": "logits", **SIZES, **fields}
    record = record or RunRecord("toy", revision="0123456789", task="ioi", metric="logit_diff", seed=3)
    return AblationResult(variants=tuple(variants or heads), baseline=baseline, values=values, record=record, **made)


def planted(strong=(6, 13), size=-2.0, seed=0, n_examples=N_EXAMPLES):
    """Effects [15 n_examples] of noise with standard deviation 0.1, and ``size`` added in the ``strong`` rows."""
    effects = np.random.default_rng(seed).normal(0, 0.1, (N_LAYERS * N_HEADS, n_examples))
    effects[list(strong)] += size
    return effects
