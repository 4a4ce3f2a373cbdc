"""No module imports, on whatever way and inside whatever function, a module that imports it."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE_FOLDERS = ("attention", "forward", "sweep", "edges", "gradients")
"""The folders of the engine in order: each imports only from those before it."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for top in (ROOT / "interp", ROOT / "apps" / "interp_dashboard"):
        for path in top.rglob("*.py"):
            found[".".join(path.relative_to(top.parent).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node except what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from statements(child)


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports, at its top or inside a function; the parts of a package by their own names."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inside & modules().keys()) or {node.module}
    return names & modules().keys()


@cache
def imports() -> dict[str, set[str]]:
    return {name: imported(path) - {name} for name, path in modules().items()}


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_through_others():
    assert not cycle_in(imports())


def test_a_cycle_is_found():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_imports_inside_functions_are_read(tmp_path):
    file = tmp_path / "some.py"
    file.write_text(
        "if TYPE_CHECKING:\n    import interp.files\ndef f():\n    import interp.heads\n    from interp.models import load\n"
    )
    assert imported(file) == {"interp.heads", "interp.models.load"}


@pytest.mark.parametrize("folder", ENGINE_FOLDERS)
def test_a_folder_of_the_engine_imports_only_from_those_before_it(folder):
    later = ENGINE_FOLDERS[ENGINE_FOLDERS.index(folder) + 1 :]
    own = {name: found for name, found in imports().items() if name.startswith(f"interp.engine.{folder}.")}
    assert own
    upward = {
        f"{name} -> {i}"
        for name, found in own.items()
        for i in found
        if i.startswith("interp.engine") and i.split(".")[2] in later
    }
    assert not upward


def test_every_folder_of_the_engine_is_in_the_order():
    folders = {path.name for path in (ROOT / "interp" / "engine").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ENGINE_FOLDERS)
