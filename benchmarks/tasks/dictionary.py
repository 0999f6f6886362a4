"""Dictionary learning from the same rows and start: seconds until the atoms match the true ones (mean |cosine|)."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch

WORLD = {"n": 50_000, "d": 128, "m": 512, "active": 8}
SIZES = {
    "m512": {**WORLD, "target": 0.95, "budget": 30.0},
    "m512 to 0.99": {**WORLD, "target": 0.99, "budget": 100.0},
}
QUICK = {"small": {"n": 5_000, "d": 32, "m": 64, "active": 3, "target": 0.9, "budget": 15.0}}
FLOOR, UNIT = None, "race"
CUMULATIVE = True
BATCH = 512
PENALTY = 0.3  # of the l1 problem; SPAMS is fastest with PENALTY_SPAMS and batches of BATCH_SPAMS
PENALTY_SPAMS, BATCH_SPAMS = 0.35, 256


class Learning:
    """`run` goes on for a share of a pass; the match with the true atoms is taken outside the time."""

    share: ClassVar[int] = 10  # of a pass in a turn; SPAMS is slower with shorter calls
    batch: ClassVar[int] = BATCH

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
        size = self.n // self.share // self.batch * self.batch or self.batch
        start = self.turn * size % (self.n - size + 1)
        return self.rows[start : start + size]

    def build(self) -> None:
        pass

    def learn(self) -> None:
        raise NotImplementedError


class Unmix(Learning):
    """What `SparseCoding` does with each batch, from the atoms given to all; no bias, as for the others."""

    share: ClassVar[int] = 20

    def __init__(self, size: dict, **problem: float) -> None:
        self.problem = problem or {"penalty": PENALTY, "eased": True, "tolerance": 0.03}
        super().__init__(size)

    def build(self) -> None:
        from unmix.finders.alternation import Alternation

        self.learner = Alternation(torch.from_numpy(self.atoms.copy()), copies=0.5, every=1, **self.problem)

    def learn(self) -> None:
        from unmix.core.seeds import Stream

        for x in torch.from_numpy(self.part()).split(BATCH):
            self.learner.step(x, rng=Stream(0).child(self.learner.steps))
        self.atoms = self.learner.atoms.numpy()


class UnmixPursuit(Unmix):
    def __init__(self, size: dict) -> None:
        super().__init__(size, k=size["active"])


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
            part, return_model=True, model=self.model, D=np.asfortranarray(np.asarray(self.atoms).T),
            batchsize=self.batch, iter=part.shape[1] // self.batch, numThreads=self.threads, verbose=False,
            **self.mode,
        )  # fmt: skip
        self.atoms = np.ascontiguousarray(atoms.T)


class SpamsLasso(Spams):
    mode: ClassVar[dict] = {"mode": 2, "lambda1": PENALTY_SPAMS, "posAlpha": True}
    batch: ClassVar[int] = BATCH_SPAMS


class ScikitLearn(Learning):
    def build(self) -> None:
        from sklearn.decomposition import MiniBatchDictionaryLearning

        self.model = MiniBatchDictionaryLearning(
            self.m, alpha=PENALTY, batch_size=BATCH, fit_algorithm="cd", positive_code=True, dict_init=self.atoms,
            n_jobs=1, random_state=0,
        )  # fmt: skip

    def learn(self) -> None:
        self.model.partial_fit(self.part()[:BATCH])
        self.atoms = self.model.components_


CONTENDERS = {
    "unmix": Unmix,
    "unmix, pursuit": UnmixPursuit,
    "SPAMS, pursuit": Spams,
    "SPAMS, l1": SpamsLasso,
    "scikit-learn": ScikitLearn,
}
GOALS = {
    "m512": [("unmix", "SPAMS, pursuit", 3.0), ("unmix", "SPAMS, l1", 3.0)],
    "m512 to 0.99": [("unmix", "SPAMS, pursuit", 15.0), ("unmix", "SPAMS, l1", 15.0)],
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    return {}
