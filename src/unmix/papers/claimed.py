"""Claims of a study: a published number or statement beside what was measured, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unmix.core.statistics import seed_interval

VERDICTS = {True: "replicates", False: "differs", None: "not comparable"}
ONE = {"replicate": "replicates", "differ": "differs", "are not comparable": "is not comparable"}
NO_CLAIM = "No published number belongs to these sections: what was measured is below."


def claimed(
    claim: str,
    source: str,
    published: Any,
    measured: Any,
    verdict: str | bool | None,
    why: str,
    seeds: int = 1,
    interval: str = "",
) -> dict[str, Any]:
    """A claim as `Results.write_claims` takes it.

    verdict: replicates, differs or not comparable; or whether the claim holds, None where it cannot be compared.
    """
    return {
        "claim": claim,
        "source": source,
        "published": published,
        "measured": measured,
        "seeds": seeds,
        "interval": interval,
        "verdict": verdict if isinstance(verdict, str) else VERDICTS[verdict],
        "why": why,
    }


def over_seeds(values: Sequence[float], most: float = math.inf, least: float = -math.inf) -> str:
    """The 95 % t interval over seeds as text, cut to `least` and `most`; empty below three, where it says nothing."""
    if len(values) < 3:
        return ""
    _, low, high = seed_interval(values)
    return f"{max(low, least):.3f} to {min(high, most):.3f}"


def counted(claims: Sequence[Any], neither: str = "are not comparable") -> str:
    """How many of the claims have which verdict, in words: "3 replicate, 1 differs"."""
    words = {"replicates": "replicate", "differs": "differ", "not comparable": neither}
    counts = {word: sum(claim["verdict"] == verdict for claim in claims) for verdict, word in words.items()}
    told = [f"{count} {ONE.get(word, word) if count == 1 else word}" for word, count in counts.items() if count]
    return ", ".join(told)
