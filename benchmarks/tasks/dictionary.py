"""Dictionary learning from the same rows and start: seconds until the atoms match the true ones (mean |cosine|)."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch

SIZES = {"m512": {"n": 50_000, "d": 128, "m": 512, "active": 8, "target": 0.95, "budget": 60.0}}
QUICK = {"small": {"n": 5_000, "d": 32, "m": 64, "active": 3, "target": 0.9, "budget": 15.0}}
FLOOR, UNIT = None, f"mean |cosine| of {SIZES['m512']['target']}"
CUMULATIVE = True
BATCH = 512


class Learning:
    """`run` goes on for about a tenth of a pass; the match with the true atoms is taken outside the time."""

    def __init__(self, size: dict) -> None:
        self.n, self.d, self.m, self.active = (size[name] for name in ("n", "d", "m", "active"))
        draw = np.random.default_rng(0)
        self.truth = draw.standard_normal((self.m, self.d), dtype=np.float32)
        self.truth /= np.linalg.norm(self.truth, axis=1, keepdims=True)
        order = np.argsort(draw.random((self.n, self.m), dtype=np.float32), axis=1)[:, : self.active]
        sizes = np.abs(draw.standard_normal((self.n, self.active), dtype=np.float32))
        self.rows = np.einsum("nk,nkd->nd", sizes, self.truth[order])
        self.atoms = self.rows[: self.m] / np.linalg.norm(self.rows[: self.m], axis=1, keepdims=True)
        self.turn = 0
        self.build()

    def run(self) -> dict:
        begun = time.perf_counter()
        self.learn()
        seconds = time.perf_counter() - begun
        self.turn += 1
        return {"seconds": seconds, "reached": self.match()}

    def match(self) -> float:
        from scipy.optimize import linear_sum_assignment

        atoms = np.asarray(self.atoms)
        cosine = np.abs(self.truth @ (atoms / np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-12)).T)
        return float(cosine[linear_sum_assignment(-cosine)].mean())

    def check(self) -> dict:
        return {"match": self.match(), "turns": self.turn}

    def part(self) -> np.ndarray:
        size = self.n // 10 // BATCH * BATCH or BATCH
        start = self.turn * size % (self.n - size + 1)
        return self.rows[start : start + size]

    def build(self) -> None:
        pass

    def learn(self) -> None:
        raise NotImplementedError


class Unmix(Learning):
    """Pursuit of each batch, block coordinate descent of the atoms, unused atoms and copies replaced by rows."""

    def build(self) -> None:
        self.a, self.b = torch.zeros(self.m, self.m), torch.zeros(self.m, self.d)
        self.seen = 0

    def learn(self) -> None:
        from unmix.core.codes import Codes
        from unmix.kernels.omp import omp
        from unmix.kernels.topk import decode
        from unmix.kernels.update import gram_statistics, update_atoms

        atoms = torch.as_tensor(self.atoms)
        for x in torch.from_numpy(self.part()).split(BATCH):
            values, indices = omp(x, atoms, self.active, positive=True)
            za, zx = gram_statistics(Codes(values, indices, self.m), x)
            self.seen += 1
            fade = 1 - 1 / max(2.0, min(self.seen / 2, 30.0))
            self.a.mul_(fade).add_(za)
            self.b.mul_(fade).add_(zx)
            atoms = update_atoms(atoms, self.a, self.b)
            use = self.a.diagonal()
            poor = use < 0.05 * use.mean()
            close = (atoms @ atoms.T).fill_diagonal_(0) > 0.9
            first, second = close.nonzero(as_tuple=True)
            poor[torch.where(use[first] < use[second], first, second)] = True
            where = poor.nonzero().squeeze(1)[: len(x) // 16]
            if len(where) and self.seen % 5 == 0:
                error = x - decode(values, indices, atoms)
                worst = error.square().sum(1).topk(len(where)).indices
                atoms[where] = torch.nn.functional.normalize(error[worst])
                self.a[where], self.a[:, where], self.b[where] = 0, 0, 0
        self.atoms = atoms.numpy()


class Spams(Learning):
    """trainDL, mode 3 (pursuit), going on from the model it returned."""

    mode: ClassVar[dict] = {"mode": 3}

    def build(self) -> None:
        self.model = None
        self.threads = torch.get_num_threads()

    def learn(self) -> None:
        import spams

        if "lambda1" not in self.mode:
            self.mode = {**self.mode, "lambda1": self.active}
        part = np.asfortranarray(self.part().T)
        atoms, self.model = spams.trainDL(
            part, return_model=True, model=self.model, D=np.asfortranarray(np.asarray(self.atoms).T), batchsize=BATCH,
            iter=part.shape[1] // BATCH, numThreads=self.threads, verbose=False, **self.mode,
        )  # fmt: skip
        self.atoms = np.ascontiguousarray(atoms.T)


class SpamsLasso(Spams):
    mode: ClassVar[dict] = {"mode": 2, "lambda1": 0.15, "posAlpha": True}


class ScikitLearn(Learning):
    def build(self) -> None:
        from sklearn.decomposition import MiniBatchDictionaryLearning

        self.model = MiniBatchDictionaryLearning(
            self.m, alpha=0.15, batch_size=BATCH, fit_algorithm="cd", positive_code=True, dict_init=self.atoms,
            n_jobs=1, random_state=0,
        )  # fmt: skip

    def learn(self) -> None:
        self.model.partial_fit(self.part()[:BATCH])
        self.atoms = self.model.components_


CONTENDERS = {"unmix": Unmix, "SPAMS, pursuit": Spams, "SPAMS, l1": SpamsLasso, "scikit-learn": ScikitLearn}
GOALS = {"": [("unmix", "SPAMS, pursuit", 3.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    return {}
