"""Screenshots of the dashboard for ``docs/images``: starts it on the embedded model and opens each page, two of them with SmolLM2 as well.

Run by ``make picture``; needs Chromium and the extra ``test``, and SmolLM2 (``interp models install smollm2``), without which its pictures
stay as they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from interp.models import installed_names  # noqa: E402
from tests.browser.app import PATIENCE, App, chromium, serving  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1500, "height": 1120}
TALL = {"retrieval": 2650}
"""Pages whose screenshot is taller than a screen, and its height."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMANDS = [
    "ablate --task ioi --ablation mean",
    "ablate --task induction --ablation zero",
    "attention --task ioi --out runs/attention-ioi",
    "detect retrieval --set n_lengths=10 --set n_depths=6",
    "confirm FOUND",
    "circuit --task ioi --n-prompts 32",
]
FOUND = "runs/retrieval-*"
"""The run of the detection; its folder is named after its digest."""
VIEWS: dict[str, tuple[str, dict[str, str], bool]] = {
    "attention": ("", {"head": "L1H3"}, False),
    "attention-dark": ("", {"task": "ioi", "head": "L1H2", "gamma": "0.5"}, True),
    "heads": ("heads", {"metric": "induction_score", "head": "L1H3"}, False),
    "tokens": ("tokens", {"n_texts": "4"}, False),
    "retrieval": ("retrieval", {"retrieval.n_lengths": "10", "retrieval.n_depths": "6", "head": "L1H3"}, False),
    "ablate": ("ablate", {"task": "ioi", "head": "L1H2"}, False),
    "circuit": ("circuit", {"head": "L1H0"}, False),
    "compare": ("compare", {"task": "ioi", "task_b": "ioi", "head": "L1H2"}, False),
    "runs": ("runs", {"run": "attention-ioi", "figure_metric": "induction_score"}, False),
}
"""Page, query and dark theme of each screenshot."""
SMOLLM2_RUN = "runs/smollm2-ioi"
SMOLLM2_COMMAND = f"ablate --model smollm2 --task ioi -n 32 --positions end --out {SMOLLM2_RUN}"
SMOLLM2_PROMPTS = {"model": "smollm2", "task": "ioi", "head": "L23H3"}
SMOLLM2_VIEWS = {
    "smollm2-attention": ("", SMOLLM2_PROMPTS, False),
    "smollm2-ablate": ("ablate", SMOLLM2_PROMPTS | {"n_prompts": "32", "positions": "end"}, False),
}


def main() -> None:
    has_smollm2 = "smollm2" in installed_names()
    if not has_smollm2:
        sys.stderr.write("SmolLM2 is not installed (interp models install smollm2): its pictures stay as they are.\n")
    commands, views = [*COMMANDS, *([SMOLLM2_COMMAND] * has_smollm2)], VIEWS | (SMOLLM2_VIEWS if has_smollm2 else {})
    with TemporaryDirectory() as folder, serving(Path(folder)) as server, chromium() as browser:
        for command in commands:
            arguments = [str(next(Path(folder).glob(FOUND))) if word == "FOUND" else word for word in command.split()]
            subprocess.run([sys.executable, "-m", "interp", *arguments, "--quiet"], check=True, cwd=folder, env=ENVIRONMENT)
        if has_smollm2:
            copy(Path(folder, SMOLLM2_RUN, "ranking.png"), IMAGES / "smollm2-heads.png")
        for name, (page, query, dark) in views.items():
            tab = browser.new_page(
                viewport=SIZE | ({"height": TALL[name]} if name in TALL else {}), color_scheme="dark" if dark else "light"
            )
            app = App(tab, server.address)
            app.open(page, **query)
            tab.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=PATIENCE)
            tab.wait_for_timeout(1500)  # figures fade in
            tab.screenshot(path=IMAGES / f"dashboard-{name}.png")
            tab.close()


if __name__ == "__main__":
    main()
