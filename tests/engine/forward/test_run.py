"""One hooked pass: what is captured, what is changed, what is refused."""

import threading
from pathlib import Path

import pytest
import torch

from interp import interventions
from interp.engine.forward.activation_names import hook_name
from interp.engine.forward.capture import capture, capture_bytes, load_capture
from interp.engine.forward.run import run
from interp.errors import ArtefactInvalid
from interp.heads import Head
from tests.support.sweep_cases import random_task
from tests.support.tiny_models import tiny, tiny_tokens


def test_names_have_one_canonical_form():
    assert hook_name("z.5") == hook_name("blocks.5.attn.hook_z") == "blocks.5.attn.hook_z"
    assert hook_name("resid_pre.0") == "blocks.0.hook_resid_pre" and hook_name("mlp_post.1") == "blocks.1.mlp.hook_post"
    with pytest.raises(LookupError, match=r"No activation is called 'zz.1'. Write SITE.LAYER with one of: resid_pre"):
        hook_name("zz.1")


@pytest.mark.parametrize("name", ["bert", "bloom"])
def test_results_of_heads_are_read_where_transformer_lens_does_not_compute_them(name):
    model = tiny(name)
    done = run(model, tiny_tokens(1, 5), capture=["result.2", "z.2"])
    want = torch.einsum("bphd,hdm->bphm", done["z.2"], model.bridge.blocks[2].attn.W_O)
    assert (done["result.2"] - want).abs().max() <= 1e-5 * want.abs().max()
    with pytest.raises(LookupError, match=r"has no activation called 'blocks.7.attn.hook_result'"):
        run(model, [5, 6], capture=["result.7"])


def test_a_change_shows_in_what_is_captured_and_in_the_logits(model):
    tokens = tiny_tokens(2, 7)
    clean = run(model, tokens, capture=["z.1"])
    changed = run(model, tokens, capture=["z.1"], intervene=[interventions.zero([Head(1, 3)], positions=(-1, 2))])
    assert (changed["z.1"][:, [2, 6], 3] == 0).all()
    kept = [0, 1, 3, 4, 5]
    torch.testing.assert_close(changed["z.1"][:, kept, 3], clean["z.1"][:, kept, 3])
    assert (changed.logits[:, -1] - clean.logits[:, -1]).abs().max() > 1e-3
    torch.testing.assert_close(changed.logits[:, :2], clean.logits[:, :2])
    assert changed.record.interventions == ("zero L1H3 @(-1, 2) x1",)


def test_strength_zero_is_the_clean_run_bit_for_bit(model):
    tokens = tiny_tokens(1, 9)
    for make in (interventions.zero, interventions.uniform):
        unchanged = run(model, tokens, intervene=[make([Head(2, 1)]).at(0.0)])
        assert (unchanged.logits - run(model, tokens).logits).abs().max() <= (0 if make is interventions.zero else 1e-5)


def test_uniform_rows_are_seen_by_a_capture_where_the_bridge_writes_patterns(llama):
    done = run(llama, tiny_tokens(1, 5), capture=["pattern.0"], intervene=[interventions.uniform([Head(0, 4)])])
    want = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(done["pattern.0"][0, 4], want)


def test_text_token_ids_and_tensors_are_the_same_prompt(gpt2):
    ids = gpt2.to_tokens("w3 w1 w4 w1")
    a, b, c = run(gpt2, "w3 w1 w4 w1"), run(gpt2, ids), run(gpt2, torch.tensor([ids]))
    assert torch.equal(a.logits, b.logits) and torch.equal(b.logits, c.logits)


def test_what_does_not_exist_is_refused_by_name(gpt2):
    with pytest.raises(LookupError, match=r"tiny-gpt2 has no activation called 'blocks.7.attn.hook_z'"):
        run(gpt2, [5, 6], capture=["z.7"])
    with pytest.raises(LookupError, match="exists but is never computed"):
        run(gpt2, [5, 6], capture=["blocks.0.attn.qkv.hook_out"])
    with pytest.raises(LookupError, match="Head L0H9 does not exist"):
        run(gpt2, [5, 6], intervene=[interventions.zero([Head(0, 9)])])
    for ids, wrong in (([5, 97], 97), ([-3, 6], -3)):
        with pytest.raises(ValueError, match=rf"Prompt 0 has token id {wrong}, and tiny-gpt2 has ids 0 to 96"):
            run(gpt2, ids)
    with pytest.raises(ValueError, match=r"equally many tokens, not \[9, 11\]"):
        run(gpt2, random_task().examples)
    with pytest.raises(LookupError, match=r"'z.1' was not captured. This run holds: blocks.0.attn.hook_z"):
        run(gpt2, [5, 6], capture=["z.0"])["z.1"]


def test_threads_with_different_changes_do_not_meet(gpt2):
    tokens = tiny_tokens(1, 6)
    heads = [Head(layer, head) for layer in range(3) for head in range(2)]
    want = [run(gpt2, tokens, intervene=[interventions.zero([h])]).logits for h in heads]
    wrong: list[Head] = []

    def check(i: int) -> None:
        for _ in range(5):
            if not torch.equal(run(gpt2, tokens, intervene=[interventions.zero([heads[i]])]).logits, want[i]):
                wrong.append(heads[i])

    threads = [threading.Thread(target=check, args=(i,)) for i in range(len(heads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


NAMES = ["z", "resid_pre.1", "pattern.2", "v.0", "mlp_post.1"]


def test_the_size_of_a_capture_is_known_beforehand(llama):
    kept = capture(llama, random_task(n_short=0), NAMES)
    assert kept.nbytes == capture_bytes(llama.facts, NAMES, 3, 11)
    assert set(kept.activations) == {hook_name(n) for n in ["z.0", "z.1", "z.2", *NAMES[1:]]}


def test_a_stored_capture_reads_back_bit_for_bit(llama, tmp_path):
    kept = capture(llama, random_task(n_short=0), NAMES)
    stored = capture(llama, random_task(n_short=0), NAMES, store=tmp_path / "c")
    again = load_capture(tmp_path / "c")
    for name, tensor in kept.activations.items():
        assert torch.equal(stored[name], tensor) and torch.equal(again[name], tensor)
    assert again.record == kept.record
    assert (tmp_path / "c" / "activations.safetensors").stat().st_size < 1.02 * kept.nbytes + 4096


def test_an_activation_asked_for_by_several_names_is_kept_and_stored_once(llama, tmp_path):
    names = [
        *NAMES,
        *(hook_name(f"{site}.{layer}") for site in ("z", "v", "pattern") for layer in range(3)),
        "z.2",
        "pattern.0",
    ]
    kept = capture(llama, tiny_tokens(8, 60), names, store=tmp_path)
    tensors = capture(llama, tiny_tokens(8, 60), names).activations.values()
    unique = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert len(unique) == len(tensors) == 3 * 3 + 2  # z, v and pattern of every layer, resid_pre.1 and mlp_post.1
    assert sum(unique.values()) == kept.nbytes
    assert (tmp_path / "activations.safetensors").stat().st_size <= 1.02 * kept.nbytes


def test_a_damaged_capture_is_refused(gpt2, tmp_path):
    capture(gpt2, [5, 6, 7], ["z.0"], store=tmp_path)
    file = tmp_path / "activations.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ArtefactInvalid, match="holds no readable capture"):
        load_capture(tmp_path)
    with pytest.raises(ArtefactInvalid, match="holds no readable capture"):
        load_capture(tmp_path / "nothing")


def test_a_capture_over_an_earlier_one_is_the_old_or_the_new_with_its_own_record(gpt2, llama, tmp_path, monkeypatch):
    old = capture(gpt2, [5, 6, 7], ["z.0"], store=tmp_path)
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(Path, "replace", interrupted)
        capture(llama, [5, 6, 7, 8], ["z.0"], store=tmp_path)
    kept = load_capture(tmp_path)
    assert kept.record == old.record and torch.equal(kept["z.0"], old["z.0"])
    (tmp_path / ".activations.safetensors.123.456.tmp").write_bytes(b"left by a killed writer")
    new = capture(llama, [5, 6, 7, 8], ["z.0"], store=tmp_path)
    assert load_capture(tmp_path).record == new.record != old.record
    assert [path.name for path in tmp_path.iterdir()] == ["activations.safetensors"]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_disk_that_refuses_a_capture_gives_one_sentence_and_keeps_the_earlier_one(gpt2, tmp_path):
    resource = pytest.importorskip("resource")
    old = capture(gpt2, [5, 6, 7], ["z.0"], store=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"activations\.safetensors could not be written: .*stays readable\.$"):
            capture(gpt2, tiny_tokens(9, 11), ["z"], store=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_capture(tmp_path)["z.0"], old["z.0"])
    assert [path.name for path in tmp_path.iterdir()] == ["activations.safetensors"]
