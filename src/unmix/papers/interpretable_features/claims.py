"""What the paper, its data and the theory say beside what was measured, each with a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unmix.papers.claimed import NO_CLAIM, claimed, counted, over_seeds

PAPER = "arXiv 2310.11431"
CHOICES = "Borowski et al. 2021, arXiv 2010.12606"
PEOPLE = {("I", "natural"): 0.92, ("I", "optimized"): 0.82, ("II", "natural"): 0.73, ("II", "optimized"): 0.65}
TABLES = {
    ("I", "natural"): 0.922,
    ("I", "optimized"): 0.820,
    ("II", "natural"): 0.730,
    ("II", "optimized"): 0.652,
}

Row = dict[str, Any]


def at(rows: Iterable[Row], basis: str, read: str) -> Row | None:
    """The row of a basis in a table of `runs`."""
    return next((row for row in rows if row["basis"] == basis and row["read"] == read), None)


def planted_claims(worlds: Sequence[tuple[Row, Row]]) -> list[dict[str, Any]]:
    """Where the features are known. worlds: what each is, and the result of `runs.planted`."""
    mixed = [result for what, result in worlds if what["world"] == "superposition"]
    single = [result for what, result in worlds if what["world"] != "superposition"]
    found = []
    if mixed:
        coding, clusters = (
            [result["dictionary"][name]["value"] for result in mixed] for name in ("sparse coding", "k-means")
        )
        chance = np.mean([result["dictionary"]["sparse coding"]["chance"] for result in mixed])
        why = f"dictionary MCC, least of the seeds; unrelated dictionaries {chance:.2f}"
        n = len(mixed)
        found.append(
            claimed(
                "superposition: sparse coding finds the planted directions",
                "prototype",
                "at least 0.95",
                f"{min(coding):.3f}",
                min(coding) >= 0.95,
                why,
                n,
                over_seeds(coding, most=1),
            )
        )
        found.append(
            claimed(
                "superposition: spherical k-means finds them",
                "prototype",
                "at least 0.90",
                f"{min(clusters):.3f}",
                min(clusters) >= 0.90,
                why,
                n,
                over_seeds(clusters, most=1),
            )
        )
        ratio = [_value(r, "sparse coding", "codes") / _value(r, "neurons", "columns") for r in mixed]
        text = "superposition: codes of sparse coding are 1.5 times as interpretable as neurons"
        why = "index of the codes over index of the neurons, least of the seeds"
        found.append(
            claimed(
                text,
                f"{PAPER}; prototype",
                "at least 1.5",
                f"{min(ratio):.2f}",
                min(ratio) >= 1.5,
                why,
                n,
                over_seeds(ratio),
            )
        )
        gap = [abs(_value(r, "random directions", "projections") - _value(r, "neurons", "columns")) for r in mixed]
        found.append(
            claimed(
                "superposition: a random direction is as interpretable as a neuron, and far from chance",
                "prototype",
                "within 0.08",
                f"{max(gap):.3f}",
                max(gap) <= 0.08,
                "largest difference of the seeds",
                n,
            )
        )
        apart = [_z(r, "k-means", "angles") - _z(r, "neurons", "angles") for r in mixed]
        found.append(
            claimed(
                "superposition: clusters by angle are above neurons by angle, by more than 3 null deviations",
                f"{PAPER} (k-means wins)",
                "above",
                f"{min(apart):.1f}",
                min(apart) > 3,
                "least of the seeds",
                n,
                over_seeds(apart),
            )
        )
    every = [abs(_z(result, "shuffled activations", "columns")) for _, result in worlds]
    if every:
        found.append(
            claimed(
                "activations on other images are at chance",
                "control",
                "|z| below 0.5",
                f"{max(every):.2f}",
                max(every) < 0.5,
                "largest |z| of all worlds",
                len(every),
            )
        )
    if single:
        found += _without(single)
    return found


def _without(single: Sequence[Row]) -> list[dict[str, Any]]:
    """Without superposition the tool says so."""
    gains = [
        (row["beside"], f"{row['basis']}, {row['read']}")
        for result in single
        for row in result["table"]
        if row["role"] == "basis" and row["basis"] != "neurons" and row["beside"] is not None
    ]
    worst, which = max(gains)
    said = sum("no sign of superposition" in result["told"][-1] for result in single)
    return [
        claimed(
            "one neuron a feature: no basis is above the neurons by one null deviation, however it is read",
            "prototype",
            "at most 1",
            f"{worst:.2f}",
            worst <= 1,
            f"largest gain of all bases, readings and seeds ({which}); {centring(single)}",
            len(single),
        ),
        claimed(
            "one neuron a feature: the report says that there is no sign of superposition",
            "prototype",
            "always",
            f"in {said} of {len(single)} worlds",
            said == len(single),
            "last sentence of `findings`",
            len(single),
        ),
    ]


def centring(worlds: Sequence[Row]) -> str:
    """What k-means about the mean gains over neurons by projection, and on shuffled ones; the largest of worlds."""
    gains = [
        max(_beside(result["centred"], name, "projections") for result in worlds)
        for name in ("k-means", "k-means on shuffled neurons")
    ]
    return "k-means about the mean, by projection, gains {:.2f}, and {:.2f} on shuffled neurons".format(*gains)


def recording_claims(sessions: Sequence[tuple[Row, Row]]) -> list[dict[str, Any]]:
    """Recordings. sessions: what each is, and the result of `runs.recorded` or `runs.reliable`."""
    found = []
    for what, result in sessions:
        name = what["session"]
        if "half" in result:
            full = [x for x in result["full"] if x is not None]
            text = f"recording {name}: mean reliability of the neurons"
            why = (
                f"split halves of the presentations of {result['images']} images; {result['unreliable']} of "
                f"{len(full)} neurons below 0.3; described, nothing is published"
            )
            found.append(claimed(text, "recording", "", f"{np.mean(full):.2f}", None, why, 1))
        elif what["whiten"] is None:
            gain = _z(result, "k-means", "projections") - _z(result, "neurons", "columns")
            pools = _z(result, "random pools", "projections") - _z(result, "neurons", "columns")
            spread = _row(result, "k-means", "projections").get("beside_deviation")
            interval = "" if spread is None else f"± {spread:.2f} over splits"
            why = f"random pools of images gain {pools:.2f}: see the sentences under the table"
            text = f"recording {name}: k-means is above the neurons"
            found.append(
                claimed(
                    text, f"{PAPER}, other recordings", "z above 0.5", f"{gain:.2f}", gain >= 0.5, why, 1, interval
                )
            )
    return found


def people_claims(result: Row | None) -> list[dict[str, Any]]:
    """Accuracies of people as published, and as the tables have them."""
    found = []
    for row in result["accuracies"] if result else []:
        key = (row["experiment"], row["images"])
        value, exact = row["accuracy"], TABLES[key]
        text = f"people, experiment {key[0]}, {key[1]} images: share of right choices"
        holds = abs(value - exact) <= 0.001 and abs(value - PEOPLE[key]) <= 0.0051
        why = f"{row['people']:.0f} people, {row['trials']:,.0f} trials, without catch trials"
        interval = f"± {row['error']:.3f} (2 SEM)"
        found.append(claimed(text, CHOICES, f"{PEOPLE[key]:.2f}", f"{value:.4f}", holds, why, 1, interval))
    return found


def stimuli_claims(result: Row | None) -> list[dict[str, Any]]:
    """Stimuli of units are told apart without learnt weights."""
    if not result:
        return []
    found = []
    for name, least, words in (
        ("OrientedEnergy", 0.88, "oriented energy"),
        ("ColourHistogram", 0.85, "colour histogram"),
    ):
        value = float(np.mean(result["right"][name]))
        text = f"stimuli of units: {words} tells most from least exciting images"
        why = "people must be right in 0.8 of such trials to take part"
        found.append(claimed(text, "prototype", f"at least {least}", f"{value:.3f}", value >= least, why, 1))
    value = result["shuffled"]
    text = "stimuli of units: with shuffled labels the choice is at chance"
    found.append(claimed(text, "control", "0.50 ± 0.07", f"{value:.3f}", abs(value - 0.5) <= 0.07, "", 1))
    return found


def network_claims(layers: Sequence[tuple[Row, Row]]) -> list[dict[str, Any]]:
    """A trained network beside its start, and k-means beside neurons, over the layers."""
    found = []
    for kind, words in (("energy", "oriented energy"), ("label", "label")):
        known = [(what["layer"], result[kind]) for what, result in layers if result[kind]]
        if not known:
            continue
        last, table = known[-1]
        if at(table["table"], "untrained neurons", "columns"):
            pair = [_row(table, basis, "columns") for basis in ("neurons", "untrained neurons")]
            gain = pair[0]["z"] - pair[1]["z"]
            text = f"network, {words}: neurons of {last} are above those of the untrained network"
            shares = [f"{row['unique']:.2f}" for row in pair]
            why = f"null deviations, last layer; different images in the sets: {shares[0]}, untrained {shares[1]}"
            found.append(claimed(text, PAPER, "above", f"{gain:+.2f}", gain > 0, why, 1))
        gains, pools = (
            {layer: _z(t, basis, "projections") - _z(t, "neurons", "columns") for layer, t in known}
            for basis in ("k-means", "random pools")
        )
        told = ", ".join(f"{layer} {gain:+.2f} ({pools[layer]:+.2f})" for layer, gain in gains.items())
        text = f"network, {words}: k-means is above the neurons in every layer"
        why = f"null deviations, least of the layers: {told}; in brackets random pools; not the paper's network"
        least = min(gains.values())
        found.append(claimed(text, PAPER, "k-means wins", f"{least:+.2f}", least > 0, why, 1))
    return found


def headline(claims: Sequence[Row]) -> str:
    """What came out, in one sentence or two."""
    if not claims:
        return NO_CLAIM
    return (
        f"Of {len(claims)} claims {counted(claims)}. A high interpretability says little by itself: read it beside "
        "random directions, random pools of images and the same finder on shuffled neurons."
    )


def _row(result: Row, basis: str, read: str) -> Row:
    row = at(result["table"], basis, read)
    assert row is not None, (basis, read)
    return row


def _value(result: Row, basis: str, read: str) -> float:
    return float(_row(result, basis, read)["value"])


def _z(result: Row, basis: str, read: str) -> float:
    return float(_row(result, basis, read)["z"])


def _beside(result: Row, basis: str, read: str) -> float:
    return float(_row(result, basis, read)["beside"])
