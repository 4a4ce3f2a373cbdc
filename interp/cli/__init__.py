"""The `interp` command. Importing this room imports no torch: each command imports what it needs when it runs."""

import sys


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    from interp.cli.exit_codes import INTERRUPTED, PIPE_CLOSED
    from interp.cli.terminal import discard_output

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # for tokens that the terminal cannot show
    try:
        from interp.cli.app import app

        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        discard_output()
        sys.exit(PIPE_CLOSED)
