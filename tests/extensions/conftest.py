"""A lab's own package with five one-file extensions, installed for the time of a test."""

import sys
from importlib import invalidate_caches
from pathlib import Path
from shutil import copytree

import pytest

LAB = Path(__file__).resolve().parents[1] / "support" / "lab_heads"
ENTRY_POINTS = """\
[interp.metrics]
recent_mass = lab_heads.recent_mass

[interp.outcomes]
answer_rank = lab_heads.answer_rank

[interp.tasks]
repeated_names = lab_heads.repeated_names

[interp.detectors]
current_token = lab_heads.current_token

[interp.interventions]
sharpen = lab_heads.sharpen
"""


def forget():
    """Nothing that was read of installed packages is remembered."""
    from interp.registry import refresh
    from interp_dashboard.metric_cache import metric_names

    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_heads"]:
        del sys.modules[name]
    invalidate_caches()
    refresh()
    metric_names.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, and a function that installs one there with these entry points."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)

    def install(name, entry_points):
        metadata = folder / f"{name}-0.1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", encoding="utf-8")
        (metadata / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        forget()
        return folder

    yield install
    monkeypatch.undo()
    forget()


@pytest.fixture
def lab(site):
    """The package ``lab_heads``, installed."""
    copytree(LAB, site("lab_heads", ENTRY_POINTS) / "lab_heads")
    return LAB
