"""Run directories under every accident: kills, full disks, damage, other versions, two writers."""

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp import files
from interp.errors import ArtefactInvalid
from interp.heads import HeadScores
from interp.records import RunRecord
from interp.store import FileLedger, load_scores, open_run, save_observation, save_scores, start_run, write_ablation
from tests.support.sweep_results import FACTS, N_HEADS, N_LAYERS, planted, sweep_result

SPEC = {"model": "toy", "task": "ioi", "heads": [[0, 1], [2, 3]], "seed": 3}
UNITS = 6


def work(folder, effects=None):
    """A small sweep through the ledger: one unit per slice of the examples. Returns how many units were computed."""
    effects = planted() if effects is None else effects
    slices = np.array_split(np.arange(effects.shape[1]), UNITS)
    computed = 0
    with start_run(folder, SPEC) as writer:
        if writer.finished:
            return 0
        parts = []
        for i, columns in enumerate(slices):
            part = writer.ledger.get(f"unit {i}")
            if part is None:
                part = effects[:, columns]
                writer.ledger.put(f"unit {i}", part)
                computed += 1
            parts.append(part)
        write_ablation(writer, sweep_result(np.concatenate(parts, axis=1)))
    return computed


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.parquet"))}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    work(folder)
    return tables(folder)


def test_finished_run_gives_back_what_was_stored(tmp_path):
    assert work(tmp_path / "run") == UNITS
    run = open_run(tmp_path / "run")
    assert run.status == "finished" and run.spec == SPEC
    assert run.record == RunRecord("toy", revision="0123456789", task="ioi", metric="logit_diff", seed=3)
    assert len(run.heads()) == 15 and len(run.examples()) == 15 * 17
    np.testing.assert_array_equal(run.heads()["effect"], sweep_result(planted()).effects.mean(1))
    assert names(run.path) == [".lock", "examples.parquet", "heads.parquet", "run.json"]


def test_scores_of_a_run_have_the_shape_of_the_model(tmp_path):
    work(tmp_path, planted()[:7])
    run = open_run(tmp_path)
    assert run.scores().values.shape == (N_LAYERS, N_HEADS)
    assert run.scores("q_value").unit == "false-discovery rate"
    with pytest.raises(LookupError, match="There are: effect"):
        run.scores("nothing")
    with pytest.raises(LookupError, match="There are: examples, heads"):
        run.table("edges")


def test_equal_content_gives_equal_bytes(tmp_path, uninterrupted):
    work(tmp_path / "again")
    assert tables(tmp_path / "again") == uninterrupted
    other = planted()
    other[3, 5] += 1e-12
    work(tmp_path / "other", other)
    assert tables(tmp_path / "other") != uninterrupted


def test_order_of_the_rows_does_not_change_the_bytes(tmp_path):
    from interp.store.deterministic_parquet import from_parquet, to_parquet

    table = pd.DataFrame({"layer": [1, 0, 0], "head": [0, 4, 2], "label": ["a", "b", "c"], "value": [1.5, 2.5, np.nan]})
    assert to_parquet(table) == to_parquet(table.iloc[[2, 0, 1]])
    back = from_parquet(to_parquet(table))
    assert back["label"].tolist() == ["c", "b", "a"] and back["layer"].dtype == "int32" and np.isnan(back["value"][0])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame({"layer": []}), "without rows"),
        (pd.DataFrame({"layer": [0], "value": [np.inf]}), "'value' holds infinite"),
        (pd.DataFrame({"layer": [0], "value": [{}]}), "'value' is of kind object"),
    ],
)
def test_table_that_cannot_be_right_is_refused(table, sentence):
    from interp.store.deterministic_parquet import to_parquet

    with pytest.raises(ArtefactInvalid, match=sentence):
        to_parquet(table)


def test_second_start_of_a_finished_run_does_nothing(tmp_path):
    work(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert work(tmp_path) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_run_of_another_spec_is_refused_and_untouched(tmp_path):
    work(tmp_path)
    before = tables(tmp_path), (tmp_path / "run.json").read_bytes()
    with pytest.raises(ArtefactInvalid, match=r"another run \(seed is 3, requested 4\)"):
        start_run(tmp_path, {**SPEC, "seed": 4})
    assert (tables(tmp_path), (tmp_path / "run.json").read_bytes()) == before


def test_order_of_the_spec_does_not_matter(tmp_path):
    work(tmp_path)
    with start_run(tmp_path, dict(reversed(SPEC.items()))) as writer:
        assert writer.finished


def test_folder_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ArtefactInvalid, match=r"holds thesis\.tex"):
        start_run(tmp_path, SPEC)
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(ArtefactInvalid, match="is a file"):
        start_run(tmp_path / "thesis.tex", SPEC)


def test_folder_without_a_run_is_not_opened(tmp_path):
    with pytest.raises(ArtefactInvalid, match="nothing does not exist: `interp runs` lists the stored runs"):
        open_run(tmp_path / "nothing")


def test_failed_run_says_why_and_resumes(tmp_path):
    with pytest.raises(ZeroDivisionError), start_run(tmp_path, SPEC) as writer:
        writer.ledger.put("unit 0", np.ones((15, 3)))
        raise ZeroDivisionError("by zero")
    run = open_run(tmp_path)
    assert run.status == "failed"
    with pytest.raises(ArtefactInvalid, match="ZeroDivisionError: by zero"):
        run.heads()
    assert work(tmp_path) == UNITS - 1
    assert open_run(tmp_path).status == "finished"


def test_interrupted_run_keeps_its_units(tmp_path):
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC) as writer:
        writer.ledger.put("unit 0", planted()[:, :3])
        raise KeyboardInterrupt
    assert open_run(tmp_path).status == "running"
    assert work(tmp_path) == UNITS - 1


def test_refused_results_leave_the_units(tmp_path):
    with pytest.raises(ValueError, match="Every effect of zero at positions 'all' on logit_diff is exactly 0"):
        work(tmp_path, np.zeros((15, 17)))
    assert open_run(tmp_path).status == "failed" and len(list((tmp_path / "units").iterdir())) == UNITS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("step", range(31))
def test_killed_run_resumes_to_the_same_bytes(tmp_path, uninterrupted, step):
    child = os.fork()
    if child == 0:
        kill_at(step)
        work(tmp_path / "run")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert killed == (step < 30)  # 10 files (manifest, 6 units, 2 tables, manifest) of three steps each
    work(tmp_path / "run")
    assert tables(tmp_path / "run") == uninterrupted
    assert names(tmp_path / "run") == [".lock", "examples.parquet", "heads.parquet", "run.json"]


def kill_at(step):
    """Kills this process at the n-th step of publishing: each file is written in half and then whole, then renamed."""
    left = [step]

    def count():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def write(path, content):
        path.write_bytes(content[: len(content) // 2])
        count()
        path.write_bytes(content)
        count()

    sync = files._sync_folder
    files._write = write
    files._sync_folder = lambda folder: (count(), sync(folder))


PLACES = ("open", "write", "fsync", "rename", "folder")
"""Before a byte is written, after half of them, and the three steps after the last."""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("which", range(10))
def test_disk_that_refuses_gives_one_sentence_and_loses_nothing(tmp_path, uninterrupted, monkeypatch, place, which, code):
    folder = tmp_path / "run"
    with monkeypatch.context() as patches:
        break_disk(patches, place, which, code)
        with pytest.raises(OSError, match="disk is full" if code == errno.ENOSPC else "could not be written") as caught:
            work(folder)
    assert "stays readable" in str(caught.value) and "\n" not in str(caught.value)
    check_every_file_is_whole(folder, uninterrupted)
    if which > 0:
        assert open_run(folder).status == "failed"
    work(folder)
    assert tables(folder) == uninterrupted


def check_every_file_is_whole(folder, whole):
    """Each file of a run is absent or complete, and nothing else is there."""
    assert not list(folder.glob("**/.*.tmp"))
    assert tables(folder).items() <= whole.items()
    if (folder / "run.json").exists():
        manifest = open_run(folder).manifest
        assert manifest["files"].keys() <= tables(folder).keys()
        units = list((folder / "units").glob("*"))
        assert FileLedger(folder / "units", manifest["code_version"]).count() == len(units)
    else:
        assert names(folder) == [".lock"]


def break_disk(patches, place, which, code):
    """Makes the n-th published file fail at one of ``PLACES``."""
    begun = [-1]
    write = files._write

    def fail():
        raise OSError(code, os.strerror(code))

    def counted(path, content):
        begun[0] += 1
        if begun[0] == which and place in ("open", "write"):
            if place == "write":
                path.write_bytes(content[: len(content) // 2])
            fail()
        write(path, content)

    def failing(real):
        return lambda *arguments: fail() if begun[0] == which else real(*arguments)

    patches.setattr(files, "_write", counted)
    broken = {"fsync": (os, "fsync"), "rename": (Path, "replace"), "folder": (files, "_sync_folder")}
    if place in broken:
        owner, name = broken[place]
        patches.setattr(owner, name, failing(getattr(owner, name)))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_refusing_disk_leaves_the_old_file_or_the_complete_new_one(tmp_path, monkeypatch, place, code):
    target = tmp_path / "a.json"
    files.write_atomically(target, b"old")
    break_disk(monkeypatch, place, 0, code)
    with pytest.raises(OSError, match="3 bytes" if code == errno.ENOSPC else "Input/output error"):
        files.write_atomically(target, b"new")
    assert target.read_bytes() == (b"new" if place == "folder" else b"old") and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "other key"])
def test_damaged_unit_is_computed_again(tmp_path, uninterrupted, damage):
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path / "run", SPEC) as writer:
        for i, columns in enumerate(np.array_split(np.arange(17), UNITS)):
            writer.ledger.put(f"unit {i}", planted()[:, columns])
        raise KeyboardInterrupt
    units = sorted((tmp_path / "run" / "units").iterdir())
    content = units[2].read_bytes()
    flipped = content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]
    broken = {"cut": content[: len(content) // 2], "empty": b"", "flip": flipped, "other key": units[4].read_bytes()}
    units[2].write_bytes(broken[damage])
    assert work(tmp_path / "run") == 1
    assert tables(tmp_path / "run") == uninterrupted


def test_units_of_other_code_are_not_reused(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC) as writer:
        writer.ledger.put("unit 0", np.full((15, 3), 99.0))
        raise KeyboardInterrupt
    monkeypatch.setattr("interp.store.manifest.package_versions", lambda: (("torch", "9.9"),))
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC, memory=300) as writer:
        assert writer.ledger.count() == 0 and writer.ledger.seconds() == 0
        assert writer.details == {"memory": 300}
        writer.ledger.put("unit 1", planted()[:, 3:6])
        assert writer.ledger.count() == 1
        raise KeyboardInterrupt
    assert work(tmp_path) == UNITS - 1
    assert json.loads((tmp_path / "run.json").read_text())["code_version"]["packages"] == {"torch": "9.9"}


def test_details_of_the_first_start_are_kept_as_long_as_there_are_units(tmp_path):
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC, memory=100):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC, memory=None) as writer:
        assert writer.details == {"memory": None}
        writer.ledger.put("unit 0", planted()[:, :3])
        raise KeyboardInterrupt
    with start_run(tmp_path, SPEC, memory=200) as writer:
        assert writer.details == {"memory": None}
        write_ablation(writer, sweep_result(planted()))
    details = open_run(tmp_path).manifest["details"]
    assert details["memory"] is None and details["kind"] == "ablation"


def test_the_details_that_a_run_would_go_on_with_are_known_without_starting_it(tmp_path):
    from interp.store.run_directory import stored_details

    assert stored_details(tmp_path / "new", SPEC) == {} and not (tmp_path / "new").exists()
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC, memory=100) as writer:
        assert stored_details(tmp_path, SPEC) == {}
        writer.ledger.put("unit 0", planted()[:, :3])
        assert stored_details(tmp_path, SPEC) == {"memory": 100}
        raise KeyboardInterrupt
    with start_run(tmp_path, SPEC, memory=200) as writer:
        write_ablation(writer, sweep_result(planted()))
    assert stored_details(tmp_path, SPEC)["memory"] == 100
    with pytest.raises(ArtefactInvalid, match="another run"):
        stored_details(tmp_path, {**SPEC, "seed": 4})


def test_temporary_files_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".run.json.123.456.tmp").write_bytes(b"{")
    work(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))


def test_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with start_run(tmp_path, SPEC) as writer:
        with pytest.raises(ArtefactInvalid, match="Another process is writing"):
            start_run(tmp_path, SPEC)
        assert open_run(tmp_path).status == "running"
        writer.ledger.put("unit 0", planted()[:, :3])
    assert work(tmp_path) == UNITS - 1


@pytest.mark.parametrize("version", [0, 1, 3, 99, None, "2"])
def test_run_of_another_version_is_refused_with_both_versions(tmp_path, version):
    work(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": version}))
    before = path.read_bytes()
    for opening in (lambda: open_run(tmp_path), lambda: start_run(tmp_path, SPEC)):
        with pytest.raises(ArtefactInvalid, match=f"version {version!r} of the run format; this interp reads version 2"):
            opening()
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', "\x00"])
def test_damaged_manifest_is_refused(tmp_path, content):
    work(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ArtefactInvalid, match=r"run\.json is (damaged|of version)"):
        open_run(tmp_path)


def test_changed_or_missing_table_is_refused(tmp_path):
    work(tmp_path)
    path = tmp_path / "heads.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtefactInvalid, match="not the file that the run wrote"):
        open_run(tmp_path).heads()
    path.unlink()
    with pytest.raises(ArtefactInvalid, match="cannot be read"):
        open_run(tmp_path).heads()


def test_seconds_add_up_over_three_interruptions(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    worked = 0.0
    for i, (unit, lost) in enumerate([(100.0, 2.0), (250.5, 1.0), (31.25, 0.5)]):
        with pytest.raises(KeyboardInterrupt), start_run(tmp_path, SPEC) as writer:
            clock[0] += unit
            writer.ledger.put(f"unit {i}", planted()[:, 3 * i : 3 * i + 3])
            clock[0] += lost  # with the unit that was under way
            worked += unit + lost
            raise KeyboardInterrupt
        clock[0] += 10_000  # nobody worked
    with start_run(tmp_path, SPEC) as writer:
        clock[0] += 7
        writer.ledger.put("unit 3", planted()[:, 9:12])
        clock[0] += 2
        write_ablation(writer, sweep_result(planted()))
    seconds = json.loads((tmp_path / "run.json").read_text())["seconds"]
    assert seconds == 100 + 250.5 + 31.25 + 9
    assert abs(seconds - (worked + 9)) <= 0.02 * (worked + 9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("step", range(4))
def test_retry_killed_before_it_reuses_anything_leaves_the_earlier_units(tmp_path, uninterrupted, step):
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path / "run", SPEC) as writer:
        for i, columns in enumerate(np.array_split(np.arange(17), UNITS)[:3]):
            writer.ledger.put(f"unit {i}", planted()[:, columns])
        raise KeyboardInterrupt
    child = os.fork()
    if child == 0:
        kill_at(step)  # 0-2: three steps of the manifest; 3: before the first new unit
        work(tmp_path / "run")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert open_run(tmp_path / "run").status == "running"
    assert work(tmp_path / "run") == UNITS - 3
    assert tables(tmp_path / "run") == uninterrupted


def test_scores_come_back_equal(tmp_path):
    values = np.array([[0.25, np.nan, 1], [0, 0.5, 0.125]], dtype=float)
    scores = HeadScores("induction_score", values, "attention", (0.0, 1.0), RunRecord("toy", interventions=("zero",)))
    assert scores.save(tmp_path / "s") == tmp_path / "s"
    back = load_scores(tmp_path / "s")
    np.testing.assert_array_equal(back.values, values)
    assert (back.name, back.unit, back.bounds, back.record) == (scores.name, "attention", (0.0, 1.0), scores.record)
    save_scores(scores, tmp_path / "s")  # the same again changes nothing
    with pytest.raises(ArtefactInvalid, match="another run"):
        save_scores(HeadScores("induction_score", values * 0.5, "attention", (0.0, 1.0), scores.record), tmp_path / "s")


def observation(**changes):
    """Three metrics read from 2 texts of 5 and 3 tokens (padded on the right), 3 layers x 5 heads; the numbers are their own places."""
    from interp.engine import AttentionMetric, Observation, TokenBatch

    def metric(name, axis, **fields):
        return AttentionMetric(
            name, axis, "nats", (0.0, None), lambda rows, **options: None, "a paper", undefined="a lone row", **fields
        )

    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    rows = torch.arange(3 * 2 * 5 * 5, dtype=torch.float32).reshape(3, 2, 5, 5).masked_fill(~real[None, :, None], torch.nan)
    rows[2, :, 4] = torch.nan
    metrics = [metric("entropy", "query", parameters={"base": 2}), metric("received", "key"), metric("hops", "hop")]
    values = {"entropy": rows, "received": rows / 300, "hops": torch.ones(3, 2, 5, 4)} | changes
    words = (("a", "b", "a", "<b>", "\n"), ("c", "d", "e", "", ""))
    prompts = TokenBatch(torch.arange(10).reshape(2, 5), real)
    return Observation({m.name: m for m in metrics}, values, prompts, words, RunRecord("toy", task="text"))


def test_an_observation_comes_back_with_its_heads_tokens_and_arrays(tmp_path):
    found = observation()
    run = save_observation(found, FACTS, tmp_path / "run")
    assert names(tmp_path / "run") == [".lock", "heads.parquet", "run.json", "tokens.parquet", "values.safetensors"]
    for name in ("entropy", "received"):
        for own, back in ((found.heads(name), run.scores(name)), (found.tokens(name), run.token_scores(name))):
            np.testing.assert_array_equal(own.values, back.values)
            assert (own.name, own.unit, own.bounds, own.record, own.nan_reason) == (
                back.name,
                back.unit,
                back.bounds,
                back.record,
                back.nan_reason,
            )
        assert run.token_scores(name).tokens == found.words
    assert run.scores().name == "entropy" and run.scores().record.metric == "entropy(base=2)"
    assert np.isnan(run.scores()[2, 4])
    for name, values in run.arrays().items():
        np.testing.assert_array_equal(values, found[name].numpy())
    assert set(run.arrays()) == {"entropy", "received", "hops"}


def test_tables_of_an_observation_are_long_and_hold_no_padding(tmp_path):
    run = save_observation(observation(), FACTS, tmp_path)
    heads, tokens = run.heads(), run.table("tokens")
    assert list(heads) == ["layer", "head", "kv_head", "label", "metric", "value", "unit"] and len(heads) == 2 * 15
    assert heads.query("label == 'L1H3'")["kv_head"].tolist() == [1, 1]
    assert list(tokens) == ["example", "pos", "token", "metric", "value", "unit"] and len(tokens) == 2 * (5 + 3)
    row = tokens.query("metric == 'entropy' and example == 1 and pos == 2").iloc[0]
    means = [25 * (2 * layer + 1) + 5 * head + 2 for layer in range(3) for head in range(5) if (layer, head) != (2, 4)]
    assert row["token"] == "e" and row["value"] == pytest.approx(sum(means) / 14)


def test_a_metric_that_is_no_number_a_head_is_kept_as_an_array_and_named_as_missing(tmp_path):
    run = save_observation(observation(), FACTS, tmp_path)
    with pytest.raises(LookupError, match=r"heads of .* have no metric 'hops'\. There are: entropy, received"):
        run.scores("hops")
    assert run.metrics["hops"]["axis"] == "hop" and run.arrays()["hops"].shape == (3, 2, 5, 4)
    with pytest.raises(LookupError, match=r"no file of arrays 'other'\. There are: values"):
        run.arrays("other")


def test_another_observation_in_the_folder_is_refused_and_the_same_changes_nothing(tmp_path):
    save_observation(observation(), FACTS, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_observation(observation(), FACTS, tmp_path)
    with pytest.raises(ArtefactInvalid, match="another run"):
        save_observation(observation(hops=torch.zeros(3, 2, 5, 4)), FACTS, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_metric_without_any_number_is_stored_with_its_reason(tmp_path):
    run = save_observation(observation(entropy=torch.full((3, 2, 5, 5), torch.nan)), FACTS, tmp_path)
    assert np.isnan(run.scores("entropy").values).all() and run.scores("entropy").nan_reason == "a lone row"
    assert np.isnan(run.token_scores("entropy").values).all()


def test_damaged_arrays_are_refused(tmp_path):
    run = save_observation(observation(), FACTS, tmp_path)
    path = tmp_path / "values.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ArtefactInvalid, match="not the file that the run wrote"):
        run.arrays()


def test_scores_without_any_number_come_back_with_their_reason(tmp_path):
    scores = HeadScores("entropy", np.full((2, 3), np.nan), "nats", (0.0, None), RunRecord("toy"), nan_reason="a lone row")
    assert load_scores(save_scores(scores, tmp_path)).nan_reason == "a lone row"


def test_whether_a_folder_can_be_had_is_known_before_anything_is_computed(tmp_path):
    from interp.store import finished_run

    assert finished_run(tmp_path / "new", SPEC) is None and not (tmp_path / "new").exists()
    with pytest.raises(KeyboardInterrupt), start_run(tmp_path / "begun", SPEC):
        raise KeyboardInterrupt
    assert finished_run(tmp_path / "begun", SPEC) is None
    work(tmp_path / "done")
    found = finished_run(tmp_path / "done", SPEC)
    assert found is not None and len(found.heads()) == 15
    with pytest.raises(ArtefactInvalid, match="another run"):
        finished_run(tmp_path / "done", {**SPEC, "seed": 4})
    (tmp_path / "thesis").write_text("x")
    with pytest.raises(ArtefactInvalid, match="is a file"):
        finished_run(tmp_path / "thesis", SPEC)
