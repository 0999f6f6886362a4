"""Folders: what one that was named holds, and what reads it, in words for a person."""

from __future__ import annotations

from pathlib import Path

OWN = ("cells", "fits", "learned", "parts")  # sub-folders that only runs have
LISTED = 4


def told(folder: str | Path) -> str:
    """What a folder is that is no run, and what to do with it: a phrase without a full stop."""
    folder = Path(folder)
    if not folder.exists():
        return f"there is no such folder; make one with: unmix fit DATA -o {folder}"
    if not folder.is_dir():
        return f"it is a file; name a folder, or fit features to its rows: unmix fit {folder} -o RUN"

    def has(*names: str) -> bool:
        return all((folder / name).exists() for name in names)

    if has("manifest.json") or has("progress.json"):
        return f"it holds activations; fit features to them: unmix fit {folder} -o RUN"
    for name, noun, verb in (
        ("features.json", "features", "--start"),
        ("representation.json", "a learnt representation", "--start"),
    ):
        if has(name):
            run = folder.resolve().parent.parent
            inside = any((run / own).is_dir() for own in ("cells", "learned"))
            return f"it holds {noun}; " + (f"name its run, {run}" if inside else f"{verb} {folder} goes on from them")
    if has("data/summary.js"):
        return f"it holds an atlas; open {folder / 'index.html'} in a browser"
    inner = sorted(part.name for part in folder.iterdir() if (part / "run.json").is_file())
    if inner:
        return f"the run is inside it: {' or '.join(str(folder / name) for name in inner[:LISTED])}"
    shown = sorted(part.name for part in folder.iterdir() if not part.name.startswith("."))
    if not shown:
        return f"the folder is empty; fill it with: unmix fit DATA -o {folder}"
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return f"it holds {', '.join(shown[:LISTED])}{more}, which unmix has not written"
