"""Downstream: what is lost in the model when a fit's codes replace the activation, on held-out input."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix.activations.downstream import Change
from unmix.activations.hooks import quiet
from unmix.core.digest import digest
from unmix.core.options import Count, checked
from unmix.core.rows import Subset
from unmix.core.store import must_be_writable, recall, write_json
from unmix.core.watch import Watch
from unmix.finders.controls import RandomAtoms
from unmix.scores.sparsity import fvu
from unmix.study.effects import HEADINGS, Number, as_numbers, effects, grid
from unmix.study.inside import Inside, open_inside
from unmix.study.study import Results

VERSION = 1
FEW = 20
CHANGES = ("original", "codes", "random", "mean", "zero")
TOLD = {
    "original": "as it is",
    "codes": "decode(encode(h))",
    "random": "random dictionary",
    "mean": "its mean",
    "zero": "zero",
}


@dataclass(frozen=True)
class Downstream:
    """facts: what was read. numbers: for every replacement its measures, each with an interval over passages.

    Measures of a causal model: loss of the next token (nats), KL(original || replaced), share of predictions that
    stay. Of a sentence encoder: cosine of the embeddings, share of passages whose nearest passage stays. Of a
    classifier: loss, accuracy (where labels are known), KL, share of predictions that stay. recovered is
    (mean - replaced) / (mean - original) of the first of them.
    """

    facts: dict[str, Any]
    numbers: dict[str, dict[str, Number]]

    def table(self) -> pd.DataFrame:
        """One row for each replacement; MEASURE, MEASURE_low, MEASURE_high."""
        rows = []
        for name, measures in self.numbers.items():
            row: dict[str, Any] = {"replaced by": TOLD[name]}
            for measure, number in measures.items():
                row.update({measure: number.value, f"{measure}_low": number.low, f"{measure}_high": number.high})
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        facts = self.facts
        names = list(self.numbers["original"])
        rows = [[TOLD[name], *(str(numbers[m]) for m in names)] for name, numbers in self.numbers.items()]
        what = f"{facts['groups']:,} held-out " + ("data" if facts["kind"] == "classifier" else "passages")
        if "tokens" in facts:
            what += f", {facts['tokens']:,} tokens replaced"
            if facts["untouched"]:
                what += f" ({', '.join(facts['untouched'])} tokens left as they are, as in the rows)"
        if facts["groups"] < FEW:
            what += "; so few that the intervals are rough"
        return "\n".join(
            [
                f"{facts['model']}, {facts['layer']}: {what}",
                f"{facts['finder']} seed {facts['seed']}, {facts['encoder']}: L0 {facts['l0']:.1f}, "
                f"FVU {facts['fvu']:.3f}; random dictionary: FVU {facts['random_fvu']:.3f}",
                grid(["replaced by", *(HEADINGS[m] for m in names)], rows),
            ]
        )


@checked
def downstream(
    run: str | Path,
    finder: str | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    tokens: Count = 8192,
    model: str | None = None,
    data: Any = None,
    labels: Any = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Downstream:
    """What a model loses when a layer's rows h are replaced: by decode(encode(h)), by a random dictionary's, by the
    mean of the rows fitted on, by zero; stored in RUN/downstream and not made twice.

    tokens: of held-out text (or held-out data) to read at most. The random dictionary has as many atoms and as many
    active codes. Others as `open_inside`, which also says what is raised. Compare loss recovered in arXiv 2404.16014.
    """
    inside = open_inside(run, finder, seed, encoder, model, data, labels, device).limited(tokens)
    results = Results(run)
    file = results.store.root / "downstream" / f"{digest([VERSION, inside.key, tokens])}.json"
    if (stored := recall(file, "facts", "numbers")) is not None:
        return Downstream(stored["facts"], {name: as_numbers(parts) for name, parts in stored["numbers"].items()})
    must_be_writable(file)
    made = measured(inside, results, watch)
    write_json(file, asdict(made))
    return made


def measured(inside: Inside, results: Results, watch: Watch | None = None) -> Downstream:
    """The same for features and input at hand; nothing is stored."""
    features, rows = inside.features, inside.rows
    test = rows.take(inside.test)
    codes = features.encode(test)
    l0 = float(codes.l0().double().mean())
    width = features.shape[0]
    control = RandomAtoms(width=width, k=min(width, max(1, round(l0)))).fit(Subset(rows, inside.train))
    mean = inside.mean
    changes: dict[str, Change] = {
        "codes": inside.reconstructed,
        "random": lambda h: inside.reconstructed(h, control),
        "mean": lambda h: mean.to(h).expand_as(h),
        "zero": torch.zeros_like,
    }
    found = effects(inside.reader, changes, watch)
    facts = {
        **inside.facts(results),
        "l0": l0,
        "fvu": fvu(test, features.decode(codes)).value,
        "random_fvu": fvu(test, control.reconstruct(test)).value,
    }
    numbers = {
        name: {
            **{measure: found.number(name, measure) for measure in found.measures()},
            "recovered": found.recovered(name),
        }
        for name in CHANGES
    }
    return Downstream(facts, numbers)


def estimate(run: str | Path, tokens: int = 8192, runs: int = len(CHANGES), **options: Any) -> dict[str, float]:
    """What `runs` runs of the model would cost, from one batch: tokens or data, seconds, bytes of memory at least.

    By default those of `downstream`. options: as `open_inside`, which also says what is raised.
    """
    inside = open_inside(run, **options).limited(tokens)
    reader = inside.reader
    groups = next(reader.batches())
    begun = time.perf_counter()
    with quiet(reader.model):
        reader.read(groups, inside.reconstructed)
    seconds = (time.perf_counter() - begun) * len(reader) / len(groups)
    weights = sum(p.numel() * p.element_size() for p in reader.model.parameters())
    facts = inside.facts(Results(run))
    return {
        "rows": float(facts.get("tokens", len(reader))),
        "seconds": runs * seconds,
        "memory_bytes": float(weights + 8 * np.prod(inside.features.shape)),
    }
