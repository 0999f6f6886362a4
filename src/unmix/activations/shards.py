"""Shards: rows on disk as raw row-major files with a manifest; read in blocks, never as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.activations.shard_files import (
    AGAIN,
    SCHEMA,
    WRITING,
    check_folder,
    check_size,
    clear_folder,
    disk,
    library_version,
    read_manifest,
    shard_name,
)
from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError
from unmix.core.items import Items, VectorItems, load_items
from unmix.core.rows import as_array, as_tensor
from unmix.core.seeds import Stream
from unmix.core.store import locked, read_json, write_json

__all__ = ["ShardRows", "ShardWriter", "check_folder", "clear_folder", "library_version", "read_manifest"]

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
CHUNK_BYTES = 1 << 20


class ShardRows:
    """Rows [n, d] in the folder that a `ShardWriter` finished; opening reads sizes only.

    folder: holds manifest.json, rows-*.bin and items/. buffer_bytes: memory that a shuffled pass may mix in.
    readers: threads that read ahead in a pass. Several processes may read a folder at the same time.
    Raises `UsageError` for a folder that is missing, unfinished or of another schema version, and `Failure`
    for a shard that is missing or cut off.
    """

    folder: Path
    buffer_bytes: int
    readers: int
    key: str
    about: dict[str, Any]
    dtype: np.dtype[Any]

    def __init__(self, folder: str | Path, buffer_bytes: int = 256 << 20, readers: int = 2) -> None:
        if readers < 1:
            raise UsageError(f"readers={readers}: must be at least 1")
        self.folder, self.buffer_bytes, self.readers = Path(folder), buffer_bytes, readers
        manifest = read_manifest(self.folder)
        try:
            self.key, self.about = str(manifest["key"]), dict(manifest["about"])
            self._shape = (int(manifest["shape"][0]), int(manifest["shape"][1]))
            self.dtype = DTYPES[manifest["dtype"]]
            counts = [int(shard["rows"]) for shard in manifest["shards"]]
            self._digests = [str(shard["sha256"]) for shard in manifest["shards"]]
            self._bounds = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise Failure(f"{self.folder / 'manifest.json'}: not a whole manifest ({error!r}); {AGAIN}") from None
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
    def streams(self) -> bool:
        """Whether a shuffled pass mixes in a window, for the rows do not fit into the buffer."""
        return len(self) * self._shape[1] * 4 > self.buffer_bytes

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
        if rng is not None:
            for _, block in self.numbered(size, rng):
                yield block.to(device)
            return
        starts = range(0, len(self), size)
        for _, raw in self._ahead((start, min(start + size, len(self))) for start in starts):
            yield as_tensor(raw).to(device)

    def numbered(self, size: int, rng: Stream) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The shuffled pass of `blocks` with the number of each row: [size], [size, d]."""
        if self.streams:
            yield from self._mixed(size, rng.numpy())
            return
        whole = torch.from_numpy(self._slice(0, len(self)))
        order = rng.numpy().permutation(len(self))
        for start in range(0, len(self), size):
            numbers = order[start : start + size]
            yield numbers, whole[torch.from_numpy(numbers)]

    def _mixed(self, size: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, Tensor]]:
        chunk = max(1, CHUNK_BYTES // (self._shape[1] * self.dtype.itemsize) + 1)
        starts = np.concatenate([np.arange(first, stop, chunk) for first, stop in pairwise(self._bounds)])
        stops = np.append(starts[1:], len(self))  # a chunk ends where the next one begins, in its shard or the next
        capacity = max(2 * size, self.buffer_bytes // (self._shape[1] * 4), 2 * chunk)
        pool, numbers = torch.empty(capacity + chunk, self._shape[1]), np.empty(capacity + chunk, np.int64)
        left, filled = len(starts), 0
        arriving = self._ahead((int(starts[i]), int(stops[i])) for i in generator.permutation(left)[::-1])
        while left or filled:
            while left and filled < capacity:
                start, rows = next(arriving)
                pool[filled : filled + len(rows)] = torch.from_numpy(rows)
                numbers[filled : filled + len(rows)] = np.arange(start, start + len(rows))
                filled, left = filled + len(rows), left - 1
            order = torch.from_numpy(generator.permutation(filled))
            given = filled if not left else max(size, filled // 2 // size * size)
            for begin in range(0, given, size):
                taken = order[begin : min(begin + size, given)]
                yield numbers[taken.numpy()], pool[taken]
            # Sorted so that each row moves down or stays, and the pool can be closed up in place, piece by piece.
            kept = order[given:].sort().values
            for begin in range(0, len(kept), chunk):
                piece = kept[begin : begin + chunk]
                pool[begin : begin + len(piece)] = pool[piece]
                numbers[begin : begin + len(piece)] = numbers[piece.numpy()]
            filled = len(kept)

    def _ahead(self, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, np.ndarray]]:
        """First number and rows of each span, in the order given; `readers` threads read what comes next."""
        with ThreadPoolExecutor(self.readers) as threads:
            reading: deque[tuple[int, Future[np.ndarray]]] = deque()
            for start, stop in spans:
                # Made here: memory that threads ask for themselves is not given back.
                out = np.empty((stop - start, self._shape[1]), np.float32)
                reading.append((start, threads.submit(self._fill, start, out)))
                if len(reading) > self.readers:
                    first, rows = reading.popleft()
                    yield first, rows.result()
            for first, rows in reading:
                yield first, rows.result()

    def _map(self, number: int) -> np.ndarray:
        # Mapped anew at each use, so that pages read before do not count as this process's memory for ever.
        rows = int(self._bounds[number + 1] - self._bounds[number])
        return np.memmap(self.folder / shard_name(number), self.dtype, "r", shape=(rows, self._shape[1]))

    def _slice(self, start: int, stop: int) -> np.ndarray:
        return self._fill(start, np.empty((stop - start, self._shape[1]), np.float32))

    def _fill(self, start: int, out: np.ndarray) -> np.ndarray:
        stop = start + len(out)
        first, last = np.searchsorted(self._bounds, (start, stop), side="right")
        for number in range(int(first) - 1, min(int(last), len(self._digests))):
            offset, end = int(self._bounds[number]), int(self._bounds[number + 1])
            low, high = max(start, offset), min(stop, end)
            if low < high:
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

    folder: Path
    width: int
    key: str
    about: dict[str, Any]
    dtype: np.dtype[Any]
    per_shard: int

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
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._held.enter_context(locked(self.folder, WRITING, f"{self.folder}, activations", wait=False))
        try:
            self._take_up()
        except BaseException:
            self._held.close()
            raise

    def _take_up(self) -> None:
        """Go on after the last whole shard of an unfinished folder, or begin."""
        file = self.folder / "progress.json"
        if not file.exists():
            self._record()
            return
        progress = read_json(file, AGAIN)
        if not isinstance(progress, dict) or not {"plan", "shards", "state"} <= progress.keys():
            raise Failure(f"{file}: not whole; {AGAIN}")
        if progress["plan"] != self._plan:
            raise UsageError(f"{self.folder}: unfinished with other settings; use another folder or --overwrite")
        self._shards, self.state = progress["shards"], progress["state"]
        for number, shard in enumerate(self._shards):
            check_size(self.folder / shard_name(number), shard["rows"] * self.width * self.dtype.itemsize)

    @property
    def rows(self) -> int:
        """Rows in whole shards."""
        return sum(shard["rows"] for shard in self._shards)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._drop()
        self._held.close()

    def append(self, block: Any) -> None:
        """Add rows [b, d] of real numbers (torch or numpy) after those before."""
        block = as_array(block, "block")
        array = np.ascontiguousarray(block.detach().cpu().numpy() if isinstance(block, Tensor) else block)
        if array.ndim != 2 or array.shape[1] != self.width:
            raise UsageError(f"block: must be [b, {self.width}], got {list(array.shape)}")
        if not np.isfinite(array).all():
            row = self.rows + self._open_rows + int((~np.isfinite(array)).any(1).argmax())
            raise Failure(f"{self.folder}: row {row} holds NaN or infinity; drop or repair such rows first")
        if self.dtype.itemsize == 2 and array.size and not np.abs(array).max() <= np.finfo(np.float16).max:
            raise Failure(
                f"{self.folder}: a value of {np.abs(array).max():.4g} does not fit float16; use dtype=float32"
            )
        array = array.astype(self.dtype, copy=False)
        while len(array):
            part = array[: self.per_shard - self._open_rows]
            with disk(self.folder):
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
            with disk(self.folder):
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
        self._held.close()
        return ShardRows(self.folder)

    @property
    def _part(self) -> Path:
        return self.folder / f".{shard_name(len(self._shards))}.part"

    def _close(self) -> None:
        with disk(self.folder):
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
            with contextlib.suppress(OSError):  # on a full disk: what it still holds is of no use
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._file, self._open_rows, self._hash = None, 0, hashlib.sha256()

    def _record(self) -> None:
        progress = {"plan": self._plan, "state": self.state, "shards": self._shards}
        write_json(self.folder / "progress.json", progress)
