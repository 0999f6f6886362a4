"""The verdict: how far to trust the features of a run, in numbers and in one honest sentence."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from unmix.study.agreement import agreement
from unmix.study.study import Results


@dataclass(frozen=True)
class Verdict:
    """sentence: what to tell a person. numbers: a row for each finder (found, shared, careful, recovery ...)."""

    sentence: str
    numbers: pd.DataFrame

    @property
    def best(self) -> str | None:
        """The finder with the best careful number, or None where none was tried on a matched world."""
        if "found" not in self.numbers or self.numbers["found"].isna().all():
            return None
        return str(_ordered(self.numbers).iloc[0]["finder"])


def verdict(results: Results) -> Verdict:
    """What recovery on the matched world and agreement between seeds say about the features found in the data.

    found: share of the true atoms recovered (|cosine| > .9) at the largest matched sample. shared: share of atoms
    that two seeds on the data have in common. careful: the smaller of the two, or found where there is one seed; the
    study of trust has it closer to what is recovered than either (docs/trust.md).
    """
    table = results.table()
    pairs = agreement(results)
    rows = []
    if table.empty:
        return Verdict(_sentence(table), table)
    for finder in sorted(table.loc[table["world"] == "data", "finder"].unique()):
        matched = table[(table["world"] == "matched") & (table["finder"] == finder) & table["own"]]
        shared = pairs.loc[pairs["finder"] == finder, "shared"]
        row = {"finder": finder, "shared": float(shared.mean()) if len(shared) else None}
        if len(matched):
            by_size = matched.groupby("samples")["found"].mean().sort_index()
            largest = matched[matched["samples"] == by_size.index[-1]]
            row["samples"], row["found"] = int(by_size.index[-1]), float(by_size.iloc[-1])
            row["smallest"], row["found_smallest"] = int(by_size.index[0]), float(by_size.iloc[0])
            row["recovery"] = float(largest["dictionary_mcc"].mean())
            row["chance"] = float(largest["dictionary_mcc_chance"].mean())
            row["careful"] = row["found"] if row["shared"] is None else min(row["found"], row["shared"])
        rows.append(row)
    numbers = pd.DataFrame(rows)
    return Verdict(_sentence(numbers), numbers)


def _ordered(numbers: pd.DataFrame) -> pd.DataFrame:
    """Finders, the best careful number first, then what was found."""
    return numbers.sort_values(["careful", "found"], ascending=False, kind="stable")


def _sentence(numbers: pd.DataFrame) -> str:
    if "found" not in numbers or numbers["found"].isna().all():
        return "Not tried where the truth is known: run `unmix trust` before believing any of these features."
    best = _ordered(numbers).iloc[0]
    parts = [
        f"On a matched world with known truth, {best['finder']} finds {best['found']:.0%} of the true features "
        f"(mean cosine {best['recovery']:.2f}, chance {best['chance']:.2f})"
    ]
    for _, other in numbers[numbers["finder"] != best["finder"]].iterrows():
        if pd.notna(other.get("found")):
            parts.append(f"{other['finder']} {other['found']:.0%}")
    sentence = " and ".join(parts)
    if pd.notna(best.get("shared")):
        sentence += f"; on the data, two seeds of {best['finder']} share {best['shared']:.0%} of their features"
    share = best["careful"]
    if share >= 0.8:
        advice = "most single features deserve trust, as far as the data resemble sparse sums"
    elif share >= 0.4:
        advice = "trust a feature that several seeds find, and check the others before you build on them"
    elif share >= 0.1:
        advice = "treat every single feature as a hypothesis; what they explain together is firmer than any of them"
    else:
        advice = "do not read single features as factors of the data; they compress it, no more"
    return f"{sentence}: {advice}."
