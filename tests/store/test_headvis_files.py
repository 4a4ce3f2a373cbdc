"""A HeadVis tree holds what whole patterns say, reads back as it was written, and is not believed where it is damaged."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.engine.attention.attention_interface import AttentionInputs
from interp.engine.attention.qk_cache import AttentionCache, capture_attention
from interp.errors import ArtefactInvalid, MemoryBudgetExceeded
from interp.heads import Head
from interp.metrics.largest_weights_per_row import SparsePattern, sparse_patterns
from interp.records import RunRecord
from interp.store import export_headvis, headvis_files, load_headvis
from interp.tasks.token_batch import TokenBatch
from tests.cli.test_cli import assert_refused, interp
from tests.support.pattern_cases import NOTHING, golden_heads
from tests.support.reference_metrics import eager_pattern
from tests.support.tiny_models import save_tiny, tiny, tiny_hf, tiny_images

LENGTHS = (14, 9, 23)
MODELS = {"gpt2": (3, 5, None), "llama": (3, 6, None), "mistral": (3, 6, 4)}
"""Layers, heads and window (Mistral's); Llama and Mistral share 2 key/value heads."""
SIX = (*headvis_files.METRICS,)


def texts():
    """Three texts in which tokens come again, some at once."""
    rng = np.random.default_rng(5)
    return [rng.integers(4, 12, n).tolist() for n in LENGTHS]


def cached(name, side="right"):
    """The texts, padded on one side, as a model caches them."""
    longest = max(LENGTHS)
    tokens, token_mask = (
        torch.zeros(len(LENGTHS), longest, dtype=torch.long),
        torch.zeros(len(LENGTHS), longest, dtype=torch.bool),
    )
    for row, text in enumerate(texts()):
        own = slice(0, len(text)) if side == "right" else slice(longest - len(text), longest)
        tokens[row, own], token_mask[row, own] = torch.tensor(text), True
    return capture_attention(tiny(name), tokens, token_mask=token_mask)


def whole(name):
    """[n_layers head query key] of each text by itself, from transformers' eager attention."""
    hf = tiny_hf(name)
    return [eager_pattern(hf, input_ids=torch.tensor([text]))[:, 0].double().numpy() for text in texts()]


def six_cell_by_cell(patterns, window):
    """HeadVis's six numbers from whole patterns, [n_layers n_heads] each, by its formulas: moments of all rows together."""
    sums = dict.fromkeys(("self", "prev", "entropy", "far", "far²", "induction"), 0.0)
    n_rows = n_prev = n_induction = 0
    for text, pattern in zip(texts(), patterns, strict=True):
        for q in range(len(text)):
            row, keys = pattern[:, :, q], range(len(text))
            n_rows, n_prev = n_rows + 1, n_prev + (q > 0)
            sums["self"] += row[..., q]
            sums["prev"] += row[..., q - 1] if q else 0
            sums["entropy"] -= sum(row[..., k] * np.log(np.where(row[..., k] > 0, row[..., k], 1)) for k in keys)
            sums["far"] += sum(row[..., k] * abs(q - k) for k in keys)
            sums["far²"] += sum(row[..., k] * (q - k) ** 2 for k in keys)
            followed = [k + 1 for k in range(q) if text[k] == text[q] and (window is None or q - (k + 1) < window)]
            n_induction += bool(followed)
            sums["induction"] += sum(np.where(row[..., k] >= 0.01, row[..., k], 0) for k in followed)
    far = sums["far"] / n_rows
    return {
        "self_attention_score": sums["self"] / n_rows,
        "prev_token_score": sums["prev"] / n_prev,
        "pattern_entropy": sums["entropy"] / n_rows,
        "qk_distance": far,
        "qk_distance_variance": sums["far²"] / n_rows - far**2,
        "induction_score": sums["induction"] / n_induction,
    }


def kept_of(pattern):
    """Cell -> weight of one head's pattern: of each row the 8 largest, from 0.005 up."""
    largest = [(q, k) for q, row in enumerate(pattern) for k in np.argsort(-row)[:8]]
    return {q * len(pattern) + int(k): pattern[q, k] for q, k in largest if pattern[q, k] >= 0.005}


def golden(length=8):
    """Previous-token, uniform, sink and self head on the tokens a b a b ..., as a cache of one layer."""
    queries = golden_heads(length).log().clamp(min=NOTHING)
    call = AttentionInputs(queries, torch.eye(length).expand(1, 4, -1, -1), torch.ones(1, 4, length, 0), None, 1.0, None)
    words = (("a", "b") * (length // 2),)
    tokens = torch.tensor([[0, 1] * (length // 2)])
    return AttentionCache((call,), TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool)), words, RunRecord("golden"))


def on_disk(folder, *parts):
    return json.loads(folder.joinpath(*parts).read_text(encoding="utf-8"))


# --- the six numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_the_six_numbers_of_a_tree_are_those_of_whole_patterns(name, side, tmp_path):
    tree = load_headvis(export_headvis(cached(name, side), tmp_path / "tree", "three texts"))
    wanted = six_cell_by_cell(whole(name), MODELS[name][2])
    assert [*tree.scores] == [*wanted] and wanted["induction_score"].max() > 0.1
    for metric, values in wanted.items():
        assert tree.scores[metric].values.shape == MODELS[name][:2]
        np.testing.assert_allclose(tree.scores[metric].values, values, rtol=1e-5, atol=5e-5 + 1e-5)


def test_heads_of_known_patterns_have_their_closed_forms_on_disk(tmp_path):
    previous, uniform, sink, itself = on_disk(export_headvis(golden(), tmp_path / "tree", "abab"), "scatter_data.json")
    harmonic, rows = sum(1 / n for n in range(1, 9)), range(8)
    second = sum(sum(back**2 for back in range(t + 1)) / (t + 1) for t in rows) / 8
    assert uniform == {
        "layer": 0,
        "head": 1,
        "self_attention_score": round(harmonic / 8, 4),
        "prev_token_score": round((harmonic - 1) / 7, 4),
        "pattern_entropy": round(math.log(math.factorial(8)) / 8, 4),
        "qk_distance": 1.75,
        "qk_distance_variance": round(second - 1.75**2, 4),
        "induction_score": round((1 / 3 + 1 / 4 + 2 / 5 + 2 / 6 + 3 / 7 + 3 / 8) / 6, 4),
    }
    assert [head["qk_distance"] for head in (previous, sink, itself)] == [0.875, 3.5, 0]
    assert [head["qk_distance_variance"] for head in (previous, sink, itself)] == [round(7 / 64, 4), 63 / 12, 0]
    assert [head["induction_score"] for head in (previous, sink, itself)] == [1, 0, 0]
    assert [head["pattern_entropy"] for head in (previous, sink, itself)] == [0, 0, 0]


def test_a_head_without_a_repeated_token_has_no_induction_score(tmp_path):
    cache = golden()
    alone = replace(cache, prompts=TokenBatch(torch.arange(8)[None], cache.prompts.token_mask))
    folder = export_headvis(alone, tmp_path / "tree", "abcdefgh")
    assert [row["induction_score"] for row in on_disk(folder, "scatter_data.json")] == [None] * 4
    assert np.isnan(load_headvis(folder).scores["induction_score"].values).all()


# --- the patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_sparse_rows_are_the_largest_weights_of_whole_patterns(name, side):
    cache, patterns, kept = cached(name, side), whole(name), 0
    for layer, block in enumerate((1, 200, 1 << 19)):
        for head, found in enumerate(sparse_patterns(cache, layer, block=block)):
            for i, (sparse, text) in enumerate(zip(found, patterns, strict=True)):
                wanted = kept_of(text[layer, head])
                assert sparse.cells.tolist() == sorted(wanted) and len(sparse.tokens) == LENGTHS[i]
                np.testing.assert_allclose(sparse.weights, [wanted[cell] for cell in sorted(wanted)], atol=1e-5)
                assert sparse.peak == pytest.approx(text[layer, head, 1:, 1:].max(), abs=1e-5)
                kept += len(wanted)
    cells = sum(pattern.shape[0] * pattern.shape[1] * n * (n + 1) // 2 for n, pattern in zip(LENGTHS, patterns, strict=True))
    assert kept < 0.9 * cells  # the rule leaves something out


def test_a_row_of_equal_weights_keeps_eight_and_one_below_the_threshold_none():
    (heads,) = ([found[0] for found in sparse_patterns(golden(210), 0)],)
    uniform = np.bincount(heads[1].cells // 210, minlength=210)
    assert uniform[:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (uniform[8:199] == 8).all() and not uniform[
        200:
    ].any()  # row 199 has weights of 0.005, as near as rounding lets them
    assert [head.peak for head in heads] == pytest.approx([1, 0.5, 0, 1])


@pytest.mark.parametrize(
    ("queries", "keys"), [(slice(None), slice(None)), (slice(3, 7), slice(1, 4)), (slice(-2, None), slice(5, 0, -2))]
)
def test_a_tile_is_a_part_of_the_kept_pattern(queries, keys):
    sparse = sparse_patterns(cached("llama"), 1)[2][0]
    dense = np.zeros((LENGTHS[0], LENGTHS[0]), np.float32)
    dense.ravel()[sparse.cells] = sparse.weights
    np.testing.assert_array_equal(sparse.tile(queries, keys), dense[queries, keys])


def test_tiles_that_are_empty_or_too_large_are_refused():
    sparse = SparsePattern(("a",) * 9, np.array([], np.int64), np.array([], np.float32), 0.0)
    with pytest.raises(IndexError, match="This tile of a text of 9 tokens is empty"):
        sparse.tile(slice(9, 12))
    with pytest.raises(MemoryBudgetExceeded, match="A tile of 9 x 9 weights needs about 324 B, and 300 B is the budget"):
        sparse.tile(memory=300)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_read_back_is_what_was_written(name, tmp_path):
    cache = cached(name, "left")
    tree = load_headvis(export_headvis(cache, tmp_path / "tree", "three texts"))
    for head in tiny(name).facts.heads():
        for found, wanted in zip(tree.patterns(head), sparse_patterns(cache, head.layer)[head.head], strict=True):
            assert found.tokens == wanted.tokens and found.cells.tolist() == wanted.cells.tolist()
            np.testing.assert_allclose(found.weights, wanted.weights, atol=5.1e-5)
            assert found.peak == pytest.approx(wanted.peak, abs=5.1e-5)
    record = tree.scores["qk_distance"].record
    assert (record.model, record.weights_digest, record.dtype) == (cache.record.model, cache.record.weights_digest, "float32")
    assert (record.task, record.arguments, record.metric) == ("three texts", {"n_prompts": 3}, "qk_distance")
    assert f"tiny-{name} · three texts · n = 3 · qk_distance" in record.caption()


def test_the_files_are_those_that_headvis_and_neuronpedia_read(tmp_path):
    folder = export_headvis(golden(), tmp_path / "new" / "tree", "abab")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    heads = {f"heads/L0H{head}.json" for head in range(4)}
    assert found == {
        "config.json",
        "scatter_data.json",
        "server_config.json",
        "attributions/manifest.json",
        *heads,
    }
    config = on_disk(folder, "config.json")
    assert config["heads"] == [[0, 0], [0, 1], [0, 2], [0, 3]] and (config["n_layers"], config["n_heads"]) == (1, 4)
    assert config["metrics"] == [*SIX] == [*config["metric_descriptions"]] and config["n_intervals"] == 5
    needed = ("model_name", "dataset_name", "n_sequences", "seq_len", "dtype", "attn_implementation")
    assert [config["pipeline_config"][key] for key in needed] == ["golden", "abab", 1, 8, "float32", "interp"]
    (sink,) = on_disk(folder, "heads", "L0H2.json")["sequences"]
    assert sink == {
        "sequence_id": 0,
        "interval": 5,
        "tokens": ["a", "b"] * 4,
        "attention_indices": [q * 8 for q in range(8)],
        "attention_values": [1.0] * 8,
        "seq_len": 8,
        "max_activation": 0.0,
    }


def test_texts_are_sorted_into_fifths_of_their_peaks():
    assert headvis_files._fifths([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 1.0, 0.4, 0.6, 0.8]) == [5, 1, 3, 2, 4, 1, 5, 2, 3, 4]
    assert headvis_files._fifths([0.25, 0.75, 0.5]) == [1, 5, 3]


def test_a_tree_of_other_hands_is_read_as_far_as_it_is_known(tmp_path):
    folder = export_headvis(golden(), tmp_path / "tree", "abab")
    config, rows = on_disk(folder, "config.json"), on_disk(folder, "scatter_data.json")
    config |= {"model_name": "org/model", "n_heads": 6, "head_data_pattern": "../../L{layer}H{head}.json", "umap": {"any": 1}}
    config["pipeline_config"] = {"dtype": "bfloat16", "revision": None, "n_sequences": 4096, "commit": 7, "interventions": 3}
    rows = [{k: v for k, v in row.items() if k != "prev_token_score"} | {"own_score": 3} for row in rows[:0:-1]]
    for name, value in (("config.json", config), ("scatter_data.json", rows)):
        (folder / name).write_text(json.dumps(value, indent=2))
    tree = load_headvis(folder)
    distance, record = tree.scores["qk_distance"].values, tree.scores["qk_distance"].record
    np.testing.assert_array_equal(distance, [[np.nan, 1.75, 3.5, 0, np.nan, np.nan]])
    assert np.isnan(tree.scores["prev_token_score"].values).all() and tree.config == config
    assert (record.model, record.dtype, record.revision, record.commit, record.device) == ("org/model", "bfloat16", "", "", "")
    assert record.arguments == {"n_prompts": 4096} and record.packages == {} and record.interventions == ()
    assert tree.patterns(Head(0, 0))[0].peak == 1


@pytest.mark.parametrize(
    ("token", "back"),
    [
        ("\x00", "\x00"),
        ("x" * 10_000, "x" * 10_000),
        ("</script><img src=x onerror=alert(1)>", "</script><img src=x onerror=alert(1)>"),
        ('\u2028\u202e"\\\n', '\u2028\u202e"\\\n'),
        ("", ""),
        ("ok\ud800", "ok?"),
        ("\ud83d", "?"),
    ],
)
def test_tokens_come_back_whatever_they_hold(token, back, tmp_path):
    cache = golden()
    folder = export_headvis(replace(cache, words=((token, *cache.words[0][1:]),)), tmp_path / "tree", token[:50])
    tree = load_headvis(folder)
    assert tree.patterns(Head(0, 3))[0].tokens == (back, *cache.words[0][1:])
    assert tree.scores["qk_distance"].record.task == back[:50]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_does_not_belong_into_a_tree_is_refused_before_anything_is_written(tmp_path):
    short = capture_attention(tiny("gpt2"), [[5, 6, 7], [8]])
    with pytest.raises(ValueError, match="Text 1 has one token, and HeadVis describes texts of two or more"):
        export_headvis(short, tmp_path / "tree", "short")
    with pytest.raises(ValueError, match="the prompts are images"):
        export_headvis(capture_attention(tiny("vit"), tiny_images(1)), tmp_path / "tree", "images")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ArtefactInvalid, match="is not an empty folder: choose another one"):
            export_headvis(golden(), taken, "abab")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "tree").mkdir()
    assert load_headvis(export_headvis(golden(), tmp_path / "tree", "abab")).scores["qk_distance"][0, 2] == 3.5


@pytest.mark.parametrize("failing", ["L0H0.json", "L0H3.json", "scatter_data.json", "config.json"])
def test_a_tree_that_could_not_be_written_leaves_nothing_behind(failing, tmp_path, monkeypatch):
    write_atomically = headvis_files.write_atomically

    def full(path, content):
        if path.name == failing:
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    monkeypatch.setattr(headvis_files, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        export_headvis(golden(), tmp_path / "tree", "abab")
    assert not [*tmp_path.iterdir()]


def test_more_text_than_fits_a_file_is_refused_on_both_ways(tmp_path, monkeypatch):
    folder = export_headvis(golden(), tmp_path / "tree", "abab")
    monkeypatch.setattr(headvis_files, "MAX_FILE_BYTES", 300)
    with pytest.raises(ArtefactInvalid, match=r"config.json has [\d,]+ bytes, more than the 300 that are read"):
        load_headvis(folder)
    with pytest.raises(ValueError, match=r"L0H1.json would take \d+ bytes, more than the 300 of a file: give fewer texts"):
        export_headvis(golden(), tmp_path / "other", "abab")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


HEAD = "heads/L0H1.json"
DAMAGE = [
    ("config.json", ("n_layers",), ..., "config.json is damaged: it lacks 'n_layers'"),
    ("config.json", ("n_layers",), 0, "layers and heads are not all int from 1 to 1,048,576"),
    ("config.json", ("n_heads",), True, "layers and heads are not all int"),
    ("config.json", ("n_heads",), 4.0, "layers and heads are not all int"),
    ("config.json", ("n_heads",), 10**400, "layers and heads are not all int"),
    ("config.json", ("n_layers",), 1 << 20, "no model has 1,048,576 layers of 4 heads"),
    ("config.json", ("model_name",), None, "a value has another type"),
    ("config.json", ("pipeline_config",), [1], "a value has another type"),
    ("config.json", (), [], "a value has another type"),
    ("scatter_data.json", (), {"layer": [0]}, "a value has another type"),
    ("scatter_data.json", (), [], "it has no head, or one twice"),
    ("scatter_data.json", (1, "head"), 0, "it has no head, or one twice"),
    ("scatter_data.json", (1, "head"), 4, "the heads are not all int from 0 to 3"),
    ("scatter_data.json", (1, "layer"), -1, "the layers are not all int from 0 to 0"),
    ("scatter_data.json", (1, "layer"), "../..", "the layers are not all int from 0 to 0"),
    ("scatter_data.json", (2,), 7, "a value has another type"),
    ("scatter_data.json", (2, "head"), ..., "it lacks 'head'"),
    ("scatter_data.json", (2, "qk_distance"), "3", "the qk_distances are not all float or int"),
    ("scatter_data.json", (2, "qk_distance"), -0.5, "outside its bounds"),
    ("scatter_data.json", (2, "self_attention_score"), 1.5, "outside its bounds"),
    ("scatter_data.json", (2, "qk_distance"), math.nan, "it holds NaN, which is not JSON"),
    ("scatter_data.json", (2, "qk_distance"), 10**400, "too large"),
    (HEAD, (), [], "a value has another type"),
    (HEAD, ("sequences",), ..., "it lacks 'sequences'"),
    (HEAD, ("sequences", 0), None, "a value has another type"),
    (HEAD, ("sequences", 0, "tokens"), "ab", "a value has another type"),
    (HEAD, ("sequences", 0, "tokens", 3), 3, "a value has another type"),
    (HEAD, ("sequences", 0, "tokens", 3), "\ud800", "surrogates not allowed"),
    (HEAD, ("sequences", 0, "tokens", 3), ..., "the cells of text 0 are not all int from 0 to 48"),
    (HEAD, ("sequences", 0, "attention_indices", 3), 64, "the cells of text 0 are not all int from 0 to 63"),
    (HEAD, ("sequences", 0, "attention_indices", 3), -1, "the cells of text 0 are not all int from 0 to 63"),
    (HEAD, ("sequences", 0, "attention_indices", 3), 9, "cells of text 0 are not different ones"),
    (HEAD, ("sequences", 0, "attention_indices", 3), ..., "35 cells of text 0 are not different ones, or have 36 weights"),
    (HEAD, ("sequences", 0, "attention_indices"), {"0": 1}, "the cells of text 0 are not all int"),
    (HEAD, ("sequences", 0, "attention_values", 3), 1.01, "the weights of text 0 are not all float or int from 0 to 1"),
    (HEAD, ("sequences", 0, "attention_values", 3), None, "the weights of text 0 are not all float or int from 0 to 1"),
    (HEAD, ("sequences", 0, "max_activation"), -0.1, "the peak of text 0 are not all float or int from 0 to 1"),
    (HEAD, ("sequences", 0, "seq_len"), 7, "the 8 tokens of text 0 are not the number that is stated"),
]


def read_all(folder):
    """Everything that a tree has."""
    tree = load_headvis(folder)
    return [tree.patterns(Head(*pair)) for pair in np.ndindex(tree.scores["qk_distance"].values.shape)]


def changed(value, path, new):
    """A JSON value in which the part at ``path`` is another one, or (...) is left out."""
    if not path:
        return new
    own, at = value.copy(), path[0]
    if len(path) == 1 and new is ...:
        del own[at]
    else:
        own[at] = changed(own[at], path[1:], new)
    return own


@pytest.mark.parametrize(("file", "path", "new", "sentence"), DAMAGE)
def test_a_damaged_tree_is_refused_in_one_sentence(file, path, new, sentence, tmp_path):
    folder = export_headvis(golden(), tmp_path / "tree", "abab")
    assert len(read_all(folder)) == 4
    (folder / file).write_text(json.dumps(changed(on_disk(folder, file), path, new)))
    with pytest.raises(ArtefactInvalid) as refused:
        read_all(folder)
    said = str(refused.value)
    assert sentence in said and said.startswith(str(folder / file)) and said.endswith(".") and "\n" not in said
    assert said.removeprefix(str(folder / file)).count(". ") == 0


@pytest.mark.parametrize("file", ["config.json", "scatter_data.json", HEAD])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is missing: this is not a complete HeadVis tree"),
        (b"", "is damaged: Expecting value"),
        (b'{"n_layers": 1', "is damaged: Expecting"),
        (b"\xff\xfe\x00", "is damaged: "),
        (b"[" * 100_000, "is damaged: "),
        (b"9" * 5_000, "is damaged: Exceeds the limit"),
        (b'{"n_layers": Infinity}', "is damaged: it holds Infinity"),
    ],
)
def test_files_that_are_missing_or_no_json_are_refused(file, content, sentence, tmp_path):
    folder = export_headvis(golden(), tmp_path / "tree", "abab")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ArtefactInvalid, match=f"{file} {sentence}"):
        read_all(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_file_that_cannot_be_one_is_not_waited_for(tmp_path):
    folder = export_headvis(golden(), tmp_path / "tree", "abab")
    (folder / HEAD).unlink()
    os.mkfifo(folder / HEAD)  # reading it would never end
    with pytest.raises(ArtefactInvalid, match=r"L0H1\.json is missing"):
        load_headvis(folder)


def test_a_head_that_a_tree_does_not_have_is_looked_up_in_vain(tmp_path):
    tree = load_headvis(export_headvis(golden(), tmp_path / "tree", "abab"))
    for head in (Head(0, 4), Head(1, 0), Head(0, -1)):
        with pytest.raises(LookupError, match=f"has no head {head}: it has layers 0-0 and heads 0-3"):
            tree.patterns(head)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return export_headvis(golden(), tmp_path_factory.mktemp("fuzzed") / "tree", "abab")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([10**400, -1, 1 << 63, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """The paths of all parts of a JSON value, itself among them."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_gives_another_error(tree, data):
    file = tree / data.draw(st.sampled_from(["config.json", "scatter_data.json", HEAD]))
    whole = file.read_bytes()
    value = json.loads(whole)
    if data.draw(st.booleans()):
        at = data.draw(st.sampled_from(places(value)))
        content = json.dumps(changed(value, at, data.draw(ANYTHING))).encode()
    else:
        cut = data.draw(st.integers(0, len(whole)))
        content = whole[:cut] + data.draw(st.binary(max_size=4)) + whole[cut + data.draw(st.integers(0, 9)) :]
    try:
        file.write_bytes(content)
        for patterns in read_all(tree):
            for pattern in patterns:
                assert pattern.tile().shape == (len(pattern.tokens), len(pattern.tokens))
    except ArtefactInvalid as error:
        assert str(error).startswith(str(tree)) and str(error).endswith(".")
    finally:
        file.write_bytes(whole)


# --- at the terminal -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local model folder: the tiny llama of the test bed with its tokenizer."""
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


def test_a_tree_is_written_beside_the_run(folder, tmp_path):
    words = ("--text", "w3 w5 w9 w3 w5 w7 w3", "--metrics", "attention_distance", "--out", tmp_path / "run")
    answer = interp("attention", "--model", folder, *words, "--headvis", tmp_path / "tree")
    assert answer.exit_code == 0 and f"Wrote a HeadVis tree to {tmp_path / 'tree'}" in answer.stderr
    from interp.store import open_run

    tree, run = load_headvis(tmp_path / "tree"), open_run(tmp_path / "run")
    np.testing.assert_allclose(tree.scores["qk_distance"].values, run.scores("attention_distance").values, atol=1e-4)
    assert tree.patterns(Head(2, 5))[0].tokens == ("<s>", *"w3 w5 w9 w3 w5 w7 w3".split())
    assert tree.scores["qk_distance"].record.task == "text"
    again = interp("attention", "--model", folder, *words, "--headvis", tmp_path / "later")  # the run is there already
    assert again.exit_code == 0 and load_headvis(tmp_path / "later").config["n_heads"] == 6


def test_a_tree_that_cannot_be_written_leaves_no_run_either(folder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    words = ("--model", folder, "--out", tmp_path / "run")
    assert_refused(interp("attention", "--text", "w1 w2", *words, "--headvis", tmp_path / "taken"), 6, "is not an empty folder")
    assert not (tmp_path / "run").exists()
