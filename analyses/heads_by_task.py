"""Which head serves which task: the change in accuracy on every task when each head of a model is ablated.

    python analyses/heads_by_task.py --model interp-mini --n-prompts 100 --out runs/heads-by-task.csv

Values are accuracy(ablated) - accuracy(clean): -1 means that the task fails without this one head. Rows show what a head does, columns
how few heads a task depends on: a head that matters for every task is not a specialist, and a task for which no single head matters may
depend on heads that back each other up. Cells whose 95% interval over prompts includes 0, or whose q-value exceeds 0.05, print as a dot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import interp
from interp.tasks import task_names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="interp-mini")
    parser.add_argument("--n-prompts", type=int, default=100)
    parser.add_argument("--ablation", default="mean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="CSV with intervals and q-values")
    options = parser.parse_args()
    model = interp.load_model(options.model)
    tables = []
    for name in task_names():
        task = interp.make_task(name, model, n_prompts=options.n_prompts, seed=options.seed)
        result = interp.ablate_heads(model, task, ablation=options.ablation, metric="accuracy", seed=options.seed)
        tables.append(result.heads().assign(task=name))
    table = pd.concat(tables, ignore_index=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out, index=False)
    significant = (table["q_value"] <= 0.05) & ((table["ci_low"] > 0) | (table["ci_high"] < 0))
    cells = table.assign(cell=[f"{e:+.2f}" if s else "." for e, s in zip(table["effect"], significant, strict=True)])
    print(cells.pivot(index="label", columns="task", values="cell").to_string())
    print("\naccuracy without ablation:")
    print(table.groupby("task")["baseline"].first().round(3).to_string())


if __name__ == "__main__":
    main()
