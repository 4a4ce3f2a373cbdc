"""Runs as objects: one frozen specification per kind of run, with its identity, cost, execution, command line and Python code."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.experiments.ablation import AblationSpec as AblationSpec
    from interp.experiments.attention import AttentionSpec as AttentionSpec
    from interp.experiments.circuit import CircuitSpec as CircuitSpec
    from interp.experiments.confirmation import ConfirmationSpec as ConfirmationSpec
    from interp.experiments.detection import DetectionSpec as DetectionSpec
    from interp.experiments.experiment import Experiment as Experiment
    from interp.experiments.experiment import Spec as Spec
    from interp.experiments.fidelity import FidelitySpec as FidelitySpec
    from interp.experiments.spec_json import spec_from_json as spec_from_json
    from interp.experiments.spec_json import spec_to_json as spec_to_json
    from interp.experiments.usage_error import UsageError as UsageError
else:
    __all__, __getattr__, __dir__ = exports(__name__)
