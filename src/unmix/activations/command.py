"""`unmix activations`: the recipe from words of the command line, its costs, and the shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmix.activations import COLLECTORS
from unmix.activations.arrays import open_array
from unmix.activations.images import open_images
from unmix.activations.text import open_text
from unmix.core.errors import UsageError
from unmix.core.recipe import suggest
from unmix.core.watch import Progress


def collect_command(
    model: str,
    layer: str,
    data: str,
    out: Path,
    options: dict[str, list[Any]],
    encoding: str = "utf-8",
    overwrite: bool = False,
    dry_run: bool = False,
) -> str | dict[str, float]:
    """Collect activations, or with `dry_run` say what that costs: one line about the shards, or amounts by name.

    model: `module:build` is a torch module on images (a folder or .zip; "a.zip:inside" takes those whose names begin
    so) or an array; everything else a language model on text.
    Raises `UsageError` for an option that the recipe does not have, or several values of one.
    """
    kind = "ModuleActivations" if ":" in model and not Path(model).exists() else "TextActivations"
    cls = COLLECTORS[kind]
    fields = {**{name: values[0] for name, values in options.items()}, "model": model, "layer": layer}
    for name, values in options.items():
        if name not in cls.model_fields:  # type: ignore[attr-defined]
            raise UsageError(f"{kind}.{name}: no such field; {suggest(name, cls.model_fields)}")  # type: ignore[attr-defined]
        if len(values) > 1:
            raise UsageError(f"{kind}.{name}: one value here, got {len(values)}; run once for each")
    recipe = cls(**fields)
    source = open_text(data, encoding) if kind == "TextActivations" else _module_data(data, fields.get("side"))
    if dry_run:
        names = {"bytes": "disk_bytes", "memory": "memory_bytes"}
        return {names.get(name, name): value for name, value in recipe.estimate(source).items()}
    rows = recipe.collect(source, out, Progress("activations"), overwrite)
    return f"activations  {rows.shape[0]:,} rows of width {rows.shape[1]} in {out}"


def _module_data(data: str, side: int | None) -> Any:
    """Images, at their size or side x side, or what `open_array` takes."""
    archive, colon, inside = data.rpartition(":")
    if colon and archive.lower().endswith(".zip"):
        return open_images(archive, side, inside)
    path = Path(data)
    shards = any((path / name).exists() for name in ("manifest.json", "progress.json"))
    if path.suffix.lower() == ".zip" or (path.is_dir() and not shards):
        return open_images(path, side)
    return open_array(data)
