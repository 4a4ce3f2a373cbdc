"""The rules that keep the house a house, read from the source with ast."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from interp.cli.app import COMMANDS
from interp.detectors import DETECTORS
from interp.interventions import INTERVENTIONS
from interp.metrics.attention import ATTENTION_METRICS
from interp.metrics.outcomes import OUTCOMES
from interp.registry import Registry
from interp.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "interp"
FLOORS = {
    "records": 0, "heads": 0, "graph": 0, "errors": 0, "files": 0, "registry": 0, "statistics": 0,
    "options_text": 0, "_lazy": 0, "_check_argument_types": 0, "_short_repr": 0,
    "models": 1, "interventions": 1,
    "tasks": 2,
    "engine": 3,
    "metrics": 4,
    "ablation": 5,
    "detectors": 6, "circuits": 6,
    "confirmation": 7, "head_card": 7, "family_matrix": 7,
    "store": 8,
    "experiments": 9,
    "figures": 10,
    "cli": 11,
}  # fmt: skip
GROUND = {room for room, floor in FLOORS.items() if floor == 0}
ONLY = {
    "transformers": {"models", "engine", "family_matrix"},
    "transformer_lens": {"models", "engine"},
    "plotly": {"figures"},
    "streamlit": {"apps"},
    "typer": {"cli"},
}
"""Libraries that may be named in these rooms alone."""

HEAVY = (
    "torch",
    "transformers",
    "transformer_lens",
    "pandas",
    "plotly",
    "pyarrow",
    "matplotlib",
    "scipy",
    "sklearn",
    "streamlit",
)
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.save"}
FORBIDDEN_METHODS = {"read_pickle", "to_pickle", "unsafe_load"}
DASHBOARD = ROOT / "apps"
LONGEST_FILE = 450


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """The room of a file of interp/: its folder, or its own name on the ground floor; the package itself is ''."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first in ("__init__.py", "__main__.py") else first.removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import of a file, inside functions and under TYPE_CHECKING as well."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            found += [(node.lineno, word.value) for word in node.args if isinstance(word, ast.Constant)]
    return found


def calls_of(path: Path) -> list[tuple[int, str, ast.Call]]:
    return [(n.lineno, ast.unparse(n.func), n) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]


def rooms() -> set[str]:
    found = {room_of(path) for path in files()} - {""}
    return {room for room in found if (SOURCE / f"{room}.py").exists() or any((SOURCE / room).rglob("*.py"))}


def test_every_room_has_a_floor():
    assert rooms() <= FLOORS.keys()


# `plot` and `save` reach up by name, so that a value object can draw and store itself.
REACHES_UP = {
    ("interp/heads.py", "interp.figures"),
    ("interp/circuits/table_and_plot_mixins.py", "interp.figures"),
    ("interp/heads.py", "interp.store"),
    ("interp/ablation/ablation_result.py", "interp.figures"),
    ("interp/ablation/ablation_result.py", "interp.store"),
    ("interp/detectors/support/detection.py", "interp.figures"),
    ("interp/confirmation/confirmation_result.py", "interp.figures"),
}


@pytest.mark.parametrize("path", files(), ids=named)
def test_a_room_imports_only_from_lower_floors(path):
    own = room_of(path)
    if not own:
        return  # the package itself names every room, lazily
    wrong = []
    for line, module in imports_of(path):
        parts = module.split(".")
        if parts[0] != "interp" or len(parts) == 1 or (named(path), module) in REACHES_UP:
            continue
        other = parts[1]
        if other in FLOORS and other != own and FLOORS[other] >= FLOORS[own] and not {own, other} <= GROUND:
            wrong.append(f"line {line}: {own} (floor {FLOORS[own]}) imports {module} (floor {FLOORS[other]})")
    assert not wrong


@pytest.mark.parametrize("path", files(), ids=named)
def test_a_library_is_named_only_in_its_rooms(path):
    own = room_of(path)
    wrong = [
        f"line {line}: {own} names {module}"
        for line, module in imports_of(path)
        if own not in ONLY.get(module.split(".")[0], {own})
    ]
    assert not wrong


@pytest.mark.parametrize("path", files(), ids=named)
def test_hooks_stand_only_in_engine_and_models(path):
    hooks = [f"line {line}: {name}" for line, name, _ in calls_of(path) if "hook" in name.split(".")[-1].lower()]
    assert room_of(path) in ("engine", "models", "family_matrix") or not hooks  # the last is a reference apart from the engine


@pytest.mark.parametrize("path", [*files(), *sorted(DASHBOARD.rglob("*.py"))], ids=named)
def test_nothing_is_unpickled_evaluated_or_loaded_unsafely(path):
    wrong = [f"line {line}: imports {module}" for line, module in imports_of(path) if module.split(".")[0] in FORBIDDEN_MODULES]
    for line, name, call in calls_of(path):
        safe = any(
            k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords
        )
        last = name.split(".")[-1]
        if name in FORBIDDEN_CALLS or last in FORBIDDEN_METHODS or (name == "torch.load" and not safe):
            wrong.append(f"line {line}: calls {name}")
        if any(
            k.arg == "trust_remote_code" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in call.keywords
        ):
            wrong.append(f"line {line}: trusts remote code")
        if any(
            k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in call.keywords
        ):
            wrong.append(f"line {line}: allows pickles")
    assert not wrong


@pytest.mark.parametrize("path", [*files(), *sorted(DASHBOARD.rglob("*.py"))], ids=named)
def test_tables_and_json_are_written_in_one_way_each(path):
    """CSV through ``tables_as_csv``, which escapes formulas; JSON that goes into a file without NaN."""
    wrong = []
    for line, name, call in calls_of(path):
        if name.endswith(".to_csv") and named(path) not in CSV:
            wrong.append(f"line {line}: writes CSV by itself")
        strict = any(
            k.arg == "allow_nan" and isinstance(k.value, ast.Constant) and k.value.value is False for k in call.keywords
        )
        if name in ("json.dumps", "json.dump") and not strict and named(path) not in JSON_IN_SENTENCES:
            wrong.append(f"line {line}: writes JSON that may hold NaN")
    assert not wrong


CSV = {"interp/store/tables_as_csv.py", "interp/store/confirmations.py"}
"""The second only takes a digest."""
JSON_IN_SENTENCES = {
    "interp/tasks/jsonl.py",
    "interp/tasks/_prompt_file_rows.py",
    "interp/models/hooked_transformer_toys.py",
    "interp/store/run_directory.py",
    "apps/interp_dashboard/settings.py",
}
"""What a user gave, quoted back or compared, and settings without numbers."""


@pytest.mark.parametrize("path", files(), ids=named)
def test_a_file_is_short_and_says_what_it_is(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_FILE
    assert not lines or ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("word", ["utils", "helpers", "misc", "common"])
def test_no_file_has_a_name_that_says_nothing(word):
    assert not [named(path) for path in SOURCE.rglob("*") if word in path.stem.lower().split("_")]


def entries() -> list[tuple[Registry, str]]:
    registries = (ATTENTION_METRICS, COMMANDS, DETECTORS, INTERVENTIONS, OUTCOMES, TASKS)
    return [(registry, name) for registry in registries for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), entries(), ids=lambda part: getattr(part, "noun", part))
def test_every_registered_entry_is_documented_and_defined_in_its_own_file(registry, name):
    assert registry.get(name) is not None and registry.describe(name)
    path = registry.module(name).__file__
    assert path is not None
    tree = tree_of(Path(path))
    assert ast.get_docstring(tree)
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    assert name in defined


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text[text.index("```\ninterp/") :]
    missing = [
        room
        for room in rooms() - {"_lazy", "_check_argument_types", "_short_repr"}
        if f"  {room}/ " not in tree and f"  {room}.py " not in tree
    ]
    assert not missing
    assert len(text.splitlines()) < 120


def modules_after(code: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has loaded after running ``code``."""
    report = "import sys; sys.stdout.write('\\n' + ' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import interp; dir(interp)",
        "import interp.cli",
        "from typer.testing import CliRunner; from interp.cli.app import app; assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from interp.tasks import TASKS; TASKS.names(); from interp.metrics.outcomes import OUTCOMES; OUTCOMES.names()",
        "import interp.models, interp.engine, interp.store",
    ],
    ids=["import interp", "import interp.cli", "interp --help", "listing names", "importing rooms"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert not modules_after(code) & set(HEAVY)


def test_the_command_line_starts_without_numpy():
    assert "numpy" not in modules_after("import interp.cli.app")
