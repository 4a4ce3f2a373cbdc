"""The models that ship with the package: folders of ``data/models`` in a checkout, of ``interp/data/models`` in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent

PLANTED = "planted:"
"""First part of the names of models that are planted, not loaded (``planted:mini_ioi,seed=3``)."""


def embedded_folder() -> Path:
    """The folder that holds one folder per embedded model."""
    installed = _PACKAGE / "data" / "models"
    return installed if installed.is_dir() else _PACKAGE.parent / "data" / "models"


def embedded_names() -> list[str]:
    """Names of the embedded models, sorted."""
    return sorted(config.parent.name for config in embedded_folder().glob("*/config.json"))
