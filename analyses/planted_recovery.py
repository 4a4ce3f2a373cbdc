"""Recovery of planted heads by detectors and by an ablation sweep, on models of increasing difficulty.

    python analyses/planted_recovery.py --n-seeds 10 --out runs/planted-recovery

Noise heads write at every position, with ``noise`` times the norm of a token embedding, and disturb the output of every other head;
``sharpness`` is the attention score of a match (30: hard attention, 3: soft). The output is ``recovery.csv``, one row per model and
method, and ``recovery.png``, recall by rank. ``recall_at_k`` is the share of planted heads among the top k, ``recall_at_threshold`` the
share above the calibrated threshold, ``false_positives`` the number of other heads above it. The sweep zero-ablates every head; the two
heads of largest effect should be the previous-token and the induction head, and a decoy has none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import interp
from interp.detectors import Detection, detect, induction_family
from interp.heads import Head
from interp.models import PlantedModel, plant
from interp.tasks import Example, Task

NOISE, SHARPNESS = (0.0, 0.02, 0.05, 0.1, 0.3, 1.0), (30.0, 8.0, 4.0, 3.0)
DECOYS = {"induction": ["decoy_induction"]}


def planted_heads(planted: PlantedModel, *roles: str) -> set[Head]:
    return {head for head, role in planted.roles.items() if role in roles}


def recall(detection: Detection, heads: set[Head]) -> dict[str, float]:
    """Recall of ``heads`` by rank and by threshold, with false positives, the weakest score and the threshold."""
    top, above = set(detection.top(len(heads))), set(detection.detected)
    return {
        "recall_at_k": len(top & heads) / len(heads),
        "recall_at_threshold": len(above & heads) / len(heads),
        "false_positives": len(above - heads),
        "weakest": min(detection.scores[head] for head in heads),
        "threshold": detection.threshold,
    }


def ablation_recovery(planted: PlantedModel, seed: int) -> dict[str, float]:
    """Recall of the heads that repeats need among the largest effects of zero ablation."""
    examples = tuple(Example(*prompt) for prompt in planted.prompts("repeats", 4, seed))
    effects = interp.ablate_heads(planted.model, Task("repeats", examples, "logit_diff"), ablation="zero").effects.mean(1)
    order = [planted.model.facts.heads()[i] for i in np.argsort(-np.abs(effects))]
    needed = planted_heads(planted, "previous_token", "induction")
    return {"recall_at_k": len(set(order[: len(needed)]) & needed) / len(needed)}


def recovery(noise: float, sharpness: float, seed: int) -> pd.DataFrame:
    """One row per method on one model; GPT-2 and Llama alternate as hosts."""
    n_kv_heads = 2 if seed % 2 else None
    planted = plant("repeats", seed=seed, n_kv_heads=n_kv_heads, sharpness=sharpness, noise_everywhere=True, noise_writes=noise)
    family = induction_family(planted.model, seed=seed)
    by_method = {role: recall(family[role], planted_heads(planted, role, *DECOYS.get(role, []))) for role in family}
    copying = detect(planted.model, "copy_ov", seed=seed)
    assert isinstance(copying, Detection)
    by_method["copy_ov"] = recall(copying, planted_heads(planted, "induction"))
    by_method["ablation sweep"] = ablation_recovery(planted, seed)
    case = {"noise": noise, "sharpness": sharpness, "seed": seed}
    return pd.DataFrame([{**case, "method": method, **numbers} for method, numbers in by_method.items()])


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel per method, one line per sharpness; larger markers lie behind smaller ones."""
    methods = table["method"].unique()
    figure = Figure(figsize=(3 * len(methods), 3), layout="constrained")
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True), methods, strict=True):
        for size, sharpness in zip((11, 8, 5, 2), SHARPNESS, strict=True):
            curve = (
                table[(table["method"] == method) & (table["sharpness"] == sharpness)].groupby("noise")["recall_at_k"].mean()
            )
            axes.plot([str(noise) for noise in curve.index], curve, marker="o", markersize=size, label=f"{sharpness:g}")
        axes.set(title=method, xlabel="norm of noise heads' outputs", ylim=(-0.05, 1.05))
    figure.axes[0].set_ylabel("recall of planted heads by rank")
    figure.axes[0].legend(title="sharpness")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/planted-recovery"))
    options = parser.parse_args()
    cases = [(noise, sharpness) for noise in NOISE for sharpness in SHARPNESS]
    table = pd.concat([recovery(*case, seed) for case in cases for seed in range(options.n_seeds)], ignore_index=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "recovery.csv", index=False)
    numbers = ["recall_at_k", "recall_at_threshold", "false_positives"]
    means = table.groupby(["method", "sharpness", "noise"], sort=False)[numbers].mean()
    print(means.unstack("noise").round(2).to_string())
    draw(table, options.out / "recovery.png")


if __name__ == "__main__":
    main()
