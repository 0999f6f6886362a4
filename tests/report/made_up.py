"""Made-up tables with the columns that the figures want."""

from __future__ import annotations

import numpy as np
import pandas as pd

BASE = {"TopKSAE": 0.182, "SparseCoding": 0.121, "RandomAtoms": 0.41}
FACTOR = {"TopK": 1.0, "Fista": 0.79, "Omp": 0.74, "Linear": 1.12}
FLOPS = {"TopK": 1.6e6, "Linear": 1.5e6, "Fista": 9.4e8, "Omp": 2.1e8}


def scores(finders=("TopKSAE", "SparseCoding", "RandomAtoms"), seeds=3, worlds=("data",)) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for world in worlds:
        for finder in finders:
            own = "Fista" if finder == "SparseCoding" else "TopK"
            fit = {"TopKSAE": 95.0, "SparseCoding": 310.0}.get(finder, 0.4)
            for seed in range(seeds):
                for encoder, factor in FACTOR.items():
                    is_own = encoder == own
                    rows.append(
                        {
                            "world": world,
                            "samples": 12288,
                            "finder": finder,
                            "control": finder == "RandomAtoms",
                            "encoder": encoder,
                            "amortised": encoder not in ("Fista", "Omp"),
                            "seed": seed,
                            "l0": 32 * (1 + 0.01 * rng.normal()),
                            "fvu": BASE.get(finder, 0.2) * factor * (1 + 0.012 * rng.normal()),
                            "encode_flops": FLOPS[encoder] * (1 + 0.02 * rng.normal()),
                            "fit_flops": fit * 4e9,
                            "fit_seconds": fit * (1 + 0.05 * rng.normal()),
                            "dead": 0.02,
                            "own": is_own,
                            "target_l0": np.nan if is_own else 32.0,
                        }
                    )
    return pd.DataFrame(rows)


def pairs(finders=("TopKSAE", "SparseCoding", "RandomAtoms"), seeds=3, chance=True) -> pd.DataFrame:
    rng, rows = np.random.default_rng(1), []
    shape = {"TopKSAE": (3.2, 1.4), "SparseCoding": (6.5, 0.9), "RandomAtoms": (30.0, 66.0)}
    for finder in finders:
        for one in range(seeds):
            for two in range(one + 1, seeds):
                cosines = rng.beta(*shape.get(finder, (2.0, 2.0)), 768)
                row = {"finder": finder, "pair": f"{one}, {two}", "agreement": cosines.mean(), "chance": 0.31}
                row["cosines"] = cosines
                if chance:
                    row["chance_cosines"] = rng.beta(30, 66, 768)
                rows.append(row)
    return pd.DataFrame(rows)


def recovered(finders=("TopKSAE", "SparseCoding", "RandomAtoms"), seeds=3) -> pd.DataFrame:
    rng, rows = np.random.default_rng(2), []
    ceiling = {"TopKSAE": 0.71, "SparseCoding": 0.93, "RandomAtoms": 0.31}
    for finder in finders:
        for samples in (1536, 3072, 6144, 12288, 24576, 49152):
            for seed in range(seeds):
                top = ceiling.get(finder, 0.5)
                grown = 0.31 + (top - 0.31) / (1 + (7000 / samples) ** 1.4) + 0.008 * rng.normal()
                rows.append(
                    {
                        "finder": finder,
                        "samples": samples,
                        "seed": seed,
                        "dictionary_mcc": grown,
                        "dictionary_mcc_chance": 0.31 + 0.004 * rng.normal(),
                        "found": float(np.clip((grown - 0.4) * 1.6, 0, 1)),
                        "mcc": grown * 0.9,
                        "mcc_chance": 0.12,
                        "at": samples == 12288,
                    }
                )
    return pd.DataFrame(rows)


def claims() -> list[dict]:
    source = "arXiv 2411.13117, Table 2"
    names = ("claim", "source", "published", "measured", "seeds", "interval", "verdict", "why")
    return [
        dict(zip(names, row, strict=True))
        for row in [
            ("code MCC of the SAE", source, 0.566, 0.571, 3, "0.558 to 0.584", "replicates", "within .05"),
            ("dictionary MCC of the SAE", source, 0.745, 0.662, 3, [0.61, 0.71], "differs", "outside .05"),
            ("code MCC of sparse coding", source, 0.691, 0.744, 3, None, "not comparable", "ours solves l1 exactly"),
        ]
    ]


def eigenvalues(scale: float = 1.0) -> np.ndarray:
    return scale * 4.0 * np.arange(1, 385) ** -1.1 * np.exp(-np.arange(384) / 300)


def rates(seed: int) -> np.ndarray:
    drawn = 10 ** np.random.default_rng(seed).normal(-1.7, 0.45, 768)
    return np.where(np.arange(768) % 40 == 0, 0, np.clip(drawn, 0, 0.9))
