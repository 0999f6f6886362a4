"""Heads that move only the rows a batch uses, in memory or in a memory-mapped file."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream
from unmix.core.store import read_json, write_json
from unmix.kernels.index_loss import adamw_, index_cross_entropy
from unmix.learners.heads import BLOCK, MovingHead, blocks, excess

TABLES = ("weights", "first", "second")


class RowHead(MovingHead):
    """Cross-entropy over the rows of a batch alone, each label once, and `negatives` more drawn at random.

    It is another loss than that over all rows. Rows that a batch does not use are left alone and catch up when they
    are next used, to what dense AdamW on this loss makes of them. With negatives it approximates the loss over all
    rows: each negative stands for (N - u) / negatives of the rows that the batch's u labels leave.
    """

    done: Tensor

    def __init__(self, weights: Tensor, lrs: Sequence[float], weight_decay: float, negatives: int = 0) -> None:
        super().__init__(weights, lrs, weight_decay)
        self.negatives = negatives
        self.register_buffer("done", torch.zeros(len(weights), dtype=torch.long))

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        rows, place = torch.unique(y, return_inverse=True)
        own = len(rows)
        if self.negatives:
            rows = torch.cat([rows, self._others(rows, rng)])
        now = int(self.taken)
        tables = self._caught_up(rows, now)
        self._put(rows, tables, now)
        if h.requires_grad:
            tables[0].requires_grad_().register_hook(lambda gradient: self._move(rows, tables, gradient, now))
        weights = tables[0]
        if len(rows) > own:
            # A negative's logit is raised by the logarithm of the number of rows that it stands for.
            more = weights.new_zeros(len(rows), 1)
            more[own:] = math.log((len(self.done) - own) / (len(rows) - own))
            h, weights = torch.cat([h, h.new_ones(len(h), 1)], 1), torch.cat([weights, more], 1)
        loss = index_cross_entropy(h, weights, place, smoothing, shares)
        return loss, excess(loss, len(rows), smoothing, place, shares)

    def _others(self, rows: Tensor, rng: Stream) -> Tensor:
        """Rows that no label of the batch names, without repeats; fewer where there are fewer."""
        draw = rng.child("negatives").numpy()
        count, used = len(self.done), rows.cpu().numpy()
        wanted = min(count, self.negatives + len(used))
        drawn = torch.from_numpy(draw.choice(count, wanted, replace=False))
        return drawn[~torch.isin(drawn, rows.cpu())][: self.negatives].to(rows.device)

    def _rows(self, name: str, rows: Tensor) -> Tensor:
        table = getattr(self, name)
        return table[rows.to(table.device)].to(rows.device)

    def _caught_up(self, rows: Tensor, now: int) -> list[Tensor]:
        """Copies of the tables' rows as they are after `now` steps."""
        tables = [self._rows(name, rows) for name in TABLES]
        weights, first, second = tables
        self.steps.replay_(weights, first, second, self.done[rows], now)
        return tables

    def _move(self, rows: Tensor, tables: list[Tensor], gradient: Tensor, now: int) -> None:
        weights, first, second = (table.detach() for table in tables)
        adamw_(weights, gradient.contiguous(), first, second, self.steps[now])
        self._put(rows, [weights, first, second], now + 1)

    def _put(self, rows: Tensor, tables: Sequence[Tensor], step: int) -> None:
        for name, values in zip(TABLES, tables, strict=True):
            table = getattr(self, name)
            table[rows.to(table.device)] = values.detach().to(table.device)
        self.done[rows] = step

    def parts(self) -> dict[str, Tensor]:
        """weights [N, d]; rows that were left behind catch up in a copy."""
        return {"weights": self._caught_up(torch.arange(len(self.done)), int(self.taken))[0]}

    def take(self, parts: Mapping[str, Tensor]) -> None:
        if "weights" in parts and parts["weights"].shape == self.weights.shape:
            self.weights.copy_(parts["weights"])


class StoredHead(RowHead):
    """As `RowHead`, with weights and both moments as memory-mapped arrays [N, d] in a folder; the rest is the same.

    The files are made at the first step, or taken up where a state is loaded. They move on after a state was taken,
    so a journal keeps each row as it was before it first moved since; loading the state puts those rows back. The
    journals of the last two states are kept. When training ends, weights.npy is what `parts` of `RowHead` would be.
    """

    def __init__(
        self,
        folder: Path,
        classes: int,
        width: int,
        rng: Stream,
        lrs: Sequence[float],
        weight_decay: float,
        negatives: int = 0,
    ) -> None:
        self.folder, self.rng = folder, rng
        super().__init__(torch.empty(classes, width, device="meta"), lrs, weight_decay, negatives)
        self.opened = False
        self.token: int = 0
        self.journals: list[int] = []

    def _keep(self, weights: Tensor) -> None:
        # Plain attributes: not moved to another device, and in no state.
        self.shape = tuple(weights.shape)
        self.touched = torch.zeros(0, dtype=torch.bool)

    def loss(
        self, h: Tensor, y: Tensor, smoothing: float, shares: Tensor | None, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        if not self.opened:
            self._make()
        return super().loss(h, y, smoothing, shares, rng)

    def _make(self) -> None:
        """The files as training begins."""
        classes, width = self.shape
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            if file.suffix in (".npy", ".bin", ".json"):
                file.unlink()
        needed, free = 12 * classes * width, shutil.disk_usage(self.folder).free
        if needed > free:
            raise Failure(f"store={self.folder}: needs {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")
        for name in TABLES:
            np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.float32, (classes, width)).flush()
        self._open()
        for begin, block in blocks(classes, width, self.rng):
            self.weights[begin : begin + len(block)] = block
        self.token = int.from_bytes(os.urandom(7), "little")
        write_json(self.folder / "store.json", {"token": self.token, "classes": classes, "width": width})

    def _open(self) -> None:
        for name in TABLES:
            table = np.load(self.folder / f"{name}.npy", mmap_mode="r+")
            setattr(self, name, torch.from_numpy(np.asarray(table)))
        self.opened = True

    def _put(self, rows: Tensor, tables: Sequence[Tensor], step: int) -> None:
        if self.journals:
            plain = rows.cpu()
            fresh = plain[~self.touched[plain]]
            # Rows go to the journal before they move, so that work killed in between finds them there.
            record = [np.asarray([len(fresh)]), fresh.numpy(), *(self._rows(name, fresh).numpy() for name in TABLES)]
            with open(self._journal(self.journals[-1]), "ab", buffering=0) as file:
                file.write(b"".join(part.tobytes() for part in record))
            self.touched[fresh] = True
        super()._put(rows, tables, step)

    def _journal(self, step: int) -> Path:
        return self.folder / f"journal-{step}.bin"

    def get_extra_state(self) -> Tensor:
        """Which files belong to this state: their token and the step; a journal begins here."""
        step = int(self.taken)
        if self.opened and self.journals[-1:] != [step]:
            self._begin(step)
        return torch.tensor([self.token, step])

    def _begin(self, step: int) -> None:
        self.journals.append(step)
        self._journal(step).write_bytes(b"")
        self.touched = torch.zeros(self.shape[0], dtype=torch.bool)
        while len(self.journals) > 2:
            self._journal(self.journals.pop(0)).unlink(missing_ok=True)

    def set_extra_state(self, state: Tensor) -> None:
        """Open the files of a state and put back the rows that have moved since it was taken."""
        token, step = state.tolist()
        if not token:
            return
        found = self.folder / "store.json"
        if not (found.is_file() and read_json(found)["token"] == token and self._journal(step).is_file()):
            raise UsageError(f"store={self.folder}: not the files of this checkpoint; remove it to start again")
        self.token = token
        self._open()
        later = sorted(
            (int(file.stem.rpartition("-")[2]) for file in self.folder.glob("journal-*.bin")), reverse=True
        )
        for number in later:
            if number >= step:
                self._put_back(self._journal(number).read_bytes())
        for number in later:
            if number > step:
                self._journal(number).unlink()
        self.journals = sorted(number for number in later if number < step)
        self._begin(step)

    def _put_back(self, journal: bytes) -> None:
        width, place = self.shape[1], 0
        while place + 8 <= len(journal):
            count = int(np.frombuffer(journal, np.int64, 1, place)[0])
            end = place + 8 + 8 * count + 12 * count * width
            if end > len(journal):
                return  # cut off while it was written: these rows had not moved yet
            rows = torch.from_numpy(np.frombuffer(journal, np.int64, count, place + 8).copy())
            values = np.frombuffer(journal, np.float32, 3 * count * width, place + 8 + 8 * count)
            for name, old in zip(TABLES, values.reshape(3, count, width).copy(), strict=True):
                getattr(self, name)[rows] = torch.from_numpy(old)
            place = end

    def parts(self) -> dict[str, Tensor]:
        """Nothing: the weights [N, d] stay in weights.npy, where all rows catch up."""
        if self.opened:
            for begin in range(0, self.shape[0], BLOCK):
                rows = torch.arange(begin, min(begin + BLOCK, self.shape[0]))
                RowHead._put(self, rows, self._caught_up(rows, int(self.taken)), int(self.taken))
        return {}

    def take(self, parts: Mapping[str, Tensor]) -> None:
        """Rows of another head are not taken over."""
