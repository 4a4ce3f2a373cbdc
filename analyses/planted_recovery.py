"""How long planted heads are found: the detectors and an ablation sweep on models whose answer is known, as they get harder.

    python analyses/planted_recovery.py --n-seeds 10 --out runs/planted-recovery

Heads of noise write everywhere, ``noise`` times the length of what a token writes, so that what one head says is disturbed by all
others; ``sharpness`` is the score of a match (30: attention is hard, 3: soft). Written are ``recovery.csv``, one row a model and way of
finding, and ``recovery.png``, the share of planted heads at the top of the ranking. ``recall_at_k`` is that share, ``recall_at_threshold`` the share
above the calibrated threshold, ``false_positives`` the number of other heads above it. The sweep zeroes every head: found are the two heads of
largest effect, which should be the previous-token and the induction head; a decoy has none.
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
PLANTED_ROLES = {
    "induction": ("induction", "decoy_induction"),
    "previous_token": ("previous_token",),
    "duplicate_token": ("duplicate_token",),
}


def planted_heads(planted: PlantedModel, roles: tuple[str, ...]) -> set[Head]:
    return {head for head, role in planted.roles.items() if role in roles}


def shares(found: Detection, heads: set[Head]) -> dict[str, float]:
    """How much of ``heads`` a detector finds."""
    top, above = set(found.top(len(heads))), set(found.detected)
    return {
        "recall_at_k": len(top & heads) / len(heads),
        "recall_at_threshold": len(above & heads) / len(heads),
        "false_positives": len(above - heads),
        "weakest": min(found.scores[head] for head in heads),
        "threshold": found.threshold,
    }


def ablation_recovery(planted: PlantedModel, seed: int) -> dict[str, float]:
    """How many of the heads that repeats need have the largest effects when every head is zeroed."""
    examples = tuple(Example(*prompt) for prompt in planted.prompts("repeats", 4, seed))
    effects = interp.ablate_heads(planted.model, Task("repeats", examples, "logit_diff"), ablation="zero").effects.mean(1)
    order = [planted.model.facts.heads()[i] for i in np.argsort(-np.abs(effects))]
    needed = planted_heads(planted, ("previous_token", "induction"))
    return {"recall_at_k": len(set(order[: len(needed)]) & needed) / len(needed)}


def recovery(noise: float, sharpness: float, seed: int) -> pd.DataFrame:
    """One row for each way of finding, on one model; hosts take turns."""
    n_kv_heads = 2 if seed % 2 else None
    planted = plant("repeats", seed=seed, n_kv_heads=n_kv_heads, sharpness=sharpness, noise_everywhere=True, noise_writes=noise)
    found: dict[str, dict[str, float]] = {
        role: shares(detection, planted_heads(planted, PLANTED_ROLES[role]))
        for role, detection in induction_family(planted.model, seed=seed).items()
    }
    copying = detect(planted.model, "copy_ov", seed=seed)
    assert isinstance(copying, Detection)
    found |= {
        "copy_ov": shares(copying, planted_heads(planted, ("induction",))),
        "ablation sweep": ablation_recovery(planted, seed),
    }
    case = {"noise": noise, "sharpness": sharpness, "seed": seed}
    return pd.DataFrame([{**case, "way": way, **numbers} for way, numbers in found.items()])


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel a way of finding, one line a sharpness; larger dots lie behind smaller ones."""
    ways = table["way"].unique()
    figure = Figure(figsize=(3 * len(ways), 3), layout="constrained")
    for axes, way in zip(figure.subplots(1, len(ways), sharey=True), ways, strict=True):
        for size, sharpness in zip((11, 8, 5, 2), SHARPNESS, strict=True):
            curve = table[(table["way"] == way) & (table["sharpness"] == sharpness)].groupby("noise")["recall_at_k"].mean()
            axes.plot([str(noise) for noise in curve.index], curve, marker="o", markersize=size, label=f"{sharpness:g}")
        axes.set(title=way, xlabel="what noise writes", ylim=(-0.05, 1.05))
    figure.axes[0].set_ylabel("planted heads found by rank")
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
    means = table.groupby(["way", "sharpness", "noise"], sort=False)[
        ["recall_at_k", "recall_at_threshold", "false_positives"]
    ].mean()
    print(means.unstack("noise").round(2).to_string())
    draw(table, options.out / "recovery.png")


if __name__ == "__main__":
    main()
