"""Activations by name, in memory or as one safetensors file, with their size known before and after.

``capture`` runs the clean prompts of a task (or token ids) once. Values are copies: changing one changes nothing else.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from interp._short_repr import short_repr
from interp.engine.attention.qk_cache import write_tensors
from interp.engine.forward.activation_names import hook_name
from interp.engine.forward.run import run
from interp.errors import ArtefactInvalid, first_line
from interp.files import remove_temporary_files, user_path
from interp.models.memory import ITEM_BYTES
from interp.models.model import Model, ModelFacts
from interp.records import RunRecord
from interp.tasks.task import Example, Task

FILE = "activations.safetensors"


@short_repr
@dataclass(frozen=True, eq=False)
class Capture:
    """Activations by TransformerLens name, each [batch pos ...]; ``folder`` is where they are stored, if anywhere."""

    activations: dict[str, Tensor]
    record: RunRecord
    folder: Path | None = None

    def __getitem__(self, name: str) -> Tensor:
        """An activation by full name or short address. Raises LookupError if it was not captured."""
        full = hook_name(name)
        if full not in self.activations:
            raise LookupError(f"{name!r} was not captured. There are: {', '.join(self.activations)}.")
        return self.activations[full]

    @property
    def nbytes(self) -> int:
        """Bytes of all activations together."""
        return sum(t.nbytes for t in self.activations.values())


def capture(
    model: Model,
    prompts: Task | Sequence[Example] | Tensor | Sequence[int] | str,
    names: Sequence[str],
    *,
    store: str | os.PathLike | None = None,
) -> Capture:
    """The named activations of one clean pass over equally long prompts.

    ``names`` are TransformerLens names, short addresses (``z.2``) or a site for all layers (``z``). With ``store`` they are
    written to ``activations.safetensors`` in that folder, their record in its header, and read back memory-mapped. Raises
    LookupError for unknown names, OSError when the disk refuses.
    """
    full = _full_names(names, model.facts)
    examples: Any = prompts.examples if isinstance(prompts, Task) else prompts
    done = run(model, examples, capture=full)
    found = Capture({name: done.activations[name] for name in full}, done.record)
    if store is None:
        return found
    folder = user_path(store)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(folder)
    write_tensors(folder / FILE, found.activations, {"record": json.dumps(found.record.to_json(), allow_nan=False)})
    return load_capture(store)


def capture_bytes(facts: ModelFacts, names: Sequence[str], batch: int, length: int) -> int:
    """Bytes that ``capture`` of these names will hold for ``batch`` prompts of ``length`` tokens.

    Raises LookupError for sites whose size is not known beforehand.
    """
    widths = {"result": facts.n_heads * facts.d_model}
    widths |= dict.fromkeys(("q", "rot_q", "z"), facts.n_heads * facts.d_head)
    widths |= dict.fromkeys(("k", "rot_k", "v"), facts.n_kv_heads * facts.d_head)
    widths |= dict.fromkeys(("pattern", "attn_scores"), facts.n_heads * length)
    widths |= dict.fromkeys(("pre", "post"), facts.d_mlp)
    widths |= dict.fromkeys(("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "embed"), facts.d_model)
    full = _full_names(names, facts)
    unknown = [name for name in full if name.rsplit("hook_", 1)[-1] not in widths]
    if unknown:
        raise LookupError(f"The size of {unknown[0]!r} is not known beforehand. Known sites: {', '.join(sorted(widths))}.")
    return batch * length * ITEM_BYTES[facts.dtype] * sum(widths[name.rsplit("hook_", 1)[-1]] for name in full)


def load_capture(folder: str | os.PathLike) -> Capture:
    """A stored capture, memory-mapped. Raises ArtefactInvalid when its file is missing or damaged."""
    from safetensors import safe_open

    path = user_path(folder)
    try:
        with safe_open(path / FILE, "pt") as file:
            record = RunRecord.from_json(json.loads(file.metadata()["record"]))
            return Capture({name: file.get_tensor(name) for name in file.keys()}, record, path)  # noqa: SIM118 - no mapping
    except Exception as error:
        raise ArtefactInvalid(
            f"{path} holds no readable capture ({first_line(error)}): capture the activations again."
        ) from error


def _full_names(names: Sequence[str], facts: ModelFacts) -> list[str]:
    """TransformerLens names, each once; a site stands for all layers."""
    full: list[str] = []
    for name in names:
        alone = "." in name or "hook_" in name or name == "embed"
        full += [name] if alone else [f"{name}.{layer}" for layer in range(facts.n_layers)]
    return list(dict.fromkeys(map(hook_name, full)))
