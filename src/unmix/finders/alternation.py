"""Alternation: codes of a batch of rows with the atoms fixed, then atoms from the statistics of the codes so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.core.rows import Rows
from unmix.core.seeds import Stream

_KEPT_BYTES = 256 << 20  # codes of earlier passes, from which the next inference of the same rows begins
_RARE = 1e-3  # an atom of less than this share of the mean use is replaced
_MOST = 200  # iterations of one inference; the next pass goes on from where it ended
_EASED = 0.8  # least factor from one batch to the next on a penalty that is eased


class Alternation:
    """Sparse coding by turns: Z = codes of a batch X - 1 b', A <- f A + Z'Z, B <- f B + Z'X, then D by block descent.

    atoms [m, d]: the first dictionary, not changed. bias: whether b [d] is learnt too (it starts at 0), as the mean
    of what the codes leave; without, it stays 0. penalty: of the l1 problem; or k: codes in a row, by pursuit.
    positive: codes are not negative. tolerance: relative duality gap of the l1 problem. window: batches that the
    statistics remember, less in the beginning (f = 1 - 1 / window). patient: atoms stay as they are until the
    statistics cover the window, for atoms that are worth keeping. copies: cosine above which two atoms are copies and
    one of them is replaced. every: batches between two replacements. eased: the l1 problem begins with the universal
    threshold s sqrt(2 log m) as its penalty, s^2 d the mean squared error of the batch before, as what is not
    explained yet is noise to each atom; it falls with the error, at most by a fifth a batch and never below
    `penalty`. spent: floating-point operations so far.
    Source of the threshold: Donoho, Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage".
    """

    def __init__(
        self,
        atoms: Tensor,
        penalty: float = 0.0,
        k: int | None = None,
        bias: bool = False,
        positive: bool = True,
        tolerance: float = 1e-3,
        window: float = 30.0,
        patient: bool = False,
        copies: float = 0.95,
        every: int = 5,
        eased: bool = False,
    ) -> None:
        m, d = atoms.shape
        self.atoms, self.k = atoms, k
        self.penalty: float = penalty
        self.positive, self.tolerance, self.window, self.patient = positive, tolerance, max(1.0, window), patient
        self.copies, self.every = copies, every
        # The present penalty, where it is above `penalty`.
        self.eased: float = math.inf if eased and k is None else 0.0
        self._noise = 0.0  # mean squared error of an entry in the batch before
        self._gram: tuple[Tensor, Tensor] | None = None  # the atoms and their Gram matrix
        self.a, self.b = atoms.new_zeros(m, m), atoms.new_zeros(m, d)
        self.bias, self.learns_bias = atoms.new_zeros(d), bias
        self.sums = atoms.new_zeros(m + d + 1)  # of the codes, of the rows, and the number of rows
        self.steps = 0
        self.spent: float = 0.0
        self.kept: dict[int, Codes] = {}
        self._held, self._full = 0, False

    def step(self, x: Tensor, place: int | None = None, rng: Stream | None = None) -> dict[str, Tensor]:
        """Learn from rows x [n, d]; `place` names a batch that comes again, `rng` lets atoms be replaced.

        Returns, at the atoms before the update, the mean objective, fvu (the share of the batch's variance that is
        not explained) and l0, the mean number of active codes: tensors without dimensions.
        """
        from unmix.kernels._compiled import own_threads

        with own_threads():
            return self._step(x, place, rng)

    def _step(self, x: Tensor, place: int | None, rng: Stream | None) -> dict[str, Tensor]:
        from unmix.kernels.update import gram_statistics, update_atoms

        if self.eased:
            self._ease(x, rng)
        penalty = max(self.penalty, self.eased)
        codes, objective = self.codes(x, place, penalty=penalty)
        # Half the squared error is the objective without the penalty; that saves decoding.
        rest = 0 if self.k is not None else penalty * codes.values.abs().sum(dtype=torch.float64)
        error = 2 * (objective.sum(dtype=torch.float64) - rest).clamp_min(0)
        window = self.window if self.patient else max(1.0, min(self.window, (self.steps + 1) / 2))
        za, zx = gram_statistics(codes, x)
        self.a.mul_(1 - 1 / window).add_(za)
        self.b.mul_(1 - 1 / window).add_(zx)
        if self.learns_bias:
            weights = torch.bincount(_lists(codes)[1], codes.values, minlength=codes.width)
            sums = torch.cat([weights.to(x.dtype), x.sum(0), x.new_full((1,), len(x))])
            self.sums.mul_(1 - 1 / window).add_(sums)
        self.steps += 1
        active = codes.l0().double()
        m, d = self.atoms.shape
        self.spent += float(2 * (active.square().sum() + 2 * d * active.sum()))
        if not self.patient or self.steps >= self.window:
            weights, total, count = self.sums[:m], self.sums[m:-1], self.sums[-1]
            pull = torch.addr(self.b, weights, self.bias, alpha=-1) if self.learns_bias else self.b
            self.atoms = update_atoms(self.atoms, self.a, pull)
            if self.learns_bias:
                self.bias = (total - weights @ self.atoms) / count
            self.spent += flops.product(m, m, d)
            if rng is not None and self.steps % self.every == 0:
                self._replace(x, codes, rng)
        self._noise = float(error) / x.numel()
        fvu = error / (x - x.mean(0)).square().sum().clamp_min(1e-30)
        return {"objective": objective.mean(), "fvu": fvu, "l0": active.mean()}

    def gram(self) -> Tensor:
        """D D' [m, m], made once for the same atoms."""
        from unmix.kernels.update import gram_matrix

        if self._gram is None or self._gram[0] is not self.atoms:
            self._gram = self.atoms, gram_matrix(self.atoms)
        return self._gram[1]

    def _ease(self, x: Tensor, rng: Stream | None) -> None:
        """The penalty of the batch x, while atoms may still be replaced."""
        variance = self._noise if self.steps else float((x - self.bias).square().mean()) / 3
        threshold = math.sqrt(2 * math.log(len(self.atoms)) * variance)
        lowest = _EASED * self.eased if self.steps else 0.0
        self.eased = min(self.eased, max(lowest, threshold)) if rng is not None else 0.0

    def codes(
        self, x: Tensor, place: int | None = None, tolerance: float | None = None, penalty: float | None = None
    ) -> tuple[Codes, Tensor]:
        """Ragged codes of x [n, d] at the present atoms, and the objective of each row [n].

        The objective is 1/2 |x - z D|^2 + penalty |z|_1, or the first term alone for a pursuit.
        """
        from unmix.kernels.lasso import lasso
        from unmix.kernels.omp import omp

        m, d = self.atoms.shape
        x = x - self.bias
        gram = self.gram() if m <= 16384 else None
        self.spent += flops.product(m, d, m)
        if self.k is not None:
            values, indices = omp(x, self.atoms, self.k, positive=self.positive, gram=gram)
            codes = Codes(values, indices, m)
            steps = codes.l0().double()
            self.spent += float((flops.product(1, d, m) + m * steps * (steps + 1) + steps**3).sum())
            return codes.ragged(), (x - codes.decode(self.atoms)).square().sum(1) / 2
        before, start = None if place is None else self.kept.get(place), None
        if before is not None:
            values, indices, pointers = _lists(before)
            start = values, indices.long(), pointers
        result = lasso(
            x,
            self.atoms,
            self.penalty if penalty is None else penalty,
            positive=self.positive,
            gram=gram,
            start=start,
            tolerance=self.tolerance if tolerance is None else tolerance,
            max_iterations=_MOST,
        )
        self.spent += float(result.flops.sum())
        codes = Codes(result.values, result.indices, m, result.pointers)
        if place is not None:
            self._keep(place, codes)
        return codes, result.objective

    def _keep(self, place: int, codes: Codes) -> None:
        old = self.kept.get(place)
        self._held += 8 * (len(codes.values) + len(codes)) - (0 if old is None else 8 * (len(old.values) + len(old)))
        self._full = self._full or self._held > _KEPT_BYTES
        if old is not None or not self._full:
            values, indices, pointers = _lists(codes)
            self.kept[place] = Codes(values, indices.int(), codes.width, pointers)

    def _replace(self, x: Tensor, codes: Codes, rng: Stream) -> None:
        """Put what is left of the rows reconstructed worst in place of rare atoms, and of the rarer of two copies."""
        use = self.a.diagonal()
        poor = use < _RARE * use.mean()
        first, second = (self.gram() > self.copies).nonzero(as_tuple=True)
        first, second = first[first < second], second[first < second]
        poor[torch.where(use[first] < use[second], first, second)] = True
        where = poor.nonzero().squeeze(1)[: max(1, len(x) // 16)]
        if not len(where):
            return
        left = x - codes.decode(self.atoms, self.bias)
        size = left.norm(dim=1)
        worst = size.topk(min(len(x), 2 * len(where))).indices
        worst = worst[size[worst] > 1e-6 * x.norm(dim=1).max()]
        order = torch.from_numpy(rng.numpy().permutation(len(worst))[: len(where)]).to(worst.device)
        where = where[: len(order)]
        self.atoms = self.atoms.clone()
        self.atoms[where] = torch.nn.functional.normalize(left[worst[order]])
        self.a[where], self.a[:, where], self.b[where], self.sums[where] = 0, 0, 0, 0

    def state(self) -> dict[str, Tensor]:
        """All that changes, as tensors."""
        state = {"atoms": self.atoms, "a": self.a, "b": self.b, "bias": self.bias, "sums": self.sums}
        state["steps"] = torch.tensor(self.steps)
        own = [self.spent, self.penalty, self._held, self._full, self.eased, self._noise]
        numbers = torch.tensor(own, dtype=torch.float64)
        if self.kept:
            places = sorted(self.kept)
            codes = [self.kept[place] for place in places]
            whole = Codes.concatenate(codes)
            state |= {
                "places": torch.tensor(places),
                "heights": torch.tensor([len(part) for part in codes]),
                **dict(zip(("values", "indices", "pointers"), _lists(whole), strict=True)),
            }
        return {**state, "numbers": numbers}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`."""
        names = ("atoms", "a", "b", "bias", "sums")
        self.atoms, self.a, self.b, self.bias, self.sums = (state[name].to(self.atoms.device) for name in names)
        self.steps = int(state["steps"])
        self.spent, self.penalty, held, full, self.eased, self._noise = state["numbers"].tolist()
        self._held, self._full = int(held), bool(full)
        self.kept, first = {}, 0
        for place, height in zip(state.get("places", []), state.get("heights", []), strict=True):
            pointers = state["pointers"][first : first + int(height) + 1]
            part = slice(int(pointers[0]), int(pointers[-1]))
            values, indices = state["values"][part].clone(), state["indices"][part].clone()
            codes = Codes(values, indices, len(self.atoms), pointers - pointers[0])
            self.kept[int(place)] = codes.to(self.atoms.device)
            first += int(height)


def _lists(codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """Values, indices and pointers of ragged codes."""
    assert codes.indices is not None and codes.pointers is not None
    return codes.values, codes.indices, codes.pointers


def batches(
    rows: Rows, size: int, passes: int, rng: Stream, done: int = 0, device: str = "cpu"
) -> Iterator[tuple[int, int, Tensor]]:
    """(step, place, rows [<= size, d]) of all passes from step `done` on: every pass has the same batches.

    The batches are drawn once by `rng` and are of about one size, so that every row is in one of them.
    """
    count = batch_count(rows, size)
    height = -(-rows.shape[0] // count)
    for number in range(done // count, passes):
        for place, block in enumerate(rows.blocks(height, rng, device)):
            if number * count + place >= done:
                yield number * count + place, place, block


def batch_count(rows: Rows, size: int) -> int:
    """Batches of at most `size` rows in a pass."""
    return -(-rows.shape[0] // size)
