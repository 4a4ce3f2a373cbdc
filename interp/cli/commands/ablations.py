"""`interp ablations`: the ablations of a head, with their options."""

from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal


@command
def ablations(terminal: Terminal) -> None:
    """List the ablations of a head, for `interp ablate --ablation`; options are written streaming:n_sink=4,n_recent=64."""
    from interp.ablation.ablations import ablation_options, ablations
    from interp.options_text import option_text

    rows = [
        {
            "name": name,
            "about": about,
            "options": {o: None if p.default is p.empty else p.default for o, p in ablation_options(name).items()},
        }
        for name, about in ablations().items()
    ]
    cells = [(row["name"], row["about"], " ".join(f"{n}={option_text(v)}" for n, v in row["options"].items())) for row in rows]
    terminal.table(("ablation", "description", "options"), cells)
    terminal.emit({"ablations": rows})
