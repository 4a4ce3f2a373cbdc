"""Transformers whose weights are written by hand from a list of roles: models whose answer is known.

``plant`` writes the roles into a real GPT-2 or Llama, among heads of random noise, and hides the basis; ``PlantedModel`` holds the Model
together with its ground truth, computed from the recipes and not from the weights (``ground_truth.py``). After Elhage et al. 2021
and Wang et al. 2022 for what the roles do; the weights are this project's own.
"""

from interp._lazy import exports

_HOMES = {
    "FAMILIES": "interp.models.planted.roles",
    "PROMPTS": "interp.models.planted.prompts",
    "ROLES": "interp.models.planted.roles",
    "GroundTruthEffects": "interp.models.planted.planted_model",
    "PlantedModel": "interp.models.planted.planted_model",
    "plant": "interp.models.planted.plant",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = exports(__name__, _HOMES)
