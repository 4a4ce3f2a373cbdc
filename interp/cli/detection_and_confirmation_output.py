"""Detections and confirmations on the terminal and as JSON."""

from typing import TYPE_CHECKING, Any

from interp.cli.command_from_spec import print_location
from interp.cli.performance_output import print_performance
from interp.cli.terminal import Terminal
from interp.errors import settings_text
from interp.records import prompts_text

if TYPE_CHECKING:
    import pandas as pd

    from interp.confirmation import Confirmation
    from interp.detectors import Detection, TokenDetection
    from interp.store import StoredRun

    RoleResult = Detection | TokenDetection | Confirmation

MIN_HEADS_SHOWN = 5
"""The number of highest heads shown after a detection, beside those detected."""


def load_role_run(run: "StoredRun") -> "RoleResult | None":
    """The detection or confirmation that a run holds; None for other runs."""
    from interp.store import load_confirmation, load_detection

    load = {"detection": load_detection, "confirmation": load_confirmation}.get(str(run.manifest["details"].get("kind")))
    return load and load(run.path)


def print_role_run(terminal: Terminal, run: "StoredRun | None") -> None:
    """The result of a stored detection or confirmation, and where it is; nothing after a dry run."""
    if run is None:
        return
    result = load_role_run(run)
    assert result is not None
    print_detection(terminal, result)
    print_location(terminal, run, "prints and draws it")
    terminal.emit(detection_json(run, result))


def print_detection(terminal: Terminal, found: "RoleResult", top: int | None = None) -> None:
    """The result as text, with the ``top`` heads (0: all; default: those detected and the five highest)."""
    from interp.confirmation import Confirmation
    from interp.detectors import Detection

    print_performance(terminal, found.record, found.details.get("control_tasks"))
    if isinstance(found, Confirmation):
        _print_curve(terminal, found)
    elif isinstance(found, Detection):
        _print_heads(terminal, found, top)
    else:
        _print_tokens(terminal, found)


def result_table(found: "RoleResult") -> "pd.DataFrame":
    """The table of the result: heads, tokens, or the points of the ablation curve."""
    from interp.confirmation import Confirmation

    return found.tables["curve"] if isinstance(found, Confirmation) else found.to_dataframe()


def detection_json(run: "StoredRun", found: "RoleResult") -> dict[str, Any]:
    """The run as one JSON object: its path, its record and its tables."""
    from interp.confirmation import Confirmation
    from interp.detectors import Detection

    facts = {"path": str(run.path), "status": run.status, "role": found.role, "details": found.details}
    facts["record"] = found.record.to_json()
    if isinstance(found, Confirmation):
        return {**facts, "curve": _rows(result_table(found)), "sets": _rows(found.table)}
    if isinstance(found, Detection):
        decided = {"fwer": found.fwer, "literature_threshold": found.literature_threshold}
        found_heads = {"detected": found.detected, "above_literature": found.above_literature}
        named = {name: heads and [str(head) for head in heads] for name, heads in found_heads.items()}
        return {**facts, **decided, **named, "heads": _rows(result_table(found))}
    return {**facts, **{name: _rows(table) for name, table in found.tables.items()}, "tokens": _rows(result_table(found))}


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _print_heads(terminal: Terminal, found: "Detection", top: int | None) -> None:
    terminal.line(f"{found.role} by {found.scores.name}: {found.decision()}.")
    _print_details(terminal, found.details)
    numbers = ["score", "threshold", "control", *found.extra_scores]
    rows = [
        [str(place), row["label"], *(_number(row[name]) for name in numbers), "detected" if row["detected"] else ""]
        for place, row in enumerate(_rows(found.to_dataframe()), 1)
        if (row["detected"] or place <= MIN_HEADS_SHOWN if top is None else not top or place <= top)
    ]
    terminal.table(("", "head", *numbers, ""), rows, right=("", *numbers))


def _print_tokens(terminal: Terminal, found: "TokenDetection") -> None:
    chosen = ", ".join(f"{int(marks.sum())} {name}" for name, marks in found.masks.items())
    terminal.line(f"{found.role}: {chosen} of {sum(map(len, found.words)):,} tokens.")
    terminal.line("; ".join(f"{name} heads: {' '.join(map(str, heads)) or 'none'}" for name, heads in found.heads.items()))
    _print_details(terminal, found.details)
    if "statistics" in found.tables:
        table = found.tables["statistics"]
        cells = [[part if isinstance(part, str) else _number(part) for part in row.values()] for row in _rows(table)]
        terminal.table([str(name) for name in table.columns], cells)


def _print_curve(terminal: Terminal, found: "Confirmation") -> None:
    from interp.ablation.effect_tables import sign_meaning
    from interp.confirmation.head_sets import GROUPS, unmatched_sentence

    curve, details = found.tables["curve"], found.details
    n_clusters = found.record.n_clusters
    over = f" over {prompts_text(found.record.arguments['n_examples'], n_clusters)}" if n_clusters else ""
    terminal.line(
        f"{found.role}: effect on {found.record.metric} ({details['unit']}) of ablating the k highest-scoring heads of "
        f"{' '.join(details['detected'])}, with its 95% interval{over}; k = 0 is {found.record.metric} itself."
    )
    if not details["above_threshold"]:
        terminal.line("No head exceeds the threshold of the detection: these are its highest-scoring heads.")
    elif (n_detected := len(details["above_threshold"])) < len(details["detected"]):
        terminal.line(f"The first {n_detected} of them exceed the threshold of the detection, the others do not.")
    terminal.line(f"effect = value at k - value at k = 0; {sign_meaning(found.record.metric)}")
    if sentence := unmatched_sentence(details["unmatched"]):
        terminal.line(sentence)
    rows = []
    groups: Any = curve.groupby(["task", "positions", "k"], sort=False)
    for (task, where, k), points in groups:
        by_group = {row["group"]: row for row in points.to_dict("records")}
        rows.append([str(task), str(where), str(k), *(_point(by_group.get(group)) for group in GROUPS)])
    order = {where: i for i, where in enumerate(dict.fromkeys((row[0], row[1]) for row in rows))}
    rows.sort(key=lambda row: (order[row[0], row[1]], int(row[2])))
    groups_shown = ("top k" if group == "detected" else group.replace("_", " ") for group in GROUPS)
    terminal.table(("task", "positions", "k", *groups_shown), rows, right=("k",))


def _print_details(terminal: Terminal, details: dict[str, Any]) -> None:
    if plain := settings_text({name: value for name, value in details.items() if isinstance(value, int | float | str)}):
        terminal.line(f"  {plain}")


def _point(row: dict[Any, Any] | None) -> str:
    """The effect of ablated heads, whose interval leaves out what differs between prompts anyway; the outcome without ablation."""
    if row is None:
        return ""
    if not row["k"]:
        return f"{row['value']:.3g} ({row['ci_low']:.3g} to {row['ci_high']:.3g})"
    return f"{row['effect']:+.3g} ({row['effect_ci_low']:.2g} to {row['effect_ci_high']:.2g})"


def _number(value: Any) -> str:
    return "" if value is None or value != value else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
