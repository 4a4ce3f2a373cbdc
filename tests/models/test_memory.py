"""Estimates by hand, and the budget that refuses."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch


@pytest.fixture
def memory():
    from interp.models import memory

    return memory


def test_loading_needs_every_parameter_and_the_largest_twice(memory):
    import transformers

    config = transformers.GPT2Config(vocab_size=97, n_positions=64, n_embd=40, n_layer=3, n_head=5, n_inner=56)
    # Tied embeddings 97x40, positions 64x40, final norm 2x40; a block: two norms, qkv 40x120+120, output 40x40+40, MLP.
    block = 4 * 40 + 40 * 120 + 120 + 40 * 40 + 40 + 40 * 56 + 56 + 56 * 40 + 40
    parameters = 97 * 40 + 64 * 40 + 80 + 3 * block
    assert memory.load_bytes(config, "float32") == 4 * (parameters + 40 * 120)
    assert memory.load_bytes(config, "bfloat16") == 2 * (parameters + 40 * 120)


def test_a_forward_needs_activations_logits_and_patterns(memory, llama):
    # 2 x 10 tokens, d_model 60, d_mlp 56, vocabulary 97, 6 heads of 8, float32.
    plain = 5 * 60 * 56 * 4 + 20 * (8 * 60 + 4 * 56 + 6 * 48) * 4 + 20 * 97 * 4
    assert memory.forward_bytes(llama.facts, 2, 10, patterns=False) == plain
    assert memory.forward_bytes(llama.facts, 2, 10) == plain + int(2.1 * 4 * 6 * 20 * 10)
    assert memory.forward_bytes(llama.facts, 2, 10, patterns=False, all_logits=False) == plain - 18 * 97 * 4


def test_a_budget_that_is_kept_says_nothing(memory):
    memory.check_budget(100, 100)


def test_a_budget_that_is_not_kept_names_estimate_and_budget(memory):
    from interp.errors import MemoryBudgetExceeded

    with pytest.raises(MemoryBudgetExceeded, match=r"The sweep needs about 3 GiB, and 2 GiB is the budget"):
        memory.check_budget(3 * 2**30, 2 * 2**30, "The sweep")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 B"), (7, "7 B"), (999, "999 B"), (1000, "1000 B"), (1023, "1023 B"), (1024, "1 KiB"), (1555, "1.52 KiB")),
        *(
            (1_000 * 2**20, "1000 MiB"),
            (2**30 - 1, "1024 MiB"),
            (3 * 2**29, "1.5 GiB"),
            (5_000 * 2**40, "5000 TiB"),
            (-3, "0 B"),
        ),
    ],
)
def test_numbers_of_bytes_are_written_out(memory, count, text):
    assert memory.format_bytes(count) == text


def test_a_tenth_of_the_free_memory_is_left_alone(memory, monkeypatch):
    monkeypatch.setattr(memory, "_system_memory", lambda: 1000)
    monkeypatch.setattr(memory, "_control_group_memory", list)
    assert memory.available_memory() == 900
    monkeypatch.setattr(memory, "_control_group_memory", lambda: [500])
    assert memory.available_memory() == 450


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read as Linux tells it")
def test_memory_does_not_grow_when_models_are_loaded_and_let_go(tmp_path):
    """Ten loads of 26 MB each, with their bridges: were one in four kept, the process would grow by a tenth."""
    import transformers as T

    from interp.models import load_model

    config = T.GPT2Config(vocab_size=997, n_positions=64, n_embd=256, n_layer=8, n_head=8, bos_token_id=1, eos_token_id=2)
    T.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    pages, resident, kept = Path("/proc/self/statm"), [], []
    for _ in range(12):
        model = load_model(str(tmp_path))
        model.bridge(torch.tensor([[5, 6, 7]]))
        kept.append([weakref.ref(part) for part in (model, model.hf, next(model.hf.parameters()))])
        del model
        gc.collect()
        resident.append(int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert not [ref for refs in kept for ref in refs if ref() is not None]
    print("growth of resident memory:", resident[-1] / resident[1] - 1)
    assert resident[-1] < 1.05 * resident[1]  # after the first two: libraries are loaded and the allocator has its pools


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_of_the_gpu_is_given_back():
    from interp.models import load_model

    before = torch.cuda.memory_allocated()
    for _ in range(10):
        model = load_model("interp-mini", device="cuda")
        model.bridge(torch.tensor([[5, 6, 7]], device="cuda"))
        assert torch.cuda.memory_allocated() > before
        del model
        gc.collect()
    assert abs(torch.cuda.memory_allocated() - before) < 2**20


def test_available_memory_is_between_nothing_and_the_machine(memory):
    import os

    assert 0 < memory.available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_control_group_limit_counts_droppable_pages_as_free(memory, tmp_path):
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 500\ninactive_file 150\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory._control_group_memory(tmp_path) == [450]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._control_group_memory(tmp_path) == []
