"""Verbs to begin with: the demo, what there is, activations of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmix.cli.shared import DryRun, Options, tell, tell_costs


def demo(
    data: Annotated[
        str, typer.Option(help="text (a sentence encoder on Python's documentation) or digits.")
    ] = "text",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default unmix-demo-DATA.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A smaller, faster version of everything.")] = False,
    dry_run: DryRun = False,
) -> None:
    """The main job on real input: activations, features, encoders, trust, a report and an atlas to open."""
    from unmix.demo import run_demo

    run_demo(data, out or Path(f"unmix-demo-{data}"), small, dry_run)


def list_(
    noun: Annotated[str, typer.Argument(help="finders, encoders, worlds, scores, engines or studies.")] = "",
) -> None:
    """List what there is of one noun."""
    from unmix.shelf import listing

    tell(listing(noun))


def show(kind: Annotated[str, typer.Argument(help="A name from `unmix list`, such as TopKSAE.")]) -> None:
    """Fields, defaults, equation and reference of one recipe."""
    from unmix.shelf import page

    tell(page(kind))


def activations(
    model: Annotated[
        str,
        typer.Argument(
            help="A transformers folder, an installed package that carries one, module:build or file.py:build; or "
            "responses of neurons (.npy, .nwb)."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="Text (file, folder, 'standard-library'); for a module images (folder, .zip) or an array."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of shards to make.")],
    layer: Annotated[str, typer.Option(help="Dotted path of the layer, such as encoder.layer.3.")] = "",
    options: Options = None,
    encoding: Annotated[str, typer.Option(help="Encoding of text files.")] = "utf-8",
    overwrite: Annotated[bool, typer.Option(help="Replace a folder that holds something else.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run a model on data and keep one layer's activations as memory-mapped shards.

    Responses of neurons go with their images: unmix activations r.npy --data images.zip repeats=raw.npy -o acts/
    (repeats: single presentations; or stimulus=trials.npy window=[50,250] bin=1, for trials over time).
    """
    from unmix.activations.command import collect_command
    from unmix.core.options import parse

    told = collect_command(model, layer, data, out, parse(options or []), encoding, overwrite, dry_run)
    tell(told) if isinstance(told, str) else tell_costs(told)
