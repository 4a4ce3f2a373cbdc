"""The promises of CONTRIBUTING, the guide and the files beside them."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import interp

ROOT = Path(__file__).resolve().parents[2]
GUIDE = sorted((ROOT / "docs/guide").glob("*.md"))
TEXTS = [*GUIDE, *sorted((ROOT / "docs/validation").glob("*.md"))]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands():
    """Every `interp ...` line of the guide and of the validation pages, as words without its comment."""
    lines = {line for path in TEXTS for block in blocks(path, "sh") for line in block.splitlines()}
    return [shlex.split(line.partition(">")[0], comments=True) for line in sorted(lines) if line.startswith("interp ")]


@pytest.mark.parametrize("path", sorted((ROOT / "tests/support/lab_heads").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_contributing_shows_the_files_that_are_tested(path):
    assert f"# {path.name}\n{path.read_text(encoding='utf-8').rstrip()}\n```" in read("CONTRIBUTING.md")


def test_contributing_shows_the_entry_points_that_are_tested():
    from tests.extensions.conftest import ENTRY_POINTS

    (shown,) = re.findall(r"```toml\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    entries = {group.split(".", 1)[1]: entry for group, entry in _flat(tomllib.loads(shown)["project"]["entry-points"])}
    assert entries == dict(re.findall(r"\[interp\.(\w+)\]\n\w+ = (\S+)", ENTRY_POINTS))


def _flat(groups):
    return [(group, module) for group, entries in groups.items() for module in entries.values()]


EACH_GUIDE = pytest.mark.parametrize("path", [path for path in GUIDE if blocks(path, "python")], ids=lambda path: path.stem)


@EACH_GUIDE
def test_the_python_of_a_guide_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks(path, "python")), path.name, "exec"), {})


@pytest.mark.slow
@EACH_GUIDE
def test_the_python_of_a_guide_runs_in_a_process_of_its_own(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    code = "\n".join(blocks(path, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_docs_exists_with_its_options(words):
    from typer.testing import CliRunner

    from interp.cli.app import app

    helped = CliRunner(env={"COLUMNS": "300"}).invoke(app, [words[1], "--help"])
    assert helped.exit_code == 0
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", helped.stdout))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_page_is_short_and_its_links_lead_somewhere(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(len(line) <= 120 for line in lines if not line.startswith("|"))
    assert path.parent.name != "guide" or len(lines) <= 80
    targets = re.findall(r"\]\(([^)#]+)", "\n".join(lines))
    assert not [target for target in targets if "://" not in target and not (path.parent / target).exists()]


def test_the_package_that_the_guide_shows_is_complete():
    page = ROOT / "docs/guide/extending.md"
    (shown,), (code,) = (blocks(page, language) for language in ("toml", "python"))
    project = tomllib.loads(shown)
    ((name, module),) = project["project"]["entry-points"]["interp.metrics"].items()
    package, file = module.split(".")
    tree = page.read_text(encoding="utf-8").split("```")[1]
    assert project["tool"]["setuptools"]["packages"] == [package] and {"requires", "build-backend"} <= set(
        project["build-system"]
    )
    assert f"  {package}/ " in tree and f"    {file}.py\n" in tree and package != project["project"]["name"]
    scope = {}
    exec(compile(code, file, "exec"), scope)
    assert scope[name].name == name


def test_the_guide_names_every_field_that_the_code_of_an_extension_uses():
    from interp.detectors import Detection
    from interp.metrics import AttentionMetric
    from interp.tasks import Example

    for page, kind in (
        ("extending-metrics", AttentionMetric),
        ("extending-detectors", Detection),
        ("extending-detectors", Example),
    ):
        named = set(re.findall(r"`(\w+)`", read(f"docs/guide/{page}.md")))
        assert not {field.name for field in fields(kind)} - named


def test_versions_are_the_same_everywhere():
    assert f"version: {interp.__version__}" in read("CITATION.cff") and interp.__version__ in read("CHANGELOG.md")
    (ruff,) = re.findall(r"^ruff==(\S+)", read("constraints.txt"), re.MULTILINE)
    assert set(re.findall(r"ruff==([\d.]+)", read(".pre-commit-config.yaml"))) == {ruff}
