"""Bases of a representation side by side: how interpretable each is, with the controls that the number needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.activations.transforms import Whiten
from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_rows, gather
from unmix.core.seeds import Stream, as_stream
from unmix.finders import FINDERS
from unmix.finders.base import Finder
from unmix.finders.features import Features
from unmix.scores.interpretability import controls
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike
from unmix.scores.similarity.images import first_copies

NEURONS, POOLS, DIRECTIONS = "neurons", "random pools", "random directions"
SHUFFLED, UNTRAINED = "shuffled activations", "untrained neurons"
ALIGNED = 0.9  # |cosine| with one neuron above which an atom is that neuron
MOSTLY = 0.75  # share of such atoms from which a basis is said to be the neurons again


def halves_of_images(images: Any, rng: int | Stream = 0, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images to fit on and to score on; copies of one image lie on one side: two sorted [.] int64.

    share: of the different images that are fitted on. Raises `UsageError` where a side would be empty.
    """
    first = first_copies(images)
    different = np.unique(first)
    size = round(share * len(different))
    if not 0 < size < len(different):
        raise UsageError(f"share={share}: of {len(different)} different images none are left on one side")
    chosen = as_stream(rng).child("halves of images").numpy().permutation(different)[:size]
    fitted = np.isin(first, chosen)
    return np.flatnonzero(fitted), np.flatnonzero(~fitted)


def compare_bases(
    rows: Any,
    images: Any,
    finders: Iterable[Any],
    similarity: Any = "OrientedEnergy",
    count: int = 5,
    splits: int = 1,
    share: float = 0.5,
    whiten: float | None = None,
    untrained: Any = None,
    draws: int = 1000,
    rng: int | Stream = 0,
) -> pd.DataFrame:
    """Interpretability index of the neurons and of every finder's features, with controls, on images not fitted on.

    Every split fits on a share of the images and scores on the others; copies of an image are never on both sides.
    rows: [n, d], one neuron a column. images: the n images (`ImageItems` or an array). finders: recipes, or their
    names. similarity: a recipe, its name, or images bound already (`Alike`). count: exciting images of a feature.
    share: of the images to fit on. whiten: ridge of a whitening fitted with each split, or None. untrained: [n, d']
    activations of the untrained network on the same images. draws: random sets of the null.
    Gives one row for each split, basis and way to read it: split; basis; role (basis or control); read ("columns",
    "codes" of the finder's own encoder, or "projections" on its atoms); features (how many); aligned (share of atoms
    with a |cosine| above .9 with one neuron: where it is 1 they are the neurons); value with low and high (bootstrap
    over features); chance and chance_deviation (random image sets); z (mean over features); beside (z less that of
    the neurons of the split); significant (share of features with p < .05); effective (images of a set that say
    something); constant (features that do not vary); unique (share of different images); redundancy (mean largest
    |correlation| with another feature); brightness_z and colour_z (the index of the same sets by these alone).
    Controls: random directions and random pools of images, as many as neurons; every finder on rows whose neurons
    were shuffled apart; the neurons' activations on other images; the untrained network.
    Raises `UsageError` for rows and images that differ in number, or where the embedding is the rows.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    matrix = gather(as_rows(rows)).float()
    recipes: list[Finder] = [FINDERS.make(finder) for finder in finders]
    pictures = images if not hasattr(images, "images") else images.images
    if len(pictures) != len(matrix):
        raise UsageError(f"images: {len(pictures)} for {len(matrix)} rows")
    alike = similarity if isinstance(similarity, Alike) else SIMILARITIES.make(similarity).bind(images)
    alike.guard(matrix)
    start = None if untrained is None else gather(as_rows(untrained, "untrained")).float()
    if start is not None and len(start) != len(matrix):
        raise UsageError(f"untrained: {len(start)} rows for {len(matrix)} images")
    stream = as_stream(rng).child("compare bases")
    found: list[dict[str, Any]] = []
    for split in range(splits):
        own = stream.child(split)
        fit, score = halves_of_images(images, own, share)
        given, shown = matrix[fit], matrix[score]
        if whiten is not None:
            affine = Whiten(ridge=whiten).fit(given)
            given, shown = affine(given), affine(shown)
        judge = _Judge(alike.take(score), pictures[score], count, draws, own)
        judge(NEURONS, "basis", "columns", shown)
        judge(SHUFFLED, "control", "columns", controls.shuffled(shown, own))
        d = matrix.shape[1]
        judge(DIRECTIONS, "control", "projections", shown @ controls.random_directions(d, d, own).T)
        judge(POOLS, "control", "projections", shown @ controls.random_pools(given, d, rng=own).T)
        if start is not None:
            judge(UNTRAINED, "control", "columns", start[score])
        apart = controls.shuffled_neurons(given, own)
        for recipe in recipes:
            judge.features(str(recipe), "basis", recipe.fit(given, own), given, shown)
            judge.features(f"{recipe} on shuffled neurons", "control", recipe.fit(apart, own), apart, shown)
        beside = judge.rows[0]["z"]
        found += [{"split": split, **row, "beside": row["z"] - beside} for row in judge.rows]
    return pd.DataFrame(found)


def over_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the splits of `compare_bases`, with z_deviation and beside_deviation (standard deviations)."""
    keys = ["basis", "role", "read"]
    numbers = [name for name in table.columns if name not in (*keys, "split")]
    groups = table.groupby(keys, sort=False)
    spread = groups[["z", "beside"]].std(ddof=1).add_suffix("_deviation")
    return groups[numbers].mean().join(spread).reset_index()


def findings(table: pd.DataFrame, margin: float = 1.0) -> list[str]:
    """What may be said of a table of `compare_bases`: one sentence for each basis, which follows its controls.

    A basis counts as above another where its mean z over the splits is more than `margin` null deviations above.
    Where three quarters of its atoms are single neurons, it is no sign of superposition.
    """
    means: list[dict[Any, Any]] = over_splits(table).to_dict("records")
    z = {(row["basis"], row["read"]): float(row["z"]) for row in means}
    neurons, pools, directions = z[NEURONS, "columns"], z[POOLS, "projections"], z[DIRECTIONS, "projections"]
    told: list[str] = []
    better = False
    for row in means:
        if row["role"] != "basis" or row["basis"] == NEURONS:
            continue
        key, own = (row["basis"], row["read"]), float(row["z"])
        name = f"{key[0]} ({key[1]})"
        if not own - neurons > margin:
            told.append(f"{name}: z {own:.2f}, not more than {margin:g} above the neurons ({neurons:.2f})")
            continue
        apart = z[f"{key[0]} on shuffled neurons", key[1]]
        beside = {"random pools": pools, "random directions": directions, "the same on shuffled neurons": apart}
        reached = [f"{label} ({other:.2f})" for label, other in beside.items() if own - other <= margin]
        same = float(row["aligned"]) >= MOSTLY
        better |= not reached and not same
        words = "and above every control"
        if reached:
            words = f"but so are {', '.join(reached)}: no evidence of features"
        elif same:
            words = "but most of its atoms are single neurons: it reads them better, and finds few other directions"
        told.append(f"{name}: z {own:.2f}, above the neurons ({neurons:.2f}), {words}")
    if not better:
        told.append(
            "No other directions beat the neurons and every control: no sign of superposition by this measure."
        )
    return told


class _Judge:
    """Scores bases on the images of one split, and keeps the rows of the table."""

    def __init__(self, alike: Alike, pictures: Any, count: int, draws: int, rng: Stream) -> None:
        self.alike, self.pictures, self.count, self.draws, self.rng = alike, pictures, count, draws, rng
        self.rows: list[dict[str, Any]] = []

    def features(self, name: str, role: str, features: Features, fitted: Tensor, rows: Tensor) -> None:
        """A finder's features, read by its encoder and by projection: a code leaves out what other atoms explain.

        Features with codes of either sign have no direction of their own; they are turned so that the third moment on
        the rows they were fitted on is positive.
        """
        codes: Codes = features.encode(rows)
        dense, before = codes.dense(), features.encode(fitted).dense()
        sign = torch.ones(dense.shape[1])
        if bool((before < 0).any()):
            sign = torch.where((before - before.mean(0)).double().pow(3).mean(0) < 0, -1.0, 1.0)
        atoms = torch.nn.functional.normalize(features.atoms)
        aligned = float((atoms.abs().amax(1) > ALIGNED).float().mean())
        self(name, role, "codes", dense * sign, aligned)
        self(name, role, "projections", (rows - features.bias) @ features.atoms.T * sign, aligned)

    def __call__(self, name: str, role: str, read: str, activations: Tensor, aligned: float = math.nan) -> None:
        found = interpretability_index(activations, self.alike, self.count, self.rng, self.draws)
        outcome = found.outcome(self.rng)
        varies = np.isfinite(found.values)
        sets = torch.from_numpy(found.detail["rows"][varies])
        p = found.p[varies]
        self.rows.append(
            {
                "basis": name,
                "role": role,
                "read": read,
                "features": activations.shape[1],
                "aligned": aligned,
                "value": found.mean,
                "low": outcome.interval[0],
                "high": outcome.interval[1],
                "chance": float(found.null_mean[0]),
                "chance_deviation": float(found.null_deviation[0]),
                "z": found.mean_z,
                "significant": float((p < 0.05).mean()) if len(p) else math.nan,
                "effective": float(found.effective.mean()),
                "constant": int((~varies).sum()),
                "unique": float(found.detail["unique"]),
                "redundancy": controls.correlation_between(activations),
                **controls.covariates(sets, self.pictures, self.rng, self.draws),
            }
        )


def power_law(rows: Any, low: float = 0.05, high: float = 0.5) -> dict[str, Any]:
    """Spectrum of the activations and the exponent of its power law, lambda_k ~ k^-alpha over some of the ranks.

    rows: [n, d]. low, high: ranks that are fitted, as shares of d; least squares of log variance on log rank.
    Gives variances [d] (falling, shares of the whole), alpha, r2 of the line, dimension (participation ratio) and
    ranks. Raises `UsageError` where fewer than 3 ranks with variance are left.
    Source: Stringer et al. 2019; Klindt et al. 2023, arXiv 2310.11431.
    """
    matrix = gather(as_rows(rows)).double()
    values = torch.linalg.svdvals(matrix - matrix.mean(0)).square()
    values = (values / values.sum().clamp_min(1e-300)).numpy()
    first, last = max(1, math.ceil(low * len(values))), math.floor(high * len(values))
    last = min(last, int((values > 1e-12).sum()))
    if last - first < 2:
        raise UsageError(f"power_law: ranks {first} .. {last} of {len(values)} are too few; give a larger high")
    ranks = np.arange(first, last + 1)
    x, y = np.log(ranks), np.log(values[first - 1 : last])
    slope, offset = np.polyfit(x, y, 1)
    rest = y - slope * x - offset
    r2 = 1 - (rest**2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-300)
    dimension = values.sum() ** 2 / (values**2).sum()
    return {
        "variances": values,
        "alpha": -float(slope),
        "r2": float(r2),
        "dimension": float(dimension),
        "ranks": ranks,
    }


def rotation_test(
    rows: Any, alike: Alike, count: int = 5, rotations: int = 50, rng: int | Stream = 0
) -> dict[str, float | Sequence[float]]:
    """Whether the neurons are special: their index against that of randomly rotated axes of the same space.

    rows: [n, d] on the images of `alike`. Gives value (neurons), mean and deviation over the rotations, z, p
    (one-sided) and all rotated values. Without a privileged basis p is uniform.
    Source: as the rotation test of network dissection, Bau et al. 2017, arXiv 1704.05796.
    """
    matrix, stream = gather(as_rows(rows)).float(), as_stream(rng).child("rotations")
    centred, d = matrix - matrix.mean(0), matrix.shape[1]

    def index(a: Tensor) -> float:
        return interpretability_index(a, alike, count, stream, draws=2).mean

    value = index(centred)
    values: list[float] = []
    for number in range(rotations):
        turn = torch.linalg.qr(torch.randn(d, d, generator=stream.child(number).torch()))[0]
        values.append(index(centred @ turn))
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    p = (1 + sum(other >= value for other in values)) / (1 + rotations)
    return {
        "value": value,
        "mean": mean,
        "deviation": spread,
        "z": (value - mean) / spread,
        "p": p,
        "rotated": values,
    }
