"""Every finder, encoder and score in other units, with an offset, in other types and layouts of memory."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts.test_encoders import FIELDS
from tests.contracts.test_finders import QUICK
from tests.contracts.test_scores import TABLE
from unmix.core.errors import Failure, Notice, UsageError
from unmix.encoders import ENCODERS
from unmix.finders import FINDERS
from unmix.finders.features import assemble
from unmix.scores import SCORES
from unmix.scores.base import Inputs, Outcome
from unmix.scores.sparsity import fvu

# Powers of two near 1e-13 and 1e8: nothing is rounded, so that results are the same to the last bits.
UNITS = [2.0**-43, 2.0**27]
OFFSET = 1e8
IN_UNITS = {"MiniBatchDictionary": "penalty"}  # fields of finders in the units of the rows
NEEDS_UNITS = {"JointCoding"}  # a protocol for rows of about 1, which a notice says


def layouts(values: np.ndarray, folder: Any) -> dict[str, Any]:
    """The same numbers as arrays that differ in memory alone."""
    np.save(folder / "rows.npy", np.asfortranarray(values))
    twice = np.repeat(values, 2, axis=0)
    return {
        "columns first": np.asfortranarray(values),
        "every second row": twice[::2],
        "the other byte order": values.astype(values.dtype.newbyteorder()),
        "a read-only memory map": np.load(folder / "rows.npy", mmap_mode="r"),
        "a transposed tensor": torch.from_numpy(values.T.copy()).mT if values.ndim == 2 else torch.from_numpy(values),
    }


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows [160, 8] of whole eighths, which every type from half precision on holds."""
    draw = np.random.default_rng(0)
    z = draw.exponential(size=(160, 12)) * (draw.random((160, 12)) < 0.2)
    h = z @ draw.standard_normal((12, 8)) + 0.1 * draw.standard_normal((160, 8))
    return np.round(8 * h) / 8


def finder(name: str, unit: float = 1.0) -> Any:
    fields = {**QUICK[name], **({"steps": 25} if "steps" in QUICK[name] else {})}
    if name in IN_UNITS:
        default = FINDERS[name].model_fields[IN_UNITS[name]].default
        fields[IN_UNITS[name]] = default * unit
    return FINDERS[name](**fields)


def suited(name: str, rows: np.ndarray) -> np.ndarray:
    return np.abs(rows) if FINDERS[name].nonnegative else rows


@pytest.mark.parametrize("name", [n for n in FINDERS if n not in NEEDS_UNITS])
def test_rows_in_other_units_give_the_same_features(name, rows):
    h = suited(name, rows).astype(np.float32)
    one = finder(name).fit(h, 1)
    left = fvu(h, one.reconstruct(h)).value
    for unit in UNITS:
        other = finder(name, unit).fit(h * np.float32(unit), 1)
        found = fvu(h * np.float32(unit), other.reconstruct(h * np.float32(unit))).value
        if name == "NMF":  # where it begins depends on the units
            assert found == pytest.approx(left, abs=0.02)
            continue
        assert found == pytest.approx(left, rel=1e-4, abs=1e-9)
        assert torch.allclose(other.bias / unit, one.bias, rtol=1e-5, atol=1e-6)
        assert torch.allclose(
            torch.nn.functional.normalize(other.atoms / other.atoms.abs().max()),
            torch.nn.functional.normalize(one.atoms / one.atoms.abs().max()),
            atol=1e-5,
        )


@pytest.mark.parametrize("name", list(FINDERS))
def test_an_offset_of_float64_rows_is_taken_off_or_refused(name, rows):
    h = suited(name, rows)
    if name in ("NMF", "JointCoding"):
        with pytest.raises(UsageError, match="take the offset off"):
            finder(name).fit(h + OFFSET)
        return
    one, other = (finder(name).fit(h + offset, 1) for offset in (0.0, OFFSET))
    assert other.bias.dtype == torch.float64 and one.bias.dtype == torch.float32
    assert fvu(h + OFFSET, other.reconstruct(h + OFFSET)).value == pytest.approx(
        fvu(h, one.reconstruct(h)).value, abs=0.02
    )


@pytest.mark.parametrize("name", list(FINDERS))
def test_types_and_layouts_of_rows_change_nothing(name, rows, tmp_path):
    h = suited(name, rows)
    wanted = finder(name).fit(h, 1)
    given = layouts(h, tmp_path)
    chosen = list(given)[list(FINDERS).index(name) % len(given)]  # each finder one, which all go through one reader
    types = [h.astype(np.float16), (8 * h).astype(np.int64)]
    assert finder(name).fit(given[chosen], 1).atoms.numpy() == pytest.approx(wanted.atoms.numpy(), abs=1e-3), chosen
    half = finder(name).fit(types[0], 1)
    assert half.digest == finder(name).fit(h.astype(np.float32), 1).digest
    if name not in (*NEEDS_UNITS, "NMF"):
        whole, single = (finder(name, 8.0).fit(part, 1) for part in (types[1], (8 * h).astype(np.float32)))
        assert whole.digest == single.digest


@pytest.mark.parametrize("name", list(FINDERS))
@pytest.mark.parametrize("size", [1e37, 1e200, 1e-42, 1e-320])
def test_rows_beyond_float32_are_refused_by_their_scale(name, size, rows):
    h = suited(name, rows) * size
    kind = np.float32 if 1e-45 < size < 1e38 else np.float64
    with pytest.raises(UsageError, match="divide them by their scale"):
        finder(name).fit(h.astype(kind))


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_rows_of_which_float32_does_not_hold_the_squares(unit, rows):
    for name in ("PCA", "KMeans", "SparseCoding", "TopKSAE"):
        h = (rows * unit).astype(np.float32)
        found = finder(name).fit(h, 1)
        assert fvu(h, found.reconstruct(h)).value < 0.8, name


def test_a_protocol_for_rows_of_about_one_says_so(rows):
    with pytest.warns(Notice, match="for about 1"):
        finder("JointCoding").fit(rows * 1e-13)


@pytest.fixture(scope="module")
def dictionary() -> Any:
    draw = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(20, 8, generator=draw))
    return assemble(atoms, torch.randn(8, generator=draw), ENCODERS.make("Nearest"))


def moved(fields: Any, unit: float) -> Any:
    """Fields of an encoder with those in the units of the codes or rows times a unit."""
    if not isinstance(fields, dict):
        return fields
    units = {"penalty", "threshold"}
    return {key: value * unit if key in units else moved(value, unit) for key, value in fields.items()}


def bound_to(name: str, dictionary: Any, rows: torch.Tensor, unit: float = 1.0) -> Any:
    recipe = ENCODERS[name](**moved(FIELDS[name], unit))
    return recipe.bind(dictionary, rows if recipe.needs_rows else None)


@pytest.mark.parametrize("name", [n for n in ENCODERS if n not in ("Nearest", "Exponentiated")])
def test_codes_of_rows_in_other_units_are_in_those_units(name, dictionary, rows):
    h = torch.from_numpy(rows[:60] / 2).float()
    assert 1 < h.square().mean().sqrt() < 2  # so that weights are learnt in the same units in each case
    codes = bound_to(name, dictionary, h)(h).dense()
    for unit in UNITS:
        there = dataclasses.replace(dictionary, bias=dictionary.bias * unit)
        found = bound_to(name, there, h * unit, unit)(h * unit).dense()
        assert torch.allclose(found / unit, codes, rtol=1e-3, atol=1e-3), unit


@pytest.mark.parametrize("name", list(ENCODERS))
def test_codes_do_not_depend_on_offset_type_or_layout(name, dictionary, rows, tmp_path):
    h = rows[:60]
    codes = bound_to(name, dictionary, torch.from_numpy(h))(h)
    there = dataclasses.replace(dictionary, bias=dictionary.bias.double() + OFFSET)
    moved_codes = bound_to(name, there, torch.from_numpy(h + OFFSET))(h + OFFSET)
    assert torch.allclose(moved_codes.dense(), codes.dense(), atol=2e-3)
    encoder = bound_to(name, dictionary, torch.from_numpy(h))
    half, whole = h.astype(np.float16), (8 * h).astype(np.int32)
    assert torch.allclose(encoder(half).dense(), codes.dense(), atol=2e-4)
    assert torch.equal(encoder(whole).dense(), encoder(8 * h.astype(np.float32)).dense())
    for kind, given in layouts(h, tmp_path).items():
        assert torch.allclose(encoder(given).dense(), codes.dense(), atol=2e-4), kind


@pytest.mark.parametrize("name", list(ENCODERS))
def test_codes_near_the_ends_of_float32_are_finite_or_refused(name, dictionary, rows):
    encoder = bound_to(name, dictionary, torch.from_numpy(rows))
    for size in (1e-42, 1e-30, 1e30, 1e37):
        try:
            assert torch.isfinite(encoder((rows[:20] * size).astype(np.float32)).dense()).all()
        except UsageError as error:
            assert size == 1e37 and "scale" in str(error)
    with pytest.raises(UsageError, match="float32 does not hold; divide by its scale"):
        encoder(rows[:20] * 1e200)


def test_tiny_and_huge_rows_have_the_codes_of_the_rows_themselves(dictionary, rows):
    centred = dataclasses.replace(dictionary, bias=torch.zeros(8))
    h = torch.from_numpy(rows[:40]).float()
    for name in ("Omp", "Nnls", "MatchingPursuit", "TopK"):
        codes = bound_to(name, centred, h)(h).dense()
        for unit in (2.0**-100, 2.0**100):  # squares of these are no float32
            found = bound_to(name, centred, h)(h * unit).dense()
            assert codes.any() and torch.allclose(found / unit, codes, rtol=1e-4, atol=1e-4), (name, unit)


N = 120
QUICK_SCORES = {
    "factor_vae": {"train": 600, "test": 600},
    "beta_vae": {"train": 200, "test": 100},
    "mig": {"resamples": 4},
}
LABELS = {"parents", "weight_classes", "beta", "concentration"}
# The order of code columns goes by their bytes, and with it the draws.
BY_DRAWS = {
    "dci_disentanglement": 0.005,
    "dci_completeness": 0.005,
    "dci_informativeness": 0.02,
    "dci_es": 0.02,
    "factor_vae": 0.05,
}
# What the units of each array may change: scores that compare sizes.
COMPARED = {"procrustes", "procrustes_scaled", "singular_values", "duality", "excess_loss"}
UNCENTRED = {"r2_linear", "rankme", "alignment", "uniformity", "procrustes", "procrustes_scaled", "singular_values"}
OF_DIRECTIONS = {"dictionary_mcc", "dictionary_mcc_paper", "found", "agreement", "stability", "splitting", "hedging",
                 "absorption", "weights_r2", "within_class", "excess_loss", "duality"}  # fmt: skip
OF_ACTIVITY = {"support", "exact_support", "rare_recovery", "l0", "hoyer", "dead", "dense", "absorption", "splitting"}


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Whole eighths for every score: codes that follow 4 latents, rows, a dictionary and a head."""
    draw = np.random.default_rng(1)
    z = np.round(8 * draw.standard_normal((N, 4))) / 8 * (draw.random((N, 4)) < 0.8)
    codes = np.round(8 * (z @ (np.eye(4) + 0.2) + 0.3 * draw.standard_normal((N, 4)))) / 8
    truth = np.round(8 * draw.standard_normal((4, 6))) / 8
    h = np.round(8 * (z @ truth + 0.2 * draw.standard_normal((N, 6)))) / 8
    eighths = {
        "codes": codes,
        "z": z,
        "h": h,
        "reconstruction": np.round(8 * codes @ truth) / 8,
        "atoms": truth + np.round(draw.standard_normal((4, 6))) / 8,
        "truth": truth,
        "other": truth[::-1] + np.round(draw.standard_normal((4, 6))) / 8,
        "weights": np.round(8 * draw.standard_normal((40, 6))) / 8,
        "class_vectors": np.round(8 * draw.standard_normal((20, 4))) / 8,
        "loss": 1 + np.round(8 * draw.random(N)) / 8,
        "bayes_loss": np.round(8 * draw.random(N)) / 8,
    }
    labels = {"parents": np.array([-1, 0, -1, 2]), "weight_classes": np.arange(40) % 20}
    return {**eighths, **labels, "others": [eighths["other"]], "beta": 1.0, "concentration": 5.0}


def measured(name: str, known: dict[str, Any], change: Any = lambda values: values) -> float:
    fields = SCORES[name].needs
    known = {**known, "h": known["h"][:, :4]} if "procrustes" in name else known
    given = {f: known[f] if f in LABELS else change(known[f]) for f in fields - {"others"}}
    others = {"others": [change(part) for part in known["others"]]} if "others" in fields else {}
    arrays = {k: torch.from_numpy(v) if k in ("weight_classes",) else v for k, v in given.items()}
    return float(SCORES[name](**QUICK_SCORES.get(name, {})).measure(Inputs(**arrays, **others), 1).value)


@pytest.mark.parametrize("name", TABLE)
def test_scores_do_not_depend_on_the_units_of_their_arrays(name, known):
    if name in COMPARED:
        return
    wanted = measured(name, known)
    for unit in UNITS:
        found = measured(name, known, lambda v: v * unit)  # noqa: B023
        assert found == pytest.approx(wanted, abs=BY_DRAWS.get(name, 1e-7), nan_ok=True), unit


@pytest.mark.parametrize("name", [n for n in TABLE if n not in UNCENTRED | OF_DIRECTIONS | OF_ACTIVITY])
def test_scores_do_not_depend_on_an_offset(name, known):
    found = measured(name, known, lambda v: v + 2.0**30)
    assert found == pytest.approx(measured(name, known), abs=BY_DRAWS.get(name, 1e-6))


@pytest.mark.parametrize("name", TABLE)
def test_scores_do_not_depend_on_type_and_layout(name, known, tmp_path):
    wanted = measured(name, known)
    changes: list[Any] = [lambda v: v.astype(np.float16), lambda v: v.astype(np.float32)]
    changes += [lambda v: layouts(v, tmp_path)["columns first" if v.ndim == 2 else "the other byte order"]]
    changes += [] if name in COMPARED else [lambda v: (8 * v).astype(np.int64)]
    for change in changes:
        within = BY_DRAWS.get(name, 1e-6)
        assert measured(name, known, change) == pytest.approx(wanted, abs=within, nan_ok=True)


@pytest.mark.parametrize("name", [n for n in TABLE if SCORES[n].needs & {"codes", "h"}])
def test_few_rows_and_equal_columns_have_a_value_or_a_sentence(name, known):
    """One or two rows, one factor, one code, all codes equal, complex numbers, infinity."""

    def cut(rows: Any = slice(None), columns: Any = slice(None)) -> Any:
        return lambda v: v[rows, columns] if v.ndim == 2 and len(v) == N else v[rows] if len(v) == N else v

    def outcome(change: Any) -> Outcome | str:
        given = {f: known[f] if f in LABELS else change(known[f]) for f in SCORES[name].needs - {"others", "parents"}}
        extra = {"parents": known["parents"]} if "parents" in SCORES[name].needs else {}
        try:
            return SCORES[name](**QUICK_SCORES.get(name, {})).measure(Inputs(**given, **extra), 1)
        except (UsageError, Failure) as error:
            return str(error)

    for case in (cut(slice(0, 1)), cut(slice(0, 2)), cut(slice(0, 3)), cut(columns=slice(0, 1)),
                 lambda v: np.ones_like(v) if v.shape == (N, 4) else v):  # fmt: skip
        found = outcome(case)
        assert isinstance(found, str) or math.isfinite(found.value) or name in ("hoyer", "rare_recovery", "splitting")
    assert "must be real numbers" in str(outcome(lambda v: v + 0j))
    with_infinity = known["codes" if "codes" in SCORES[name].needs else "h"].copy()
    with_infinity[5, 2] = np.inf
    assert "inf" in str(outcome(lambda v: with_infinity if v.shape == with_infinity.shape else v))
