"""Detectors of named roles of heads and tokens; one file for each role.

``detect(model, "induction")`` runs a detector by name: the function named as its file, which takes a model and options and returns a
``Detection`` (heads) or a ``TokenDetection`` (tokens). It measures behaviour; ``confirm`` tests whether the heads matter for a task.
"""

from typing import TYPE_CHECKING, Any

from interp._check_argument_types import checks_arguments
from interp._lazy import exports
from interp.errors import ExtensionError
from interp.registry import Registry, check_options

if TYPE_CHECKING:
    from interp.detectors.support.detection import Detection as Detection
    from interp.detectors.support.detection import TokenDetection as TokenDetection
    from interp.detectors.support.detector_declaration import detector as detector
    from interp.detectors.support.induction_family import induction_family as induction_family
    from interp.detectors.support.null_threshold import null_threshold as null_threshold
    from interp.detectors.support.null_threshold import prompt_digests as prompt_digests
    from interp.models.model import Model
else:
    __all__, __getattr__, __dir__ = exports(__name__, "DETECTORS", "default_task", "detect", "quick_detectors")

DETECTORS = Registry("interp.detectors", "detector", group="interp.detectors")


@checks_arguments
def detect(model: "Model", role: str, **options: Any) -> "Detection | TokenDetection":
    """What the detector of a role finds in a model; where its records name no task, they name the role.

    Raises LookupError for an unknown role or option, TypeError where a detector of another package returns something else than a
    detection."""
    from inspect import signature

    from interp.detectors.support.detection import Detection, TokenDetection, name_records

    detector = DETECTORS.get(role)
    known = [name for name in signature(detector).parameters if name != "model"]
    check_options(options, known, f"Detector {role!r}")
    found = checks_arguments(detector)(model, **options)
    if not isinstance(found, Detection | TokenDetection):
        raise ExtensionError(f"Detector {role!r} must return a Detection or TokenDetection, not {type(found).__name__}.")
    return name_records(found)


def default_task(role: str) -> str | None:
    """The task that the detector of a role declares to need it; None where it declares none, or no detector has this name."""
    return getattr(DETECTORS.get(role), "default_task", None) if role in DETECTORS.names() else None


def quick_detectors() -> list[str]:
    """Names of the detectors that declare to be quick: a few prompts, or none."""
    return [name for name, function in DETECTORS.entries().items() if getattr(function, "quick", False)]
