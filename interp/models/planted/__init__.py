"""Transformers whose weights are written by hand from a list of roles: models whose ground truth is known.

``plant`` writes the roles into a real GPT-2 or Llama, among noise heads, and hides the basis; ``PlantedModel`` holds the Model and
its ground truth. The roles follow Elhage et al. 2021 and Wang et al. 2022; the weights are this project's own.
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.models.planted.head_roles import FAMILIES as FAMILIES
    from interp.models.planted.head_roles import ROLES as ROLES
    from interp.models.planted.plant import plant as plant
    from interp.models.planted.planted_model import GroundTruthEffects as GroundTruthEffects
    from interp.models.planted.planted_model import PlantedModel as PlantedModel
    from interp.models.planted.prompts import PROMPTS as PROMPTS
else:
    __all__, __getattr__, __dir__ = exports(__name__)
