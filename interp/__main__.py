"""``python -m interp``: the command line, also where the ``interp`` script is not on the path."""

from interp.cli import main

if __name__ == "__main__":
    main()
