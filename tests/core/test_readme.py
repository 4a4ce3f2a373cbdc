"""The README's promises: its Python runs, its commands exist, its paths are there."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """Every `interp ...` line of the README and of the Makefile, as words without its comment."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("interp ")]
    lines += [f"interp {arguments}" for arguments in re.findall(r"^\t\$\(BIN\)/interp (.*)$", MAKEFILE, re.MULTILINE)]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_python_of_the_readme_runs_and_prints_every_head(capsys):
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "L0H0" in printed
    assert "ci_low" in printed


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_readme_or_makefile_exists_with_its_options(words):
    from typer.testing import CliRunner

    from interp.cli.app import app

    helped = CliRunner(env={"COLUMNS": "300"}).invoke(app, [words[1], "--help"])
    assert helped.exit_code == 0
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", helped.stdout))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks("sh")), re.MULTILINE))))
def test_a_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
