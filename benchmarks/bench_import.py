"""Cold start in new processes: seconds of ``import interp`` and ``interp --help``, and whether torch came along.

A bare interpreter stands beside them.
"""

from __future__ import annotations

import subprocess
import sys

from measure import save, seconds

SNIPPETS = {
    "bare interpreter": "pass",
    "import interp": "import interp",
    "interp --help": "import sys; sys.argv = ['interp', '--help']; from interp.cli import main; main()",
}


def start(code: str) -> str:
    """Runs the code in a new interpreter; what it wrote to stderr."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def main() -> None:
    rows = []
    for name, code in SNIPPETS.items():
        guarded = f"import atexit, sys; atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules)))\n{code}"
        start(code)  # compiles and caches what it imports
        rows.append(
            {
                "start": name,
                "seconds": seconds(lambda code=code: start(code), repeats=7),
                "torch imported": start(guarded) == "True",
            }
        )
    save("import", rows)


if __name__ == "__main__":
    main()
