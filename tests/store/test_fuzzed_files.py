"""20,000 damaged files of every stored kind: each is read as what it still says, or refused with ArtefactInvalid, in little memory."""

import json
import random
import struct
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from interp.circuits import Circuit, Graph, load_circuit
from interp.engine import capture, capture_attention, load_attention
from interp.engine.forward.capture import load_capture
from interp.errors import ArtefactInvalid, ModelUnavailable
from interp.files import sha256
from interp.heads import Head
from interp.models.folder_check import check_folder
from interp.store import (
    FileLedger,
    export_headvis,
    finished_run,
    list_runs,
    load_detection,
    load_headvis,
    open_run,
    save_observation,
    start_run,
    write_ablation,
)
from interp.store.deterministic_parquet import to_parquet
from tests.store.test_run_directory import observation
from tests.support.sweep_results import FACTS, planted, sweep_result
from tests.support.tiny_models import save_tiny, tiny, tiny_tokens

SPEC = {"model": "toy", "task": "ioi", "seed": 3}
N_FILES = 20_000
MAX_BYTES = 256 << 20
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    1 << 63,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    0.5,
    "",
    "x",
    "\ud800",
    "../..",
    [],
    {},
]
VALUES += [[0], [None], {"a": 1}, [[0, 1]], "L0H0", "a0.h1->a5.h3<q>", "9" * 5000, "nan"]


def places(value, path=()):
    """The paths of all parts of a JSON value, itself among them."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


def put(value, path, new):
    """Replaces the part of a JSON value at ``path``; ``...`` deletes it."""
    for key in path[:-1]:
        value = value[key]
    if new is ...:
        del value[path[-1]]
    else:
        value[path[-1]] = new


def damaged_json(rng, content):
    """The JSON file with up to three parts replaced or deleted, or damaged as bytes."""
    if rng.random() < 0.3:
        return damaged_bytes(rng, content)
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = places(value)
        path = found[rng.randrange(min(len(found), 40) if rng.random() < 0.5 else len(found))]
        new = ... if rng.random() < 0.25 else rng.choice(VALUES)
        if path:
            put(value, path, new)
        elif new is not ...:
            value = new
    return json.dumps(value).encode()


def damaged_bytes(rng, content):
    """The file cut, with bits flipped, parts doubled, deleted or overwritten, or with another declared size."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, n = rng.randrange(len(content) + 1), rng.choice([1, 2, 8, 100])
        kind = rng.randrange(6)
        if kind == 0:
            del content[at:]
        elif kind == 1 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            content[at : at + n] = rng.randbytes(n)
        elif kind == 3:
            content[at:at] = content[at : at + n]
        elif kind == 4:
            del content[at : at + n]
        else:
            content[at : at + 8] = struct.pack("<Q", rng.choice([1 << 62, 1 << 40, 1 << 31, (1 << 64) - 1, 0]))
        if not content:
            break
    return bytes(content)


def work(folder):
    """A run in which nothing is left out: tables, and a record."""
    with start_run(folder, SPEC) as writer:
        write_ablation(writer, sweep_result(planted()))
    return folder


def read_run(folder):
    list_runs(folder.parent)
    finished_run(folder, SPEC)
    run = open_run(folder)
    repr(run)
    run.check_finished()
    read_parts(run.scores, run.heads, run.examples, lambda: run.record.caption())


def read_parts(*parts):
    for part in parts:
        try:
            part()
        except LookupError as error:  # a manifest that does not name the file which is asked for
            assert type(error) is LookupError
            assert "There are: " in str(error)


def read_observation(folder):
    run = open_run(folder)
    run.check_finished()
    read_parts(run.scores, run.token_scores, run.arrays)


def read_detection(folder):
    load_detection(folder)


def read_units(folder):
    ledger = FileLedger(folder, {})
    assert ledger.count() in (0, 1)
    ledger.seconds()
    found = ledger.get("unit 0")
    assert found is None or np.array_equal(found, planted())


def read_headvis(folder):
    tree = load_headvis(folder)
    for pair in np.ndindex(tree.scores["qk_distance"].values.shape):
        tree.patterns(Head(*pair))


def detection(folder):
    from interp.detectors import detect
    from interp.store import save_detection

    model = tiny("gpt2")
    return save_detection(detect(model, "previous_token", n_prompts=2, n_null_draws=19), model.facts, folder).path


def units(folder):
    FileLedger(folder, {}).put("unit 0", planted())
    return folder


def circuit(folder):
    graph = Graph(2, 3)
    scores = {edge: i / 7 for i, edge in enumerate(graph.edges)}
    folder.mkdir()
    Circuit(graph, frozenset(graph.edges[::2]), scores, "logits", "toy", {"ablation": "mean"}).save(folder / "circuit.json")
    return folder


def headvis(folder):
    return export_headvis(capture_attention(tiny("gpt2"), tiny_tokens()), folder, "texts")


def captured(folder):
    capture(tiny("gpt2"), tiny_tokens(1)[0].tolist(), ["z"], store=folder)
    return folder


def attention(folder):
    capture_attention(tiny("gpt2"), tiny_tokens(), store=folder)
    return folder


def rehash(folder, name, content):
    """Makes the manifest name the damaged file as the one that the run wrote."""
    manifest = json.loads((folder / "run.json").read_bytes())
    manifest["files"][name] = sha256(content)
    (folder / "run.json").write_text(json.dumps(manifest))


# make, read, the files that are damaged, how many times
KINDS = {
    "manifest": (work, read_run, ["run.json"], 3500),
    "tables": (work, read_run, ["heads.parquet", "examples.parquet"], 3500),
    "observation": (lambda at: save_observation(observation(), FACTS, at).path, read_observation,
                    ["run.json", "tokens.parquet", "values.safetensors"], 2500),
    "detection": (detection, read_detection, ["run.json", "heads.parquet"], 1500),
    "units": (units, read_units, ["*.safetensors"], 2000),
    "circuit": (circuit, lambda at: load_circuit(at / "circuit.json"), ["circuit.json"], 2500),
    "headvis": (headvis, read_headvis, ["config.json", "scatter_data.json", "heads/L1H2.json"], 2000),
    "capture": (captured, load_capture, ["*.safetensors"], 1000),
    "attention": (attention, load_attention, ["*.json", "layer-1.safetensors"], 1000),
    "model": (lambda at: save_tiny("llama", at), check_folder, ["config.json", "model.safetensors"], 500),
}  # fmt: skip


@pytest.fixture
def without_pickle(monkeypatch):
    """Whoever unpickles something fails."""
    import pickle  # noqa: TID251 - to break it

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    class Refusing:
        __init__ = refuse

    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", Refusing)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(b"")


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_is_read_with_pickle(kind, tmp_path, without_pickle):
    make, read, *_ = KINDS[kind]
    read(make(tmp_path / "it"))


def test_no_model_is_read_with_pickle(tmp_path, without_pickle):
    from interp.models import load_model

    assert load_model(str(save_tiny("llama", tmp_path))).tokenizer is not None


def test_twenty_thousand_files_are_damaged():
    assert sum(n for *_, n in KINDS.values()) == N_FILES


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_only_our_own_error_and_takes_little_memory(kind, tmp_path):
    make, read, patterns, n_files = KINDS[kind]
    folder, rng, refused, slowest = make(tmp_path / "it"), random.Random(kind), 0, 0.0
    files = [path for pattern in patterns for path in sorted(Path(folder).glob(pattern))]
    whole = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    read(folder)
    reset_peak()
    before = resident("VmRSS")
    for _ in range(n_files):
        path = rng.choice(files)
        content = (damaged_json if path.suffix == ".json" else damaged_bytes)(rng, whole[path])
        path.write_bytes(content)
        if path.name != "run.json" and (folder / "run.json").exists() and rng.random() < 0.9:
            rehash(folder, path.name, content)
        begin = process_time()
        try:
            read(folder)
        except (ArtefactInvalid, ModelUnavailable) as error:
            assert "\n" not in str(error)
            refused += 1
        slowest = max(slowest, process_time() - begin)
        for changed in (path, folder / "run.json"):
            if changed in whole:
                changed.write_bytes(whole[changed])
    took = resident("VmHWM") - before
    print(kind, n_files, "files,", refused, "refused; most memory", took >> 20, "MiB; slowest", round(slowest, 3), "s")
    assert took < MAX_BYTES
    assert kind == "units" or refused > n_files / 4  # a damaged unit counts as absent


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def resident(field):
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return int(line.split()[1]) * 1024


# --- sizes that are declared and not there


def test_a_table_of_67_million_rows_in_a_small_file_is_refused(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from interp.errors import MemoryBudgetExceeded
    from interp.models import memory
    from interp.store import deterministic_parquet

    rows = pa.table({"value": pa.array(np.zeros(1 << 20, np.int32))})
    with pq.ParquetWriter(tmp_path / "bomb", rows.schema, compression="zstd") as writer:
        for _ in range(64):
            writer.write_table(rows)
    content = (tmp_path / "bomb").read_bytes()
    assert len(content) < 1 << 20
    monkeypatch.setattr(memory, "available_memory", lambda device="cpu": 512 << 20)
    with pytest.raises(MemoryBudgetExceeded, match=r"A table of 67,108,864 rows needs about 1 GiB, and 512 MiB are available"):
        deterministic_parquet.from_parquet(content)


def test_tokens_and_heads_at_impossible_places_are_refused(tmp_path):
    run = save_observation(observation(), FACTS, tmp_path)
    tokens = run.table("tokens")
    for column, place in (("pos", 1 << 30), ("example", 1 << 30), ("pos", -1)):
        content = to_parquet(tokens.assign(**{column: [place, *tokens[column][1:]]}))
        (tmp_path / "tokens.parquet").write_bytes(content)
        rehash(tmp_path, "tokens.parquet", content)
        with pytest.raises(ArtefactInvalid, match="texts or positions of its tokens are not numbered from 0"):
            open_run(tmp_path).token_scores("entropy")
    manifest = json.loads((tmp_path / "run.json").read_text())
    manifest["details"]["shape"] = [1 << 20, 1 << 20]
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactInvalid, match="no model has 1048576 layers of 1048576 heads"):
        open_run(tmp_path).scores()


@pytest.mark.parametrize("sizes", [(10**9, 12), (12, 10**9), (10**400, 1), (-1, 3), (0, 3)])
def test_a_circuit_of_impossible_sizes_is_refused(sizes, tmp_path):
    file = circuit(tmp_path / "it") / "circuit.json"
    value = json.loads(file.read_text())
    value["cfg"] |= dict(zip(("n_layers", "n_heads"), sizes, strict=True))
    file.write_text(json.dumps(value))
    with pytest.raises(ArtefactInvalid, match=r"no model has|Exceeds the limit"):
        load_circuit(file)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"cfg": {"n_layers": Infinity, "n_heads": 2}, "edges": {}}', b"9" * 5000]
)
def test_a_circuit_that_is_nested_or_infinite_is_refused(content, tmp_path):
    (tmp_path / "circuit.json").write_bytes(content)
    with pytest.raises(ArtefactInvalid, match="is not a circuit file"):
        load_circuit(tmp_path / "circuit.json")


def test_tensors_that_claim_more_bytes_than_the_file_has_are_refused(tmp_path):
    header = json.dumps({"values": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    content = struct.pack("<Q", len(header)) + header
    run = save_observation(observation(), FACTS, tmp_path)
    (tmp_path / "values.safetensors").write_bytes(content)
    rehash(tmp_path, "values.safetensors", content)
    with pytest.raises(ArtefactInvalid, match=r"values.safetensors is not a file that interp wrote"):
        open_run(run.path).arrays()
