"""The one-neuron flow at many times: the closed form beside scipy's adaptive integrators."""

from __future__ import annotations

import numpy as np

SIZES = {"d16": {"starts": 64, "d": 16, "times": 200, "until": 20.0}}
QUICK = {"small": {"starts": 8, "d": 4, "times": 50, "until": 10.0}}
FLOOR, UNIT = "none", "start"


class Problem:
    """Starts of every balance and sign, and their targets."""

    def __init__(self, size: dict) -> None:
        draw = np.random.default_rng(0)
        self.times = np.linspace(0, size["until"], size["times"])
        self.w = draw.standard_normal((size["starts"], size["d"])) / np.sqrt(size["d"])
        self.a = draw.standard_normal(size["starts"])
        self.target = draw.standard_normal((size["starts"], size["d"])) / np.sqrt(size["d"])
        self.found: np.ndarray | None = None

    def check(self) -> dict:
        from unmix.regimes.exact.neuron import flow

        exact = flow(self.times[:, None], self.a, self.w, self.target).beta
        return {} if self.found is None else {"off": float(np.abs(self.found - exact).max())}

    def run(self) -> dict:
        self.found = self.solve()
        return {"units": len(self.a)}


class Unmix(Problem):
    def solve(self) -> np.ndarray:
        from unmix.regimes.exact.neuron import flow

        return flow(self.times[:, None], self.a, self.w, self.target).beta

    def check(self) -> dict:
        """Against the integrator at its tightest tolerance."""
        tight = Dop853.solve(self, 1e-13)
        return {} if self.found is None else {"off": float(np.abs(self.found - tight).max())}


class Dop853(Problem):
    """The tolerance is what an error below 1e-9 near the separatrix needs."""

    method, tolerance = "DOP853", 1e-13

    def solve(self, tolerance: float | None = None) -> np.ndarray:
        from scipy.integrate import solve_ivp

        rows, tolerance = [], tolerance or self.tolerance
        for a, w, target in zip(self.a, self.w, self.target, strict=True):

            def motion(_: float, state: np.ndarray, target: np.ndarray = target) -> np.ndarray:
                left = target - state[0] * state[1:]
                return np.concatenate([[state[1:] @ left], state[0] * left])

            start = np.concatenate([[a], w])
            method = getattr(self, "method", "DOP853")
            end = self.times[-1]
            y = solve_ivp(motion, (0, end), start, method, self.times, rtol=tolerance, atol=tolerance).y
            rows.append((y[0] * y[1:]).T)
        return np.stack(rows, axis=1)


class Lsoda(Dop853):
    method, tolerance = "LSODA", 1e-12


CONTENDERS = {"unmix": Unmix, "scipy DOP853": Dop853, "scipy LSODA": Lsoda}
GOALS = {"": [("unmix", "scipy DOP853", 100.0), ("unmix", "scipy LSODA", 100.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """All must be equally accurate: closed form and integrators agree to 1e-9."""
    return {name: f"off by {facts['off']:.1e}" for name, facts in checks.items() if facts and facts["off"] > 1e-9}
