"""Options of ``interp dashboard``, passed to the server through the environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

VARIABLE = "INTERP_DASHBOARD"


@dataclass(frozen=True)
class Settings:
    """The initial model, its device, and the folder of run directories.

    ``run`` is the name, inside ``runs``, of the run to open.
    """

    model: str = "interp-mini"
    device: str = "cpu"
    dtype: str = "float32"
    offline: bool = False
    runs: str = "runs"
    run: str = ""

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @property
    def root(self) -> Path:
        """The folder of the runs, absolute."""
        return Path(self.runs).resolve()


@cache
def settings() -> Settings:
    """The settings of this server."""
    return Settings(**json.loads(os.environ.get(VARIABLE, "{}")))
