"""A table of heads as a ranking: on the terminal, as JSON rows, and as pictures."""

from typing import TYPE_CHECKING, Any

from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    import pandas as pd

    from interp.store import Run


def sign(table: "pd.DataFrame") -> str:
    """What an effect is, and what its sign says for the metric of this table."""
    from interp.metrics.importance import meaning

    return f"effect = metric(ablated) - metric(clean); {meaning(str(table['metric'].iloc[0]))}"


def ranked(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows ordered by the size of their effect (of their value, where scores were stored), largest first; ties in order of heads."""
    return table.sort_values(_column(table), key=abs, ascending=False, kind="stable")


def print_ranking(terminal: Terminal, table: "pd.DataFrame", top: int = 0) -> None:
    """The ``top`` rows of the ranking (0: all) on stdout."""
    shown = ranked(table)
    rows = (shown.head(top) if top else shown).to_dict("records")
    if _column(table) == "value":
        terminal.table(
            ("", "head", "value", "unit"), [_score_cells(i, row) for i, row in enumerate(rows, 1)], right=("", "value")
        )
        return
    terminal.line(sign(table))
    columns = ("", "head", "effect", "95% interval", "q", "control", "distinct")
    terminal.table(columns, [_effect_cells(i, row) for i, row in enumerate(rows, 1)], right=columns[0:1] + columns[2:6])


def print_agreement(terminal: Terminal, run: "Run") -> None:
    """How well the gradient estimate that chose the heads agrees with what was then measured; nothing for other runs."""
    found = run.manifest["details"].get("agreement")
    if found:
        rank = "undefined" if found["spearman"] is None else f"{found['spearman']:+.2f}"
        sign_share = "an undefined share" if found["same_sign"] is None else f"{found['same_sign']:.0%}"
        terminal.line(
            f"Estimate against exact, on the {found['n']} heads measured: Spearman {rank}, {found['top_overlap']:.0%} of the top "
            f"{found['k']} shared, {sign_share} with the same sign. The other heads were only estimated."
        )


def as_json(run: "Run") -> dict[str, Any]:
    """The run as one JSON object: where it is, how it was made, and its rows in order of rank."""
    rows = [{str(key): value for key, value in row.items()} for row in ranked(run.heads()).to_dict("records")]
    facts = {"path": str(run.path), "status": run.status, "details": run.manifest["details"]}
    return {**facts, "record": run.record.to_json(), "heads": rows}


def save_pictures(run: "Run") -> None:
    """Writes ``heads.png`` (the head map) and ``ranking.png`` of a sweep into its run directory, where missing.

    The interactive form carries plotly with it, five megabytes a file: `interp show --figure x.html` makes it when it is wanted.
    """
    from interp.figures import ranked_bars, save_figure

    for name, draw in (("heads", head_figure), ("ranking", lambda run: ranked_bars(run.heads()))):
        file = run.path / f"{name}.png"
        if not file.exists():
            save_figure(draw(run), file)


def head_figure(run: "Run") -> Any:
    """The head map of a run, a plotly figure."""
    from interp.figures import head_map

    if _column(run.heads()) == "value":
        return head_map(run.scores())
    return head_map(run.heads(), shape=run.manifest["details"]["shape"])


def _column(table: "pd.DataFrame") -> str:
    return "effect" if "effect" in table else "value"


def _effect_cells(place: int, row: dict[Any, Any]) -> list[str]:
    interval = f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}"
    distinct = "yes" if row["distinct"] else "in its layer" if row["distinct_in_layer"] else ""
    q_value = "< 0.001" if row["q_value"] < 0.001 else f"{row['q_value']:.3f}"
    return [str(place), row["label"], f"{row['effect']:+.3f}", interval, q_value, f"{row['control']:+.3f}", distinct]


def _score_cells(place: int, row: dict[Any, Any]) -> list[str]:
    return [str(place), row["label"], f"{row['value']:.3f}", row["unit"]]
