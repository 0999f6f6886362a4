"""Dictionary and codes both unknown: the grids of cells, and their results as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from unmix.encoders.amortised import MLP, Linear
from unmix.encoders.iterative import Fista
from unmix.encoders.perrow import Exponentiated
from unmix.finders.dictionary import SparseCoding
from unmix.finders.joint import JointCoding
from unmix.finders.sae import SAE
from unmix.study.study import Results, Study
from unmix.worlds.sparse import SparseWorld

WEIGHT = 0.01  # the paper's w on the mean |z|
FULL = 40_000  # its training steps where dictionary and codes are unknown
SIZES = ((32, 16, 3), (64, 32, 3), (128, 32, 3), (128, 8, 3), (128, 32, 9), (32, 32, 9), (16, 16, 15))
SMALL_SIZES = ((64, 32, 3), (128, 8, 3), (32, 32, 9))
WEIGHTS = (0.001, 0.01, 0.1, 0.5)
SCORES = ("fvu", "l0", "dead", "mcc", "dictionary_mcc", "dictionary_mcc_paper")
JOINT, CERTIFIED = "sparse coding (paper)", "sparse coding (certified)"


def autoencoder(world: SparseWorld, steps: int, hidden: int | None = None, weight: float = WEIGHT) -> SAE:
    """The paper's autoencoder on a world: no biases, rows as they are, one full batch in every step."""
    encoder: Any = Linear(bias=False) if hidden is None else MLP(hidden=hidden, bias=False)
    return SAE(
        width=world.latents,
        encoder=encoder,
        weight=weight,
        steps=steps,
        batch=1024,
        schedule="constant",
        centre="none",
        scaled=False,
        bias=False,
        revive="none",
    )


def joint(world: SparseWorld, steps: int, weight: float = WEIGHT) -> JointCoding:
    """The paper's sparse coding on a world."""
    read = max(1, min(10_000, steps))
    return JointCoding(width=world.latents, weight=weight, steps=steps, read_steps=read)


def certified(world: SparseWorld, training: float = 1.0) -> SparseCoding:
    """Our alternation: exact inference, block coordinate descent of the atoms, restarts chosen by the objective."""
    passes = steps(300, training)
    return SparseCoding(
        width=world.latents, penalty=0.1, read_penalty=0.02, restarts=3, bias="zero", batch=1024, passes=passes
    )


def steps(full: int, training: float) -> int:
    """A share of a number of training steps, at least one."""
    return max(1, round(full * training))


def base(seeds: Sequence[int], small: bool, training: float = 1.0) -> list[Study]:
    """(16, 8, 3): the paper's methods with its own training, and ours, each dictionary under other encoders too."""
    world = SparseWorld(latents=16, width=8, active=3)
    whole = steps(FULL, training)
    autoencoders = [autoencoder(world, whole), autoencoder(world, whole, 32)]
    if not small:
        autoencoders.append(autoencoder(world, whole, 256))
    everything = (*autoencoders, joint(world, whole), certified(world, training))
    reader = Exponentiated(weight=WEIGHT, steps=steps(10_000, training), lr=3e-3)
    return [
        _study(world, everything, (None, Fista(penalty=0.02)), seeds),
        _study(world, autoencoders[:1], (reader,), seeds),
    ]


def sizes(seeds: Sequence[int], small: bool, training: float = 1.0) -> list[Study]:
    """Other sizes: the autoencoder and our sparse coding; the paper's sparse coding and an MLP in the full study."""
    found = []
    whole = steps(FULL // 4 if small else FULL, training)
    for latents, width, active in SMALL_SIZES if small else SIZES:
        world = SparseWorld(latents=latents, width=width, active=active)
        finders: list[Any] = [autoencoder(world, whole), certified(world, training)]
        if not small:
            finders += [autoencoder(world, whole, 32), joint(world, whole)]
        found.append(_study(world, finders, (None, Fista(penalty=0.02)), seeds[:1] if small else seeds[:3]))
    return found


def weights(seeds: Sequence[int], small: bool, training: float = 1.0) -> list[Study]:
    """(16, 8, 3) over the weight of the penalty; one seed and a quarter of the steps in the small study."""
    world = SparseWorld(latents=16, width=8, active=3)
    whole = steps(FULL // 4 if small else FULL, training)
    finders: list[Any] = [autoencoder(world, whole, weight=weight) for weight in WEIGHTS]
    finders += [joint(world, whole, weight) for weight in (WEIGHTS[1::2] if small else WEIGHTS)]
    return [_study(world, finders, (None,), seeds[:1] if small else seeds[:3])]


def _study(world: SparseWorld, finders: Sequence[Any], encoders: Sequence[Any], seeds: Sequence[int]) -> Study:
    return Study(
        name="amortisation-gap",
        worlds=(world,),
        finders=tuple(finders),
        encoders=tuple(encoders),
        samples=(1024,),
        seeds=tuple(seeds),
        test=1024,
        scores=SCORES,
    )


def frame(results: Results) -> pd.DataFrame:
    """One row for every cell on a SparseWorld: size, name of the method, encoder ("own" or its kind), numbers."""
    rows = []
    for cell, outcome in results.cells():
        if cell.world.kind != "SparseWorld":
            continue
        scores = {name: numbers["value"] for name, numbers in outcome["scores"].items()}
        chances = {f"{n}_chance": numbers["chance"] for n, numbers in outcome["scores"].items()}
        rows.append(
            {
                "latents": cell.world.latents,
                "width": cell.world.width,
                "active": cell.world.active,
                "world": cell.world.digest,
                "method": method(cell.finder),
                "weight": getattr(cell.finder, "weight", None),
                "steps": getattr(cell.finder, "steps", None),
                "encoder": "own" if cell.encoder is None else cell.encoder.kind,
                "seed": cell.seed,
                "fit_flops": outcome["fit_flops"],
                "fit_seconds": outcome["fit_seconds"],
                "encode_flops": outcome["encode_flops"],
                **scores,
                **chances,
            }
        )
    order = pd.DataFrame(rows)
    if order.empty:
        return order
    place = {name: number for number, name in enumerate(("SAE", "MLP 32", "MLP 256", JOINT, CERTIFIED))}
    keys: dict[str, Any] = {"by method": order["method"].map(place), "by encoder": order["encoder"] != "own"}
    return (
        order.assign(**keys)
        .sort_values(["latents", "width", "active", "by method", "by encoder", "encoder", "weight", "seed"])
        .drop(columns=[*keys])
        .reset_index(drop=True)
    )


def method(finder: Any) -> str:
    """The name of a finder in tables: SAE, MLP 32, sparse coding."""
    if finder.kind == "SAE":
        return f"MLP {finder.encoder.hidden}" if finder.encoder.kind == "MLP" else "SAE"
    return {"JointCoding": JOINT, "SparseCoding": CERTIFIED}.get(finder.kind, finder.kind)
