"""The public names are what they say, whichever module was imported first."""

import importlib
import pkgutil
import pydoc
import re
import subprocess
import sys

import pytest

PACKAGES = (
    "interp",
    "interp.ablation",
    "interp.circuits",
    "interp.detectors",
    "interp.engine",
    "interp.figures",
    "interp.interventions",
    "interp.metrics",
    "interp.models",
    "interp.store",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_stay_the_same_objects_when_every_module_is_imported(package):
    room = importlib.import_module(package)
    first = {name: getattr(room, name) for name in room.__all__}
    files = {module.name for module in pkgutil.iter_modules(room.__path__)}
    for name in files:
        importlib.import_module(f"{package}.{name}")
    assert all(getattr(room, name) is value for name, value in first.items())
    assert set(room.__all__) <= {*dir(room), "__version__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_answered_with_the_known_ones(package):
    room = importlib.import_module(package)
    with pytest.raises(AttributeError, match=rf"{package} has no attribute 'nothing'. It has: \w+"):
        _ = room.nothing


def test_help_names_every_public_name_in_exactly_one_group():
    import interp

    groups = re.findall(r"^(\w+) {2,}(.*(?:\n {13}.*)*)$", interp.__doc__, re.MULTILINE)
    named = [name for _, text in groups for name in re.findall(r"``(\w+)``", text)]
    methods = {"plot", "save"}
    assert sorted(set(named) - methods) == sorted(set(interp.__all__) - {"__version__"})
    assert all(named.count(name) == 1 for name in named)
    assert [name for name, _ in groups][:3] == ["Models", "Tasks", "Runs"]


def test_help_shows_the_groups_and_the_signatures_behind_the_lazy_names():
    import interp

    shown = pydoc.render_doc(interp, renderer=pydoc.plaintext)
    assert "Models       ``load_model``" in shown
    assert "load_model(name: 'str' = 'interp-mini'" in shown


def test_a_room_is_an_attribute_before_it_was_imported():
    code = "import interp; interp.circuits.backup_heads, interp.head_card.head_card, interp.ablation.continue_prompt"
    subprocess.run([sys.executable, "-c", code], check=True)
