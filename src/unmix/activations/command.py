"""`unmix activations`: the recipe from words of the command line, its costs, and the shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmix.activations import COLLECTORS
from unmix.activations.arrays import open_array
from unmix.activations.hooks import outline
from unmix.activations.images import open_images
from unmix.activations.models import find_model
from unmix.activations.text import open_text
from unmix.core.errors import UsageError, suggest
from unmix.core.pictures import is_picture
from unmix.core.watch import Progress

LOOKS = ("white", "ground", "axes")  # options of pictures, not of the recipe


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
    so; white, ground, axes as `open_images` takes them) or an array; a .npy or .nwb file holds responses of neurons,
    data are their images, and options those of `collect_recording`; all else is a language model on text.
    Raises `UsageError` for an option that the recipe does not have, or several values of one, or no layer.
    """
    if Path(model).suffix.lower() in (".npy", ".nwb"):
        return _recording(model, layer, data, out, options, overwrite, dry_run)
    kind = "ModuleActivations" if ":" in model and not Path(model).exists() else "TextActivations"
    cls = COLLECTORS[kind]
    looks = {name: options.pop(name)[-1] for name in LOOKS if name in options and kind == "ModuleActivations"}
    for name, values in options.items():
        if name not in cls.model_fields:
            raise UsageError(f"{kind}.{name}: no such field; {suggest(name, cls.model_fields)}")
        if len(values) > 1 and "tuple" not in str(cls.model_fields[name].annotation):
            raise UsageError(f"{kind}.{name}: one value here, got {len(values)}; run once for each")
    if not layer and kind == "TextActivations":
        raise UsageError(f"--layer: name the layer of the model, one of {_layers(model)}")
    given = {name: values[0] if len(values) == 1 else tuple(values) for name, values in options.items()}
    recipe = cls(**{**given, "model": model, "layer": layer})
    source = (
        open_text(data, encoding)
        if kind == "TextActivations"
        else _module_data(data, getattr(recipe, "side", None), looks)
    )
    if dry_run:
        names = {"bytes": "disk_bytes", "memory": "memory_bytes"}
        return {names.get(name, name): value for name, value in recipe.estimate(source).items()}
    rows = recipe.collect(source, out, Progress("activations"), overwrite)
    told = f"activations  {rows.shape[0]:,} rows of width {rows.shape[1]} in {out}; {rows.about['taken']}"
    if unread := rows.about.get("unread", 0):
        told += f"; {unread:,} documents are not read to their end (tokens={recipe.tokens})"
    return told


def _layers(model: str) -> str:
    source = find_model(model)
    return outline(source.load(), most=24)


def _recording(
    responses: str,
    layer: str,
    images: str,
    out: Path,
    options: dict[str, list[Any]],
    overwrite: bool,
    dry_run: bool,
) -> str:
    from unmix.activations.recordings import collect_recording

    several, known = ("names", "blank", "units"), ("repeats", "stimulus", "window", "bin", "table")
    for name, values in options.items():
        if name not in (*known, *several):
            raise UsageError(f"{name}: no such option of recordings; {suggest(name, [*known, *several])}")
        if len(values) > 1 and name in known:
            raise UsageError(f"{name}: one value here, got {len(values)}" + "; window=[50,250]" * (name == "window"))
    if layer or dry_run:
        raise UsageError("--layer, --dry-run: are for models; responses of neurons are read in seconds")
    given: dict[str, Any] = {name: values if name in several else values[0] for name, values in options.items()}
    if len(given.get("names", ())) == 1:
        given["names"] = given["names"][0]  # a file, or a list in brackets
    rows = collect_recording(responses, images, out, **given, overwrite=overwrite)
    told = f"responses  {rows.shape[1]} neurons to {rows.shape[0]:,} images in {out}"
    if "reliability" in rows.about:
        full = [value for value in rows.about["reliability"]["full"] if value is not None]
        mean = sum(full) / len(full) if full else float("nan")
        told += f"; reliability {mean:.2f} on average, {rows.about['unreliable']} neurons below 0.3"
    return told


def _module_data(data: str, side: int | None, looks: dict[str, Any]) -> Any:
    """Images, at their size or side x side, or what `open_array` takes."""
    archive, colon, inside = data.rpartition(":")
    if colon and archive.lower().endswith(".zip"):
        return open_images(archive, side, inside, **looks)
    path = Path(data)
    shards = any((path / name).exists() for name in ("manifest.json", "progress.json"))
    if path.suffix.lower() == ".zip" or (path.is_dir() and not shards) or is_picture(path.name):
        return open_images(path, side, **looks)
    if looks and path.suffix.lower() == ".npy":
        return open_images(path, **looks)
    if looks:
        raise UsageError(f"{', '.join(looks)}: for pictures, a folder or .zip of them or a .npy; not for {data}")
    return open_array(data)
