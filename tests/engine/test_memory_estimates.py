"""Analyses stay within their estimates of memory: the resident memory of a forked process, at many sizes and lengths."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import transformers as T

from benchmarks.measure import peak_bytes
from interp.ablation.ablations import build_variants
from interp.engine import capture_attention, load_attention
from interp.engine.attention.attention_observer import observe
from interp.engine.sweep.sweep import sweep
from interp.engine.sweep.work_units import plan_sweep
from interp.heads import Head
from interp.metrics.attention import attention_metrics
from interp.metrics.outcomes import OUTCOMES
from interp.metrics.thumbnails import overview
from interp.models import wrap_model
from interp.models.model import record_of
from interp.tasks.task import Example, Task

pytestmark = [
    pytest.mark.survey,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read as Linux tells it"),
]
SIZES = {"small": (2, 4, 128), "wide": (2, 8, 512)}
LENGTHS = (64, 128, 256, 512, 1024)


def random_model(size):
    """A Llama of this many layers, heads and dimensions."""
    torch.manual_seed(0)
    n_layers, n_heads, width = SIZES[size]
    config = T.LlamaConfig(
        vocab_size=2003, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=n_layers, num_attention_heads=n_heads,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return wrap_model(T.LlamaForCausalLM(config).eval(), name=size)


def prompts(n, length):
    rows = torch.randint(3, 2003, (n, length), generator=torch.Generator().manual_seed(length)).tolist()
    return tuple(Example(tuple(row), tuple(row), (5,), (6,)) for row in rows)


def in_new_process(measure, *arguments):
    """The measurement in a process of its own: what earlier tests have left in memory is not the call's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def sweep_memory(size, length, positions, shorter):
    """The peak of a sweep in bytes, and its estimate; half of the prompts are ``shorter`` by so many tokens."""
    n = max(2, 1024 // length)
    examples = prompts(n - n // 2, length) + prompts(n // 2, length - shorter)
    model, task = random_model(size), Task("random", examples, "logit_diff")
    variants = build_variants(model, task, "zero", positions, [(head,) for head in model.facts.heads()[:2]], 0)
    outcome, record = OUTCOMES.get("logit_diff"), record_of(model)
    estimate = plan_sweep(model, task, variants, outcome, None, identity="x").bytes
    sweep(model, task, variants, outcome, record=record)  # libraries take memory once
    return peak_bytes(lambda: sweep(model, task, variants, outcome, record=record)), estimate


@pytest.mark.parametrize(("positions", "shorter"), [("all", 0), ("all", 1), ("end", 0), ("end", 7)])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", SIZES)
def test_a_sweep_takes_at_most_the_memory_that_its_plan_says(size, length, positions, shorter):
    peak, estimate = in_new_process(sweep_memory, size, length, positions, shorter)
    print(size, length, positions, shorter, "peak / estimate", peak / estimate)
    assert 0 < peak <= 1.15 * estimate


def observation_memory(size, length, budget):
    """The peak of an observed pass in bytes."""
    model = random_model(size)
    tokens = torch.tensor([e.clean for e in prompts(max(1, 1024 // length), length)])
    metrics = attention_metrics(["entropy", "attention_distance", "received_attention"])
    observe(model, tokens, metrics, memory=budget)
    return peak_bytes(lambda: observe(model, tokens, metrics, memory=budget))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", SIZES)
def test_observing_attention_takes_at_most_the_memory_that_it_was_given(size, length):
    budget = {"small": 64 << 20, "wide": 128 << 20}[size]
    peak = in_new_process(observation_memory, size, length, budget)
    print(size, length, "peak / budget", peak / budget)
    assert 0 < peak <= 1.15 * budget


def test_an_overview_and_a_tile_of_4096_tokens_never_hold_the_patterns_of_32_times_32_heads(tmp_path):
    length, n_heads, d_head = 4096, 32, 16
    config = T.LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=n_heads, head_dim=d_head,
        max_position_embeddings=length,
    )  # fmt: skip
    model = wrap_model(T.LlamaForCausalLM(config).eval(), name="one layer")
    text = torch.randint(3, 97, (1, length))
    capture_attention(model, text, store=tmp_path)
    stored = load_attention(tmp_path)
    cache = replace(stored, calls=stored.calls * 32)
    assert cache.nbytes == 32 * 2 * n_heads * length * d_head * 4

    def look():
        whole = overview(cache, Head(31, 17))
        tile = cache.pattern(Head(31, 17), slice(3000, 3256), slice(1000, 1256))
        assert whole.shape == (256, 256) and tile.shape == (256, 256)

    peak = peak_bytes(look)
    print("peak MiB", peak / 2**20)
    assert 0 < peak < 4 * length**2 * 4
