"""Changes of attention heads in a run: one type, one equation, and one file for each kind of change.

Constructors that other packages register are attributes of this room as well: ``interp.interventions.sharpen``.
"""

from typing import TYPE_CHECKING, Any

from interp._lazy import exports
from interp.registry import Registry

if TYPE_CHECKING:
    from interp.interventions.attend_to import attend_to as attend_to
    from interp.interventions.calibrate_sinks import calibrate_sinks as calibrate_sinks
    from interp.interventions.intervention import ActivationSource as ActivationSource
    from interp.interventions.intervention import HeadInputs as HeadInputs
    from interp.interventions.intervention import Intervention as Intervention
    from interp.interventions.intervention import InterventionContext as InterventionContext
    from interp.interventions.intervention import Memory as Memory
    from interp.interventions.intervention import intervention as intervention
    from interp.interventions.mean import mean as mean
    from interp.interventions.patch import patch as patch
    from interp.interventions.resample import resample as resample
    from interp.interventions.scale import scale as scale
    from interp.interventions.streaming import streaming as streaming
    from interp.interventions.uniform import uniform as uniform
    from interp.interventions.zero import zero as zero
else:
    __all__, _own, __dir__ = exports(__name__, "INTERVENTIONS")

    def __getattr__(name: str) -> Any:
        is_registered = not name.startswith("_") and name not in __all__ and name in INTERVENTIONS.names()
        return INTERVENTIONS.get(name) if is_registered else _own(name)


INTERVENTIONS = Registry(
    "interp.interventions", "intervention", group="interp.interventions", exclude=("intervention",), folders=("variants",)
)
