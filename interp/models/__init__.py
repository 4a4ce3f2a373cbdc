"""Loading a model: embedded, from a folder, from the Hub, in memory, a toy trained with TransformerLens 2.x, or written by hand.

Names are resolved on first use, so that importing this room costs no torch.
"""

from interp._lazy import exports

_HOMES = {
    "Layout": "interp.models.model",
    "Model": "interp.models.model",
    "ModelFacts": "interp.models.model",
    "PlantedModel": "interp.models.planted.planted_model",
    "doctor": "interp.models.selfcheck",
    "embedded_names": "interp.models.embedded",
    "load_model": "interp.models.load",
    "load_hooked_transformer": "interp.models.hooked_transformer",
    "plant": "interp.models.planted.plant",
    "wrap_model": "interp.models.wrap_model",
}
__all__ = list(_HOMES)


__getattr__, __dir__ = exports(__name__, _HOMES)
