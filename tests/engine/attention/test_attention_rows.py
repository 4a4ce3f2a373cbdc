"""Blocks of rows: how they divide a call, and what they compute once for everything that reads them."""

from collections import Counter
from dataclasses import replace
from math import log

import pytest
import torch

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.attention_metric import AttentionMetric
from interp.engine.attention.attention_observer import observe
from interp.engine.attention.attention_rows import QUERIES, AttentionLayer, AttentionRows, QueryBlock, blocks
from interp.engine.attention.metric_accumulator import verify_metric
from interp.heads import Head
from interp.interventions import Intervention
from interp.metrics.attention import attention_metrics
from interp.tasks.token_batch import TokenBatch
from tests.support.tiny_models import tiny, tiny_tokens


def a_call(n_queries: int, n_keys: int) -> AttentionInputs:
    """Two texts, 6 heads in 3 groups, keys of 5 and values of 4 numbers, as models hand them over: positions before heads."""
    torch.manual_seed(1)
    q, k, v = torch.randn(2, n_queries, 6, 5), torch.randn(2, n_keys, 3, 5), torch.randn(2, n_keys, 3, 4)
    return AttentionInputs(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None, 0.3, None)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(17, 17), (9, 21), (1, 13), (140, 150)])
@pytest.mark.parametrize("block", [1, 150, 333, 10**6])
def test_blocks_of_causal_rows_are_as_tall_as_their_number_of_weights_allows(n_queries, n_keys, block):
    done = 0
    for queries, keys, visibility, groups in blocks(a_call(n_queries, n_keys), block):
        n, before = queries.stop - queries.start, n_keys - n_queries + queries.start
        assert queries.start == done and keys == slice(0, before + n) and visibility is None
        weights = [2 * 2 * rows * (before + rows) for rows in (n, n + 1)]  # texts, heads of a group, queries, keys
        assert weights[0] <= block or n == 1
        assert n <= QUERIES and (weights[1] > block or n == QUERIES or queries.stop == n_queries)
        assert [head for heads in groups for head in range(heads.start, heads.stop)] == [*range(6)]
        done = queries.stop
    assert done == n_queries


def test_inputs_in_another_order_in_memory_have_the_same_scores_and_values():
    call = a_call(11, 13)
    laid_out = call.laid_out_for_products()
    assert laid_out.k.mT.is_contiguous() and laid_out.v.is_contiguous() and not call.v.is_contiguous()
    assert torch.equal(laid_out.k, call.k) and torch.equal(laid_out.v, call.v)
    some = slice(2, 4), slice(3, 10), slice(0, 12)
    torch.testing.assert_close(laid_out.scores(*some), call.scores(*some))
    few = replace(call, q=call.q[:, :, :4])
    assert few.laid_out_for_products() is few


def test_entropy_counts_weights_that_are_0_or_hardly_above_it_as_the_formula_does():
    weights = [[[0.5, 0.0, 0.25, 1e-40, 0.25]], [[0.0, 1.0, 0.0, 0.0, 0.0]], [[0.2] * 5]]
    texts = TokenBatch(torch.zeros(1, 5).long(), torch.ones(1, 5).bool())
    last = QueryBlock(AttentionLayer(0, a_call(1, 5), texts), slice(4, 5), slice(0, 5), None)
    rows = AttentionRows(last, slice(0, 3), torch.tensor([weights]))
    wanted = [-sum(w * log(w) for w in row if w) for ((row),) in weights]
    torch.testing.assert_close(rows.entropy, torch.tensor([wanted])[..., None], rtol=1e-6, atol=1e-7)
    assert rows.entropy[0, 1].tolist() == [0.0]


def test_what_heads_share_is_computed_once_for_a_block_of_queries():
    computed = Counter()

    def last_key(block, back):
        computed[block.queries.start, back] += 1
        return block.query_columns - back

    def read(rows, back):
        return rows.shared(last_key, back).expand(rows.pattern.shape[:3])

    metrics = [AttentionMetric(f"back_{n}", "query", "column", (None, None), read, "", {"back": n}) for n in (0, 3)]
    for metric in metrics:
        verify_metric(metric)
    computed.clear()
    model = tiny("llama")
    found = observe(model, tiny_tokens(1, 7), metrics, block=1)
    assert model.facts.n_kv_heads > 1 and set(computed) == {(query, back) for query in range(7) for back in (0, 3)}
    assert set(computed.values()) == {model.facts.n_layers}
    assert found["back_3"][1, 0, 2].tolist() == [query - 3.0 for query in range(7)]


@pytest.mark.parametrize("block", [1, 90, 10**6])
@pytest.mark.parametrize("name", ["llama", "mistral", "bert"])
def test_the_mass_of_rows_is_the_sum_of_their_weights(name, block):
    masses = {"parts": lambda rows: rows.mass, "whole": lambda rows: rows.pattern.sum(-1)}
    metrics = [AttentionMetric(way, "query", "weight", (0.0, 1.0), function, "") for way, function in masses.items()]
    found = observe(tiny(name), tiny_tokens(2, 11), [*metrics, *attention_metrics(["entropy"])], block=block)
    torch.testing.assert_close(found["parts"], found["whole"], rtol=0, atol=1e-6)
    torch.testing.assert_close(found["parts"], torch.ones_like(found["parts"]), rtol=0, atol=1e-6)


def test_the_entropy_of_a_row_with_a_negative_weight_is_not_a_number():
    model, head = tiny("llama"), Head(1, 2)
    negative = Intervention("pattern", (head,), lambda x, context: x - 0.5 * context.visible, "negative")
    seen = observe(model, tiny_tokens(1, 7), attention_metrics(["entropy"]), intervene=[negative])
    assert seen["entropy"][1, 0, 2, 1:].isnan().all() and not seen["entropy"][1, 0, 3].isnan().any()
