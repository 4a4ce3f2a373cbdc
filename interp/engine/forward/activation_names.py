"""Names of activations: TransformerLens's hook names, and short addresses such as ``z.5`` for them."""

import re

_IN_BLOCK = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
_IN_ATTENTION = ("q", "k", "v", "z", "rot_q", "rot_k", "attn_scores", "pattern", "result")
_IN_MLP = ("pre", "post")


def hook_name(name: str) -> str:
    """TransformerLens's name of an activation: ``z.5`` -> ``blocks.5.attn.hook_z``; full names are returned as they are.

    Raises LookupError for an address of neither form.
    """
    if "hook_" in name:
        return name
    found = re.fullmatch(r"(\w+)\.(\d+)", name)
    site, layer = (found[1], found[2]) if found else (name, "")
    if found and site in _IN_BLOCK:
        return f"blocks.{layer}.hook_{site}"
    if found and site in _IN_ATTENTION:
        return f"blocks.{layer}.attn.hook_{site}"
    if found and site.removeprefix("mlp_") in _IN_MLP and site.startswith("mlp_"):
        return f"blocks.{layer}.mlp.hook_{site.removeprefix('mlp_')}"
    if name == "embed":
        return "hook_embed"
    known = ", ".join([*_IN_BLOCK, *_IN_ATTENTION, *(f"mlp_{site}" for site in _IN_MLP)])
    raise LookupError(f"No activation is called {name!r}. Write SITE.LAYER with one of: {known}.")
