"""The `interp` command. Importing this room imports no torch: each command imports what it needs when it runs."""

import sys


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    from interp.cli.exit_codes import INTERRUPTED

    try:
        from interp.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
