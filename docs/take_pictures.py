"""Takes the pictures of the dashboard in ``docs/images``: starts it as a user would, on the embedded model, and opens each page.

``make picture`` runs this; it needs Chromium and the extra ``test``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser.app import PATIENCE, App, chromium, serving  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1500, "height": 1120}
TALL = {"retrieval": 2650}
"""Pages that are pictured beyond what a screen shows, and their height."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ASKED = [
    "ablate --task ioi --ablation mean",
    "ablate --task induction --ablation zero",
    "attention --task ioi --out runs/attention-ioi",
    "detect retrieval --set n_lengths=10 --set n_depths=6",
    "confirm FOUND",
]
FOUND = "runs/retrieval-*"
"""The run of the detection, which is named after what it is."""
VIEWS: dict[str, tuple[str, dict[str, str], bool]] = {
    "attention": ("", {"head": "L1H3"}, False),
    "attention-dark": ("", {"task": "ioi", "head": "L1H2", "gamma": "0.5"}, True),
    "heads": ("heads", {"reading": "induction_score", "head": "L1H3"}, False),
    "tokens": ("tokens", {"n_texts": "4"}, False),
    "retrieval": ("retrieval", {"retrieval.n_lengths": "10", "retrieval.n_depths": "6", "head": "L1H3"}, False),
    "ablate": ("ablate", {"task": "ioi", "head": "L1H2"}, False),
    "compare": ("compare", {"task": "ioi", "task_b": "ioi", "head": "L1H2"}, False),
    "runs": ("runs", {"run": "attention-ioi", "shown": "induction_score"}, False),
}
"""Of each picture the page, its address, and whether the browser is dark."""


def main() -> None:
    with TemporaryDirectory() as folder, serving(Path(folder)) as server, chromium() as browser:
        for words in ASKED:
            asked = [str(next(Path(folder).glob(FOUND))) if word == "FOUND" else word for word in words.split()]
            subprocess.run([sys.executable, "-m", "interp", *asked, "--quiet"], check=True, cwd=folder, env=ENVIRONMENT)
        for name, (page, query, dark) in VIEWS.items():
            tab = browser.new_page(
                viewport=SIZE | ({"height": TALL[name]} if name in TALL else {}), color_scheme="dark" if dark else "light"
            )
            app = App(tab, server.address)
            app.open(page, **query)
            tab.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=PATIENCE)
            tab.wait_for_timeout(1500)  # pictures fade in
            tab.screenshot(path=IMAGES / f"dashboard-{name}.png")
            tab.close()


if __name__ == "__main__":
    main()
