"""The runs of a folder: none leads out of it, none that is damaged hides the others, and only what runs wrote is deleted."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from interp.errors import ArtefactInvalid, MemoryBudgetExceeded
from interp.figures import available_figures, run_figure
from interp.files import sha256
from interp.heads import HeadScores
from interp.records import RunRecord
from interp.store import delete_run, find_run, list_delete_zip_runs, list_runs, open_run, save_scores, start_run, zip_run

ESCAPES = [
    "..", ".", "", "/", "//", "/etc", "/etc/passwd", "../..", "../outside", "./inside", "inside/", "inside/.", "inside/..",
    "inside/../../outside", "inside/../inside", "..\\outside", "..%2foutside", "%2e%2e/outside", "%2e%2e%2foutside",
    "..%252foutside", "....//outside", "..;/outside", "../outside\x00", "inside\x00", "\x00", "inside/run.json", "run.json",
    "~", "~root", "~/outside", "$HOME", "${HOME}", "`pwd`", "$(pwd)", "*", "i*", "insid?", "[i]nside", "inside ", " inside",
    "INSIDE", "inside\n", "inside\t", "file:///etc", "file://../outside", "C:\\", "\\\\host\\share", "..／outside", "．．/outside",
    "outside", "link", "link/", "link/run.json", ".hidden", ".jobs", "inside/units", "units", "con", "a" * 5000, "\ud800", "\u202eedisni",
    "../runs/inside", "inside;rm -rf .", "inside|x", "<script>", "%00", "0x2e0x2e", "..\u2215outside", "／etc／passwd",
]  # fmt: skip


def scores(seed=0, shape=(3, 5)):
    values = np.random.default_rng(seed).random(shape)
    return HeadScores("entropy", values, "nats", (0.0, None), RunRecord("toy", task="ioi", metric="entropy"))


@pytest.fixture
def root(tmp_path):
    """A folder ``runs`` with one run, ``inside``; beside it a run, ``outside``, which a link in the folder names."""
    save_scores(scores(), tmp_path / "runs" / "inside")
    save_scores(scores(1), tmp_path / "outside")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    save_scores(scores(2), tmp_path / "runs" / ".hidden")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "a.txt").write_text("mine")
    return tmp_path / "runs"


def everything(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def started(path, when):
    file = path / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "started": when}))


def test_a_history_says_of_each_run_what_it_is_the_newest_first(root):
    save_scores(scores(3, (2, 7)), root / "newer")
    started(root / "inside", "2026-01-02T03:04:05+00:00")
    started(root / "newer", "2026-05-02T03:04:05+00:00")
    newer, older = list_runs(root)
    assert [newer.name, older.name] == ["newer", "inside"]
    assert (older.status, older.kind, older.task, older.model) == ("finished", "scores", "ioi", "toy")
    assert (newer.n_layers, newer.n_heads, older.n_layers, older.n_heads) == (2, 7, 3, 5)
    written = [file for file in older.path.iterdir() if file.name != ".lock"]
    assert older.nbytes == sum(file.stat().st_size for file in written)


def test_a_folder_that_is_not_there_has_no_history(tmp_path):
    assert list_runs(tmp_path / "nothing") == []


def test_at_least_sixty_names_try_to_escape():
    assert len(set(ESCAPES)) >= 60


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leads_out_of_the_folder(root, name):
    before = everything(root.parent)
    for way in (find_run, delete_run):
        with pytest.raises(LookupError, match="No run is called"):
            way(root, name)
    assert everything(root.parent) == before


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_of_a_table_or_file_leads_out_of_a_run(root, name):
    run = open_run(root / "inside")
    for way in (run.table, run.arrays, run.json_file):
        with pytest.raises(LookupError, match="There are: "):
            way(name)


OUTSIDE = [
    "../outside/heads",
    "..",
    "/etc/passwd",
    "../../outside/heads",
    "./../outside/heads",
    "units/../../x",
    "units/a",
    "a\x00",
    "",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(root, name):
    file = root / "inside" / "run.json"
    content = (root.parent / "outside" / "heads.parquet").read_bytes()
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "files": {f"{name}.parquet" if name else name: sha256(content)}})
    )
    if name in ("..", "a\x00", ""):
        file.write_text(json.dumps({**json.loads(file.read_text()), "files": {name: ""}}))
    with pytest.raises(ArtefactInvalid, match="which is not in its folder"):
        open_run(root / "inside")
    (entry,) = list_runs(root)
    assert entry.status == "damaged"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "version None"),
        ('{"schema": 99}', "version 99"),
        ('{"schema": 2}', "lacks run_id"),
        (None, "TypeError"),
    ],
)
def test_a_damaged_run_is_listed_with_its_sentence_beside_the_others(root, content, sentence):
    save_scores(scores(4), root / "broken")
    file = root / "broken" / "run.json"
    if content is None:  # whole, but with details of another kind
        content = json.dumps({**json.loads(file.read_text()), "details": {"shape": 3}})
    file.write_text(content)
    entries = {entry.name: entry for entry in list_runs(root)}
    assert entries["inside"].status == "finished"
    assert entries["broken"].status == "damaged"
    assert sentence in entries["broken"].error


def test_a_run_that_lacks_a_table_is_damaged(root):
    (root / "inside" / "heads.parquet").unlink()
    (entry,) = list_runs(root)
    assert entry.status == "damaged" and "lacks heads.parquet" in entry.error


def test_a_run_is_running_while_it_is_written_and_interrupted_or_failed_after(root):
    def status():
        return find_run(root, "sweep").status

    with start_run(root / "sweep", {"kind": "ablation", "task": "ioi", "model": "toy"}):
        assert status() == "running"
        with pytest.raises(ArtefactInvalid, match="being written"):
            delete_run(root, "sweep")
        assert (root / "sweep" / "run.json").exists()
    assert status() == "interrupted"
    with pytest.raises(OSError, match="broke"), start_run(root / "sweep", {"kind": "ablation", "task": "ioi", "model": "toy"}):
        raise OSError("it broke")
    failed = find_run(root, "sweep")
    assert (failed.status, failed.task, failed.model) == ("failed", "ioi", "toy") and "it broke" in failed.error


def test_deleting_takes_the_run_with_its_units_and_pictures_and_nothing_else(root):
    with start_run(root / "sweep", {"kind": "ablation"}) as writer:
        writer.ledger.put("a unit", np.ones(3))
    (root / "sweep" / "heads.png").write_bytes(b"picture")
    before = everything(root.parent)
    delete_run(root, "sweep")
    left = {path: content for path, content in before.items() if "sweep" not in path.parts}
    assert everything(root.parent) == left


@pytest.mark.parametrize("strange", ["notes.txt", "heads.pt", "figures/a.png", "units/a.csv"])
def test_a_run_that_holds_something_else_is_not_deleted(root, strange):
    file = root / "inside" / strange
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = everything(root)
    with pytest.raises(ArtefactInvalid, match="which no run wrote"):
        delete_run(root, "inside")
    assert everything(root) == before


@pytest.mark.parametrize("target", ["units", "more.parquet"])
def test_links_inside_a_run_are_neither_followed_nor_packed(root, target):
    aim = root.parent / "outside" if target == "units" else root.parent / "outside" / "heads.parquet"
    (root / "inside" / target).symlink_to(aim)
    before = everything(root.parent / "outside")
    with pytest.raises(ArtefactInvalid, match=f"{target}, which no run wrote"):
        delete_run(root, "inside")
    assert everything(root.parent / "outside") == before
    names = zipfile.ZipFile(io.BytesIO(zip_run(find_run(root, "inside")))).namelist()
    assert sorted(names) == ["inside/heads.parquet", "inside/run.json"]


def test_a_packed_run_opens_elsewhere_as_the_same_run(root, tmp_path):
    packed = zip_run(find_run(root, "inside"))
    assert zip_run(find_run(root, "inside")) == packed
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path / "elsewhere")
    found = open_run(tmp_path / "elsewhere" / "inside").scores()
    np.testing.assert_array_equal(found.values, scores().values)


def test_a_run_that_is_too_large_is_not_packed(root, monkeypatch):
    monkeypatch.setattr(list_delete_zip_runs, "MAX_ZIP_BYTES", find_run(root, "inside").nbytes - 1)
    with pytest.raises(MemoryBudgetExceeded, match=r"copy .*inside instead"):
        zip_run(find_run(root, "inside"))


def test_a_run_tells_what_can_be_drawn_of_it(root):
    run = open_run(root / "inside")
    assert available_figures(run) == ["heads", "layers"]
    np.testing.assert_array_equal(run_figure(run, "heads", "entropy").data[0].z, scores().values)
    with pytest.raises(ValueError, match="is no ablation: a ranking needs"):
        run_figure(run, "ranking")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", "\u202eeman".encode()])
def test_a_name_that_cannot_be_written_is_left_out(root, name):
    save_scores(scores(5), root / "fine")
    (root / "fine").rename(Path(os.fsdecode(os.fsencode(root) + b"/" + name)))
    assert [entry.name for entry in list_runs(root)] == ["inside"]


def test_halves_of_letters_in_a_manifest_are_written_out(root):
    file = root / "inside" / "run.json"
    manifest = json.loads(file.read_text())
    manifest["record"] |= {"task": "a\ud800", "model": "\udfff"}
    file.write_text(json.dumps({**manifest, "status": "failed", "error": "\ud83d"}))
    (entry,) = list_runs(root)
    assert (entry.task, entry.model, entry.error) == ("a\\ud800", "\\udfff", "\\ud83d")
