"""Loading a model: embedded, installed, from a folder, from the Hub, in memory, a toy trained with TransformerLens 2.x, or written by hand.

Names are resolved on first use, so that importing this room costs no torch.
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.models.embedded import embedded_names as embedded_names
    from interp.models.hooked_transformer_toys import load_hooked_transformer as load_hooked_transformer
    from interp.models.install_from_package import install_model as install_model
    from interp.models.installed_models import installed_names as installed_names
    from interp.models.load import load_model as load_model
    from interp.models.model import Layout as Layout
    from interp.models.model import Model as Model
    from interp.models.model import ModelFacts as ModelFacts
    from interp.models.planted.plant import plant as plant
    from interp.models.planted.planted_model import PlantedModel as PlantedModel
    from interp.models.selfcheck import doctor as doctor
    from interp.models.wrap_model import wrap_model as wrap_model
else:
    __all__, __getattr__, __dir__ = exports(__name__)
