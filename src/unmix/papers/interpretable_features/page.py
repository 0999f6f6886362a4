"""The page of the study, written like the results of a paper, from what the run folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.core.store import read_json
from unmix.papers.interpretable_features import claims as claim
from unmix.papers.interpretable_features.atlases import write_layer, write_planted
from unmix.papers.interpretable_features.figures import beside
from unmix.papers.pages import publish
from unmix.papers.parts import each_result
from unmix.report.page import Block, DataTable, Figure, Link, Paragraph, Section
from unmix.report.page import beside as side_by_side

SUPERPOSED, SINGLE = "superposition", "one neuron a feature"
ANGLES = {"neurons": "angles", "controls": "angles", "bases": "angles"}
PROJECTIONS = {"neurons": "columns", "controls": "projections", "bases": "projections"}
CODES = {"neurons": "columns", "controls": "projections", "bases": "codes"}
READINGS = {"by projection": PROJECTIONS, "by angle": ANGLES}
APART = " on shuffled neurons"
READS = ("columns", "codes", "projections", "angles")
NUMBERS = ["value", "z", "unique", "redundancy", "brightness_z", "colour_z"]
TABLED = [f"{read}{end}" for end in ("", "_apart") for read in READS[1:]]
FORMATS = dict.fromkeys((*TABLED, *NUMBERS), "z.2f")
LABELS = {
    **{name: name.removesuffix("_apart").replace("projections", "proj.") for name in TABLED},
    "value": "index",
    "brightness_z": "brightness",
    "colour_z": "colour",
}
UNITS = {
    **{name: "shuffled" if name.endswith("_apart") else "z" for name in TABLED},
    "unique": "images",
    "brightness_z": "z",
    "colour_z": "z",
}
TABLE_NOTE = (
    "z: null deviations above random sets of images, by codes, projections and angles; what neurons and shuffled "
    "activations are by themselves stands under codes and projections. Shuffled: z of the same finder on neurons "
    "shuffled apart. Index, unique images, redundancy, brightness and colour are of the first reading that is there."
)
NOTE = (
    "z: null deviations above random sets of images. Diamonds: the same finder on neurons shuffled apart. Grey: "
    "controls that know nothing of features."
)
CLAIMS_NOTE = "Prototype: numbers set before the study was written. A claim that differs stays in."


def outcomes(study: Any, folder: Path, small: bool, section: str) -> list[tuple[dict[str, Any], Any]]:
    """What each piece of work of a section is, with its result, where it is there."""
    pieces = ((what, part) for what, part in study.parts(small) if what["section"] == section)
    return list(each_result(pieces, folder))


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json, the atlases and the page; returns the page's path."""
    made = {
        "planted": (claim.planted_claims, _planted),
        "recordings": (claim.recording_claims, _recordings),
        "people": (lambda found: claim.people_claims(_first(found)), _people),
        "stimuli": (lambda found: claim.stimuli_claims(_first(found)), _stimuli),
        "network": (claim.network_claims, _network),
    }
    told: list[dict[str, Any]] = []
    sections: list[Section] = []
    atlases = _atlases(study, folder, small)
    for name in study.sections:
        found = outcomes(study, folder, small, name)
        judge, describe = made[name]
        told += judge(found)
        section = describe(found)
        first, *others = section.blocks
        sections.append(Section(section.title, [first, *atlases.get(name, []), *others]))
    lead = f"How interpretable neurons and other directions are, after {study.reference}"
    title, headline = "Interpretable features", claim.headline(told)
    return publish(study, folder, small, title, lead, headline, sections, _methods(study), told, CLAIMS_NOTE)


def _atlases(study: Any, folder: Path, small: bool) -> dict[str, list[Block]]:
    """Section -> the link to its atlas, which is written beside the page."""
    made = {
        "planted": (write_planted, "of superposed features, with gratings as their patterns so that one sees them."),
        "network": (write_layer, "of sparse coding's features in the last layer, with the images that excite them."),
    }
    links: dict[str, list[Block]] = {}
    for what, part in study.parts(small):
        if what["section"] == "atlas" and part.file(folder).is_file():
            writer, text = made[what["of"]]
            index = writer(folder / f"atlas-{what['of']}", part.settings, read_json(part.file(folder))["result"])
            links[what["of"]] = [Link("Atlas", index.relative_to(folder).as_posix(), text)]
    return links


def _first(found: Sequence[tuple[dict[str, Any], Any]]) -> Any:
    return found[0][1] if found else None


def _planted(found: list[tuple[dict[str, Any], Any]]) -> Section:
    blocks: list[Block] = [
        Paragraph(
            "Images are sums of known patterns, and 16 neurons answer to 32 of them (superposition) or to one each. "
            "By angle, rows about their mean count alike whatever their length, so that images that show one thing "
            "come first: there the true directions stand far above neurons where features are superposed, and are "
            "the neurons where they are not."
        )
    ]
    for world in (SUPERPOSED, SINGLE):
        results = [result for what, result in found if what["world"] == world]
        if not results:
            continue
        panels = [(results, reads, words) for words, reads in {"codes": CODES, **READINGS}.items()]
        blocks.append(_panels(panels, f"{world.capitalize()}: every seed, and means.", blocks))
        blocks.append(_means(results, f"{world.capitalize()}: means over seeds.", blocks))
        blocks.append(Paragraph(f"Seed {_seed(found, world)}. {_sentences(results[0])}"))
    rows = [
        {"seed": what["seed"], **{name: value["value"] for name, value in result["dictionary"].items()}}
        | {"chance": result["dictionary"]["sparse coding"]["chance"]}
        for what, result in found
        if what["world"] == SUPERPOSED
    ]
    blocks += _centring(found)
    if rows:
        frame = pd.DataFrame(rows)
        text = "Superposition: mean |cosine| of the planted directions with their partners (dictionary MCC)."
        blocks.append(DataTable(frame, text, dict.fromkeys(frame.columns.drop("seed"), ".3f")))
    return Section("Where the features are known", blocks)


def _centring(found: list[tuple[dict[str, Any], Any]]) -> list[Block]:
    """What k-means about the mean does, beside k-means about 0."""
    mixed, single = ([result for what, result in found if what["world"] == world] for world in (SUPERPOSED, SINGLE))
    if not mixed or not single:
        return []
    about_0 = min(result["dictionary"]["k-means"]["value"] for result in mixed)
    about_mean = min(result["centred"]["dictionary"] for result in mixed)
    text = (
        "K-means takes rows about 0, where a row of zeros means that nothing is there. About the mean an atom weighs "
        f"what it does not show against what it shows. With one neuron a feature, {claim.centring(single)}. In "
        f"superposition its dictionary MCC is {about_mean:.3f} in the worst seed, and {about_0:.3f} about 0."
    )
    return [Paragraph(text)]


def _recordings(found: list[tuple[dict[str, Any], Any]]) -> Section:
    if not found:
        return _left_out("Recordings", "recordings=FOLDER", "recordings of neurons")
    blocks: list[Block] = [
        Paragraph(
            "Responses are standardised, and whitened where it says so, on the images that are fitted on; everything "
            "is scored on the others, by oriented energy. Random pools are means over random images, as many as "
            "neurons: what reaches them is pooling and no sign of features."
        )
    ]
    for what, result in found:
        session = f"{what['session']}{', whitened' if what['whiten'] else ''}"
        if "half" in result:
            blocks.append(_reliability(what["session"], result))
            continue
        caption = f"{session}: {result['neurons']} neurons, {result['images']:,} images, means over splits."
        panels = [([result], reads, words) for words, reads in READINGS.items()]
        blocks.append(_panels(panels, f"{session}.", blocks))
        left_out = f" Left out: {result['left_out']}." if result.get("left_out") else ""
        blocks += [_means([result], caption, blocks), Paragraph(f"{_sentences(result)}{left_out}")]
    return Section("Recordings", blocks)


def _reliability(session: str, result: dict[str, Any]) -> Block:
    rows = []
    for name, words in (
        ("half", "one half with the other"),
        ("full", "all presentations with as many others"),
        ("ceiling", "largest correlation of a model with the means"),
    ):
        values = np.array([x for x in result[name] if x is not None])
        quantiles = dict(zip(("least", "median", "most"), np.quantile(values, [0, 0.5, 1]), strict=True))
        rows.append({"correlation": words, **quantiles})
    text = (
        f"{session}: how far responses come again, over {len(result['half'])} neurons; {result['unreliable']} "
        f"of them are below 0.3. Correlation of reliability with interpretability: {_agreement(result):.2f}."
    )
    return DataTable(pd.DataFrame(rows), text, dict.fromkeys(("least", "median", "most"), ".2f"))


def _agreement(result: dict[str, Any]) -> float:
    pairs = [(a, b) for a, b in zip(result["full"], result["z"], strict=True) if a is not None and b is not None]
    return float(np.corrcoef(np.array(pairs).T)[0, 1]) if len(pairs) > 2 else float("nan")


def _people(found: list[tuple[dict[str, Any], Any]]) -> Section:
    if not found:
        return _left_out("People", "choices=FOLDER", "tables of people's choices")
    result = _first(found)
    frame = pd.DataFrame(result["accuracies"]).merge(pd.DataFrame(result["ceilings"]), on=["experiment", "images"])
    frame = frame[["experiment", "images", "people", "trials", "units", "accuracy", "error", "half", "ceiling"]]
    formats = {"people": ".0f", "trials": ",.0f", "units": ".0f"} | dict.fromkeys(
        ("accuracy", "error", "half", "ceiling"), ".3f"
    )
    labels = {"error": "2 SEM", "half": "half predicts half", "ceiling": "ceiling of a judge"}
    text = (
        "Which of two images excites a unit more? Mean over people. How well one half of the people predicts the "
        "other, unit by unit, bounds what any score can reach; the tables carry no images, so no score stands "
        "beside them."
    )
    return Section("People", [Paragraph(text), DataTable(frame, "Share of right choices.", formats, "", labels)])


def _stimuli(found: list[tuple[dict[str, Any], Any]]) -> Section:
    if not found:
        return _left_out("Stimuli of units", "stimuli=PATH", "most and least exciting images of units")
    result = _first(found)
    rows = [
        {"similarity": name, "right": np.mean(values), "worst unit": min(values)}
        for name, values in result["right"].items()
    ]
    text = (
        f"Most and least exciting natural images of {result['units']} units, {result['images']} each: how often a "
        "most exciting image is told from a least exciting one by the others. Similarities that ask for equal "
        f"positions or one number are worse. With labels shuffled: {result['shuffled']:.3f}."
    )
    formats = {"right": ".3f", "worst unit": ".2f"}
    return Section(
        "Stimuli of units",
        [Paragraph(text), DataTable(pd.DataFrame(rows), "Share of right choices.", formats)],
    )


def _network(found: list[tuple[dict[str, Any], Any]]) -> Section:
    if not found:
        return _left_out("A network", "network=MODULE:BUILD images=PATH", "a network and images")
    images = found[0][1]["images"]
    blocks: list[Block] = [
        Paragraph(
            f"Layers of a trained network on {images:,} images, means over positions, standardised on the half of "
            "the images that is fitted on. The untrained network looks at the same images."
        )
    ]
    for kind, words in (("energy", "oriented energy"), ("label", "label")):
        known = [(what, result[kind]) for what, result in found if result[kind]]
        for how, reads in READINGS.items():
            panels = [([result], reads, what["layer"]) for what, result in known]
            blocks += [_panels(panels, f"By {words}, {how}.", blocks)] if panels else []
        for what, result in known:
            blocks.append(_means([result], f"{what['layer']}, by {words}.", blocks))
            blocks.append(Paragraph(_sentences(result)))
    return Section("A network", blocks)


def _panels(
    panels: list[tuple[list[dict[str, Any]], dict[str, str], str]], words: str, before: list[Block]
) -> Figure:
    """Panels side by side (results, how they are read, title); the first figure of a section says what is drawn."""
    return replace(side_by_side(*(beside(*panel) for panel in panels)), caption=f"{words} {_once(NOTE, before)}")


def _once(text: str, before: list[Block]) -> str:
    """The text, unless a caption or a note before says it."""
    said = (f"{getattr(block, 'caption', '')} {getattr(block, 'notes', '')}" for block in before)
    return "" if any(text in words for words in said) else text


def _means(results: list[dict[str, Any]], caption: str, before: list[Block]) -> DataTable:
    """A line for every basis: its index, z in each reading, and z in each of the same finder on shuffled neurons."""
    frame = pd.concat([pd.DataFrame(result["table"]) for result in results])
    means = frame.groupby(["basis", "read"], sort=False)[NUMBERS].mean()
    lines = []
    for basis in dict.fromkeys(frame["basis"]):
        if basis.endswith(APART):
            continue
        own = {read: means.loc[basis, read] for read in READS if (basis, read) in means.index}
        first = next(iter(own.values()))
        line = {"basis": basis, **{name: first[name] for name in NUMBERS if name != "z"}}
        columns = own.pop("columns", None)
        if columns is not None:
            own = {"codes": columns, "projections": columns, **own}
        line |= {read: row["z"] for read, row in own.items()}
        for read in READS:
            if (f"{basis}{APART}", read) in means.index:
                line[f"{read}_apart"] = means.loc[(f"{basis}{APART}", read), "z"]
        lines.append(line)
    order = ["basis", "value", *TABLED, *NUMBERS[2:]]
    note = _once(TABLE_NOTE, before)
    return DataTable(pd.DataFrame(lines).reindex(columns=order), caption, FORMATS, note, LABELS, UNITS)


def _sentences(result: dict[str, Any]) -> str:
    """What may be said of bases that are above the neurons; the others are counted."""
    *each, last = result["told"]
    above = [told for told in each if "not more than" not in told]
    others = f"at most 1 null deviation above the neurons: {len(each) - len(above)} of {len(each)} readings of bases"
    return " ".join([f"{told[0].upper()}{told[1:]}." for told in (*above, others)] + [last])


def _seed(found: list[tuple[dict[str, Any], Any]], world: str) -> int:
    return next(what["seed"] for what, _ in found if what["world"] == world)


def _left_out(title: str, option: str, what: str) -> Section:
    return Section(title, [Paragraph(f"Left out: no {what} were given. With `{option}` this section has them.")])


def _methods(study: Any) -> dict[str, str]:
    return {
        "source": study.reference,
        "interpretability": "mean similarity of the pairs of the 5 most exciting images of those not fitted on",
        "null": f"{study._draws():,} random sets of 5 images; z is in its deviations, averaged over features",
        "similarity": "cosine of mean-centred pixels (planted), oriented energy, or label; not the paper's LPIPS",
        "reading": "codes of the finder's own encoder, projections on its atoms, or those of unit rows (angles)",
        "finders": "spherical k-means with as many clusters as features or neurons, sparse coding (l1), FastICA, PCA",
        "not repeated": "ImageNet ResNet50 and the paper's recordings; LPIPS, DreamSim",
    }
