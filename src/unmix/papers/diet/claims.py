"""What the papers say beside what was measured, each with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from unmix.papers.claimed import claimed, counted, over_seeds
from unmix.papers.diet.grids import BASE, DIET, LABELLED, RAW, UNTRAINED

PAPER, REVISED = "arXiv 2302.10260", "arXiv 2406.10743"
THEORY = "arXiv 2410.21869"
MEMORY = "OpenReview GFNTbsVFlP, abstract"
NEAR = 0.03  # of another objective, and over batch sizes
AHEAD = 0.10  # of what is not trained, on photographs
AIM = "unmix docs/diet.md"  # that it should be so far ahead is an aim of the study, no claim of a paper
EXACT, ANGLE = 1e-8, 0.1  # of the closed form, and degrees
PUBLISHED_R2, R2 = 0.990, 0.985
TRACKS = 0.5  # least rank correlation
WHERE = {"digits": "digits", "images": "your pictures"}


def claim(
    text: str, source: str, published: str, measured: str, holds: bool | None, why: str, values: Sequence[float] = ()
) -> dict[str, Any]:
    """A statement and whether it holds; None where it cannot be compared. values: of the seeds."""
    seeds = len(values) or int(holds is not None)
    return claimed(text, source, published, measured, holds, why, seeds, over_seeds(values))


def of(frame: pd.DataFrame, method: str, column: str = "linear") -> list[float]:
    """A method's values, in the order of its seeds; failed ones are left out."""
    rows = frame[(frame["method"] == method) & frame[column].notna()] if column in frame and len(frame) else frame
    return rows.sort_values("seed")[column].tolist() if len(rows) else []


def compared_claims(frame: pd.DataFrame, section: str) -> list[dict[str, Any]]:
    """DIET beside what is not trained and other objectives. frame: rows of `page.outcomes` of one section."""
    diet, start, raw = (of(frame, method) for method in (DIET, UNTRAINED, RAW))
    if not (diet and start and raw):
        return []
    where = WHERE[section]
    ahead = 0.0 if section == "digits" else AHEAD
    beyond, source = (f" by {100 * ahead:.0f} points", AIM) if ahead else ("", PAPER)
    gains = [one - other for one, other in zip(diet, start, strict=False)]
    text = f"{where}: DIET's linear probe beats the untrained network{beyond} on every seed"
    told = f"{_mean(diet):.3f} against {_mean(start):.3f}"
    why = f"least gain {min(gains):+.3f}"
    found = [claim(text, source, "", told, min(gains) > ahead, why, diet)]
    text = f"{where}: DIET's linear probe beats raw pixels{beyond} on the mean"
    told = f"{_mean(diet):.3f} against {raw[0]:.3f}"
    gain, better = _mean(diet) - raw[0], sum(value > raw[0] for value in diet)
    counts = f"gain {gain:+.3f}; better on {better} of {len(diet)} seeds"
    found.append(claim(text, source, "", told, gain > ahead, counts, diet))
    rivals = {m: _mean(of(frame, m)) for m in dict.fromkeys(frame["method"]) if m not in (DIET, *_APART)}
    rivals = {method: value for method, value in rivals.items() if value == value}
    if rivals:
        best = max(rivals, key=lambda method: rivals[method])
        text = f"{where}: at equal compute DIET is within {100 * NEAR:.0f} points of the best label-free rival"
        told = f"{_mean(diet):.3f} against {rivals[best]:.3f} of {best}"
        why = "a few hundred thousand pictures at most: other designs do not help, says the paper"
        found.append(claim(text, REVISED, "", told, _mean(diet) >= rivals[best] - NEAR, why, diet))
    ranks = {method: of(frame, method, "rankme") for method in (DIET, "SimCLR", "VICReg")}
    if all(ranks.values()):
        told = ", ".join(f"{method} {_mean(values):.1f}" for method, values in ranks.items())
        holds = _mean(ranks[DIET]) > max(_mean(ranks["SimCLR"]), _mean(ranks["VICReg"]))
        text = f"{where}: DIET's features have a higher rank than those of SimCLR and VICReg"
        why = "RankMe on held-out pictures; theirs on CIFAR-100 and TinyImageNet"
        found.append(claim(text, MEMORY, "higher", told, holds, why, ranks[DIET]))
    return found


def tracking_claims(looks: pd.DataFrame, ends: pd.DataFrame) -> list[dict[str, Any]]:
    """The training loss tells the probe. looks: section, seed, excess, accuracy on the way; ends: of settings."""
    found = []
    for section, rows in looks.groupby("section", sort=False) if len(looks) else ():
        each = [correlation(part["excess"].tolist(), part["accuracy"].tolist()) for _, part in rows.groupby("seed")]
        text = f"{WHERE[str(section)]}: while DIET trains, a lower loss goes with a better linear probe"
        told = f"rank correlation {_mean(each):+.2f}"
        why = "excess loss and validation accuracy at 7 times in each run"
        made = claim(text, THEORY, "correlates", told, _mean(each) <= -TRACKS, why, each)
        found.append({**made, "interval": over_seeds(each, 1, -1)})
    same = ends[ends["comparable"]] if len(ends) else ends
    if len(same) >= 5:
        value = correlation(same["excess"].tolist(), same["linear"].tolist())
        text = "digits: between settings of one smoothing a lower loss goes with a better probe"
        told = f"rank correlation {value:+.2f} over {len(same)} runs"
        why = "other batches, learning rates and views, all pictures"
        found.append(claim(text, THEORY, "correlates", told, value <= -TRACKS, why))
    return found


def sensitivity_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Robust to the batch; features on the sphere help. frame: rows of the section sensitivity."""
    rows = frame[frame["linear"].notna()] if len(frame) and "linear" in frame else frame.iloc[:0]
    means: dict[Any, float] = (
        rows.groupby(["factor", "value"], sort=False)["linear"].mean().to_dict() if len(rows) else {}
    )
    if ("", BASE) not in means:
        return []
    base, found = means["", BASE], []
    batches = {value: mean for (factor, value), mean in means.items() if factor == "batch"}
    if batches:
        spread = max(*batches.values(), base) - min(*batches.values(), base)
        text = f"digits: DIET is robust to the batch size (within {100 * NEAR:.0f} points from 32 to 512)"
        told = f"{min(*batches.values(), base):.3f} to {max(*batches.values(), base):.3f}"
        why = f"one learning rate for all; seeds: {len(rows['seed'].unique())}"
        found.append(claim(text, MEMORY, "robust", told, spread <= NEAR, why))
    sphere = means.get(("features", "on the sphere"))
    if sphere is not None:
        text = "digits: features on the sphere help DIET"
        told = f"{float(sphere):.3f} against {base:.3f}"
        found.append(claim(text, MEMORY, "helps", told, float(sphere) > base, "beta 16, otherwise as above"))
    return found


def linear_claims(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gradient descent ends where the closed form says. records: of `linear.check`."""
    found = []
    for objective in dict.fromkeys(record["objective"] for record in records):
        rows = [record for record in records if record["objective"] == objective]
        off = max(abs(record["descended"] - record["closed"]) for record in rows)
        apart = max(record["angle"] for record in rows)
        widths = ", ".join(str(record["width"]) for record in rows)
        text = f"a linear encoder, {objective}: least loss and subspace are those of the eigenvalue problem"
        told = f"loss within {off:.0e}, subspace within {apart:.1g} degrees"
        why = f"widths {widths}; L-BFGS from random starts"
        found.append(claim(text, "derived", "equal", told, off <= EXACT and apart <= ANGLE, why))
    return found


def latent_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """DIET recovers known latents up to a linear map. frame: rows of the section latents."""
    values = of(frame, "smoothing 0", "r2")
    if not values:
        return []
    text = "known latents: DIET recovers them up to a linear map (R2; 5 latents, 100 classes, 1,000 data)"
    worst = min(of(frame, "smoothing 0", "r2_minimum"))
    told = f"{_mean(values):.3f}, worst latent {worst:.3f}"
    why = "fewer steps and another network than the paper's"
    found = [claim(text, f"{THEORY}, table 2", f"{PUBLISHED_R2:.3f}", told, min(values) >= R2, why, values)]
    smooth = of(frame, "smoothing .8", "r2")
    if smooth:
        text = "known latents: smoothing of .8, the default, is harmless to the recovery"
        told = f"{_mean(smooth):.3f} against {_mean(values):.3f}"
        why = "symmetric label noise, which smoothing equals in expectation, is harmless up to .8, says the paper"
        found.append(claim(text, THEORY, "harmless", told, _mean(smooth) >= _mean(values) - 0.01, why, smooth))
    return found


def published_claims() -> list[dict[str, Any]]:
    """Accuracies that the abstract gives, on data and networks that this study does not have."""
    told = "not measured here"
    return [
        claim(
            f"{data}: linear probe of DIET, {network}", f"{PAPER}, abstract", value, told, None, "needs days of a GPU"
        )
        for data, network, value in (("CIFAR-100", "ResNet-101", "71.4 %"), ("TinyImageNet", "ResNeXt-50", "52.5 %"))
    ]


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one of them is constant."""
    from scipy.stats import spearmanr

    if len(set(one)) < 2 or len(set(other)) < 2:
        return 0.0
    return float(spearmanr(list(one), list(other)).statistic)


def headline(found: Sequence[dict[str, Any]], frame: pd.DataFrame) -> str:
    """What came out, a sentence for each set of pictures."""
    told = f"Of {len(found)} claims {counted(found)}."
    for section, where in WHERE.items():
        rows = frame[frame["section"] == section] if len(frame) else frame
        means = {m: of(rows, m) for m in (DIET, LABELLED, UNTRAINED, RAW)}
        if all(means.values()):
            diet, labels, start, raw = (f"{_mean(means[m]):.3f}" for m in (DIET, LABELLED, UNTRAINED, RAW))
            told += (
                f" On {where} a linear probe of DIET's features reaches {diet}, where raw pixels have {raw}, the "
                f"untrained network {start} and the same network with labels {labels}."
            )
    return told


_APART = (LABELLED, UNTRAINED, RAW)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values)) if len(values) else float("nan")
