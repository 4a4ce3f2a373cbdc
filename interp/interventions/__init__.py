"""What may be changed in a run: one type, one equation, a constructor for each change."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.interventions.ablations import mean as mean
    from interp.interventions.ablations import patch as patch
    from interp.interventions.ablations import resample as resample
    from interp.interventions.ablations import scale as scale
    from interp.interventions.ablations import uniform as uniform
    from interp.interventions.ablations import zero as zero
    from interp.interventions.attend_to import attend_to as attend_to
    from interp.interventions.intervention import Intervention as Intervention
    from interp.interventions.intervention import InterventionContext as InterventionContext
    from interp.interventions.sink_calibration import calibrate_sinks as calibrate_sinks
    from interp.interventions.streaming import streaming as streaming
else:
    __all__, __getattr__, __dir__ = exports(__name__)
