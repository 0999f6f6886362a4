"""Probes of learnt representations: linear and nearest neighbours, beside the untrained network and raw pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from unmix.core.copies import first_copies, hold_out
from unmix.core.errors import UsageError, notice
from unmix.core.labels import numbered
from unmix.core.options import checked
from unmix.core.scale import resolution, varies
from unmix.core.seeds import Stream, untouched
from unmix.learners.representation import Representation
from unmix.study.labels import labels_of
from unmix.study.learning import Learned, Learning

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 5, 10, 20, 50)
STEPS = 500
BLOCK = 1024


class Parts(NamedTuple):
    """Rows [n, d] and labels [n] from 0 to fit on, to choose on, and to test on once."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Probe(NamedTuple):
    """Accuracies of a probe on the validation rows that chose its setting, and on the test rows with 95 % limits."""

    name: str
    validation: float
    accuracy: float
    low: float
    high: float
    chosen: float


def linear_probe(parts: Parts, strengths: Sequence[float] = STRENGTHS) -> Probe:
    """Multinomial logistic regression on columns scaled by the training rows; validation chooses C among `strengths`.

    They are tried from the strongest penalty on, each from the solution before; after two that do worse on the
    validation rows none is tried. Raises `UsageError` for one class, unlike shapes or values that are not finite.
    """
    _checked(parts)
    with untouched():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    mean, deviation = parts.train[0].mean(0), parts.train[0].std(0)
    deviation[~varies(torch.as_tensor(parts.train[0]), resolution(parts.train[0])).numpy()] = np.inf
    scaled = [((h - mean) / deviation, y) for h, y in parts]
    model = LogisticRegression(max_iter=STEPS, warm_start=True)
    tried: list[tuple[float, np.ndarray, float]] = []
    for strength in sorted(strengths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an early stop is one more choice of validation
            model.set_params(C=strength).fit(*scaled[0])
        tried.append((_rate(model, scaled[1]), model.predict(scaled[2][0]) == scaled[2][1], strength))
        if len(tried) > 2 and max(rate for rate, *_ in tried[-2:]) < max(rate for rate, *_ in tried[:-2]):
            break
    # The first of the best: the strongest penalty that does as well.
    best, right, strength = max(tried, key=lambda entry: entry[0])
    return _probe("linear", best, right, strength)


def neighbours_probe(parts: Parts, neighbours: Sequence[int] = NEIGHBOURS) -> Probe:
    """Vote of the k training rows of largest cosine, weighted by it; validation chooses k among `neighbours`.

    Rows are compared less the mean of the training rows. Raises as `linear_probe`.
    """
    _checked(parts)
    mean = parts.train[0].mean(0)
    units = [torch.nn.functional.normalize(torch.from_numpy(h - mean).float()) for h, _ in parts]
    classes = int(max(y.max() for _, y in parts)) + 1
    most = min(max(neighbours), len(units[0]))
    usable = sorted({min(k, most) for k in neighbours})
    votes = {name: _votes(units[0], parts.train[1], units[name], usable, most, classes) for name in (1, 2)}
    rates = [float((votes[1][place] == parts.validation[1]).mean()) for place in range(len(usable))]
    place = int(np.argmax(rates))
    return _probe("nearest neighbours (cosine)", rates[place], votes[2][place] == parts.test[1], usable[place])


def nearest(h: Any, queries: Sequence[int], count: int = 8) -> np.ndarray:
    """Places [q, count] of the rows of largest cosine with each query row, the row itself left out; for pictures.

    h: [n, d]. Raises `UsageError` for more neighbours than other rows.
    """
    rows = torch.nn.functional.normalize(torch.as_tensor(h).float())
    if not 1 <= count < len(rows):
        raise UsageError(f"count={count}: there are {len(rows) - 1} other rows")
    chosen = torch.as_tensor(list(queries))
    likeness = rows[chosen] @ rows.T
    likeness[torch.arange(len(chosen)), chosen] = -torch.inf
    return likeness.topk(count).indices.numpy()


@checked
def probe_learned(
    run: str | Path,
    labels: Any = None,
    learner: str | None = None,
    seed: int | None = None,
    trust: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Probes of every representation in a run of `unmix learn`, beside the untrained network, raw x and the majority.

    labels: as `labels_of`, one for each picture in the order of the files; None takes those of the world. Probes are
    fitted on four fifths of the world's training rows and chosen on the last; the held-out rows are scored once.
    Online probes, trained beside the network, have a line of their own. Encoders run in eval mode and are left as
    they are. trust: packages whose networks may be imported, beside those of UNMIX_TRUST. Columns: learner, recipe,
    seed, read from, probe, accuracy, low, high (Wilson, 95 %), validation, chosen (C or k), train, chosen on, test.
    Raises `UsageError` where nothing fits, a row lacks what is needed, or one class is left.
    """
    lines: list[dict[str, Any]] = []
    raw: dict[str, list[Probe]] = {}
    for job, learnt in learnt_in(run, learner, seed, trust):
        lines += _lines(job, learnt, labels, raw)
    return pd.DataFrame(lines)


def learnt_in(
    run: str | Path, learner: str | None = None, seed: int | None = None, trust: frozenset[str] = frozenset()
) -> list[tuple[Learning, Representation]]:
    """What a run of `unmix learn` learnt, of one learner and one seed where they are given.

    Raises `UsageError` where nothing fits.
    """
    learned, found, known = Learned(run, trust), [], []
    for job, outcome in learned.jobs():
        known.append(f"{outcome['learner']} seed {outcome['seed']}")
        if (learner or job.learner.kind) == job.learner.kind and (job.seed if seed is None else seed) == job.seed:
            found.append((job, learned.representation(job)))
    if not found:
        told = ", ".join(dict.fromkeys(known)) or "none"
        raise UsageError(f"{run}: no learnt representation of learner={learner} seed={seed}; known: {told}")
    return found


def shown(frame: pd.DataFrame) -> str:
    """The lines of `probe_learned` as text: a table for every learner, what is read from beside the accuracies.

    One seed has its Wilson interval, several have the mean and the range of the seeds.
    """
    several = frame.groupby("learner")["recipe"].nunique() > 1
    texts = []
    for label, rows in frame.groupby("recipe", sort=False):
        recipe = str(label)
        name = recipe if several[rows["learner"].iloc[0]] else rows["learner"].iloc[0]
        seeds = rows["seed"].nunique()
        facts = rows.iloc[0]
        head = f"{name}: accuracy on {facts['test']:,} held-out rows"
        head += f" (mean, least and most of {seeds} seeds)" if seeds > 1 else " (95 % interval)"
        probes = [probe for probe in dict.fromkeys(rows["probe"]) if probe]
        table = [["", *probes]]
        for source, part in rows.groupby("read from", sort=False):
            table.append([str(source), *(_cell(part[part["probe"].isin([probe, ""])]) for probe in probes)])
        widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
        lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
        texts.append("\n".join([head, *lines]))
    fitted = frame.iloc[0]
    told = f"Probes are fitted on {fitted['train']:,} training rows and chosen on {fitted['chosen on']:,} others."
    if (frame["probe"] == "linear, online").any():
        told += " The online one was trained beside the network."
    texts.append(told)
    return "\n\n".join(texts)


def _cell(rows: pd.DataFrame) -> str:
    if not len(rows):
        return ""
    mean, several = rows["accuracy"].mean(), len(rows) > 1
    low, high = (rows["accuracy"].min(), rows["accuracy"].max()) if several else rows[["low", "high"]].iloc[0]
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _lines(job: Learning, learnt: Representation, labels: Any, raw: dict[str, list[Probe]]) -> list[dict[str, Any]]:
    (x, y), (test, test_y) = labelled(job.world, labels)
    x, test = torch.as_tensor(x), torch.as_tensor(test)
    fitted, aside = split(y, x)
    facts = {"learner": job.learner.kind, "recipe": str(job.learner), "seed": job.seed}
    sizes = {"train": len(fitted), "chosen on": len(aside), "test": len(test_y)}

    def parts(source: Any) -> Parts:
        h, held = source(x).numpy(), source(test).numpy()
        return Parts((h[fitted], y[fitted]), (h[aside], y[aside]), (held, test_y))

    read = {"learnt": _both(parts(learnt)), "untrained": _both(parts(job.learner.untrained(job.world, job.seed)))}
    # Raw rows are the same for every learner and seed.
    if job.world.digest not in raw:
        raw[job.world.digest] = _both(parts(lambda rows: rows.flatten(1).float()))
    read["raw x"] = raw[job.world.digest]
    if "probe.weight" in learnt.parts and labels is None:
        logits = learnt(test) @ learnt.parts["probe.weight"].T + learnt.parts["probe.bias"]
        read["learnt"].append(
            _probe("linear, online", float("nan"), logits.argmax(1).numpy() == test_y, float("nan"))
        )
    likely = np.bincount(y[fitted]).argmax()
    read["majority"] = [_probe("", float("nan"), test_y == likely, 0)]
    return [{**facts, "read from": name, **_told(made), **sizes} for name, all_of in read.items() for made in all_of]


def _both(parts: Parts) -> list[Probe]:
    return [linear_probe(parts), neighbours_probe(parts)]


def labelled(world: Any, labels: Any = None) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]:
    """x [n, ...] and labels [n] from 0 of a world's training and held-out rows; rows without a label are left out.

    A `Notice` says how many held-out rows are of classes without a training row. Raises `UsageError` where there are
    no labels, too few on a side, or a single row for each class, and where the world keeps nothing back and is no
    stream without end.
    """
    held = world.held_out
    if hasattr(world, "pictures"):
        if held.part == world.part:
            raise UsageError(f"{world.path}: nothing is held out to test on; learn with world.held=0.2")
        own = world.pictures.labels
        if labels is not None:
            items = SimpleNamespace(names=world.pictures.files)
            own = numbered(labels_of(labels, SimpleNamespace(shape=(len(world.pictures.values),)), items))[0]
        if own is None or (own < 0).all():
            raise UsageError(f"labels: {world.path} has none; give a file (.npy, .csv) with one for each picture")
        parts = [(part.rows().x, own[part.numbers]) for part in (world, held)]
    else:
        if labels is not None:
            raise UsageError(f"labels: rows of {world.kind} are drawn anew; only its own labels can be probed")
        if held == world and world.size is not None:
            raise UsageError(f"{world.kind}: nothing is held out to test on")
        parts = []
        for part, name in ((world, "train"), (held, "test")):
            sample = part.sample(8192 if part.size is None else part.size, Stream(0, ("probing", name)))
            if sample.y is None:
                raise UsageError(f"labels: {world.kind} has none")
            parts.append((sample.x, np.asarray(sample.y)))
    (x, y), (test, test_y) = ((x[own >= 0], own[own >= 0]) for x, own in parts)
    if not len(y) or not len(test_y):
        raise UsageError(f"labels: {len(y)} training and {len(test_y)} held-out rows have one; label more")
    if (counts := np.bincount(y)).max() == 1:
        raise UsageError(
            f"labels: each of the {len(y)} classes has a single training row, so that none is left to choose a probe "
            "on; give classes of several rows"
        )
    if len(new := np.setdiff1d(test_y, np.flatnonzero(counts))):
        strange = int(np.isin(test_y, new).sum())
        told = f"labels: {strange} of {len(test_y)} held-out rows are of classes without a training row"
        if strange == len(test_y):
            raise UsageError(f"{told}; no probe can be tested")
        notice(f"{told}; no probe can tell them")
    return (x, y), (test, test_y)


def split(y: np.ndarray, x: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows to fit on, and of the fifth of every class that chooses; where classes have too few rows for
    that, of one row of each that has several.

    x: [n, ...] rows, whose copies stay on one side; None where they are known to have none.
    """
    first = np.arange(len(y)) if x is None else first_copies(x)
    kinds = y[first]  # copies stay together, also where their labels differ
    aside: list[np.ndarray] = []
    for least in (0, 1):
        draw = Stream(0, ("probing", "validation")).numpy()
        for label in np.unique(kinds):
            here = draw.permutation(np.flatnonzero(kinds == label))
            aside.append(hold_out(here, first, max(least * (len(here) > 1), len(here) // 5)))
        if sum(map(len, aside)):
            break
    if not sum(map(len, aside)):
        raise UsageError("labels: every class has copies of a single training row; give classes of several rows")
    chosen = np.sort(np.concatenate(aside))
    return np.setdiff1d(np.arange(len(y)), chosen), chosen


def _votes(
    train: torch.Tensor, y: np.ndarray, rows: torch.Tensor, usable: Sequence[int], most: int, classes: int
) -> np.ndarray:
    """Labels [len(usable), n] that the neighbours give."""
    labels, found = torch.from_numpy(y), []
    for begin in range(0, len(rows), BLOCK):
        likeness, places = (rows[begin : begin + BLOCK] @ train.T).topk(most)
        votes = torch.nn.functional.one_hot(labels[places], classes) * (likeness + 1)[:, :, None]
        found.append(torch.stack([votes[:, :k].sum(1).argmax(1) for k in usable]))
    return torch.cat(found, 1).numpy()


def _rate(model: Any, rows: tuple[np.ndarray, np.ndarray]) -> float:
    return float((model.predict(rows[0]) == rows[1]).mean())


def _probe(name: str, validation: float, right: np.ndarray, chosen: float) -> Probe:
    from scipy.stats import binomtest

    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return Probe(name, validation, float(right.mean()), float(low), float(high), chosen)


def _told(probe: Probe) -> dict[str, Any]:
    return {
        "probe": probe.name,
        "accuracy": probe.accuracy,
        "low": probe.low,
        "high": probe.high,
        "validation": probe.validation,
        "chosen": probe.chosen,
    }


def _checked(parts: Parts) -> None:
    for name, (h, y) in zip(Parts._fields, parts, strict=True):
        if h.ndim != 2 or len(h) != len(y) or not len(h):
            raise UsageError(f"probe: {name} rows must be [n, d] with n labels, got {list(h.shape)} and {len(y)}")
        if not np.isfinite(h).all():
            raise UsageError(f"probe: {name} rows are not finite")
    if len(np.unique(parts.train[1])) < 2:
        raise UsageError("labels: only one class in the training rows; a probe needs two")
