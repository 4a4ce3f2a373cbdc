"""Causal confirmation of a detection: a task with the top k detected heads ablated, compared with controls."""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.confirmation.confirm import check_confirmation as check_confirmation
    from interp.confirmation.confirm import confirm as confirm
    from interp.confirmation.confirm import plan_confirmation as plan_confirmation
    from interp.confirmation.confirmation_result import Confirmation as Confirmation
    from interp.confirmation.head_sets import DEFAULT_KS as DEFAULT_KS
    from interp.confirmation.head_sets import GROUPS as GROUPS
    from interp.confirmation.head_sets import MIN_DRAWS as MIN_DRAWS
    from interp.confirmation.head_sets import NO_PAIRS as NO_PAIRS
    from interp.confirmation.head_sets import draw_sets as draw_sets
else:
    __all__, __getattr__, __dir__ = exports(__name__)
