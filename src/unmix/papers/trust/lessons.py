"""What the study taught: how far promises were from what was recovered, as tables and as a sentence for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.errors import UsageError
from unmix.core.store import read_json, write_json
from unmix.papers.parts import each_result

FILE = "promises.json"
NEAR = ("together", "alike")
NEAREST = 8  # promises that a run is compared with


def outcomes(study: Any, folder: Path, small: bool) -> pd.DataFrame:
    """One row for every piece of work that is there: section, world, method, seed, real, promise, error, ...

    Features: promise is the share of the atoms that are true on the matched world, real the same on the world itself,
    found and found_promise the share of the true atoms, shared the agreement of two seeds, together and alike by how
    much data and matched world differ. Learners: r2 and mcc, with real_mcc and promise_mcc.
    """
    rows = []
    for what, result in each_result(study.parts(small), folder):
        row = {**what, "failed": result.get("error", ""), "refused": result.get("refused", "")}
        if "real" in result and what["section"] == "features":
            row |= {"real": result["real"]["true"], "found": result["real"]["found"], "shared": result["shared"]}
            row |= {"cosine": result["real"]["cosine"]}
            if "promise" in result:
                row |= {"promise": result["promise"]["true"], "found_promise": result["promise"]["found"]}
                row |= {"cosine_promise": result["promise"]["cosine"]}
                row |= {name: result["data"][name] - result["matched"][name] for name in NEAR}
                row["cautious"] = min(row["promise"], row["shared"])
        elif "real" in result:
            row |= {"real": result["real"]["r2"], "promise": result["promise"]["r2"]}
            row |= {"real_mcc": result["real"]["mcc"], "promise_mcc": result["promise"]["mcc"]}
        rows.append(row)
    columns = ["section", "world", "method", "seed", "real", "promise", "failed", "refused"]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    for name in columns:
        if name not in frame:
            frame[name] = float("nan")
    return frame


def keep(frame: pd.DataFrame, folder: Path) -> None:
    """Write the rows beside the page, for `lesson`."""
    write_json(folder / FILE, [_plain(row) for row in frame.to_dict("records")])


def errors(rows: pd.DataFrame, promise: str = "promise", real: str = "real") -> dict[str, Any]:
    """Of rows with a promise: their number, mean absolute error, bias (promise - real), worst, its world, ranks.

    ranks: rank correlation of promise and real over the means of the worlds; NaN below three, or for a constant.
    """
    good = rows.dropna(subset=[promise, real]) if {promise, real} <= set(rows) else rows.iloc[:0]
    if good.empty:
        return {"count": 0}
    away = good[promise] - good[real]
    worst = good.iloc[int(away.argmax())]
    means = good.groupby("world")[[promise, real]].mean()
    varies = len(means) > 2 and means[promise].nunique() > 1 and means[real].nunique() > 1
    return {
        "count": len(good),
        "error": float(away.abs().mean()),
        "bias": float(away.mean()),
        "worst": float(away.max()),
        "worst_world": str(worst["world"]),
        "ranks": float(means[promise].corr(means[real], method="spearman")) if varies else float("nan"),
    }


def by_world(rows: pd.DataFrame, promise: str = "promise", real: str = "real") -> pd.DataFrame:
    """A line for every world: means of promise and real, by how much the promise was too high, its worst."""
    good = rows.dropna(subset=[promise, real])
    found = []
    for world, group in good.groupby("world", sort=False):
        away = group[promise] - group[real]
        line = {"world": world, "promises": len(group), "promise": group[promise].mean(), "real": group[real].mean()}
        found.append({**line, "too_high": away.mean(), "worst": away.max()})
    return pd.DataFrame(found)


def lesson(folder: str | Path, learner: str | None = None, departure: Mapping[str, float] | None = None) -> str:
    """What a run of the study says of a promise: a sentence with its numbers.

    learner: the kind of a learner; None is of features. departure: by how much the run's data differ from its matched
    world (`verbs.departure`); the promises of the study whose data did so most alike are told apart.
    Raises `UsageError` for a folder without the study's results.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise UsageError(f"{folder}: no results of the study of trust; run: unmix study trust --small -o {folder}")
    rows = pd.DataFrame(read_json(file))
    rows = rows[(rows["section"] == "features") if learner is None else (rows["method"] == learner)]
    whole = errors(rows)
    if not whole["count"]:
        return f"In {folder} no promise was tried for {learner or 'features'}."
    told = (
        f"In {folder}, over {rows['world'].nunique()} worlds, the promise was off by {whole['error']:.2f} on average "
        f"and at worst {_high(whole['worst'])} ({whole['worst_world']})"
    )
    if departure is None:
        return f"{told}."
    known = rows.dropna(subset=["promise", "real", *NEAR])
    scale = known[list(NEAR)].std().fillna(0) + 1e-9
    distance = sum(
        (((known[name] - departure[name]) / scale[name]).to_numpy() ** 2 for name in NEAR), np.zeros(len(known))
    )
    near = known.iloc[np.argsort(distance, kind="stable")[:NEAREST]]
    found, careful = errors(near), errors(near, "cautious")
    worlds = ", ".join(f'"{world}"' for world in near["world"].value_counts().index[:2])
    return (
        f"{told}. These data's features fire together by {departure['together']:+.2f}, and resemble one another by "
        f"{departure['alike']:+.2f}, beyond the matched world: the {len(near)} promises there that differed most "
        f"alike (mostly {worlds}) were {_high(found['bias'])} on average, at worst {_high(found['worst'])}; the "
        f"smaller of promise and agreement of two seeds {_high(careful['bias'])}, at worst {_high(careful['worst'])}."
    )


def _high(value: float) -> str:
    return f"too high by {value:.2f}" if value >= 0 else f"too low by {-value:.2f}"


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if isinstance(value, float) and value != value else value for name, value in row.items()}
