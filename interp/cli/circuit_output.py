"""Circuits on the terminal and as JSON."""

from typing import TYPE_CHECKING, Any

from interp.cli.terminal import Terminal

if TYPE_CHECKING:
    import pandas as pd

    from interp.store import StoredRun

COUNTERFACTUAL, EXACT = "counterfactual", "exact"
EDGES_SHOWN = 10
"""So many edges are shown after a search."""


def print_circuit(terminal: Terminal, run: "StoredRun", top: int = 0) -> None:
    """What was found, how far it carries the behaviour, and its ``top`` edges (0: all) by the size of their effect."""
    said, record = run.manifest["details"]["circuit"], run.record
    edges, curve = edges_by_effect(run), run.table("faithfulness")
    terminal.line(
        f"{said['method']} on {record.task}: {said['n_edges']:,} of {said['n_graph_edges']:,} edges of {record.model}, {said['n_heads']} heads; "
        f"{record.metric} {said['clean']:.3g} clean, {said['corrupted']:.3g} corrupted."
    )
    if said["n_edges"] < min(said["requested_size"], said["n_nonzero"]):
        terminal.line(f"Of the {said['requested_size']} largest the others lie on no way from the embedding to the logits.")
    terminal.line(_faithful(curve, said["requested_size"], record.arguments.get("ablation", COUNTERFACTUAL)))
    if "n_discovery_prompts" in said:
        again = f", {said['n_shared_prompts']} of which are among the first" if said["n_shared_prompts"] else ""
        terminal.line(f"Found on {said['n_discovery_prompts']} prompts, tested on {said['n_test_prompts']} others{again}.")
    if said["n_nonzero"] < said["requested_size"]:
        hint = "; where attention is saturated gradients vanish, and --method exact sees more" * (said["method"] != EXACT)
        terminal.line(f"Only {said['n_nonzero']} edges have an effect above rounding ({said['rounding_floor']:.2g}){hint}.")
    terminal.line("effect = metric(corrupted edge) - metric(clean)")
    rows = edges.query("in_circuit").head(top) if top else edges.query("in_circuit")
    cells = [[str(i), row["edge"], f"{row['score']:+.3g}", row["unit"]] for i, row in enumerate(_rows(rows), 1)]
    terminal.table(("", "edge", "effect", "unit"), cells, right=("", "effect"))


def circuit_json(run: "StoredRun") -> dict[str, Any]:
    """The run as one JSON object."""
    facts = {"path": str(run.path), "status": run.status, **run.manifest["details"]["circuit"], "record": run.record.to_json()}
    return {**facts, "edges": _rows(edges_by_effect(run)), "faithfulness": _rows(run.table("faithfulness"))}


def edges_by_effect(run: "StoredRun") -> "pd.DataFrame":
    """All edges by the size of their effect, largest first."""
    return run.table("edges").sort_values("score", key=abs, ascending=False, kind="stable").reset_index(drop=True)


def _faithful(curve: "pd.DataFrame", asked: int, ablation: str) -> str:
    """How much of the difference the circuit recovers, or the largest one within it that was tried, and random ones of that size do."""
    sizes = curve["n_edges"].tolist()
    size = max((n for n in sizes if n <= asked), default=min(sizes))
    own = curve.query("n_edges == @size")
    found, drawn = _rows(own.query("kind == 'found'"))[0], own.query("kind == 'random'")["faithfulness"]
    chance = f"; {len(drawn)} random ones of that size {drawn.min():z.2f} to {drawn.max():z.2f}" if len(drawn) else ""
    recovers = "it recovers" if size == asked else f"the {size} largest edges recover"
    return (
        f"On other prompts {recovers} {found['faithfulness']:z.2f} of the difference ({found['low']:z.2f} to {found['high']:z.2f} over "
        f"prompts), all other edges being corrupted ({ablation}){chance}."
    )


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
