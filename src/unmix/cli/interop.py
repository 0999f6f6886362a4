"""The verb that reads what other libraries wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmix.cli.shared import tell


def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What another library wrote, on disk.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Features folder to write.")],
    format: Annotated[
        str | None, typer.Option(help="saelens, dictionary_learning or sparsify; default what it looks like.")
    ] = None,
    ignore: Annotated[
        str, typer.Option(help="Fields of its configuration that do not change what is computed, as NAME,NAME.")
    ] = "",
) -> None:
    """Features from a SAELens folder or a dictionary_learning or sparsify checkpoint; strict, nothing is run."""
    from unmix.interop.folder import read
    from unmix.interop.strict import must_be_new

    must_be_new(out, {"features.json", "tensors.safetensors"})
    features = read(folder, format, [name for name in ignore.split(",") if name])
    tell(f"{features.save(out)}  {features}")
