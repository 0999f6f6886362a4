"""Get rich quick: what scale and balance of the start decide, exactly and in small networks, beside the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from unmix.core.named import load_class
from unmix.core.recipe import Recipe
from unmix.papers.costs import per_unit
from unmix.papers.parts import Part, run_parts
from unmix.study.engines import Engine, Processes
from unmix.study.present import duration
from unmix.study.runs import Store

HERE = "unmix.papers.get_rich_quick."
EXPERIMENTS = "unmix.regimes.experiments:"
SectionName = Literal["exact", "teacher", "parity", "hierarchy", "grokking", "filters"]
SECTIONS: tuple[SectionName, ...] = get_args(SectionName)
# Function -> which setting is its length, and two short ones to time.
LENGTHS = {
    "teacher_run": ("steps", 2, 12),
    "parity_run": ("steps", 2, 32),
    "hierarchy": ("epochs", 1, 2),
    "grokking": ("budget", 2, 22),
    "filters": ("steps", 2, 12),
}
CENSORED = ("parity_run", "grokking")  # end as soon as the level is reached
SHAPES = ([2, 5, 3, 1.5], [4, 4, 6, -2.0], [1, 4, 1, -1.0], [3, 5, 3, 0.0])


class GetRichQuick(Recipe):
    """Learning regimes: exact solutions beside simulation, small networks over the scale and balance of the start.

    sections: which parts to run. seeds: of the quick runs; None takes 4 (on the grid 2) in the small study and 6 in
    the full one. slow_seeds: of the random hierarchy model, grokking and filters. cases: random
    starts that closed forms are compared on. scales, balances: of two-layer networks that learn a teacher; None takes
    5 of each and 9 of each. steps: of these networks. parity_steps: after which a parity run is censored, None takes
    2,000 and 16,000. hierarchy_alphas, rows, epochs: of the random hierarchy model; None takes 3 and 6 alphas, 1 and
    3 numbers of training rows. modulus, fraction, operation, tokens, level: of modular arithmetic, the transformer's
    width and the share of held-out pairs that counts as learnt. grokking_alphas, taus: factors on embeddings (over
    alpha) and logits (times tau), every pair of them; None takes 3 and 7 alphas, 2 and 5 taus. budget: steps after
    which a grokking run is censored, None takes 8,000 and 30,000. filter_alphas, filter_steps: of the CNN.
    """

    equation: ClassVar[str] = "delta = |a|^2 - |w|^2 is conserved; upstream delta > 0, balanced 0, downstream < 0"
    reference: ClassVar[str] = "Kunin, Raventos, Domine, Chen, Klindt, Saxe, Ganguli 2024, arXiv 2406.06158"
    name: ClassVar[str] = "get-rich-quick"

    sections: tuple[SectionName, ...] = SECTIONS
    seeds: tuple[int, ...] | None = None
    slow_seeds: tuple[int, ...] = (0, 1, 2)
    cases: int = Field(default=200, ge=8)
    scales: tuple[float, ...] | None = None
    balances: tuple[float, ...] | None = None
    steps: int = Field(default=100, ge=1)
    parity_steps: int | None = Field(default=None, ge=1)
    hierarchy_alphas: tuple[float, ...] | None = None
    rows: tuple[int, ...] | None = None
    epochs: int = Field(default=250, ge=1)
    modulus: int = Field(default=31, ge=3)
    fraction: float = Field(default=0.6, gt=0, lt=1)
    operation: str = "a+b"
    tokens: int = Field(default=64, ge=4, multiple_of=4)
    level: float = Field(default=0.99, gt=0, le=1)
    grokking_alphas: tuple[float, ...] | None = None
    taus: tuple[float, ...] | None = None
    budget: int | None = Field(default=None, ge=1)
    filter_alphas: tuple[float, ...] = (10.0, 1.0, 0.1)
    filter_steps: int = Field(default=400, ge=1)

    def chosen(self, small: bool) -> dict[str, tuple[Any, ...]]:
        """What fields that are None stand for in a study of this size."""
        sizes: dict[str, tuple[Any, Any]] = {
            "seeds": ((0, 1, 2, 3), (0, 1, 2, 3, 4, 5)),
            "scales": ((0.1, 0.2, 0.5, 1.0, 2.0), (0.1, 0.15, 0.2, 0.3, 0.45, 0.65, 1.0, 1.4, 2.0)),
            "balances": ((-1.0, -0.5, 0.0, 0.5, 1.0), (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)),
            "parity_steps": ((2000,), (16_000,)),
            "hierarchy_alphas": ((10.0, 1.0, 0.1), (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)),
            "rows": ((6291,), (3146, 6291, 12_583)),
            "grokking_alphas": ((100.0, 10.0, 1.0), (100.0, 32.0, 10.0, 3.0, 1.0, 0.3, 0.1)),
            "taus": ((1.0, 0.5), (1.0, 0.5, 0.75, 1.25, 1.5)),
            "budget": ((8000,), (30_000,)),
        }
        found = {}
        for name, (few, many) in sizes.items():
            given = getattr(self, name)
            value = (few if small else many) if given is None else given
            found[name] = value if isinstance(value, tuple) else (value,)
        return found

    def parts(self, small: bool) -> list[Part]:
        """Every piece of work of a study of this size."""
        made = self.chosen(small)
        found: list[Part] = []
        for section in self.sections:
            found += getattr(self, f"_{section}")(made, small)
        return found

    def plan(self, small: bool) -> str:
        """What would be run, and what it costs: every kind of training is begun to see."""
        alike: dict[str, list[Part]] = {}
        for part in self.parts(small):
            alike.setdefault(part.function, []).append(part)
        return "\n".join(self._cost(function, parts) for function, parts in alike.items())

    def _cost(self, function: str, parts: list[Part]) -> str:
        name = function.rpartition(":")[2]
        if name not in LENGTHS:
            return f"{len(parts)} x {name}"
        field, few, more = LENGTHS[name]
        # The largest one stands for all, with its own number of rows.
        settings = max((part.settings for part in parts), key=lambda one: one.get("rows", 0))
        run = load_class(function)
        each = per_unit(lambda count: run(**{**settings, field: count}), few, more)
        longest = sum(each * part.settings[field] * part.settings.get("rows", 1) for part in parts)
        told = duration(longest / settings.get("rows", 1))
        return f"{len(parts)} x {name}: {told} of one core as busy as now" + (" at most" * (name in CENSORED))

    def run(self, folder: str | Path, small: bool, engine: Engine | None = None) -> Path:
        """Run what is missing, write claims.json and the page; returns the page's path."""
        from unmix.papers.get_rich_quick.page import write

        folder = Path(folder)
        Store(folder).create()
        run_parts(folder, self.parts(small), engine or Processes(workers=None))
        return write(self, folder, small)

    def _exact(self, made: dict[str, Any], small: bool) -> list[Part]:
        return [
            Part(f"{HERE}exact:neuron_flow", {"cases": self.cases}),
            Part(f"{HERE}exact:endpoints", {"cases": max(4, self.cases // 10)}),
            Part(f"{HERE}exact:wide_flow", {"shapes": [list(shape) for shape in SHAPES]}),
            Part(f"{HERE}exact:deep_flow", {"layers": [1, 2, 3]}),
            Part(f"{HERE}exact:delay", {"deltas": [-10.0, -20.0, -40.0, -80.0]}),
        ]

    def _teacher(self, made: dict[str, Any], small: bool) -> list[Part]:
        found = []
        corners = {(min(made["scales"]), balance) for balance in (min(made["balances"]), 0.0, max(made["balances"]))}
        for scale in made["scales"]:
            for balance in made["balances"]:
                # The claims are about the smallest scale: all seeds there, two on the rest of the small grid.
                seeds = made["seeds"] if not small or (scale, balance) in corners else made["seeds"][:2]
                for seed in seeds:
                    settings = {"scale": scale, "balance": balance, "seed": seed, "steps": self.steps}
                    found.append(Part(f"{EXPERIMENTS}teacher_run", settings))
        return found

    def _parity(self, made: dict[str, Any], small: bool) -> list[Part]:
        budget = made["parity_steps"][0]
        starts = [(0.1, 1.0), (0.1, 0.0), (0.1, -1.0)] if small else [(0.1, 1.0), (0.1, 0.0), (0.1, -1.0), (1.0, 0.0)]
        return [
            Part(f"{EXPERIMENTS}parity_run", {"scale": s, "balance": b, "seed": seed, "steps": budget})
            for s, b in starts
            for seed in made["seeds"]
        ]

    def _hierarchy(self, made: dict[str, Any], small: bool) -> list[Part]:
        return [
            Part(f"{HERE}runs:hierarchy", {"alpha": alpha, "rows": rows, "seed": seed, "epochs": self.epochs})
            for rows in made["rows"]
            for alpha in made["hierarchy_alphas"]
            for seed in self.slow_seeds
        ]

    def _grokking(self, made: dict[str, Any], small: bool) -> list[Part]:
        shared = {name: getattr(self, name) for name in ("modulus", "fraction", "operation", "tokens", "level")}
        return [
            Part(
                f"{HERE}runs:grokking",
                {"alpha": alpha, "tau": tau, "seed": seed, "budget": made["budget"][0], **shared},
            )
            for tau in made["taus"]
            for alpha in reversed(made["grokking_alphas"])
            for seed in self.slow_seeds
        ]

    def _filters(self, made: dict[str, Any], small: bool) -> list[Part]:
        return [
            Part(f"{HERE}runs:filters", {"alpha": alpha, "seed": seed, "steps": self.filter_steps})
            for alpha in self.filter_alphas
            for seed in self.slow_seeds
        ]
