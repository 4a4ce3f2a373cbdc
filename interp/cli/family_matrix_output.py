"""The table of `interp doctor --matrix`: counts, one line per family, and why cells are refused."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PAGE = """# Families of architectures

Written by `interp doctor --matrix --out docs/validation/families.md`: tiny random models of transformers' families,
each number of the engine against the plain Hugging Face model. Cells are relative errors where the number is right;
what each check compares is said in `interp/family_matrix.py`."""


def counts(table: "pd.DataFrame") -> dict[str, int]:
    """Families: ``measured``; ``right`` in exact sweeps and exact edges; ``refused`` in one of these; ``wrong`` or crashing anywhere;
    ``not built`` at these sizes. Encoders count for ``right`` with their attention."""
    cells: Any = table.pivot(index=["kind", "family"], columns="check", values="verdict")
    built: Any = cells[cells["build"].isna()] if "build" in cells else cells
    fast = (built[["zero_sweep", "exact_edges"]] == "right").all(axis=1)
    observed = (built.index.get_level_values("kind") == "encoder") & (built["attention"] == "right")
    wrong = built.isin(["WRONG", "CRASH"]).any(axis=1)
    right = (fast | observed) & ~wrong
    return {
        "measured": len(built),
        "right": int(right.sum()),
        "refused": int((~right & ~wrong).sum()),
        "wrong": int(wrong.sum()),
        "not built": len(cells) - len(built),
    }


def as_markdown(table: "pd.DataFrame") -> str:
    """The page of ``docs/validation``: counts, one line per family, and the sentences of refusals."""
    from interp.family_matrix import CHECKS

    built: Any = table[table["check"] != "build"]
    unbuilt: Any = table[table["check"] == "build"]
    found = ", ".join(f"{n} {word}" for word, n in counts(table).items())
    lines = [PAGE, ""]
    lines += [f"Families: {found}.", "", f"| family | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 1) + "|"]
    for (family, kind), part in built.groupby(["family", "kind"], sort=False):
        lines.append(f"| {family}{' (encoder)' if kind == 'encoder' else ''} | {' | '.join(map(cell, part.itertuples()))} |")
    lines += ["", "## What is refused, and why", ""]
    noted = built[built["note"] != ""].groupby(["family", "kind", "note"], sort=False)["check"].agg(", ".join)
    lines += [_item(f"{family} ({kind}), {checks}: {note}") for (family, kind, note), checks in noted.items()]
    lines += ["", "## Not built at these sizes", ""]
    lines += [_item(f"{row.family}: {row.note}") for row in unbuilt.itertuples()]
    return "\n".join(lines) + "\n"


def _item(text: str) -> str:
    return fill(text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def cell(row: Any) -> str:
    """The verdict with its relative error."""
    error = "" if row.error != row.error else f"{row.error:.0e}"
    return error if row.verdict == "right" and error else f"{row.verdict} {error}".strip()
