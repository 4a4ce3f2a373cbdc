"""Changes of attention heads in a run: one type, one equation, and one file for each kind of change."""

from typing import TYPE_CHECKING

from interp._lazy import exports
from interp.registry import Registry

if TYPE_CHECKING:
    from interp.interventions.attend_to import attend_to as attend_to
    from interp.interventions.calibrate_sinks import calibrate_sinks as calibrate_sinks
    from interp.interventions.intervention import ActivationSource as ActivationSource
    from interp.interventions.intervention import Intervention as Intervention
    from interp.interventions.intervention import InterventionContext as InterventionContext
    from interp.interventions.intervention import intervention as intervention
    from interp.interventions.mean import mean as mean
    from interp.interventions.patch import patch as patch
    from interp.interventions.resample import resample as resample
    from interp.interventions.scale import scale as scale
    from interp.interventions.streaming import streaming as streaming
    from interp.interventions.uniform import uniform as uniform
    from interp.interventions.zero import zero as zero
else:
    __all__, __getattr__, __dir__ = exports(__name__, "INTERVENTIONS")

INTERVENTIONS = Registry("interp.interventions", "intervention", group="interp.interventions", exclude=("intervention",))
