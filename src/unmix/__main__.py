"""`unmix` and `python -m unmix`: the command; an interruption is told from the first import on."""

import os


def main() -> None:
    """Run the command line."""
    try:
        from unmix.cli import main as run

        run()
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted; nothing was begun\n")
        os._exit(130)


if __name__ == "__main__":
    main()
