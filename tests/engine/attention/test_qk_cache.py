"""Tiles made from cached queries and keys are the hook's patterns, and a stored cache survives what happens to files."""

import json

import numpy as np
import pytest
import torch

from interp.engine import capture_attention, load_attention
from interp.engine.attention.attention_observer import observe
from interp.engine.attention.qk_cache import MANIFEST, attention_bytes
from interp.errors import ArtefactInvalid, MemoryBudgetExceeded
from interp.heads import Head
from interp.metrics.attention import attention_metrics
from interp.metrics.thumbnails import overview
from interp.models import wrap_model
from tests.support.reference_metrics import FORMULAS as NAMES
from tests.support.reference_metrics import hooked_pattern, same
from tests.support.tiny_models import TINY, tiny, tiny_hf, tiny_tokens

METRICS = attention_metrics(NAMES)


@pytest.mark.parametrize("name", TINY)
def test_a_pattern_of_a_model_as_it_is_initialised_is_that_of_the_hook_to_1e_6(name):
    model, tokens = wrap_model(tiny_hf(name, factor=1.0), name=name), tiny_tokens(2, 11)
    pattern, kept = hooked_pattern(model, tokens), capture_attention(model, tokens)
    for head in model.facts.heads():
        torch.testing.assert_close(kept.pattern(head, example=1), pattern[head.layer, 1, head.head], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_any_tile_equals_the_pattern_of_the_hook(name, tmp_path):
    model, tokens = tiny(name), tiny_tokens(2, 11)
    pattern = hooked_pattern(model, tokens)
    kept, stored = capture_attention(model, tokens), capture_attention(model, tokens, values=True, store=tmp_path)
    for head in model.facts.heads():
        whole, call = pattern[head.layer, 1, head.head], kept.calls[head.layer]
        one = slice(head.head, head.head + 1)
        largest = float(call.scores(one, slice(None)).abs().max())
        rounding = max(1e-6, 2 * torch.finfo(torch.float32).eps * largest)  # of scores, from which weights come
        torch.testing.assert_close(kept.pattern(head, example=1), whole, rtol=0, atol=rounding)
        tile = stored.pattern(head, slice(5, 9), slice(2, 7), example=1)
        torch.testing.assert_close(tile, whole[5:9, 2:7], rtol=0, atol=rounding)
    assert kept.nbytes == attention_bytes(model.facts, 2, 11)
    assert stored.nbytes == attention_bytes(model.facts, 2, 11, values=True)
    assert (kept.folder, stored.folder) == (None, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_stored_cache_of_padded_texts_gives_the_metrics_of_the_pass(name, side, tmp_path):
    model, tokens, token_mask = tiny(name), tiny_tokens(2, 9), torch.ones(2, 9, dtype=torch.bool)
    token_mask[1, :3] = False
    token_mask = token_mask if side == "left" else token_mask.flip(1)
    capture_attention(model, tokens, token_mask=token_mask, store=tmp_path)
    cached, passed = (
        load_attention(tmp_path).observe(METRICS, block=120),
        observe(model, tokens, METRICS, token_mask=token_mask),
    )
    for metric in NAMES:
        assert same(cached[metric], passed[metric])
    assert cached.words == passed.words
    assert cached.record == passed.record


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tile_of_a_padded_text_is_that_of_the_text_alone(side):
    model, tokens, token_mask = tiny("llama"), tiny_tokens(2, 9), torch.ones(2, 9, dtype=torch.bool)
    token_mask[1, :3] = False
    token_mask = token_mask if side == "left" else token_mask.flip(1)
    padded = capture_attention(model, tokens, token_mask=token_mask)
    alone = capture_attention(model, tokens[1:, token_mask[1]])
    for head in (Head(0, 1), Head(2, 3)):
        whole = padded.pattern(head, example=1)
        assert whole.shape == (6, 6) and padded.pattern(head).shape == (9, 9)
        torch.testing.assert_close(whole, alone.pattern(head), rtol=0, atol=1e-5)
        torch.testing.assert_close(padded.pattern(head, slice(-2, None), slice(1, 4), example=1), whole[4:, 1:4])
        np.testing.assert_allclose(overview(padded, head, 4, example=1), overview(alone, head, 4), atol=1e-5)
    with pytest.raises(IndexError, match="of a text of 6 tokens is empty"):
        padded.pattern(Head(0, 0), slice(6, 9), example=1)


def test_twelve_by_twelve_heads_at_512_tokens_take_a_quarter_of_their_patterns():
    facts = tiny("gpt2").facts
    from dataclasses import replace

    small = replace(facts, n_layers=12, n_heads=12, n_kv_heads=12, d_head=64)
    assert attention_bytes(small, 1, 512) * 4 == 12 * 12 * 512 * 512 * 4
    grouped = replace(small, n_kv_heads=4)
    assert attention_bytes(grouped, 1, 512) * 6 == 12 * 12 * 512 * 512 * 4


def test_tiles_that_are_not_there_or_too_large_are_refused_in_a_sentence():
    cache = capture_attention(tiny("llama"), tiny_tokens(2, 7))
    with pytest.raises(LookupError, match="Head L3H0 does not exist: there are layers 0-2 and heads 0-5"):
        cache.pattern(Head(3, 0))
    with pytest.raises(LookupError, match="No text 2: the texts are 0-1"):
        cache.pattern(Head(0, 0), example=2)
    with pytest.raises(IndexError, match=r"The tile \[7:9, :\] of a text of 7 tokens is empty"):
        cache.pattern(Head(0, 0), slice(7, 9))
    with pytest.raises(MemoryBudgetExceeded, match="7 rows of 7 keys of L0H0 needs about 588 B, and 500 B is the budget"):
        cache.pattern(Head(0, 0), memory=500)


@pytest.mark.parametrize("summed", ["true", "false"])
def test_what_heads_move_is_not_guessed_from_queries_and_keys(summed):
    with pytest.raises(ValueError, match="value_weighted_norm needs values, and only queries and keys are cached"):
        capture_attention(tiny("llama"), tiny_tokens(1, 7)).observe(attention_metrics([f"value_weighted_norm:summed={summed}"]))


@pytest.mark.parametrize("damage", ["missing layer", "truncated layer", "no manifest", "other version", "broken manifest"])
def test_a_damaged_cache_is_refused_and_can_be_made_again(damage, tmp_path):
    model, tokens = tiny("qwen3"), tiny_tokens(1, 7)
    capture_attention(model, tokens, store=tmp_path)
    layer, manifest = tmp_path / "layer-1.safetensors", tmp_path / MANIFEST
    match damage:
        case "missing layer":
            layer.unlink()
        case "truncated layer":
            layer.write_bytes(layer.read_bytes()[:-9])
        case "no manifest":
            manifest.unlink()
        case "other version":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 7}))
        case "broken manifest":
            manifest.write_text(manifest.read_text()[:-5])
    with pytest.raises(ArtefactInvalid, match=r"holds no readable attention cache .* capture the attention again"):
        load_attention(tmp_path)
    capture_attention(model, tokens, store=tmp_path)
    assert load_attention(tmp_path).pattern(Head(1, 1)).shape == (7, 7)


def test_a_pass_that_fails_leaves_no_cache_behind_that_looks_whole(tmp_path, monkeypatch):
    from interp.engine.attention import qk_cache

    model, tokens = tiny("llama"), tiny_tokens(1, 7)
    capture_attention(model, tokens, store=tmp_path)
    original = qk_cache.write_tensors

    def full(path, tensors):
        if path.name == "layer-2.safetensors":
            raise OSError(28, "No space left on device")
        original(path, tensors)

    monkeypatch.setattr(qk_cache, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        capture_attention(model, tokens, store=tmp_path)
    with pytest.raises(ArtefactInvalid):
        load_attention(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma2"])
def test_norms_are_the_lengths_of_what_each_head_writes_from_each_key(name, tmp_path):
    model, tokens = tiny(name), tiny_tokens(2, 11)
    cache = capture_attention(model, tokens, value_norms=True, store=tmp_path)
    _, seen = model.bridge.run_with_cache(tokens, names_filter=lambda hook: hook.endswith("attn.hook_v"))
    for head in model.facts.heads():
        group = model.facts.kv_head(head)
        moved = seen[f"blocks.{head.layer}.attn.hook_v"][:, :, group] @ model.bridge.W_O[head.layer, head.head]
        torch.testing.assert_close(cache.value_norms[head.layer][:, head.head], moved.norm(dim=-1), rtol=1e-5, atol=1e-6)
    assert cache.nbytes == attention_bytes(model.facts, 2, 11, value_norms=True)
    assert cache.nbytes == attention_bytes(model.facts, 2, 11) + 4 * 2 * 11 * model.facts.n_layers * model.facts.n_heads
    assert not capture_attention(model, tokens).value_norms
