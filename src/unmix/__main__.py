"""`unmix` and `python -m unmix`: the command; an interruption is told from the first import on."""

import os
import sys


def main() -> None:
    """Run the command line."""
    try:
        from unmix.cli import main as run

        run()
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted; what is done is kept: run the same command again to go on\n")
        os._exit(130)


def leave_folder() -> None:
    """Take the current folder from the front of the path, where python -m puts it, unless unmix was found in it.

    The folder may be somebody else's: a file of it must not stand for a library.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return
    if not sys.flags.safe_path and sys.path[:1] in ([""], [here]) and here != home:
        del sys.path[0]


if __name__ == "__main__":
    leave_folder()
    main()
