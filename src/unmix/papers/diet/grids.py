"""What is trained: objectives on the same terms, DIET with one setting changed, and DIET where the truth is known."""

from __future__ import annotations

from typing import Any

from unmix.learners import LEARNERS
from unmix.learners.augment import Augment
from unmix.learners.diet import Diet
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images

DIET = "Diet"
LABELLED = "SupervisedViews"
OBJECTIVES = (
    DIET,
    LABELLED,
    "SimCLR",
    "BYOL",
    "BarlowTwins",
    "VICReg",
    "SpectralContrastive",
    "Rotation",
    "Reconstruction",
)
UNTRAINED, RAW = "untrained network", "raw pixels"
# Digits are not mirrored and stay digits under small motions; chosen on validation rows.
GENTLE = Augment(crop=1.0, flip=0.0, rotate=10.0, shift=0.1, colour=0.0, gray=0.0, blur=0.0, erase=0.0)
BASE = "as above"


def digits_fields() -> dict[str, Any]:
    """What all objectives share on digits."""
    return {"network": ResNet(channels=16, blocks=(1, 1)), "width": 64, "batch": 256, "lr": 3e-3, "augment": GENTLE}


def image_fields() -> dict[str, Any]:
    """What all objectives share on photographs: a narrow network, so that each picture is seen some 25 times."""
    return {
        "network": ResNet(channels=8, blocks=(1, 1, 1)),
        "width": 64,
        "batch": 64,
        "lr": 1e-3,
        "augment": Augment(),
    }


# A short run is long enough for a row of the head for each picture only with small batches and fast rows.
ON_IMAGES: dict[str, Any] = {"batch": 32, "unit_features": True, "beta": 8.0, "head_rate": 10.0}


def objectives(fields: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Name -> learner, all with the same network, views and optimiser, each with its own loss's defaults.

    own: fields of DIET alone.
    """
    return {
        name: LEARNERS[name](**{**fields, **(own if name == DIET else {})}) for name in OBJECTIVES if name in LEARNERS
    }


def strength(of: Augment, amount: float) -> Augment:
    """Views that are so many times as strong: motions, colours and probabilities grow, the least crop shrinks."""
    grown = {name: min(0.95, amount * getattr(of, name)) for name in ("shift", "colour", "gray", "blur", "erase")}
    crop = max(0.05, 1 - amount * (1 - of.crop))
    return of.but(crop=crop, rotate=min(180.0, amount * of.rotate), **grown)


def settings(fields: dict[str, Any], rows: int) -> list[tuple[str, Any, Diet, int | None]]:
    """DIET with one setting changed at a time: factor, value, learner, and the number of training pictures or None.

    rows: all training pictures. The first has nothing changed.
    """
    base = Diet(**fields)
    found: list[tuple[str, Any, Diet, int | None]] = [("", BASE, base, None)]
    found += [("batch", batch, base.but(batch=batch), None) for batch in (32, 64, 128, 512)]
    found += [("smoothing", eps, base.but(smoothing=eps), None) for eps in (0.0, 0.4, 0.95)]
    found += [("learning rate", lr, base.but(lr=lr), None) for lr in (3e-4, 1e-3, 1e-2)]
    views = fields["augment"]
    found += [("views", times, base.but(augment=strength(views, times)), None) for times in (0.0, 0.5, 2.0)]
    found += [("features", "on the sphere", base.but(unit_features=True, beta=16.0), None)]
    found += [("pictures", rows // part, base, rows // part) for part in (8, 4, 2)]
    return found


def known_worlds(seed: int, steps: int) -> list[tuple[str, ClusterWorld, Diet]]:
    """Name, world with known latents, learner: 5 latents, 100 classes, concentration 10, 1,000 data."""
    world = ClusterWorld(instances=1000, seed=seed)
    shared: dict[str, Any] = {
        "network": MLP(hidden=(64,) * 4, activation="gelu"),
        "width": 5,
        "batch": 1024,
        "steps": steps,
        "lr": 1e-2,
        "head_rate": 5.0,
        "schedule": "cosine",
        "weight_decay": 0.0,
    }
    return [
        ("smoothing 0", world, Diet(smoothing=0.0, **shared)),
        ("smoothing .8", world, Diet(smoothing=0.8, **shared)),
        ("smoothing 0, on the sphere", world, Diet(smoothing=0.0, unit_features=True, beta=10.0, **shared)),
    ]


def digits() -> Images:
    """scikit-learn's digits, a fifth of them held out."""
    return Images(path="digits")
