"""The public names are what they say, whichever module was imported first."""

import importlib
import pkgutil

import pytest

PACKAGES = (
    "interp",
    "interp.ablation",
    "interp.circuits",
    "interp.detectors",
    "interp.engine",
    "interp.metrics",
    "interp.models",
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
