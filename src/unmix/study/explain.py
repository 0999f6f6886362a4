"""Explaining a run's features: a judge's words and scores for a fit on text, beside what controls reach."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from unmix.core.codes import Codes
from unmix.core.digest import SCHEMA, digest
from unmix.core.errors import UsageError, suggest
from unmix.core.options import checked
from unmix.core.rows import Rows, gather
from unmix.core.seeds import Stream
from unmix.core.store import locked, must_be_writable, recall, write_json, writing
from unmix.core.watch import Progress, Watch
from unmix.encoders.amortised import TopK
from unmix.encoders.greedy import Nearest
from unmix.finders.features import Features, assemble, replace
from unmix.scores.autointerp import (
    TASKS,
    AutoInterp,
    Explained,
    Interpretation,
    as_plain,
    from_plain,
    paired_difference,
    shuffled,
)
from unmix.scores.base import Outcome
from unmix.study.study import Results
from unmix.study.verbs import chosen

CONTROLS = ("random", "shuffled")
SAID = {"random": "random directions, as many and as sparse", "shuffled": "activations of other rows"}


@dataclass(frozen=True, eq=False)
class Explanations:
    """A fit's explained features.

    label: finder and seed. found: what the judge made of its features. controls: the same judge on random directions
    ("random") and on the fit's codes with the rows shuffled ("shuffled"). path: the JSON file.
    """

    label: str
    path: Path
    found: Interpretation
    controls: dict[str, Interpretation] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One line for each explained feature: feature, rate, macro-F1 by task, explanation; the clearest first."""
        rows = [
            {"feature": one.feature, "rate": one.rate, **one.f1, "explanation": one.explanation}
            for one in self.found.features
        ]
        return pd.DataFrame(rows).sort_values([TASKS[0], "feature"], ascending=[False, True]).reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """One line for the fit and each control: features, and for each task mean macro-F1, low, high, accuracy."""
        rows: list[dict[str, Any]] = []
        for name, part in (("this fit", self.found), *((SAID[n], p) for n, p in self.controls.items())):
            row: dict[str, Any] = {"what": name, "features": len(part.features)}
            for task in TASKS:
                outcome = part.outcome(task)
                numbers = {"": outcome.value, "_low": outcome.interval[0], "_high": outcome.interval[1]}
                row.update({f"{task}{end}": number for end, number in numbers.items()})
                row[f"{task}_accuracy"] = outcome.detail["accuracy"]
            rows.append(row)
        for name, key in (("always yes", "always_yes"), ("a coin", "coin")):
            row = {"what": name, "features": len(self.found.features)}
            rows.append({**row, **{task: self.found.outcome(task).detail[key] for task in TASKS}})
        return pd.DataFrame(rows)

    def beyond(self, control: str, task: str = "detect") -> Outcome:
        """Paired difference of macro-F1, this fit minus a control, over features of the closest firing rates."""
        return paired_difference(self.found, self.controls[control], task)

    @property
    def sentence(self) -> str:
        """What was found, in a sentence."""
        outcome = self.found.outcome()
        low, high = outcome.interval
        told = f"{self.label}: the judge tells {outcome.value:.2f} [{low:.2f}, {high:.2f}] (macro-F1, detection)"
        shares = ", ".join(f"{share:.0%} {name}" for name, share in outcome.detail["sources"].items())
        told += f" over {len(self.found.features)} features, negatives {shares}"
        if skipped := self.found.skipped:
            told += f"; passed over {', '.join(f'{count} with {reason}' for reason, count in skipped.items())}"
        for name in self.controls:
            difference = self.beyond(name)
            low, high = difference.interval
            told += f"; {difference.value:+.2f} [{low:+.2f}, {high:+.2f}] against {SAID[name].split(',')[0]}"
        return told + "."


@checked
def explain(
    folder: str | Path,
    finder: str | None = None,
    seed: int | None = None,
    recipe: AutoInterp | None = None,
    controls: Sequence[str] = CONTROLS,
    rng: int = 0,
    watch: Callable[[str], Watch] = Progress,
) -> Explanations:
    """Explain features of a fit on text and score the explanations; writes RUN/explanations/DIGEST.json.

    finder, seed: which fit; by default the one that explains most. recipe: judge, budget and sources of negatives.
    controls: of "random" and "shuffled", judged with the same budget. rng: seed of what is drawn. watch: makes what
    looks on, from a label. Features that were judged before an interruption are not judged again.
    Raises `UsageError` for rows that are not text or an unknown control, `Failure` where the judge fails.
    """
    recipe = recipe or AutoInterp()
    for name in controls:
        if name not in CONTROLS:
            raise UsageError(f"controls={name}: no such control; {suggest(name, list(CONTROLS))}")
    results = Results(folder)
    cell, features, rows, items = chosen(results, finder, seed)
    if items.kind != "text":
        raise UsageError(f"explain: explains tokens of text only, the rows of {folder} are {items.kind} items")
    label = f"{results.label(cell.finder)} seed {cell.seed}"
    name = digest([cell.fit_digest, recipe.as_dict(), sorted(controls), rng])
    path = Path(folder) / "explanations" / f"{name}.json"
    with locked(results.store.root, name, f"explanations of {label}"):
        if (kept := recall(path, "schema", "parts")) is not None:
            return _read(kept, path, label)
        must_be_writable(path)
        journal = _Journal(path.with_suffix(".working.jsonl"))
        codes = features.encode(rows)
        sets: dict[str, tuple[Codes, torch.Tensor]] = {"found": (codes, features.atoms)}
        found: dict[str, Interpretation] = {}
        for part in ("found", *controls):
            if part == "random":
                unlearnt = random_directions(features, rows, float(codes.l0().double().mean()), Stream(rng))
                sets[part] = unlearnt.encode(rows), unlearnt.atoms
            elif part == "shuffled":
                sets[part] = shuffled(codes, Stream(rng)), features.atoms
            given, atoms = sets.pop(part)
            said = watch(f"{recipe.judge.kind} on {label if part == 'found' else SAID[part].split(',')[0]}")
            stream = Stream(rng).child(part)
            found[part] = recipe.interpret(
                given, items, atoms, stream, said, journal.known(part), functools.partial(journal.add, part)
            )
        whole = {
            "schema": SCHEMA,
            "fit": cell.fit_digest,
            "finder": cell.finder.as_dict(),
            "seed": cell.seed,
            "recipe": recipe.as_dict(),
            "rng": rng,
            "parts": {
                part: {"features": [as_plain(one) for one in made.features], "skipped": made.skipped}
                for part, made in found.items()
            },
        }
        write_json(path, whole)
        journal.path.unlink(missing_ok=True)
        return Explanations(label, path, found.pop("found"), found)


def random_directions(features: Features, rows: Rows, l0: float, rng: Stream) -> Features:
    """As many Gaussian directions around the rows' mean, read by their l0 largest projections: a control."""
    draw = rng.child("random directions").torch()
    atoms = torch.nn.functional.normalize(torch.randn(features.shape, generator=draw))
    mean = gather(rows, 65_536, rng.child("mean")).double().mean(0).float()
    k = min(max(1, round(l0)), len(atoms))
    return replace(assemble(atoms, mean, Nearest()), encoder=TopK(k=k, init="tied"))


def named(features: Features, interpretation: Interpretation) -> Features:
    """The features with their explanations as names; those that were not explained get none ("")."""
    names = [""] * features.shape[0]
    for one in interpretation.features:
        names[one.feature] = one.explanation
    return dataclasses.replace(features, names=tuple(names))


def _read(stored: dict[str, Any], path: Path, label: str) -> Explanations:
    if stored.get("schema") != SCHEMA:
        raise UsageError(f"{path}: written by another version (schema {stored.get('schema')}); remove it")
    parts = {
        part: Interpretation(tuple(from_plain(one) for one in made["features"]), dict(made["skipped"]))
        for part, made in stored["parts"].items()
    }
    return Explanations(label, path, parts.pop("found"), parts)


class _Journal:
    """What was judged so far, a JSON line each, so that an interrupted run does not ask again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self, part: str) -> dict[int, Explained]:
        """The features of one part; a line that was cut off is left out."""
        known: dict[int, Explained] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record.pop("part") == part:
                one = from_plain(record)
                known[one.feature] = one
        return known

    def add(self, part: str, explained: Explained) -> None:
        """One more."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, **as_plain(explained)}) + "\n")
