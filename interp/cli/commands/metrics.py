"""`interp metrics`: the metrics of attention patterns and of answers."""

from interp.cli.command_decorator import command
from interp.cli.terminal import Terminal


@command
def metrics(terminal: Terminal) -> None:
    """List the metrics of attention patterns and of answers, with unit, parameters and source."""
    from interp.metrics import ATTENTION_METRICS, OUTCOMES

    described = [(metric, ATTENTION_METRICS.describe(name)) for name, metric in ATTENTION_METRICS.entries().items()]
    attention = [
        {"name": m.name, "about": about, "unit": m.unit, "axis": m.axis, "parameters": dict(m.parameters), "paper": m.paper}
        for m, about in described
    ]
    answers = [{"name": name, "about": OUTCOMES.describe(name), "unit": m.unit} for name, m in OUTCOMES.entries().items()]
    cells = []
    for row in attention:
        parameters = " ".join(f"{name}={value}" for name, value in row["parameters"].items())
        cells.append((row["name"], row["about"], row["unit"], parameters, row["paper"]))
    terminal.line("Of attention patterns, for `interp attention --metrics`; write parameters as windowed_distance:window=20.")
    terminal.table(("metric", "description", "unit", "parameters", "source"), cells)
    terminal.line("Of answers, for `interp ablate --metric`.")
    terminal.table(("metric", "description", "unit"), [(row["name"], row["about"], row["unit"]) for row in answers])
    terminal.emit({"attention": attention, "answers": answers})
