"""Steering: what one feature does in the model when it is added, set or taken away, beside random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.activations.downstream import Change, Predicting, TextReader
from unmix.activations.steer import added, coded, random_directions, remembered
from unmix.core.digest import digest
from unmix.core.errors import Failure, UsageError
from unmix.core.options import Count, checked
from unmix.core.seeds import Stream
from unmix.core.store import must_be_writable, recall, write_json
from unmix.core.watch import Watch
from unmix.study.effects import HEADINGS, Effects, Number, as_numbers, effects, grid
from unmix.study.inside import Inside, one_code, open_inside
from unmix.study.study import Results
from unmix.study.texts import snippet

VERSION = 1
SHOWN = 10
EXAMPLES = 3
CHANGED = {"loss": "loss change (nats)", "accuracy": "accuracy change"}


@dataclass(frozen=True)
class Steering:
    """What a feature's change did, and what the same change along other directions did.

    facts: what was done where, and how the feature fires on held-out rows. effect: each measure with an interval over
    passages. control: mean, smallest and largest over the draws. p: share of draws (this one counted) that move the
    measure at least as far. rising, falling: next tokens, classes or passages with the mean change of log p (of the
    cosine), most first. noise: the largest rise or fall of any of them under a control, the mean over the draws.
    examples: of sentences, passages that moved most: text, nearest passage before, nearest after.
    """

    facts: dict[str, Any]
    effect: dict[str, Number]
    control: dict[str, Number]
    p: dict[str, float]
    rising: list[tuple[str, float]]
    falling: list[tuple[str, float]]
    noise: float
    examples: list[tuple[str, str, str]]

    def __str__(self) -> str:
        facts = self.facts
        lines = [
            f"feature {facts['feature']} of {facts['finder']} seed {facts['seed']}: fires on {facts['rate']:.2%} of "
            f"held-out rows, mean code {facts['mean']:.3g}, largest {facts['largest']:.3g}",
            f"{facts['change']} in {facts['model']}, {facts['layer']}, at {facts['where']}",
            "",
            grid(
                ["", "feature", f"{facts['control']}, range of {facts['draws']}", "p"],
                [
                    [CHANGED.get(m, HEADINGS[m]), str(number), str(self.control[m]), f"{self.p[m]:.3f}"]
                    for m, number in self.effect.items()
                ],
            ),
            "",
            f"rises   {_told(self.rising)}",
            f"falls   {_told(self.falling)}",
            f"(mean change of {'the cosine' if facts['kind'] == 'sentence' else 'log p'}; "
            f"largest under a control: {self.noise:.3g})",
        ]
        for text, before, after in self.examples:
            lines += ["", f"text    {text}", f"near    {before}", f"then    {after}"]
        return "\n".join(lines)


@checked
def steer(
    run: str | Path,
    feature: int,
    amount: float | None = None,
    value: float | None = None,
    ablate: bool = False,
    control: Literal["random", "features"] = "random",
    draws: Count = 20,
    tokens: Count = 4096,
    finder: str | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    model: str | None = None,
    data: Any = None,
    labels: Any = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Steering:
    """Change one feature inside the model on held-out input and measure the effect; stored in RUN/steering.

    amount: h + amount * atom, in the units of the codes. value: the feature's code becomes so much at every token;
    what the codes miss of h is kept. ablate: value 0, at the tokens of text where the feature fires. control: the
    same change along random directions of the atom's length, or along the atoms of other features scaled to it,
    `draws` times. tokens: of held-out text (or data) to read at most. Others as `open_inside`.
    Raises `UsageError` for a feature out of range, a zero atom, or not exactly one of amount, value and ablate, and
    `Failure` where a feature to be ablated fires nowhere.
    """
    asked = [amount is not None, value is not None, ablate]
    if sum(asked) != 1:
        raise UsageError(f"steer: give exactly one of amount, value and ablate, got {sum(asked)}")
    if control not in ("random", "features") or draws < 1:
        raise UsageError(f"control={control}, draws={draws}: control is random or features, draws at least 1")
    inside = open_inside(run, finder, seed, encoder, model, data, labels, device)
    count = inside.features.shape[0]
    if not 0 <= feature < count:
        raise UsageError(f"feature={feature}: there are {count} features, numbered from 0")
    results = Results(run)
    key = [VERSION, inside.key, feature, amount, value, ablate, control, draws, tokens]
    file = results.store.root / "steering" / f"{digest(key)}.json"
    if (stored := recall(file, *(part.name for part in fields(Steering)))) is not None:
        for name in ("effect", "control"):
            stored[name] = as_numbers(stored[name])
        for name in ("rising", "falling", "examples"):
            stored[name] = [tuple(entry) for entry in stored[name]]
        return Steering(**stored)
    must_be_writable(file)
    made = steered(inside, results, feature, amount, 0.0 if ablate else value, ablate, control, draws, tokens, watch)
    write_json(file, asdict(made))
    return made


def steered(
    inside: Inside,
    results: Results,
    feature: int,
    amount: float | None,
    value: float | None,
    ablate: bool,
    control: str,
    draws: int,
    tokens: int,
    watch: Watch | None = None,
) -> Steering:
    """The same for features and input at hand; nothing is stored."""
    direction = inside.direction(feature)
    if float(direction.norm()) == 0:
        raise UsageError(f"feature={feature}: its atom is zero; it does nothing")
    codes = one_code(inside.features, inside.rows.take(inside.test), feature)
    active = codes[codes != 0].double()
    if ablate and isinstance(inside.reader, TextReader):
        held = _held_rows(inside)
        firing = held[(one_code(inside.features, inside.rows.take(held), feature) != 0).numpy()]
        if len(np.unique(np.searchsorted(inside.reader.text.bounds, _places(inside)[firing], "right"))) < 2:
            raise Failure(f"feature {feature} fires in fewer than 2 held-out passages; there is nothing to ablate")
        inside = inside.limited(tokens, firing)
    else:
        inside = inside.limited(tokens)
    code = remembered(lambda h: inside.code(h, feature))

    def along(way: Tensor) -> Change:
        if amount is not None:
            return added(way, amount)
        assert value is not None
        return coded(way, code, value)

    others = _others(inside, feature, direction, control, draws)
    changes = {"feature": along(direction), **{f"control {i}": along(other) for i, other in enumerate(others)}}
    found = effects(inside.reader, changes, watch)
    effect, drawn, p = {}, {}, {}
    for measure in found.measures():
        less = "original" if measure in CHANGED else None
        effect[measure] = found.number("feature", measure, less)
        values = [found.number(f"control {i}", measure, less).value or 0.0 for i in range(draws)]
        drawn[measure] = Number(float(np.mean(values)), min(values), max(values))
        still = found.number("original", measure, less).value or 0.0
        reach = abs((effect[measure].value or 0.0) - still)
        p[measure] = (1 + sum(abs(v - still) >= reach for v in values)) / (1 + draws)
    names = _names(inside)
    shift = found.shift["feature"]
    order = np.argsort(-shift, kind="stable")
    noise = float(np.mean([np.abs(found.shift[f"control {i}"]).max() for i in range(draws)]))
    facts = {
        **inside.facts(results),
        "feature": feature,
        "rate": len(active) / len(codes),
        "mean": float(active.mean()) if len(active) else 0.0,
        "largest": float(active[active.abs().argmax()]) if len(active) else 0.0,
        "change": _change(feature, amount, value, float(direction.norm())),
        "where": _where(inside, ablate),
        "control": "random directions" if control == "random" else "other features",
        "draws": draws,
    }
    return Steering(
        facts,
        effect,
        drawn,
        p,
        [(names[i], float(shift[i])) for i in order[:SHOWN] if shift[i] > 0],
        [(names[i], float(shift[i])) for i in order[::-1][:SHOWN] if shift[i] < 0],
        noise,
        _examples(found, names) if found.embedded else [],
    )


def _others(inside: Inside, feature: int, direction: Tensor, control: str, draws: int) -> Tensor:
    """Directions [draws, d] of the length of the feature's."""
    rng = Stream(0, ("steering",))
    if control == "random":
        return random_directions(direction, draws, rng)
    norms = inside.features.atoms.norm(dim=1)
    usable = [j for j in range(len(norms)) if j != feature and norms[j] > 0]
    if len(usable) < draws:
        raise UsageError(f"draws={draws}: there are only {len(usable)} other features with an atom; give fewer")
    picked = rng.child("features").numpy().choice(usable, draws, replace=False)
    ways = torch.stack([inside.direction(int(j)) for j in picked])
    return float(direction.norm()) * torch.nn.functional.normalize(ways)


def _places(inside: Inside) -> np.ndarray:
    return np.asarray(inside.raw.items.places)  # type: ignore[attr-defined]


def _held_rows(inside: Inside) -> np.ndarray:
    """Numbers of the rows in held-out passages."""
    reader = inside.reader
    assert isinstance(reader, TextReader)
    passage = np.searchsorted(reader.text.bounds, _places(inside), side="right") - 1
    return np.flatnonzero(np.isin(passage, reader.chosen))


def _names(inside: Inside) -> Sequence[str]:
    """Names of the outcomes: tokens, passages or classes."""
    reader = inside.reader
    if isinstance(reader, Predicting):
        return _Numbered(reader.names)
    assert isinstance(reader, TextReader)
    bounds, items = reader.text.bounds, inside.raw.items  # type: ignore[attr-defined]
    return [snippet(items, int(bounds[i]), int(bounds[i + 1])) for i in reader.chosen]


class _Numbered(Sequence[str]):
    """Names, and the bare number where there is none."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: Any) -> Any:
        return repr(self.names[number]) if number < len(self.names) and self.names[number] else str(number)


def _examples(found: Effects, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """The passages that moved most, with their nearest other passage before and after."""
    original, changed = found.embedded["original"], found.embedded["feature"]
    own = torch.eye(len(original), dtype=torch.bool)
    before, after = ((e @ original.T).masked_fill(own, -torch.inf).argmax(1) for e in (original, changed))
    most = (changed * original).sum(1).argsort(stable=True)[:EXAMPLES].tolist()
    return [(names[i], names[int(before[i])], names[int(after[i])]) for i in most]


def _change(feature: int, amount: float | None, value: float | None, norm: float) -> str:
    if amount is not None:
        return f"{amount:+g} times its atom (norm {norm:.3g})"
    return "its code set to 0" if value == 0 else f"its code set to {value:g}"


def _where(inside: Inside, ablate: bool) -> str:
    reader = inside.reader
    if not isinstance(reader, TextReader):
        return f"{len(reader):,} held-out data"
    which = "held-out tokens where it fires, in" if ablate else "held-out tokens of"
    return f"{int(reader.touched.sum()):,} {which} {len(reader):,} passages"


def _told(pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {change:+.3g}" for name, change in pairs) or "nothing"
