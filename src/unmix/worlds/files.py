"""Files that worlds are read from: what they hold, by content and never by place."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.pictures import files_below, is_hidden
from unmix.worlds.base import World

PICKLES = (".pickle", ".pkl")


class FileWorld(World):
    """A world that is read from a file or a folder, never from a pickle.

    path: the file. content: digest that it must have; None takes what is there. The recipe's own digest covers the
    content and never the path.
    """

    path: str
    content: str | None = None

    @cached_property
    def _found(self) -> str | None:
        return self.content or digest_of(self.path)

    @property
    def digest(self) -> str:
        """Digest of the fields and the content."""
        transition = getattr(self, "transition", None)
        own = {**self.as_dict(), "path": ""}
        return digest(own if transition is None else {**own, "transition": transition.digest})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in where the file is there."""
        return {**super().as_dict(), "content": self._found}

    def _opened(self) -> Path:
        """The path, which is there and holds what was asked for."""
        path = Path(self.path)
        if not path.exists():
            raise UsageError(f"{self.kind}.path={self.path}: no such file")
        if path.suffix in PICKLES:
            raise UsageError(
                f"{self.kind}.path={self.path}: a pickle can run any code and is never opened; {CONVERT}"
            )
        if self.content is not None and digest_of(path) != self.content:
            raise UsageError(f"{self.kind}.content={self.content}: {self.path} has other content")
        return path


CONVERT = (
    "convert it where you trust it: numpy.savez(path, masks=..., sequence=..., frame=...), one row for each frame"
)


def digest_of(path: str | Path) -> str | None:
    """16 hexadecimal digits for the bytes of a file, or of all files below a folder that are not hidden.

    None where there is none.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        below = (path / name for name in files_below(path) if not is_hidden(name))
        files = sorted(file for file in below if file.is_file())
    if not path.exists() or not files:
        return None
    whole = hashlib.sha256()
    for file in files:
        if path.is_dir():
            whole.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                whole.update(block)
    return whole.hexdigest()[:16]
