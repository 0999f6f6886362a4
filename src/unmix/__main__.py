"""`python -m unmix` is the `unmix` command."""

from unmix.cli import main

main()
