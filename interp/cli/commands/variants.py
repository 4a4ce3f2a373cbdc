"""`interp variants`: the attention variants, with their options, sources and neutral settings."""

from collections.abc import Mapping
from typing import Any

from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal


@command
def variants(terminal: Terminal) -> None:
    """List the attention variants, for `interp fidelity --variant` and `interp ablate --ablation`: window:size=64.

    At its neutral setting a variant leaves a head as it is, bit for bit.
    """
    from interp.ablation.ablations import ablation_options
    from interp.interventions import INTERVENTIONS
    from interp.options_text import option_text

    def settings(options: Mapping[str, Any]) -> str:
        return ",".join(f"{name}={option_text(value)}" for name, value in options.items())

    rows = [
        {
            "name": name,
            "about": INTERVENTIONS.describe(name),
            "options": {o: None if p.default is p.empty else p.default for o, p in ablation_options(name).items()},
            "neutral": None if constructor.neutral is None else settings(constructor.neutral),
            "source": constructor.source,
        }
        for name, constructor in INTERVENTIONS.entries().items()
        if getattr(constructor, "source", "")
    ]
    cells = [
        (r["name"], r["about"], settings(r["options"]).replace(",", " "), r["neutral"] or "none", r["source"]) for r in rows
    ]
    terminal.table(("variant", "description", "options", "neutral setting", "source"), cells)
    terminal.emit({"variants": rows})
