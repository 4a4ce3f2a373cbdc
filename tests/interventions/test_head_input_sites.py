"""Interventions at queries, keys and values of one head: what each changes, heads that share a key, patching from another run."""

import pytest
import torch

from interp.engine import observe
from interp.engine.forward.run import run
from interp.engine.sweep.sweep import sweep
from interp.heads import Head
from interp.interventions import Intervention, uniform, zero
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.models.model import record_of
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_tokens

HEAD = Head(1, 2)
TOKENS = tiny_tokens(2, 13)


def scaled(site, factor, heads=(HEAD,), positions="all", strength=1.0):
    return Intervention(site, tuple(heads), lambda x, at: x * factor, f"{site} x {factor}", positions, strength)


def logits(model, *changes, tokens=TOKENS):
    return run(model, tokens, intervene=list(changes)).logits


def patterns(model, *changes, tokens=TOKENS):
    """Entropy and distance of the last layer but one, under changes."""
    found = observe(model, tokens, attention_metrics(["entropy", "attention_distance"]), intervene=list(changes))
    return torch.stack([found[name][HEAD.layer] for name in ("entropy", "attention_distance")])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_head_without_values_is_ablated_and_one_without_queries_attends_equally(architecture):
    model = tiny(architecture)
    plain = logits(model)
    silent, equal = logits(model, scaled("v", 0)), logits(model, scaled("q", 0))
    scale = float(plain.abs().max())
    assert float((silent - logits(model, zero([HEAD]))).abs().max()) <= 1e-5 * scale
    assert float((equal - logits(model, uniform([HEAD]))).abs().max()) <= 1e-5 * scale
    assert float((equal - logits(model, scaled("k", 0))).abs().max()) <= 1e-5 * scale
    for changed in (silent, equal):
        assert float((changed - plain).abs().max()) > 1e-3 * scale


def test_heads_that_share_a_key_keep_theirs():
    model = tiny("llama")
    group = model.facts.n_heads // model.facts.n_kv_heads
    assert group > 1
    before, after = patterns(model), patterns(model, scaled("k", 0))
    others = [head for head in range(model.facts.n_heads) if head != HEAD.head]
    assert torch.equal(after[:, :, others], before[:, :, others])
    assert float((after - before)[:, :, HEAD.head].abs().max()) > 0.1


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_strength_0_is_the_unchanged_run_and_half_is_halfway(site):
    model = tiny("llama")
    plain = logits(model, scaled(site, 1))
    assert torch.equal(logits(model, scaled(site, 0, strength=0.0)), plain)
    half = logits(model, scaled(site, 0, strength=0.5))
    torch.testing.assert_close(half, logits(model, scaled(site, 0.5)), rtol=1e-4, atol=1e-5)


def test_a_query_at_the_end_changes_the_last_row_alone():
    model = tiny("llama")
    before, after = patterns(model), patterns(model, scaled("q", 3.0, positions="end"))
    moved = (after - before)[:, :, HEAD.head].abs()
    assert float(moved[..., :-1].max()) == 0 and float(moved[..., -1].min()) > 1e-4


def kept(model, tokens):
    """What the head reads on these tokens, by site."""
    found = {}

    def keep(site):
        def replacement(x, at):
            found[site] = x.clone()
            return x

        return Intervention(site, (HEAD,), replacement, f"keep {site}")

    logits(model, *map(keep, ("q", "k", "v")), tokens=tokens)
    return found


def given(source, *sites):
    return [Intervention(site, (HEAD,), lambda x, at, site=site: source[site], f"patch {site}") for site in sites]


def test_queries_and_keys_of_another_run_bring_its_pattern_and_values_do_not():
    model, other = tiny("llama"), tiny_tokens(2, 13, seed=4)
    source = kept(model, other)
    own = logits(model)
    torch.testing.assert_close(logits(model, *given(kept(model, TOKENS), "q", "k", "v")), own, rtol=1e-4, atol=1e-5)
    theirs = patterns(model, tokens=other)[:, :, HEAD.head]
    torch.testing.assert_close(patterns(model, *given(source, "q", "k"))[:, :, HEAD.head], theirs)
    unchanged = patterns(model)[:, :, HEAD.head]
    assert torch.equal(patterns(model, *given(source, "v"))[:, :, HEAD.head], unchanged)
    assert float((logits(model, *given(source, "v")) - own).abs().max()) > 1e-3


@pytest.mark.parametrize("positions", ["all", "end"])
def test_the_resumed_sweep_is_the_hooked_one(positions):
    model, task = tiny("llama"), random_task(2, 2)
    variants = [
        (scaled(site, factor, heads=(Head(0, 1), HEAD), positions=positions),)
        for site, factor in (("q", 0.3), ("k", 0.2), ("v", 0.3))
    ]
    outcome, record = OUTCOMES.get("logit_diff"), record_of(model)
    fast, slow = (
        sweep(model, task, variants, outcome, record=record, backend=backend).values for backend in ("resumed", "hooked")
    )
    assert float(abs(fast - slow).max()) <= 2e-5 * float(abs(slow).max())
    assert len({tuple(row.round(4)) for row in slow}) == 3


def test_a_site_that_reads_no_rows_takes_no_preparation():
    with pytest.raises(ValueError, match="for scores, pattern and z, not for q"):
        Intervention("q", (HEAD,), lambda x, at: x, "wrong", uses_inputs=True)
