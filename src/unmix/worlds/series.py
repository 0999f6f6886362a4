"""Series: observations over time from a file of arrays, in pairs or sequences."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from unmix.core.array_files import read_arrays
from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.files import FileWorld
from unmix.worlds.stretches import spans, stretches


class Series(FileWorld):
    """Observations of one's own over time: frames, positions, recordings; sequences of consecutive times.

    x: [n, ...] float32. z: [n, f] where the file has it.
    path: .npz or .safetensors with x [n, ...], group [n] (which sequence), time [n] (whole numbers) and, where the
    truth is known, z [n, f]; one row for each time, in any order. content: digest that the file must have.
    length: rows of a sequence. gap: neighbouring rows are 1 .. gap apart in time, uniformly.
    split: train, test or all. held: share of the groups that are test; a group is never in both. seed: which groups.
    """

    equation: ClassVar[str] = "x_t, x_{t+1}, ... of one group"
    reference: ClassVar[str] = "unmix"

    length: int = Field(default=2, ge=1)
    gap: int = Field(default=1, ge=1)
    split: Literal["train", "test", "all"] = "train"
    held: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0

    @property
    def provides(self) -> frozenset[str]:  # type: ignore[override]
        """What a sample holds."""
        return frozenset({"x", "index", "group", "time"} | ({"z"} if "z" in self._arrays else set()))

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"z{j}" for j in range(self._arrays["z"].shape[1])) if "z" in self._arrays else ()

    @property
    def size(self) -> int:
        """Number of rows of the split."""
        return int(self._kept.sum())

    @property
    def held_out(self) -> Series:
        return self.but(split="test") if self.split == "train" else self

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows: stretches of consecutive times from uniform starts. Raises `UsageError` where there is none."""
        if n < 1 or n % self.length:
            raise UsageError(f"n={n}: rows come in sequences of length={self.length}; give a multiple of it")
        count, stream = n // self.length, as_stream(rng).child("series")
        rows, time = stretches(self._spans, self._kept, count, self.length, self.gap, stream, self.kind, self.split)
        rows = rows.reshape(-1)
        truth = {"z": torch.from_numpy(self._arrays["z"][rows])} if "z" in self._arrays else {}
        return Sample(
            x=torch.from_numpy(self._arrays["x"][rows]),
            index=torch.from_numpy(self._arrays["row"][rows]),
            group=torch.from_numpy(np.repeat(np.arange(count), self.length)),
            time=torch.from_numpy(time.reshape(-1)),
            **truth,
        )

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """x, group, time, row (its place in the file) and perhaps z, ordered by group, then time."""
        path = self._opened()
        found = read_arrays(path, {"x": True, "group": True, "time": True, "z": False})
        n = len(found["x"])
        if found["x"].ndim < 2 or any(len(v) != n for v in found.values()) or found.get("z", found["x"]).ndim < 2:
            told = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
            raise UsageError(f"{path}: must have x [n, ...], group [n], time [n] and z [n, f]; it has {told}")
        for name in ("x", "time", *(["z"] if "z" in found else [])):
            if not np.issubdtype(found[name].dtype, np.number) and found[name].dtype != bool:
                raise UsageError(f"{path}: {name} must be numbers, it is {found[name].dtype}")
            if not np.isfinite(found[name]).all():
                raise UsageError(f"{path}: {name} has values that are not finite")
        group = np.unique(found["group"].astype(str), return_inverse=True)[1]
        order = np.lexsort((found["time"], group))
        time = found["time"][order].astype(np.int64)
        if (time != found["time"][order]).any():
            raise UsageError(f"{path}: time must be whole numbers, as consecutive rows are 1 apart")
        if ((np.diff(group[order]) == 0) & (np.diff(time) == 0)).any():
            raise UsageError(f"{path}: a time of the same group is there twice")
        kept: dict[str, np.ndarray] = {
            name: found[name][order].astype(np.float32) for name in ("x", "z") if name in found
        }
        return {**kept, "group": group[order], "time": time, "row": order.astype(np.int64)}

    @cached_property
    def _spans(self) -> np.ndarray:
        return spans(self._arrays["group"], self._arrays["time"])

    @cached_property
    def _kept(self) -> np.ndarray:
        """Which rows belong to the split: [rows] bool."""
        group = self._arrays["group"]
        count = int(group.max()) + 1
        if self.split == "all":
            return np.ones(len(group), bool)
        if count < 2:
            raise UsageError(f"Series.split={self.split}: {self.path} has one group; only split='all' is possible")
        order = Stream(self.seed, ("series", "split")).numpy().permutation(count)
        test = order[: min(count - 1, max(1, round(self.held * count)))]
        return np.isin(group, test) == (self.split == "test")
