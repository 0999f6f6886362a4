"""The disentanglement suite (DCI, MIG, SAP, FactorVAE, MCC) in disentanglement_lib's protocol.

disent carries that library's mathematics. Its slow parts are timed on a part and scaled up, which the table says:
DCI on one factor of all, SAP on the fits of one factor, FactorVAE on 1 % of the votes with a representation that
costs nothing. Its MIG is timed whole; it has no MCC.
"""

from __future__ import annotations

import time

import numpy as np

SIZES = {"10 x 10": {"rows": 15000, "codes": 10, "factors": 10, "values": 10}}
QUICK = {"small": {"rows": 600, "codes": 4, "factors": 3, "values": 4}}
FLOOR = ""
UNIT = "suite"
LIBRARY = "disentanglement_lib"


class Suite:
    """Codes that mix the factors a little, split as the scores split them: two thirds to fit on, a third to test."""

    def __init__(self, size: dict) -> None:
        from unmix.core.seeds import Stream
        from unmix.scores.disentanglement.data import paired, split

        draw = np.random.default_rng(0)
        self.values, n, f = size["values"], size["rows"], size["factors"]
        self.z = draw.integers(0, self.values, (n, f)).astype(np.float32)
        turn = np.eye(f, size["codes"]) + 0.1 * draw.standard_normal((f, size["codes"]))
        self.h = (self.z @ turn + 0.3 * draw.standard_normal((n, size["codes"]))).astype(np.float32)
        self.pair = paired(self.h, self.z)
        self.train, self.test = split(self.pair, Stream(0))
        self.facts: dict = {}

    def check(self) -> dict:
        return self.facts


class Unmix(Suite):
    """Every score whole, with its chance level and interval."""

    def run(self) -> dict:
        from unmix.scores.disentanglement import data
        from unmix.scores.disentanglement.dci import dci
        from unmix.scores.disentanglement.interventions import factor_vae
        from unmix.scores.disentanglement.mutual import mig
        from unmix.scores.disentanglement.sap import sap
        from unmix.scores.disentanglement.typed import typed_mcc

        data._results.clear()  # nothing kept from the last turn
        found = [dci(self.h, self.z, part, compat=LIBRARY) for part in ("disentanglement", "completeness")]
        gap, separated = mig(self.h, self.z, compat=LIBRARY), sap(self.h, self.z, compat=LIBRARY)
        votes, matched = factor_vae(self.h, self.z, compat=LIBRARY), typed_mcc(self.h, self.z)
        self.facts = {
            "top": float(found[0].detail["matrix"][:, 0].max()),
            "mig": gap.value,
            "sap0": float(separated.detail["gaps"][0]),
            "votes": votes.value,
            "mcc": matched.value,
            "dci": found[0].value,
        }
        return {}


class UnmixTrees(Suite):
    """The boosted trees of DCI alone, for all factors, without a chance level."""

    def run(self) -> dict:
        from unmix.scores.disentanglement.dci import importances

        found = importances(self.pair, self.train, self.test, np.arange(len(self.z)), True)
        self.facts = {"top": float(found.matrix[:, 0].max())}
        return {}


class ScikitLearn(Suite):
    """GradientBoostingClassifier for one factor and 5 of 100 rounds, times all factors and 20."""

    rounds = 5

    def run(self) -> dict:
        from sklearn.ensemble import GradientBoostingClassifier

        model = GradientBoostingClassifier(n_estimators=self.rounds, random_state=0)
        begun = time.perf_counter()
        model.fit(self.pair.codes[self.train], self.pair.z[self.train, 0])
        spent = time.perf_counter() - begun
        return {"seconds": spent * self.z.shape[1] * 100 / self.rounds}


class Disent(Suite):
    """disent's own functions on the same rows; the first turn only imports."""

    warm = False

    def run(self) -> dict:
        from disent.metrics import _dci, _factor_vae, _mig, _sap

        if not self.warm:
            self.warm = True
            return {}
        mus, ys = self.pair.codes[self.train].T.astype(np.float32), self.pair.z[self.train].T
        mus_test, ys_test = self.pair.codes[self.test].T.astype(np.float32), self.pair.z[self.test].T
        f = len(ys)
        spent = {}

        def timed(name: str, scale: float, work):
            begun = time.perf_counter()
            found = work()
            spent[name] = (time.perf_counter() - begun) * scale
            return found

        importance, *_ = timed("DCI", f, lambda: _dci._compute_importance_gbt(mus, ys[:1], mus_test, ys_test[:1]))
        # MIG is on all rows, as the score beside it is.
        gap = timed("MIG", 1, lambda: _mig._compute_mig(self.h.T, self.z.T))
        one = timed("SAP", f, lambda: _sap._compute_sap(mus, ys[:1], mus_test, ys_test[:1], False))
        share = max(1, len(self.z) // 100)
        votes = timed("votes", len(self.z) / share, lambda: _factor_vae._generate_training_batch(
            self.dataset(), lambda x: x, 64, share, np.var(self.h, axis=0, ddof=1), np.ones(self.h.shape[1], bool)
        ))  # fmt: skip
        self.facts = {
            "top": float(importance[:, 0].max()),
            "mig": float(gap["mig.discrete_score"]),
            "sap0": float(one["sap.score"]),
            "votes": float(votes.max(0).sum() / votes.sum()),
            **{f"{name} s": seconds for name, seconds in spent.items()},
        }
        return {"seconds": sum(spent.values())}

    def dataset(self):
        """What disent asks of a data set, with observations that are the codes of other rows of the same values."""
        import torch

        z, h, values = self.z, torch.from_numpy(self.h), self.values
        draw = np.random.default_rng(1)
        where = {(j, v): np.flatnonzero(z[:, j] == v) for j in range(z.shape[1]) for v in range(values)}

        class Data:
            num_factors = z.shape[1]
            gt_data = property(lambda self: self)

            def sample_factors(self, count):
                return z[draw.integers(len(z), size=count)]

            def dataset_batch_from_factors(self, factors, mode):
                held = int((factors == factors[0]).all(0).argmax())
                return h[draw.choice(where[held, int(factors[0, held])], len(factors))]

        return Data()


CONTENDERS = {
    "unmix": Unmix,
    "unmix, trees": UnmixTrees,
    "disent (scaled up)": Disent,
    "scikit-learn (scaled)": ScikitLearn,
}
GOALS = {"": [("unmix", "disent (scaled up)", 50.0), ("unmix, trees", "scikit-learn (scaled)", 50.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders whose numbers are not those of unmix: name -> why."""
    wrong, own = {}, checks.get("unmix", {})
    allowed = {"top": 0.02, "mig": 1e-12, "sap0": 1e-3}
    for name, facts in checks.items():
        for fact, tolerance in allowed.items():
            if fact in facts and fact in own and abs(facts[fact] - own[fact]) > tolerance:
                wrong[name] = f"{fact} {facts[fact]:.6f} where {own[fact]:.6f} is unmix's"
    return wrong
