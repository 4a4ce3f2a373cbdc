"""What may be changed in a run: one type, one equation, a constructor for each change."""

from interp.interventions.ablations import mean, patch, resample, scale, uniform, zero
from interp.interventions.attend_to import look_at
from interp.interventions.intervention import Intervention, Place
from interp.interventions.sink_calibration import calibrate
from interp.interventions.streaming import streaming

__all__ = [
    "Intervention",
    "Place",
    "calibrate",
    "look_at",
    "mean",
    "patch",
    "resample",
    "scale",
    "streaming",
    "uniform",
    "zero",
]
