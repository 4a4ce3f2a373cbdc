"""Cold start in new processes: seconds of ``import interp`` and ``interp --help``, and whether torch and numpy came along.

Processor time is that of the new process, which does not depend on what else the machine does. A bare interpreter stands beside them.
"""

from __future__ import annotations

import resource
import statistics
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


def processor_seconds(code: str) -> float:
    """Processor time of one new interpreter that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rows = []
    for name, code in SNIPPETS.items():
        told = "import atexit, sys; atexit.register(lambda: sys.stderr.write(' '.join({'torch', 'numpy'} & {*sys.modules})))"
        imported = start(f"{told}\n{code}").split()
        start(code)  # compiles and caches what it imports
        rows.append(
            {
                "start": name,
                "seconds": seconds(lambda code=code: start(code), repeats=7),
                "processor seconds": statistics.median(processor_seconds(code) for _ in range(7)),
                "torch imported": "torch" in imported,
                "numpy imported": "numpy" in imported,
            }
        )
    save("import", rows)


if __name__ == "__main__":
    main()
