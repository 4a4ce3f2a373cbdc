"""A table of heads as a ranking, on the terminal and as JSON; several metrics as one line each."""

from typing import TYPE_CHECKING, Any

from interp.cli.terminal import Terminal
from interp.experiments.estimate_agreement_sentence import agreement_sentence
from interp.records import prompts_text

if TYPE_CHECKING:
    import pandas as pd

    from interp.records import RunRecord
    from interp.store import StoredRun

SIGNIFICANT = 0.05
"""The q-value that a reader looks for: where too few prompts rule it out, the output says so."""


def effect_definition(table: "pd.DataFrame") -> str:
    """The definition of the effect, its unit, and the meaning of its sign for the metric of this table."""
    from interp.ablation.effect_tables import sign_meaning

    unit = f", in {table['unit'].iloc[0]}" if "unit" in table else ""
    return f"effect = metric(ablated) - metric(clean){unit}; {sign_meaning(str(table['metric'].iloc[0]))}"


def ranked(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows by the absolute value of their effect (or of their score), largest first, ties by head; one metric after the other."""
    order = {metric: place for place, metric in enumerate(dict.fromkeys(table["metric"]))}
    rows = table.sort_values(_column(table), key=abs, ascending=False, kind="stable")
    return rows.sort_values("metric", key=lambda metrics: metrics.map(order), kind="stable")


def print_ranking(terminal: Terminal, table: "pd.DataFrame", top: int = 0) -> None:
    """The ``top`` rows of the ranking (0: all) on stdout."""
    from interp.ablation.effect_tables import NO_HEAD
    from interp.statistics import least_p_value

    shown = ranked(table)
    rows = (shown.head(top) if top else shown).to_dict("records")
    if _column(table) == "value":
        terminal.table(
            ("", "head", "value", "unit"), [_score_cells(i, row) for i, row in enumerate(rows, 1)], right=("", "value")
        )
        return
    terminal.line(effect_definition(table))
    n_heads = sum(second == NO_HEAD for second in table["layer2"]) if "layer2" in table else len(table)
    n, what = int(table["n"].iloc[0]), "prompts"
    if "n_clusters" in table:
        n_prompts, n, what = n, int(table["n_clusters"].iloc[0]), "clusters"
        terminal.line(f"{prompts_text(n_prompts, n)}: intervals and q are over clusters.")
    least = least_p_value(n_heads, n)
    if n_heads * least > SIGNIFICANT:
        which = "no head" if least > SIGNIFICANT else f"no head alone among {n_heads:,}"
        terminal.line(
            f"With {n} {what} no p-value can be below {least:.2g}, so that {which} can reach q <= {SIGNIFICANT}: use more {what}."
        )
    columns = ["", "head", "effect", "95% interval", "q", "control", "exceeds_control"]
    cells = [_effect_cells(i, row) for i, row in enumerate(rows, 1)]
    if "interaction" in table:
        columns += ["interaction", "95% interval of it"]
        cells = [own + _interaction_cells(row) for own, row in zip(cells, rows, strict=True)]
    terminal.table(columns, cells, right=[name for name in columns if name not in ("head", "exceeds_control")])
    if any(row["exceeds_control"] or row["exceeds_layer_control"] for row in rows):
        terminal.line(
            "exceeds_control: the interval lies farther from 0 than that of the other heads' mean, in all layers or in its own."
        )


def print_estimator(terminal: Terminal, record: "RunRecord") -> None:
    """That effects are estimates, on stdout; nothing where they were measured."""
    if record.arguments.get("estimator") == "attribution":
        terminal.line("Effects are gradient estimates of first order (attribution): no head was ablated.")


def print_metrics(terminal: Terminal, run: "StoredRun", top: int = 0) -> None:
    """One line per metric of an observation: mean, minimum, and the ``top`` heads (0: four) with the largest values."""
    rows = []
    stored = set(run.heads()["metric"])
    for name, about in run.metrics.items():
        if name not in stored:
            rows.append([about["label"], about["unit"], "", "", f"a table over {about['axis']}, in values.safetensors"])
            continue
        scores = run.scores(name)
        values = scores.values[scores.values == scores.values]
        mean, low = (_number(values.mean()), _number(values.min())) if values.size else ("", "")
        heads = ", ".join(f"{head} {_number(scores[head])}" for head in scores.top(top or 4, by="highest"))
        rows.append([about["label"], about["unit"], mean, low, heads])
    terminal.table(("metric", "unit", "mean", "lowest", "highest"), rows, right=("mean", "lowest"))


def print_undefined(terminal: Terminal, run: "StoredRun", table: "pd.DataFrame") -> None:
    """Why the value of some heads is undefined, one line for each metric where that is so."""
    if not run.metrics:
        return
    for metric, values in table.groupby("metric", sort=False)["value"]:
        if n := sum(value != value for value in values):
            terminal.line(f"{metric}: undefined for {n} of {len(values)} heads: {run.metrics[str(metric)]['nan_reason']}.")


def print_agreement(terminal: Terminal, run: "StoredRun") -> None:
    """``agreement_sentence`` on stdout; nothing for other runs."""
    if sentence := agreement_sentence(run):
        terminal.line(sentence)


def head_rows(run: "StoredRun", metric: str | None = None) -> "pd.DataFrame":
    """The ``heads`` table of a run, or its rows of one metric. Raises LookupError for a metric that the run does not have."""
    table = run.heads()
    if metric is None:
        return table
    chosen = table.loc[table["metric"] == metric]
    if chosen.empty:
        raise LookupError(f"{run.path} has no metric {metric!r}. There are: {', '.join(dict.fromkeys(table['metric']))}.")
    return chosen


def as_json(run: "StoredRun", metric: str | None = None) -> dict[str, Any]:
    """The run as one JSON object: its path, its record, and its rows by rank."""
    rows = [{str(key): value for key, value in row.items()} for row in ranked(head_rows(run, metric)).to_dict("records")]
    facts = {"path": str(run.path), "status": run.status, "details": run.manifest["details"]}
    return {**facts, "record": run.record.to_json(), "heads": rows}


def _column(table: "pd.DataFrame") -> str:
    return "effect" if "effect" in table else "value"


def _effect_cells(place: int, row: dict[Any, Any]) -> list[str]:
    interval = f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}"
    distinct = "yes" if row["exceeds_control"] else "in its layer" if row["exceeds_layer_control"] else ""
    q_value = "< 0.001" if row["q_value"] < 0.001 else f"{row['q_value']:.3f}"
    control = "" if row["control"] != row["control"] else f"{row['control']:+.3f}"
    return [str(place), row["label"], f"{row['effect']:+.3f}", interval, q_value, control, distinct]


def _interaction_cells(row: dict[Any, Any]) -> list[str]:
    """The interaction of a pair; nothing for a single head."""
    if row["interaction"] != row["interaction"]:
        return ["", ""]
    return [f"{row['interaction']:+.3f}", f"{row['interaction_ci_low']:+.3f} to {row['interaction_ci_high']:+.3f}"]


def _score_cells(place: int, row: dict[Any, Any]) -> list[str]:
    return [str(place), row["label"], _number(row["value"]), row["unit"]]


def _number(value: float) -> str:
    """Three significant digits, all of a number of 1,000 or more; nothing for NaN."""
    return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
