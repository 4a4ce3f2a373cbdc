"""Names of edge scoring methods and edge ablations, with one line each: what a command offers without importing torch."""

from typing import Any

EDGE_METHODS = {
    "exact": "activation patching of every edge by itself",
    "eap": "edge attribution patching: gradient at the clean prompt, one backward pass",
    "eap-clean-corrupted": "EAP with the mean of the gradients at the clean and at the corrupted embedding",
    "eap-ig": "EAP with the mean gradient between the corrupted and the clean embedding (EAP-IG inputs)",
    "eap-ig-activations": "EAP with the mean gradient between corrupted and clean outputs of each layer's heads and MLP, replaced in turn",
    "eap-ig-activations-added": "the same with the change added to the output, so that earlier edges keep their gradient",
    "eap-ig-outputs": "exact change of the reader's output, times the mean gradient at that output",
}

IG_RULES = {
    "midpoint": "gradients in the middle of each step",
    "left": "gradients at one end of each step, as in the authors' code",
}


def line_options(method: str, steps: int, rule: str) -> dict[str, Any]:
    """How a method integrates gradients along lines, as records and identities state it: nothing for the others; no default rule."""
    if not method.startswith("eap-ig"):
        return {}
    return {"steps": steps} | ({"rule": rule} if rule != "midpoint" else {})


def check_exact_top(method: str, exact_top: int) -> None:
    """Raises ValueError for a number of edges below 0, and beside a method that patches all edges."""
    if exact_top < 0:
        raise ValueError(f"exact_top={exact_top} must be a number of edges, or 0 for estimates alone.")
    if exact_top and method in ("exact", "acdc"):
        raise ValueError(
            f"{method} estimates nothing, so exact_top={exact_top} has no edges to choose: leave it out, or use eap-ig."
        )


EDGE_ABLATIONS = {
    "counterfactual": "the writer's output on the corrupted prompt",
    "resample": "its output on another clean prompt of equal length",
    "mean": "its mean output over the clean prompts of equal length, position by position",
    "zero": "zero",
}
