"""Specifications as JSON values."""

from dataclasses import asdict
from typing import Any

from interp import experiments
from interp.experiments.experiment import Spec

KINDS = {
    "ablate": "AblationSpec",
    "attention": "AttentionSpec",
    "circuit": "CircuitSpec",
    "confirm": "ConfirmationSpec",
    "detect": "DetectionSpec",
}
"""The specification of each command."""


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """The command and the fields of a specification."""
    return {"command": spec.command, **asdict(spec)}


def spec_from_json(values: dict[str, Any]) -> Spec:
    """The specification that ``spec_to_json`` wrote. Raises KeyError or TypeError for other values."""
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "command"}
    return getattr(experiments, KINDS[values["command"]])(**read)
