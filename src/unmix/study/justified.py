"""Whether a matched sparse world may stand for data, and by which signs the two are seen to differ."""

from __future__ import annotations

from typing import Any

from unmix.core.rows import as_rows, gather
from unmix.core.scale import unit
from unmix.core.seeds import Stream
from unmix.finders.features import Features
from unmix.scores.sparsity import fvu

LIMIT = 8192
WATCHED = 512  # features whose firing together is looked at, the most frequent ones
DENSE = 0.5
UNEXPLAINED = 0.95


def unjustified(features: Features, rows: Any) -> str | None:
    """Why no sparse world can be matched to features and the rows [n, d] they were found in, as a sentence, or None.

    A matched world is a sum of few independent latents: features that are nearly all active in every row, that
    exclude one another (clusters), or that explain next to nothing describe no such sum.
    """
    h = gather(as_rows(rows), LIMIT, Stream(0).child("justified"))
    codes = features.encode(h)
    active, alive = codes.l0().double(), int((codes.firing() > 0).sum())
    if not alive:
        return "no feature is ever active"
    if active.mean() > DENSE * alive:
        return f"{active.mean():.1f} of {alive} features are active in a row, which is no sparse sum"
    if active.max() <= 1:
        return "one feature is active in a row: these are clusters, which exclude one another, and no sum"
    left = fvu(h, features.decode(codes)).value
    if left > UNEXPLAINED:
        return f"the features leave {left:.0%} of the variance unexplained, so there is nothing to match"
    return None


def signs(features: Features, rows: Any) -> dict[str, float]:
    """What rows [n, d] and the features found in them show of what a matched world leaves out.

    together: root mean square of the correlation of two features' firing, beyond what n rows give by chance.
    alike: mean over the features that fire of the largest |cosine| with another of them.
    Both are read off found features, so they are compared with the same finder's on the matched world.
    """
    h = gather(as_rows(rows), LIMIT, Stream(0).child("signs"))
    codes = features.encode(h)
    firing = codes.firing()
    kept = firing.argsort(descending=True, stable=True)[:WATCHED]
    kept = kept[(firing[kept] > 0) & (firing[kept] < len(h))]
    if len(kept) < 2:
        return {"together": 0.0, "alike": 0.0}
    on = (codes.dense()[:, kept] != 0).double()
    on = (on - on.mean(0)) / on.std(0, correction=0)
    square = (on.T @ on / len(h)).square()
    apart = float((square.sum() - square.diagonal().sum()) / (len(kept) * (len(kept) - 1)))
    atoms = unit(features.atoms[kept].double())
    cosines = (atoms @ atoms.T).abs().fill_diagonal_(0)
    return {"together": max(0.0, apart - 1 / len(h)) ** 0.5, "alike": float(cosines.amax(1).mean())}
