"""Bases of a representation side by side: how interpretable each is, with the controls that the number needs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.activations.transforms import Standardise, Whiten
from unmix.core.copies import first_copies
from unmix.core.errors import Failure, UsageError
from unmix.core.rows import as_rows, gather
from unmix.core.seeds import Stream, as_stream
from unmix.finders import FINDERS
from unmix.finders.base import Finder
from unmix.finders.features import Features
from unmix.scores.interpretability import controls
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike, unit_rows

NEURONS, POOLS, DIRECTIONS = "neurons", "random pools", "random directions"
SHUFFLED, UNTRAINED = "shuffled activations", "untrained neurons"
COLUMNS, CODES, PROJECTIONS, ANGLES = "columns", "codes", "projections", "angles"
ALIGNED = 0.9  # |cosine| with one neuron above which an atom is that neuron
SHUFFLES = 5  # of the activations over the images
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
    standardise: bool = False,
    whiten: float | None = None,
    untrained: Any = None,
    draws: int = 1000,
    rng: int | Stream = 0,
) -> pd.DataFrame:
    """Interpretability index of the neurons and of every finder's features, with controls, on images not fitted on.

    Every split fits on a share of the images and scores on the others; copies of an image are never on both sides,
    and count once among those scored.
    rows: [n, d], one neuron a column. images: the n images (`ImageItems` or an array). finders: recipes, or their
    names. similarity: a recipe, its name, or images bound already (`Alike`). count: exciting images of a feature.
    share: of the images to fit on. standardise: first each neuron to mean 0 and deviation 1, then each row to unit
    norm, as recordings are read. whiten: ridge of a whitening after that, or None; both are fitted on the images that
    are fitted on. untrained: [n, d'] activations of the untrained network on the same images. draws: random sets of
    the null.
    Gives one row for each split, basis and way to read it: split; images (different ones that are scored) and copies
    (others of the same content, left out); basis; role (basis or control); read ("columns",
    "codes" of the finder's own encoder, "projections" on its atoms, or "angles": projections of rows about the mean
    and of unit norm, where images that show one thing alone come first); features (how many); aligned (share of
    atoms with a |cosine| above .9 with one neuron: where it is 1 they are the neurons); few (features that are
    active on fewer images than a set has: they are left out of what follows) and constant (features that do not
    vary); value with low and high (bootstrap over features); chance and chance_deviation (random image sets); z (mean
    over features); beside (z less that of the neurons of the split, by angle where the basis is); significant (share
    of features with q < .05, the false discovery rate over the features of the basis); effective (active images in a
    set); unique (share of different images); redundancy (mean largest |correlation| with another feature);
    brightness_z and colour_z (the index of the same sets by these alone). NaN where all features are left out.
    Controls: random directions and random pools of images, as many as neurons; every finder on rows whose neurons
    were shuffled apart; the neurons' activations on other images; the untrained network.
    Raises `UsageError` for rows and images that differ in number, or where the embedding is the rows.
    Source: Klindt et al. 2023, arXiv 2310.11431.
    """
    matrix = gather(as_rows(rows))
    recipes: list[Finder] = [FINDERS.make(finder) for finder in finders]
    pictures = images if not hasattr(images, "images") else images.images
    if len(pictures) != len(matrix):
        raise UsageError(f"images: {len(pictures)} for {len(matrix)} rows")
    alike = similarity if isinstance(similarity, Alike) else SIMILARITIES.make(similarity).bind(images)
    alike.guard(matrix)
    start = None if untrained is None else gather(as_rows(untrained, "untrained"))
    if start is not None and len(start) != len(matrix):
        raise UsageError(f"untrained: {len(start)} rows for {len(matrix)} images")
    stream = as_stream(rng).child("compare bases")
    found: list[dict[str, Any]] = []
    for split in range(splits):
        own = stream.child(split)
        fit, score = halves_of_images(images, own, share)
        every, score = len(score), once(pictures, score)
        given, shown = matrix[fit], matrix[score]
        if standardise:
            affine = Standardise().fit(given)
            given, shown = unit_rows(affine(given)), unit_rows(affine(shown))
        if whiten is not None:
            affine = Whiten(ridge=whiten).fit(given)
            given, shown = affine(given), affine(shown)
        judge = Judge(alike.take(score), pictures[score], count, draws, own)
        fitted = [(str(recipe), recipe, recipe.fit(given, own)) for recipe in recipes]
        before = None if start is None else (start[fit], start[score])
        about = {"split": split, "images": len(score), "copies": every - len(score)}
        found += [{**about, **row} for row in side_by_side(judge, given, shown, fitted, before, own)]
    return pd.DataFrame(found)


def once(images: Any, numbers: np.ndarray) -> np.ndarray:
    """Those of the numbers whose image does not come before them among these."""
    return numbers[first_copies(images[numbers]) == np.arange(len(numbers))]


def side_by_side(
    judge: Judge,
    given: Tensor,
    shown: Tensor,
    fitted: Sequence[tuple[str, Finder, Features]],
    untrained: tuple[Tensor, Tensor] | None = None,
    rng: int | Stream = 0,
) -> list[dict[str, Any]]:
    """Rows of the table of `compare_bases` for features that were fitted already, with every control beside them.

    judge: of the images scored on. given, shown: rows [n, d] that were fitted on, and of those images. fitted: name,
    recipe and features of every basis; the recipe is fitted once more on shuffled neurons, and the control left out
    where that does not converge. untrained: as given and shown, of the untrained network.
    """
    own, d, mean = as_stream(rng), given.shape[1], given.mean(0)
    judge(NEURONS, "basis", COLUMNS, shown)
    judge(NEURONS, "basis", ANGLES, unit_rows(shown - mean))
    judge.on_other_images(shown, own)
    judge.directions(DIRECTIONS, "control", controls.random_directions(d, d, own), shown, mean)
    judge.directions(POOLS, "control", controls.random_pools(given, d, rng=own), shown, mean)
    if untrained is not None:
        before, now = untrained
        judge(UNTRAINED, "control", COLUMNS, now)
        judge(UNTRAINED, "control", ANGLES, unit_rows(now - before.mean(0)))
    apart = controls.shuffled_neurons(given, own)
    for name, recipe, features in fitted:
        judge.features(name, "basis", features, given, shown, mean)
        with contextlib.suppress(Failure):  # nothing to converge to; `findings` says that the control is missing
            judge.features(f"{name} on shuffled neurons", "control", recipe.fit(apart, own), apart, shown, mean)
    neurons = {row["read"]: row["z"] for row in judge.rows if row["basis"] == NEURONS}
    return [{**row, "beside": row["z"] - neurons.get(row["read"], neurons[COLUMNS])} for row in judge.rows]


def over_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the splits of `compare_bases`, with z_deviation and beside_deviation (standard deviations)."""
    keys = ["basis", "role", "read"]
    numbers = [name for name in table.columns if name not in (*keys, "split")]
    groups = table.groupby(keys, sort=False)
    spread = groups[["z", "beside"]].std(ddof=1).add_suffix("_deviation")
    return groups[numbers].mean().join(spread).reset_index()


def findings(table: pd.DataFrame, margin: float = 1.0) -> list[str]:
    """What may be said of a table of `compare_bases`: one sentence for each basis, which follows its controls.

    A basis counts as above another where its mean z over the splits is more than `margin` null deviations above, read
    in the same way (codes beside the neurons' own activations). Features are found where a basis is above neurons and
    every control by angle and by codes or projections as well: a gain by projections alone may come from weighing the
    other neurons against a neuron, which picks purer images in any space. Where three quarters of the atoms are
    single neurons, a gain is no sign of superposition. Features that were left out, active on too few images, are
    counted.
    """
    means: list[dict[Any, Any]] = over_splits(table).to_dict("records")
    if all(row["chance_deviation"] == 0 for row in means):
        return ["All sets of images are equally alike by this similarity: nothing can be said of any feature."]
    z = {(row["basis"], row["read"]): float(row["z"]) for row in means}
    told: list[str] = []
    above: dict[str, set[str]] = {}
    for row in means:
        if row["role"] != "basis" or row["basis"] == NEURONS:
            continue
        basis, read, own = row["basis"], row["read"], float(row["z"])
        flat = ANGLES if read == ANGLES else PROJECTIONS
        neurons = z[NEURONS, ANGLES if read == ANGLES else COLUMNS]
        name = f"{basis} ({read})"
        if math.isnan(own):
            told.append(f"{name}: left out, no feature is active on as many images as a set has")
            continue
        if few := round(row["few"]):
            name += f", without {few} of {row['features']:.0f} features that are active on too few images"
        if not own - neurons > margin:
            told.append(f"{name}: z {own:.2f}, not more than {margin:g} above the neurons ({_told(neurons)})")
            continue
        beside = {label: z[label, flat] for label in (POOLS, DIRECTIONS)}
        apart = z.get((f"{basis} on shuffled neurons", read))
        if apart is not None:
            beside["the same on shuffled neurons"] = apart
        reached = [f"{label} ({_told(other)})" for label, other in beside.items() if not own - other > margin]
        words = "and above every control"
        if reached:
            words = f"but so are {', '.join(reached)}: no evidence of features"
        elif float(row["aligned"]) >= MOSTLY:
            words = "but most of its atoms are single neurons: it reads them better, and finds few other directions"
        else:
            above.setdefault(basis, set()).add(read)
        words += "; on shuffled neurons the finder did not converge" if apart is None else ""
        told.append(f"{name}: z {own:.2f}, above the neurons ({neurons:.2f}), {words}")
    found = [basis for basis, reads in above.items() if ANGLES in reads and len(reads) > 1]
    if found:
        told.append(f"Directions other than the neurons are more interpretable: {', '.join(found)}.")
    else:
        told.append(
            "No other directions beat the neurons and every control, by angle and otherwise: no sign of "
            "superposition by this measure."
        )
    return told


def _told(z: float) -> str:
    return "left out" if math.isnan(z) else f"{z:.2f}"


class Judge:
    """Scores bases on the images of one split, and keeps the rows of the table."""

    def __init__(self, alike: Alike, pictures: Any, count: int, draws: int, rng: Stream) -> None:
        self.alike, self.pictures, self.count, self.draws, self.rng = alike, pictures, count, draws, rng
        self.rows: list[dict[str, Any]] = []

    def features(self, name: str, role: str, features: Features, fitted: Tensor, rows: Tensor, mean: Tensor) -> None:
        """A finder's features, read by its encoder, by projection and by angle.

        A code leaves out what other atoms explain. Features with codes of either sign are turned, see `turned`.
        """
        dense, sign = turned(features, fitted, rows)
        atoms = torch.nn.functional.normalize(features.atoms)
        aligned = float((atoms.abs().amax(1) > ALIGNED).float().mean())
        self(name, role, CODES, dense, aligned)
        self.directions(name, role, features.atoms * sign[:, None], rows, mean, features.bias, aligned)

    def on_other_images(self, rows: Tensor, rng: Stream) -> None:
        """The neurons' activations on other images, the mean of some shuffles: a single one is far from its mean."""
        before = len(self.rows)
        for number in range(SHUFFLES):
            self(SHUFFLED, "control", COLUMNS, controls.shuffled(rows, rng.child(number)))
        every = pd.DataFrame(self.rows[before:])
        self.rows[before:] = [{**self.rows[before], **every.mean(numeric_only=True)}]

    def directions(
        self,
        name: str,
        role: str,
        atoms: Tensor,
        rows: Tensor,
        mean: Tensor,
        bias: Tensor | None = None,
        aligned: float = math.nan,
    ) -> None:
        """Directions [m, d], read by projection and by angle."""
        projected = (rows if bias is None else rows - bias) @ atoms.T.to(rows.dtype)
        self(name, role, PROJECTIONS, projected, aligned)
        self(name, role, ANGLES, unit_rows(rows - mean) @ atoms.T.float(), aligned)

    def __call__(self, name: str, role: str, read: str, activations: Tensor, aligned: float = math.nan) -> None:
        found = interpretability_index(activations, self.alike, self.count, self.rng, self.draws)
        outcome, counted = found.outcome(self.rng), found.counted
        sets = torch.from_numpy(found.detail["rows"][counted])
        some = counted.any()
        self.rows.append(
            {
                "basis": name,
                "role": role,
                "read": read,
                "features": activations.shape[1],
                "aligned": aligned,
                "few": int(found.few.sum()),
                "value": outcome.value,
                "low": outcome.interval[0],
                "high": outcome.interval[1],
                "chance": float(found.null_mean[0]),
                "chance_deviation": float(found.null_deviation[0]),
                "z": found.mean_z if some else math.nan,
                "significant": float((found.q[counted] < 0.05).mean()) if some else math.nan,
                "effective": float(found.effective.mean()),
                "constant": found.detail["constant"],
                "unique": float(found.detail["unique"]),
                "redundancy": controls.correlation_between(activations),
                **controls.covariates(sets, self.pictures, self.rng, self.draws),
            }
        )


def turned(features: Features, fitted: Any, rows: Any) -> tuple[Tensor, Tensor]:
    """Codes [n, m] of rows, and a sign [m] for each feature, with which the codes are multiplied.

    Where codes of the rows that were fitted on have either sign, a feature is turned so that their third moment is
    positive: its exciting side is the rarer and stronger one.
    """
    dense, before = features.encode(rows).dense(), features.encode(fitted).dense()
    sign = torch.ones(dense.shape[1])
    if bool((before < 0).any()):
        sign = torch.where((before - before.mean(0)).double().pow(3).mean(0) < 0, -1.0, 1.0)
    return dense * sign, sign


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
    (one-sided) and all rotated values. Without a privileged basis p is uniform. Raises `UsageError` for fewer than 2
    rotations.
    Source: as the rotation test of network dissection, Bau et al. 2017, arXiv 1704.05796.
    """
    if rotations < 2:
        raise UsageError(f"rotations={rotations}: at least 2")
    matrix, stream = gather(as_rows(rows)), as_stream(rng).child("rotations")
    centred, d = (matrix - matrix.mean(0)).float(), matrix.shape[1]

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
        "z": (value - mean) / spread if spread > 0 else math.nan,
        "p": p,
        "rotated": values,
    }
