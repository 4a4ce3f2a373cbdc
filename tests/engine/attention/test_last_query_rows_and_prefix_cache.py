"""The last rows of a text, with and without a cached beginning, are those of a plain pass; only they are read."""

import pytest
import torch

from interp.engine import run
from interp.engine.attention import attention_interface
from interp.engine.attention.attention_interface import AttentionInputs, attend, scaled_dot_product
from interp.engine.attention.last_query_rows_and_prefix_cache import SharedPrefix, read_last_queries, verified_shared_prefix
from tests.support.tiny_models import tiny, tiny_tokens


def patterns(model, tokens, n, cache=None):
    """[n_layers batch n_heads n pos] of the rows that are handed over, 0 where no key was, and the logits."""
    facts, (batch, length) = model.facts, tokens.shape
    found = torch.full((facts.n_layers, batch, facts.n_heads, n, length), 0.0)

    def read(rows):
        queries = slice(rows.queries.start - length + n, rows.queries.stop - length + n)
        assert queries.start >= 0
        found[rows.layer.index, :, rows.heads, queries, rows.keys] = rows.pattern

    return found, read_last_queries(model, tokens, n, read, cache)


def test_the_last_rows_are_those_of_the_full_pattern(model):
    tokens = tiny_tokens(2, 13)
    found, logits = patterns(model, tokens, 3)
    names = [f"pattern.{layer}" for layer in range(model.facts.n_layers)]
    want = run(model, tokens, capture=names)
    for layer, name in enumerate(names):
        torch.testing.assert_close(found[layer], want[name][:, :, -3:], atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(logits, want.logits[:, -3:], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("before", [0, 1, 6, 10])
def test_a_text_goes_on_from_any_part_of_a_cached_beginning(model, before):
    beginning, whole = tiny_tokens(1, 17), tiny_tokens(1, 13, seed=1)
    whole[:, :before] = beginning[:, :before]
    shared = SharedPrefix.of(model, beginning)
    plain, logits = patterns(model, whole, 2)
    for _ in range(2):  # the beginning is still what it was
        found, continued = patterns(model, whole, 2, shared.first(before))
        torch.testing.assert_close(found, plain, atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(continued, logits, atol=2e-4, rtol=1e-4)
    assert verified_shared_prefix(model, beginning, [(whole, before)], 2) is not None


def test_a_cache_grows_by_what_was_run_step_by_step(model):
    tokens = tiny_tokens(1, 12)
    cache = SharedPrefix.of(model, tokens).first(5)
    _, _ = patterns(model, tokens[:, :9], 1, cache)
    found, logits = patterns(model, tokens, 3, cache)
    plain, want = patterns(model, tokens, 3)
    assert cache.get_seq_length() == 12
    torch.testing.assert_close(found, plain, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-4)


def test_a_beginning_that_the_whole_does_not_have_is_not_proven(llama):
    beginning, other = tiny_tokens(1, 9), tiny_tokens(1, 11, seed=3)
    assert verified_shared_prefix(llama, beginning, [(other, 6)], 2) is None


def test_a_model_whose_angles_change_with_the_length_shares_no_beginning():
    import transformers as T

    from interp.models import wrap_model

    torch.manual_seed(0)
    scaled = {
        "rope_type": "longrope", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 8,
        "short_factor": [1.0] * 5, "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0],
    }  # fmt: skip
    sizes = {
        "hidden_size": 60,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
    }
    config = T.LlamaConfig(vocab_size=97, max_position_embeddings=32, rope_parameters=scaled, initializer_range=0.5, **sizes)
    model = wrap_model(T.LlamaForCausalLM(config).eval(), name="longrope")
    tokens = tiny_tokens(1, 20)
    assert verified_shared_prefix(model, tokens[:, :17], [(tokens, 13)]) is not None
    assert verified_shared_prefix(model, tokens[:, :17], [(tokens[:, :7], 5), (tokens, 13)]) is None


def test_a_cached_text_and_rows_of_attention_without_a_cache_have_one_output():
    """torch's causal flag begins at the first key; queries at the end of longer keys need their own rows."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((6, 11), (3, 11), (3, 11)))
    whole = attend(AttentionInputs(q, k, v, None, 0.3, None))
    for n in (1, 4, 10):
        torch.testing.assert_close(attend(AttentionInputs(q[:, :, -n:], k, v, None, 0.3, None)), whole[:, :, -n:])


@pytest.mark.parametrize("n", [4, 10])
def test_queries_behind_a_cache_are_computed_in_steps_from_the_keys_that_they_see(n, monkeypatch):
    monkeypatch.setattr(attention_interface, "QUERIES", 3)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 11, 8, generator=generator) for heads in (6, 3, 3))
    scores = 0.3 * q @ k.repeat_interleave(2, 1).mT
    future = torch.ones(11, 11, dtype=torch.bool).triu(1)
    wanted = scores.masked_fill(future, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    n_keys = []

    def product(call, *how):
        n_keys.append(call.k.shape[2])
        return scaled_dot_product(call, *how)

    monkeypatch.setattr(attention_interface, "scaled_dot_product", product)
    torch.testing.assert_close(attend(AttentionInputs(q[:, :, -n:], k, v, None, 0.3, None)), wanted[:, :, -n:])
    assert n_keys == [min(11 - n + first + 3, 11) for first in range(0, n, 3)]


def test_more_rows_than_are_run_and_longer_texts_than_the_context_are_refused(gpt2):
    tokens = tiny_tokens(1, 9)
    with pytest.raises(ValueError, match=r"n=4 rows of 9 tokens, 6 of which come from a cache: give 1 to 3"):
        read_last_queries(gpt2, tokens, 4, None, SharedPrefix.of(gpt2, tokens).first(6))
    with pytest.raises(ValueError, match="70 tokens, more than the 64"):
        read_last_queries(gpt2, tiny_tokens(1, 70), 2, None)


def test_bloom_goes_on_from_a_cache_too():
    beginning = tiny_tokens(1, 9)
    whole = torch.cat([beginning, tiny_tokens(1, 5, seed=4)], 1)
    assert verified_shared_prefix(tiny("bloom"), beginning, [(whole, 7)], 3) is not None
