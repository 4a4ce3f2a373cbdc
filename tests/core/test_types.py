"""What an editor shows: every public name has a type, a misspelt one is an error, and the wheel says that it carries types."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(file.parent.name for file in (ROOT / "interp").glob("*/__init__.py") if file.parent.name != "cli")
PYRIGHT = shutil.which("pyright") or shutil.which("pyright", path=str(Path(sys.executable).parent))
WRONG = {
    "interp.ablate_haeds": '"ablate_haeds" is not a known attribute of module "interp"',
    "circuits.scoer_edges": '"scoer_edges" is not a known attribute',
    "interp.load_model(3)": 'Argument of type "Literal\\[3\\]" cannot be assigned to parameter "name"',
    "interp.make_task('ioi', 'interp-mini')": 'cannot be assigned to parameter "model" of type "Model"',
}


def public_names() -> list[tuple[str, str]]:
    """All names of ``interp`` and of its rooms, as (package, name)."""
    packages = ("interp", *(f"interp.{room}" for room in ROOMS))
    return [(package, name) for package in packages for name in importlib.import_module(package).__all__]


@pytest.mark.slow
@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed")
def test_every_public_name_is_typed_and_a_misspelt_one_is_reported(tmp_path):
    names = public_names()
    assert len(names) > 150
    imports = ["import interp", *(f"from interp import {room}" for room in ROOMS)]
    revealed = [f"reveal_type({package.removeprefix('interp.')}.{name})" for package, name in names]
    probe = tmp_path / "probe.py"
    probe.write_text("\n".join([*imports, *revealed, *WRONG]))
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"pythonVersion": "3.11", "extraPaths": [str(ROOT)]}))
    command = [PYRIGHT, "--pythonpath", sys.executable, "--project", str(tmp_path)]
    report = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120).stdout
    found = dict(re.findall(r"probe\.py:(\d+):\d+ - information: Type of \"[^\"]+\" is \"(.*)\"", report))
    start = len(imports) + 1
    types = {f"{p}.{n}": found.get(str(line), "Unknown") for line, (p, n) in enumerate(names, start)}
    assert not [name for name, kind in types.items() if re.fullmatch("Any|.*Unknown", kind)]
    for line, (text, message) in enumerate(WRONG.items(), start + len(names)):
        assert re.search(rf"probe\.py:{line}:\d+ - error: .*{message}", report), (text, report)
    assert report.count(" - error: ") == len(WRONG)


def test_the_package_is_marked_as_typed_and_its_wheel_would_hold_the_mark():
    assert (ROOT / "interp" / "py.typed").is_file()
    ignored = subprocess.run(["git", "check-ignore", "interp/py.typed"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert ignored.returncode != 0  # hatchling leaves out what git ignores, and nothing else of interp/
