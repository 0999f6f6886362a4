"""Answers from the measured cells: read-outs, sparse inference, starts, and which scores agree with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.seeds import Stream
from unmix.core.statistics import percentiles, seed_interval
from unmix.papers.crossings.grids import COLUMNS, RAW, SPARSE, STARTS, UNTRAINED
from unmix.papers.parts import each_result

SUFFICES = 0.95  # R2 from which on a linear read-out has the latents
MATTERS = 0.05  # differences below this are called none
LOWER = ("fvu", "dead")  # scores of which less is better: their rank correlations are told with the other sign
JUDGED = ("fvu", "l0", "hoyer", "dead", "stability", "rankme", "r2", "dci_disentanglement")
AMORTISED = ("Linear", "TopK")
KEYS = ["world", "learner", "start", "seed"]
EMPTY = [*KEYS, "finder", "encoder", "failed", "r2_read", "r2_worst", "mcc"]


def cells(study: Any, folder: Path, small: bool) -> pd.DataFrame:
    """One row for every cell that is there: world, learner, start, seed, finder, encoder, scores and NAME_chance.

    r2_read, r2_worst: of the linear read-out from the representation. failed: why a cell has no scores, or empty.
    """
    rows = []
    for what, result in each_result(study.parts(small), folder):
        shared = {**what, "r2_read": result.get("r2"), "r2_worst": result.get("r2_worst"), "loss": result["loss"]}
        if "error" in result:
            rows.append({**shared, "finder": "", "encoder": "", "failed": result["error"]})
        for cell in result["cells"]:
            row = {**shared, "finder": cell["finder"], "encoder": cell["encoder"], "failed": cell.get("error", "")}
            for name, numbers in cell.get("scores", {}).items():
                row |= {name: numbers["value"], f"{name}_chance": numbers["chance"]}
            rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else EMPTY)
    for name in EMPTY:
        if name not in frame:
            frame[name] = np.nan
    return frame


def with_truth(frame: pd.DataFrame) -> list[str]:
    """Worlds whose latents are known, in the order of the rows."""
    return list(dict.fromkeys(frame.loc[frame["mcc"].notna(), "world"]))


def main_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells of x, of the untrained network, and of learners from the first start that was run."""
    trained = frame["start"] != ""
    first = next((start for start in STARTS if (frame["start"] == start).any()), "")
    return frame[~trained | (frame["start"] == first)]


def read_outs(frame: pd.DataFrame) -> pd.DataFrame:
    """A line for every world with a truth and representation: the linear read-out, and what finders reach unaided.

    Columns: world, learner, seeds, r2_read (mean, _half), r2_worst, mcc_columns, best (finder + encoder of the
    largest mean MCC), mcc (its mean, _half), chance.
    """
    lines = []
    rows = main_rows(frame)
    for (world, learner), group in rows[rows["mcc"].notna()].groupby(["world", "learner"], sort=False):
        once = group.drop_duplicates("seed")
        line: dict[str, Any] = {"world": world, "learner": learner, "seeds": len(once)}
        line |= _with_half("r2_read", once["r2_read"])
        line["r2_worst"] = once["r2_worst"].min()
        line["mcc_columns"] = group.loc[group["finder"] == COLUMNS, "mcc"].mean()
        found = group[group["finder"] != COLUMNS]
        if len(found):
            means = found.groupby(["finder", "encoder"])["mcc"].mean()
            finder, encoder = means.index[int(means.argmax())]
            mine = found[(found["finder"] == finder) & (found["encoder"] == encoder)]
            line["best"] = finder if encoder == "own" else f"{finder} + {encoder}"
            line |= {**_with_half("mcc", mine["mcc"]), "chance": mine["mcc_chance"].mean()}
        lines.append(line)
    return pd.DataFrame(lines)


def sparse_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """What solving for the codes adds to amortised encoders, on the very same atoms, seed by seed.

    gain: MCC of the better of Omp and Fista less that of the better of Linear and TopK, both by their means over
    seeds. Columns: world, learner, finder, amortised, solved, gain (_half), mcc, seeds.
    """
    lines = []
    rows = main_rows(frame)
    for (world, learner, finder), group in rows[rows["mcc"].notna()].groupby(
        ["world", "learner", "finder"], sort=False
    ):
        table = group.pivot_table(index="seed", columns="encoder", values="mcc")
        fast, slow = ([name for name in names if name in table] for names in (AMORTISED, SPARSE))
        if not fast or not slow:
            continue
        one, other = table[fast].mean().idxmax(), table[slow].mean().idxmax()
        gain = (table[other] - table[one]).dropna()
        if len(gain):
            line = {"world": world, "learner": learner, "finder": finder, "amortised": one, "solved": other}
            line |= {**_with_half("gain", gain), "mcc": table[other].mean(), "seeds": len(gain)}
            lines.append(line)
    return pd.DataFrame(lines)


def start_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """What another start changes against the balanced one, seed by seed: world, learner, start, r2, mcc, seeds.

    r2: of the linear read-out; mcc: of the columns as they are; both as differences, with _half.
    """
    lines = []
    rows = frame[(frame["finder"] == COLUMNS) & frame["mcc"].notna()]
    for (world, learner), group in rows.groupby(["world", "learner"], sort=False):
        base = group[group["start"] == STARTS[0]].set_index("seed")
        for start in STARTS[1:]:
            other = group[group["start"] == start].set_index("seed")
            both = base.index.intersection(other.index)
            if len(both):
                r2, mcc = ((other.loc[both, name] - base.loc[both, name]) for name in ("r2_read", "mcc"))
                line = {"world": world, "learner": learner, "start": start, "balanced": base["r2_read"].mean()}
                lines.append({**line, **_with_half("r2", r2), **_with_half("mcc", mcc), "seeds": len(both)})
    return pd.DataFrame(lines)


def agreements(frame: pd.DataFrame, draws: int = 200) -> pd.DataFrame:
    """How each score ranks the cells of a world beside their true recovery (MCC above chance), over worlds.

    Rank correlation within every world, then the mean over worlds; interval: bootstrap over representations (whole
    fits of a learner or of x, with all their cells). Less is better for fvu and dead: their sign is turned.
    Columns: score, agreement, low, high, worlds, and one for each world.
    """
    rows = frame[frame["mcc"].notna() & (frame["finder"] != COLUMNS)].copy()
    if rows.empty:
        return pd.DataFrame(columns=["score", "agreement", "low", "high", "worlds"])
    rows["recovery"] = (rows["mcc"] - rows["mcc_chance"]) / (1 - rows["mcc_chance"])
    groups = list(rows.reset_index(drop=True).groupby(KEYS, sort=False).indices.values())
    draw = Stream(0).child("agreements").numpy()
    samples = [
        np.concatenate([groups[i] for i in draw.integers(len(groups), size=len(groups))]) for _ in range(draws)
    ]
    worlds, truth = rows["world"].to_numpy(), rows["recovery"].to_numpy()
    lines = []
    for score in (name for name in JUDGED if name in rows):
        values = rows[score].to_numpy(dtype=float) * (-1 if score in LOWER else 1)
        found = _ranked(worlds, truth, values)
        if not found:
            continue
        spread = [np.mean(list(one.values())) for rows_ in samples
                  if (one := _ranked(worlds[rows_], truth[rows_], values[rows_]))]  # fmt: skip
        low, high = percentiles(np.array(spread)) if spread else (np.nan, np.nan)
        line = {"score": score, "agreement": float(np.mean(list(found.values()))), "low": low, "high": high}
        lines.append({**line, "worlds": len(found), **found})
    if not lines:
        return pd.DataFrame(columns=["score", "agreement", "low", "high", "worlds"])
    return pd.DataFrame(lines).sort_values("agreement", ascending=False, key=abs).reset_index(drop=True)


def _ranked(worlds: np.ndarray, truth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Rank correlation of values with the truth within every world that has at least five rows and varies."""
    from scipy.stats import rankdata

    found = {}
    for world in dict.fromkeys(worlds):
        here = (worlds == world) & ~np.isnan(values)
        one, other = rankdata(values[here]), rankdata(truth[here])
        if len(one) > 4 and np.ptp(one) > 0 and np.ptp(other) > 0:
            found[str(world)] = float(np.corrcoef(one, other)[0, 1])
    return found


def sentences(frame: pd.DataFrame) -> dict[str, str]:
    """The four answers in words, from the numbers: read-out, sparse, start, scores."""
    return {
        "read-out": _read_out_words(read_outs(frame)),
        "sparse": _sparse_words(sparse_gains(frame)),
        "start": _start_words(start_changes(frame)),
        "scores": _score_words(agreements(frame)),
    }


def _read_out_words(lines: pd.DataFrame) -> str:
    if lines.empty:
        return "No world with a known truth was run, so nothing can be said of read-outs."
    enough = lines[lines["r2_read"] >= SUFFICES]
    told = [f"{place_(row)} ({row['r2_read']:.2f})" for _, row in enough.iterrows()]
    first = (
        f"A linear read-out has the latents (R2 of {SUFFICES} or more on held-out rows) of {_listed(told)}."
        if told
        else f"Nowhere does a linear read-out have the latents (R2 of {SUFFICES} or more)."
    )
    raw = lines[lines["learner"] == RAW].set_index("world")["r2_read"]
    gained = lines[~lines["learner"].isin([RAW, UNTRAINED])].copy()
    gained["gain"] = gained["r2_read"] - gained["world"].map(raw)
    more = gained[gained["gain"] > MATTERS].sort_values("gain", ascending=False)
    told = [f"{place_(row)} ({row['gain']:+.2f})" for _, row in more.iterrows()]
    second = f" Learning adds to the read-out of x in {_listed(told)}." if told else " Learning adds nothing to it."
    lost = gained[gained["gain"] < -MATTERS].sort_values("gain")
    told = [f"{place_(row)} ({row['gain']:+.2f})" for _, row in lost.iterrows()]
    third = f" It loses some of it in {_listed(told)}." if told else ""
    return f"{first}{second}{third}"


def _sparse_words(lines: pd.DataFrame) -> str:
    if lines.empty:
        return "No dictionary was read by both kinds of encoders where the truth is known."
    up, down = lines[lines["gain"] > MATTERS], lines[lines["gain"] < -MATTERS]
    parts = []
    for word, part in (
        ("adds to", up.sort_values("gain", ascending=False)),
        ("takes from", down.sort_values("gain")),
    ):
        if len(part):
            told = [f"{row['finder']} on {place_(row)} ({row['gain']:+.2f})" for _, row in part.head(5).iterrows()]
            more = f" and {len(part) - 5} more" if len(part) > 5 else ""
            parts.append(f"{word} the MCC of {_listed(told)}{more}")
    rest = len(lines) - len(up) - len(down)
    words = "; it ".join(parts) if parts else f"changes no MCC by more than {MATTERS}"
    return (
        f"On the same atoms, solving for sparse codes {words}. In {rest} of {len(lines)} crossings it matters less "
        f"than {MATTERS}."
    )


def _start_words(lines: pd.DataFrame) -> str:
    if lines.empty:
        return "No learner was trained from several starts where the truth is known."
    parts = []
    for start, group in lines.groupby("start", sort=False):
        clear = group[group["r2"].abs() > MATTERS].sort_values("r2", key=abs, ascending=False)
        told = [f"{place_(row)} ({row['r2']:+.2f})" for _, row in clear.iterrows()]
        worst = "moves no read-out by more than that"
        parts.append(f"{start} changes R2 in {_listed(told)}" if told else f"{start} {worst}")
    return (
        f"Against a balanced start, with scale moved by a factor and the function kept, counting changes above "
        f"{MATTERS}: {'; '.join(parts)}."
    )


def _score_words(lines: pd.DataFrame) -> str:
    if lines.empty:
        return "No world with a known truth was run, so no score can be judged."
    free = lines[~lines["score"].isin(["r2", "dci_disentanglement"])]
    good = free[free["low"] > 0.3]
    vague = free[(free["low"] <= 0) & (free["high"] >= 0)]
    against = free[free["high"] < 0]
    parts = [_scores("agree with the true recovery", good), _scores("cannot be told from no agreement", vague)]
    parts.append(_scores("point the wrong way", against))
    told = "; ".join(part for part in parts if part)
    return f"Of scores that need no truth, {told or 'all agree with the true recovery weakly'}."


def _scores(what: str, lines: pd.DataFrame) -> str:
    told = [
        f"{row['score']} ({row['agreement']:+.2f}, {row['low']:+.2f} to {row['high']:+.2f})"
        for _, row in lines.iterrows()
    ]
    return f"{_listed(told)} {what}" if told else ""


def place_(row: Any) -> str:
    """A world and a representation in words."""
    named = {RAW: "x itself", UNTRAINED: "the untrained network"}
    return f"{row['world']} after {row['learner']}" if row["learner"] not in named else (
        f"{row['world']}, {named[row['learner']]}"
    )  # fmt: skip


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def _with_half(name: str, values: pd.Series) -> dict[str, float]:
    mean, low, _ = seed_interval(values.tolist())
    return {name: mean, f"{name}_half": mean - low} if len(values) > 2 else {name: mean}
