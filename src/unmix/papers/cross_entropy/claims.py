"""The paper's numbers beside the measured ones, and the theorem's statements with the bounds they are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unmix.core.statistics import seed_interval
from unmix.papers.claimed import NO_CLAIM, claimed, counted
from unmix.papers.cross_entropy.grids import Row
from unmix.papers.cross_entropy.pictures import MARKS

TABLES = "arXiv 2410.21869, Tables 2, 3 and 5 (R2 of z)"
THEOREM = "arXiv 2410.21869, Theorems 1C and 2"
SPRITES = "arXiv 2410.21869, the experiment on dSprites (Pearson r)"
CLOSE = 0.02  # a mean this near to the published one counts as the same
FINISHED = 0.03  # nats above the best possible below which training counts as finished


def compared(
    claim: str, source: str, published: float, values: Sequence[float], caveat: str = "", apart: str = ""
) -> dict[str, Any] | None:
    """A published number beside the mean over seeds; None where nothing was measured.

    It replicates within .02 and differs beyond; caveat: why the two are not the same quantity. apart: what is known
    of a difference downwards.
    """
    if not len(values):
        return None
    mean, low, high = seed_interval(values)
    difference = mean - published
    verdict, why = "differs", f"{difference:+.3f}"
    if abs(difference) <= CLOSE:
        verdict, why = "replicates", f"within {CLOSE}"
    elif difference > 0:
        why += ": nearer to the truth than published"
    elif apart:
        why += f": {apart}"
    interval = "" if low != low else f"{low:.3f} to {high:.3f}"
    judged = ("not comparable", caveat) if caveat else (verdict, why)
    return claimed(claim, source, published, round(mean, 3), *judged, len(values), interval)


def stated(
    claim: str, published: str, measured: str, holds: bool, why: str, seeds: int, caveat: str = ""
) -> dict[str, Any]:
    """A statement of the theorem, with the bound that it is held to."""
    return claimed(claim, THEOREM, published, measured, None if caveat else holds, caveat or why, seeds)


def theorem_claims(table: pd.DataFrame, caveat: str = "") -> list[dict[str, Any]]:
    """What the theorem says at 5 latents, 100 classes, concentration 10; every seed has to meet the bound.

    table: rows of `runs.row_of` with `labels`, classes or instances.
    """
    found: list[dict[str, Any]] = []
    if table.empty:
        return found

    def say(claim: str, rows: pd.DataFrame, column: str, low: float, high: float, theory: str) -> None:
        values = rows[column].dropna() if column in rows else pd.Series(dtype=float)
        if len(values):
            told = f"{values.min():.4f} to {values.max():.4f}"
            bound = f"held to at least {low:g}" if high == float("inf") else f"held to {low:g} to {high:g}"
            holds = bool((values >= low).all() and (values <= high).all())
            found.append(stated(claim, theory, told, holds, bound, len(values), caveat))

    top = float("inf")
    for (labels, case), rows in table.groupby(["labels", "case"], sort=False):
        name = f"{case}, {labels}"
        if (labels, case) != ("classes", "C2"):
            say(f"{name}: latents are linear in the representation (mean R2)", rows, "r2", 0.985, top, "1")
            say(f"{name}: each single latent is (smallest R2)", rows, "r2_minimum", 0.98, top, "1")
        if case == "C1":
            say(f"{name}: the inverse temperature is the concentration (beta / kappa)", rows, "beta_ratio", 0.94,
                1.06, "1")  # fmt: skip
        if case in ("C1", "C3"):
            say(f"{name}: singular values of the map are kappa / beta (largest relative error)", rows,
                "singular_values", 0.0, 0.06, "0")  # fmt: skip
        if labels == "instances":
            say(f"{name}: instances of a class share their weights (variance within classes)", rows, "within_class",
                0.0, 0.005, "0")  # fmt: skip
        if (labels, case) != ("classes", "C2"):
            say(f"{name}: cross-entropy above the best possible, nats", rows, "excess_loss", -0.005, 0.03, "0")
    return found


def row_claims(rows: Sequence[tuple[Row, dict[str, Any]]], caveat: str = "") -> list[dict[str, Any]]:
    """Lines of the published tables beside ours. rows: each line with a row of `runs.row_of`."""
    found: list[dict[str, Any] | None] = []
    groups: dict[tuple[str, str, str], tuple[float, list[dict[str, Any]]]] = {}
    for row, measured in rows:
        case = measured["case"]
        if case in row.published:
            key = (row.labels, row.name, case)
            groups.setdefault(key, (row.published[case], []))[1].append(measured)
    for (labels, name, case), (published, runs) in groups.items():
        values = [run["r2"] for run in runs]
        found.append(compared(f"{labels}, {case}, {name}", TABLES, published, values, caveat, unfinished(runs)))
    return [claim for claim in found if claim is not None]


def unfinished(runs: Sequence[dict[str, Any]]) -> str:
    """How far training was from its end: the loss that is left, and what R2 did as the loss fell."""
    excess = sum(run["excess_loss"] for run in runs) / len(runs)
    told = f"the loss is {excess:.3f} nats above the best possible after {runs[0]['steps']:,} steps"
    curves = [run["curve"] for run in runs if run.get("curve")]
    if curves:
        _, r2, before = (sum(curve[-2][place] for curve in curves) / len(curves) for place in range(3))
        told += f", and halfway it was {before:.3f} with an R2 of {r2:.3f}"
    return told


def violation_claims(rows: Sequence[tuple[str, dict[str, Any]]], caveat: str = "") -> list[dict[str, Any]]:
    """What has to fail where the theorem does not apply, and what has not."""
    named, found = dict(rows), []
    flat = named.get("class vectors in a subspace")
    if flat is not None:
        worst = flat["worst_direction"]
        told = f"{flat['cases']} cases apply by the check; R2 {flat['r2']:.3f}, along the worst direction {worst:.3f}"
        holds = flat["cases"] == 0 and flat["worst_direction"] < 0.8
        claim = "class vectors in a subspace are flagged before training, and a direction of the latents is lost"
        found.append(stated(claim, "not identified", told, holds, "the check, and an R2 below 0.8", 1, caveat))
    bare, biased = named.get("Zipf classes, no bias"), named.get("Zipf classes, bias")
    if bare is not None and biased is not None:
        told = f"excess loss {bare['excess_loss']:.4f} without, {biased['excess_loss']:.4f} with a bias"
        holds = biased["excess_loss"] < bare["excess_loss"] and biased["r2"] >= 0.97
        claim = "a bias of the head makes up for unlike class frequencies"
        found.append(stated(claim, "absorbs log pi exactly", told, holds, "loss and R2 with a bias", 1, caveat))
    smooth = named.get("label smoothing 0.8, C3")
    if smooth is not None:
        told = f"duality estimate / kappa {smooth['duality_ratio']:.2f}, R2 {smooth['r2']:.3f}"
        holds = smooth["duality_ratio"] < 0.6
        claim = "label smoothing changes the optimal logits: the concentration can no longer be read off"
        found.append(stated(claim, "", told, holds, "held to an estimate below 0.6 kappa", 1, caveat))
    return found


def sprite_claims(
    results: Sequence[dict[str, Any]], published: Mapping[str, tuple[float, ...]]
) -> list[dict[str, Any]]:
    """Factors that no label told of, read out linearly; the published numbers are of other networks."""
    found: list[dict[str, Any] | None] = []
    for factor, numbers in published.items():
        for place, source in ((0, "pixels"), (1, "MLP"), (2, "Conv")):
            if source == "pixels":
                values = [r["pixels"]["r"][factor] for r in results if r["network"] == "MLP"]
            else:
                values = [r["trained"]["r"][factor] for r in results if r["network"] == source]
            caveat = "smaller images and networks, fewer steps" if source == "pixels" else SMALLER
            claim = f"sprites, {factor} from {'raw pixels' if source == 'pixels' else f'the features ({source})'}"
            found.append(compared(claim, SPRITES, numbers[place], values, caveat))
    return [claim for claim in found if claim is not None]


SMALLER = "another network (the paper's: an MLP of 3 x 512 units and a ResNet-18), other training"


def pretrained_claims(tables: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Trained features tell more than untrained ones, of categories and of what an image looks like."""
    found = []
    for table in tables:
        wide = table.pivot(index="factor", columns="source", values="accuracy")
        for marks, rows in (("categories", wide[wide.index.isin(MARKS)]), ("looks", wide[~wide.index.isin(MARKS)])):
            if len(rows):
                means = rows.mean()
                told = ", ".join(
                    f"{means[name]:.2f} {name}" for name in ("trained", "untrained", "random projection")
                )
                what = "categories" if marks == "categories" else "brightness, colour and edges"
                claim = f"{table.attrs['kind']}: {what} are decoded linearly, better than without training"
                ahead = int((rows["trained"] > rows[["untrained", "random projection"]].max(axis=1)).sum())
                why = f"the trained network is ahead in {ahead} of {len(rows)} factors"
                made = stated(claim, "a figure", told, bool(means["trained"] == means.max()), why, 1)
                found.append({**made, "source": "arXiv 2410.21869, the experiment on ImageNet-X"})
    return found


def headline(claims: Sequence[dict[str, Any]], theorem: pd.DataFrame, hard: Sequence[tuple[float, float]]) -> str:
    """What came out. hard: (published, best measured) R2 of the hard lines."""
    if not claims:
        return NO_CLAIM
    told = f"Of {len(claims)} claims {counted(claims)}."
    if len(theorem):
        least, raw = theorem["r2_minimum"].min(), theorem["r2_x"].mean()
        told += (
            f" With the theorem's assumptions met, every latent is recovered with an R2 of at least {least:.3f} in "
            f"all cases and seeds, where raw observations give {raw:.2f} on average."
        )
    beaten = [(old, new) for old, new in hard if new > old + CLOSE]
    if beaten:
        pairs = ", ".join(f"{new:.2f} where it has {old:.2f}" for old, new in beaten)
        told += f" On hard lines of the paper's tables better optimisation gives {pairs}."
    return told
