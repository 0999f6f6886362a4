"""The paper's statements and numbers beside the measured ones, each with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unmix.core.statistics import seed_interval
from unmix.papers.claimed import NO_CLAIM, claimed, counted

PAPER = "arXiv 2406.06158"
FILES = f"{PAPER}, the authors' results of figure 1b at step 100"
CLOSE = 0.15  # relative: a mean this near to the published one counts as the same
UNITS = 50  # hidden units that the authors' Hamming distance sums over
# Read off the paper's figure of the random hierarchy model at 6,291 rows: alpha -> test error.
HIERARCHY = {10.0: 0.111, 3.0: 0.179, 1.0: 0.235, 0.3: 0.284, 0.1: 0.355, 0.03: 0.530}
HIERARCHY_ROWS = 6291


def compared(claim: str, source: str, published: float, values: Sequence[float]) -> dict[str, Any]:
    """A published number beside the mean over seeds.

    It replicates within 15 %; beyond, it differs unless the 95 % t interval over seeds holds the published number,
    or there is but one seed.
    """
    mean, low, high = seed_interval(values)
    far = mean / published - 1
    verdict, why = "differs", f"{far:+.0%}, outside the interval"
    if abs(far) <= CLOSE:
        verdict, why = "replicates", f"within {CLOSE:.0%}"
    elif len(values) < 2 or low <= published <= high:
        many = f"{len(values)} seeds" if len(values) > 1 else "one seed"
        verdict, why = "not comparable", f"{far:+.0%}, but {many} cannot tell them apart"
    interval = "" if low != low else f"{low:.3g} to {high:.3g}"
    return claimed(claim, source, published, float(f"{mean:.3g}"), verdict, why, len(values), interval)


def stated(
    claim: str, source: str, published: str, measured: str, holds: bool, why: str, seeds: int
) -> dict[str, Any]:
    """A claim that is a statement rather than a number."""
    return claimed(claim, f"{PAPER}, {source}", published, measured, holds, why, seeds)


def exact_claims(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Closed forms beside simulation. found: name of the part -> its result."""
    made = []
    for name, claim, where, most in (
        ("neuron_flow", "one neuron: the solution is the flow, for every balance and sign", "section 3", 1e-8),
        ("endpoints", "one neuron, fewer data than dimensions: the bias decides the end", "theorem 3.1", 1e-8),
        ("wide_flow", "wide linear networks: the solution is the flow", "section 4", 1e-8),
        ("deep_flow", "deep linear networks: the bias decides the end", "section 4", 1e-7),
    ):
        if name in found:
            result = found[name]
            told = f"largest difference {result['largest']:.1e} in {result['cases']} cases"
            made.append(stated(claim, where, "equal", told, result["largest"] < most, f"below {most:g} wanted", 1))
    if "delay" in found:
        lines = found["delay"]
        told = ", ".join(f"{line['ratio']:.3f}" for line in lines)
        holds = abs(lines[-1]["ratio"] / lines[-1]["limit"] - 1) < 0.01
        why = f"time until the cosine is .9 over |delta|, at {', '.join(format(v['delta'], 'g') for v in lines)}"
        limit = f"proportional to |delta|, limit {lines[-1]['limit']:.3f}"
        made.append(stated("downstream: rich after a delay", "section 3", limit, told, holds, why, 1))
    return made


def teacher_claims(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Two-layer ReLU networks. runs: scale, balance, seed, test, hamming, kernel distance, motion."""
    if runs.empty:
        return []
    means = runs.groupby(["scale", "balance"])[["test", "hamming", "kernel distance"]].mean()
    scale, balance = means.index[int(means["test"].argmin())]
    smallest, most = runs["scale"].min(), runs["balance"].max()
    up = runs[(runs["scale"] == smallest) & (runs["balance"] == most)]
    down = runs[(runs["scale"] == smallest) & (runs["balance"] == runs["balance"].min())]
    holds = bool(scale <= sorted(set(runs["scale"]))[min(1, runs["scale"].nunique() - 1)] and balance > 0)
    made = [
        stated(
            "two-layer ReLU: the test loss is smallest at small scale and large positive balance",
            "figures 1b and 5b", "upstream", f"smallest at scale {scale:g}, balance {balance:g}", holds,
            "means over seeds on the grid", len(up),
        )
    ]  # fmt: skip
    if most > 0 > runs["balance"].min():
        ratio = up["hamming"].mean() / max(down["hamming"].mean(), 1e-12)
        moved = up["motion"].mean() / down["motion"].mean()
        made.append(
            stated(
                "upstream is rapidly rich: patterns switch while the weights hardly move", "section 5",
                "many switch at little motion",
                f"{ratio:.0f} times the switches of downstream at {moved:.2f} times its motion",
                ratio > 5 and moved < 2, f"scale {smallest:g}", len(up),
            )
        )  # fmt: skip
    if (runs["steps"] == 100).all() and smallest == 0.1 and most == 1.0:
        made.append(compared("smallest mean test loss on the grid", FILES, 0.00152, _cell(runs, "test", "min")))
        switched = [UNITS * value for value in _cell(runs, "hamming", "max")]
        made.append(compared(f"largest mean Hamming distance, of {UNITS} units", FILES, 20.3, switched))
        made.append(compared("largest mean kernel distance", FILES, 0.2385, _cell(runs, "kernel distance", "max")))
    return made


def _cell(runs: pd.DataFrame, column: str, end: str) -> list[float]:
    """The seeds of the cell whose mean is least or largest."""
    means = runs.groupby(["scale", "balance"])[column].mean()
    scale, balance = means.index[int(means.argmin() if end == "min" else means.argmax())]
    return runs[(runs["scale"] == scale) & (runs["balance"] == balance)][column].tolist()


def hierarchy_claims(runs: pd.DataFrame, epochs: int) -> list[dict[str, Any]]:
    """The random hierarchy model. runs: alpha, rows, seed, error."""
    made = []
    here = runs[runs["rows"] == HIERARCHY_ROWS] if len(runs) else runs
    if here.empty:
        return []
    source = f"{PAPER}, figure 6c, read off the drawing"
    means = here.groupby("alpha")["error"].mean().sort_index(ascending=False)
    if len(means) > 1:
        told = ", ".join(f"{alpha:g}: {value:.3f}" for alpha, value in means.items())
        wanted = " < ".join(f"alpha {alpha:g}" for alpha in means.index)
        seeds = int(here.groupby("alpha").size().min())
        rises = bool(means.is_monotonic_increasing)
        made.append(
            stated("upstream starts need fewer data of the random hierarchy model", "figure 6c", wanted, told, rises,
                   f"test error at {HIERARCHY_ROWS:,} rows", seeds)
        )  # fmt: skip
    for alpha in here["alpha"].unique():
        mine = here[here["alpha"] == alpha]
        if alpha in HIERARCHY and epochs == 250:
            claim = f"random hierarchy model, {HIERARCHY_ROWS:,} rows: test error at alpha = {alpha:g}"
            made.append(compared(claim, source, HIERARCHY[float(alpha)], mine["error"].tolist()))
    return made


def grokking_claims(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Modular arithmetic. runs: alpha, tau, seed, steps (NaN: not reached), fitted, budget."""
    made = []
    plain, base = runs[runs["tau"] == 1], runs[(runs["tau"] == 1) & (runs["alpha"] == 1)]
    for alpha in sorted(set(plain["alpha"]) - {1.0}, reverse=True):
        what, faster = f"embeddings divided by {alpha:g}", alpha > 1
        made += _quicker(what, "alpha = 1", faster, plain[plain["alpha"] == alpha], base, ["seed"])
    for tau in sorted(set(runs["tau"]) - {1.0}):
        what = f"logits times {tau:g}"
        made += _quicker(what, "tau = 1", tau < 1, runs[runs["tau"] == tau], plain, ["alpha", "seed"])
    return made


def _quicker(
    what: str, other: str, faster: bool, mine: pd.DataFrame, base: pd.DataFrame, keys: list[str]
) -> list[dict[str, Any]]:
    """Whether a change shortens or lengthens the time to generalise, run by run with the same keys."""
    both = mine.merge(base, on=keys, suffixes=("", "_base"))
    if both.empty:
        return []
    # A censored time is at least its budget: the ratio is then a bound.
    ratios = both["steps"].fillna(both["budget"]) / both["steps_base"].fillna(both["budget_base"])
    middle, late = float(ratios.median()), int((both["steps"].isna() | both["steps_base"].isna()).sum())
    told = f"{middle:.2f} times the steps of {other} (each run: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    why = "another task than the paper's: the direction is compared, not a number"
    if late:
        why += f"; {late} censored at the budget"
    claim = f"grokking: {what} {'shorten' if faster else 'lengthen'} the time to generalise"
    published = "sooner" if faster else "later"
    holds = (middle < 1) == faster and middle != 1
    return [stated(claim, "figures 6d and 12", published, told, holds, why, both["seed"].nunique())]


def filter_claims(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Filters of a small CNN. runs: alpha, seed, before, after, accuracy."""
    if runs.empty or runs["alpha"].nunique() < 2:
        return []
    means = runs.groupby("alpha")[["after", "accuracy"]].mean().sort_index(ascending=False)
    told = ", ".join(f"alpha {alpha:g}: {row['after']:.2f}" for alpha, row in means.iterrows())
    right = ", ".join(f"{value:.1%}" for value in means["accuracy"])
    return [
        stated(
            "small filters at the start become smooth ones, large ones stay noise", "figures 6b and 11",
            "smooth at alpha 10, noise at .1", told, bool(means["after"].is_monotonic_increasing),
            f"roughness; digits and one layer instead of CIFAR-10 and a residual network; accuracy {right}",
            int(runs.groupby("alpha").size().min()),
        )
    ]  # fmt: skip


def headline(claims: Sequence[Mapping[str, Any]]) -> str:
    """What came out, in a sentence or two."""
    if not claims:
        return NO_CLAIM
    told = counted(claims, "cannot be told apart or compared")
    differing = [c["claim"] for c in claims if c["verdict"] == "differs"]
    end = f" What differs: {'; '.join(differing)}." if differing else ""
    return f"Of {len(claims)} claims {told}.{end}"
