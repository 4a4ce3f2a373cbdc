"""What may be changed in a run: one type, one equation, a constructor for each change."""

from interp.interventions.ablations import mean, patch, resample, scale, uniform, zero
from interp.interventions.attend_to import attend_to
from interp.interventions.intervention import Intervention, InterventionContext
from interp.interventions.sink_calibration import calibrate_sinks
from interp.interventions.streaming import streaming

__all__ = [
    "Intervention",
    "InterventionContext",
    "attend_to",
    "calibrate_sinks",
    "mean",
    "patch",
    "resample",
    "scale",
    "streaming",
    "uniform",
    "zero",
]
