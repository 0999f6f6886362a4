"""Shards: rows on disk as raw row-major files with a manifest; read in blocks, never as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError
from unmix.core.items import Items, VectorItems, load_items
from unmix.core.rows import as_tensor
from unmix.core.seeds import Stream
from unmix.core.store import read_json, write_json

SCHEMA = 1
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
CHUNK_BYTES = 1 << 20
AGAIN = "make the activations again in another folder, or with --overwrite"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"rows-{number:05d}.bin"


class ShardRows:
    """Rows [n, d] in the folder that a `ShardWriter` finished; opening reads sizes only.

    folder: holds manifest.json, rows-*.bin and items/. buffer_bytes: memory that a shuffled pass may mix in.
    Raises `UsageError` for a folder that is missing, unfinished or of another schema version, and `Failure`
    for a shard that is missing or cut off.
    """

    def __init__(self, folder: str | Path, buffer_bytes: int = 256 << 20) -> None:
        self.folder, self.buffer_bytes = Path(folder), buffer_bytes
        manifest = read_manifest(self.folder)
        try:
            self.key, self.about = str(manifest["key"]), dict(manifest["about"])
            self._shape = (int(manifest["shape"][0]), int(manifest["shape"][1]))
            self.dtype = DTYPES[manifest["dtype"]]
            counts = [int(shard["rows"]) for shard in manifest["shards"]]
            self._digests = [str(shard["sha256"]) for shard in manifest["shards"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Failure(f"{self.folder / 'manifest.json'}: not a whole manifest ({error!r}); {AGAIN}") from None
        self._bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if self._bounds[-1] != self._shape[0]:
            raise Failure(
                f"{self.folder / 'manifest.json'}: shards hold {self._bounds[-1]} rows, "
                f"expected {self._shape[0]}; {AGAIN}"
            )
        for number, count in enumerate(counts):
            check_size(self.folder / shard_name(number), count * self._shape[1] * self.dtype.itemsize)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._shape

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        return f"ShardRows({self._shape[0]} x {self._shape[1]}, {self.dtype}, {len(self._digests)} shards)"

    @property
    def digest(self) -> str:
        """Digest of the content, from the digests of the shards; never of the path."""
        return digest({"dtype": self.dtype.name, "shape": list(self._shape), "shards": self._digests})

    @cached_property
    def items(self) -> Items:
        """How to show each row; numbers where nothing was stored."""
        if not (self.folder / "items").is_dir():
            return VectorItems(np.arange(self._shape[0]))
        items = load_items(self.folder / "items")
        if len(items) != self._shape[0]:
            raise Failure(f"{self.folder / 'items'}: {len(items)} items for {self._shape[0]} rows; {AGAIN}")
        return items

    def verify(self) -> None:
        """Read every shard and compare digests; raises `Failure` that names the first file that has changed."""
        for number, expected in enumerate(self._digests):
            path = self.folder / shard_name(number)
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise Failure(f"{path}: sha256 is {found[:16]}, expected {expected[:16]}; {AGAIN}")

    def take(self, rows: np.ndarray) -> Tensor:
        """The named rows (any order, repeats allowed): [len(rows), d] float32. Raises `UsageError` out of range."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise UsageError(f"rows={int(rows.max())}: out of range; there are {len(self)} rows")
        rows = rows % max(1, len(self))
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        out = np.empty((len(rows), self._shape[1]), np.float32)
        cuts = np.searchsorted(ordered, self._bounds)
        for number in np.flatnonzero(np.diff(cuts)):
            part = slice(cuts[number], cuts[number + 1])
            out[order[part]] = self._map(int(number))[ordered[part] - self._bounds[number]]
        return torch.from_numpy(out)

    def blocks(self, size: int, rng: Stream | None = None, device: str = "cpu") -> Iterator[Tensor]:
        """Blocks [size, d] (the last may be smaller) of one pass: float32, each row exactly once.

        In order, or shuffled by `rng`: uniformly where the rows fit into the buffer; otherwise chunks of 1 MB are
        visited in random order and mixed in the buffer, of which the larger half is handed out at each turn.
        """
        if size < 1:
            raise UsageError(f"size={size}: blocks need at least 1 row")
        if rng is None:
            for start in range(0, len(self), size):
                yield as_tensor(self._slice(start, min(start + size, len(self)))).to(device)
            return
        generator = rng.numpy()
        if len(self) * self._shape[1] * 4 <= self.buffer_bytes:
            whole = torch.from_numpy(self._slice(0, len(self)))
            order = torch.from_numpy(generator.permutation(len(self)))
            for start in range(0, len(self), size):
                yield whole[order[start : start + size]].to(device)
            return
        yield from self._mixed(size, generator, device)

    def _mixed(self, size: int, generator: np.random.Generator, device: str) -> Iterator[Tensor]:
        chunk = max(1, CHUNK_BYTES // (self._shape[1] * self.dtype.itemsize) + 1)
        spans = [
            (start, min(start + chunk, int(stop)))
            for first, stop in zip(self._bounds[:-1], self._bounds[1:], strict=True)
            for start in range(int(first), int(stop), chunk)
        ]
        capacity = max(2 * size, self.buffer_bytes // (self._shape[1] * 4), 2 * chunk)
        pool = torch.empty(capacity + chunk, self._shape[1])
        waiting, filled = [spans[i] for i in generator.permutation(len(spans))], 0
        while waiting or filled:
            while waiting and filled < capacity:
                start, stop = waiting.pop()
                pool[filled : filled + stop - start] = torch.from_numpy(self._slice(start, stop))
                filled += stop - start
            order = torch.from_numpy(generator.permutation(filled))
            given = filled if not waiting else max(size, filled // 2 // size * size)
            for begin in range(0, given, size):
                yield pool[order[begin : min(begin + size, given)]].to(device)
            # Sorted so that each row moves down or stays, and the pool can be closed up in place, piece by piece.
            kept = order[given:].sort().values
            for begin in range(0, len(kept), chunk):
                piece = kept[begin : begin + chunk]
                pool[begin : begin + len(piece)] = pool[piece]
            filled = len(kept)

    def _map(self, number: int) -> np.ndarray:
        # Mapped anew at each use, so that pages read before do not count as this process's memory for ever.
        rows = int(self._bounds[number + 1] - self._bounds[number])
        return np.memmap(self.folder / shard_name(number), self.dtype, "r", shape=(rows, self._shape[1]))

    def _slice(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, self._shape[1]), np.float32)
        for number in range(len(self._digests)):
            low, high = max(start, int(self._bounds[number])), min(stop, int(self._bounds[number + 1]))
            if low < high:
                offset = int(self._bounds[number])
                out[low - start : high - start] = self._map(number)[low - offset : high - offset]
        return out


class ShardWriter:
    """Writes rows to shards; can be taken up again after the last whole shard.

    folder: made where it is missing. width: d. dtype: float32 or float16. key: what the rows are made from.
    about: plain values for the manifest; it may be added to until `finish`. shard_bytes: size of a shard, about.
    `rows` counts the rows that are safe in whole shards; `state` is a dict of plain values of the caller's own that
    is stored with every whole shard. Raises `UsageError` where the folder holds other work, `Failure` where the
    disk refuses or a value does not fit the dtype.
    """

    def __init__(
        self,
        folder: str | Path,
        width: int,
        dtype: str = "float32",
        key: str = "",
        about: dict[str, Any] | None = None,
        shard_bytes: int = 64 << 20,
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"dtype={dtype}: should be {' or '.join(DTYPES)}")
        self.folder, self.width, self.key, self.about = Path(folder), width, key, dict(about or {})
        self.dtype = DTYPES[dtype]
        self.per_shard = max(1, shard_bytes // (width * self.dtype.itemsize))
        self.state: dict[str, Any] = {}
        self._shards: list[dict[str, Any]] = []
        self._plan = {"schema": SCHEMA, "key": key, "width": width, "dtype": dtype, "per_shard": self.per_shard}
        self._file: Any = None
        self._open_rows, self._hash = 0, hashlib.sha256()
        check_folder(self.folder, key)
        if (self.folder / "manifest.json").exists():
            raise UsageError(f"{self.folder}: is finished already; use another folder or --overwrite")
        with _disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "progress.json").exists():
            progress = read_json(self.folder / "progress.json")
            if progress.get("plan") != self._plan:
                raise UsageError(f"{self.folder}: unfinished with other settings; use another folder or --overwrite")
            self._shards, self.state = progress["shards"], progress["state"]
            for number, shard in enumerate(self._shards):
                check_size(self.folder / shard_name(number), shard["rows"] * width * self.dtype.itemsize)
        else:
            self._record()

    @property
    def rows(self) -> int:
        """Rows in whole shards."""
        return sum(shard["rows"] for shard in self._shards)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._drop()

    def append(self, block: Any) -> None:
        """Add rows [b, d] (torch or numpy) after those before."""
        array = np.ascontiguousarray(block.detach().cpu().numpy() if isinstance(block, Tensor) else block)
        if array.ndim != 2 or array.shape[1] != self.width:
            raise UsageError(f"block: must be [b, {self.width}], got {list(array.shape)}")
        if self.dtype.itemsize == 2 and array.size and not np.abs(array).max() <= np.finfo(np.float16).max:
            raise Failure(
                f"{self.folder}: a value of {np.abs(array).max():.4g} does not fit float16; use dtype=float32"
            )
        array = array.astype(self.dtype, copy=False)
        while len(array):
            part = array[: self.per_shard - self._open_rows]
            with _disk(self.folder):
                if self._file is None:
                    self._file = open(self._part, "wb")  # noqa: SIM115 (closed by _close or _drop)
                self._file.write(part.data)
            self._hash.update(part.data)
            self._open_rows += len(part)
            array = array[len(part) :]
            if self._open_rows == self.per_shard:
                self._close()
                self._record()

    def finish(self, items: Items | None = None) -> ShardRows:
        """Write the last shard, the items and, last of all, the manifest; gives the rows as they can be read."""
        if self._open_rows:
            self._close()
            self._record()
        if not self.rows:
            raise UsageError(f"{self.folder}: no rows were added; give more data")
        if items is not None:
            if len(items) != self.rows:
                raise UsageError(f"items: {len(items)} items for {self.rows} rows")
            with _disk(self.folder):
                (self.folder / "items").mkdir(exist_ok=True)
                items.save(self.folder / "items")
        manifest = {
            "schema": SCHEMA,
            "unmix": library_version("unmix"),
            "dtype": self.dtype.name,
            "shape": [self.rows, self.width],
            "key": self.key,
            "about": self.about,
            "shards": self._shards,
        }
        write_json(self.folder / "manifest.json", manifest)
        (self.folder / "progress.json").unlink(missing_ok=True)
        return ShardRows(self.folder)

    @property
    def _part(self) -> Path:
        return self.folder / f".{shard_name(len(self._shards))}.part"

    def _close(self) -> None:
        with _disk(self.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self.folder / shard_name(len(self._shards)))
        size = self._open_rows * self.width * self.dtype.itemsize
        shard = {"file": shard_name(len(self._shards)), "rows": self._open_rows, "bytes": size}
        self._shards.append({**shard, "sha256": self._hash.hexdigest()})
        self._file, self._open_rows, self._hash = None, 0, hashlib.sha256()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
            self._file, self._open_rows, self._hash = None, 0, hashlib.sha256()

    def _record(self) -> None:
        progress = {"plan": self._plan, "state": self.state, "shards": self._shards}
        write_json(self.folder / "progress.json", progress)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder; raises `UsageError` where it is missing or of another schema version."""
    if (folder / "progress.json").exists() and not (folder / "manifest.json").exists():
        raise UsageError(f"{folder}: unfinished activations; run the command that made them once more to finish them")
    if not (folder / "manifest.json").exists():
        raise UsageError(f"{folder}: holds no activations (no manifest.json); make them with `unmix activations`")
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise UsageError(
            f"{folder / 'manifest.json'}: schema version {found}, this unmix reads {SCHEMA}; "
            "use the version of unmix that wrote it, or make the activations again"
        )
    return manifest


def check_folder(folder: Path, key: str) -> None:
    """Raise `UsageError` unless the folder is missing, empty, or holds work (finished or not) of this key."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder")
    for name in ("manifest.json", "progress.json"):
        if (folder / name).exists():
            record = read_json(folder / name)
            found = record.get("key", record.get("plan", {}).get("key")) if isinstance(record, dict) else None
            if found != key:
                raise UsageError(
                    f"{folder}: holds activations made from something else; use another folder or --overwrite"
                )
            return
    if folder.exists() and any(not entry.name.endswith(".part") for entry in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and holds no activations; use another folder")


def clear_folder(folder: Path) -> None:
    """Remove the activations in a folder, finished or not, and nothing else."""
    known = ("manifest.json", "progress.json")
    if not any((folder / name).exists() for name in known):
        return
    with _disk(folder):
        for path in [*(folder / name for name in known), *folder.glob("rows-*.bin"), *folder.glob(".*.part")]:
            path.unlink(missing_ok=True)
        if (folder / "items").is_dir():
            shutil.rmtree(folder / "items")


def check_size(path: Path, expected: int) -> None:
    """Raise `Failure` where a shard is missing or not of the expected size in bytes."""
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        what = "missing" if found is None else f"{found} bytes"
        raise Failure(f"{path}: {what}, expected {expected} bytes; {AGAIN}")


def library_version(name: str) -> str:
    """Version of an installed package, or "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(
            f"cannot write in {folder}: {error.strerror or error}; whole shards stay as they are"
        ) from error
