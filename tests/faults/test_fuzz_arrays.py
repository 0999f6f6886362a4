"""Fuzz of arrays: whatever rows hold, a fit, codes and scores are finite, or one sentence says why they cannot be."""

from __future__ import annotations

import faulthandler
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmix.core.errors import Notice, UnmixError
from unmix.encoders import ENCODERS
from unmix.encoders.amortised import TopK
from unmix.finders import FINDERS
from unmix.finders.features import assemble, replace
from unmix.scores import SCORES
from unmix.scores.base import Inputs

from ..contracts.test_finders import QUICK
from ..contracts.test_scores import TABLE

LONGEST = 60.0  # seconds of any one case
SOME = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MANY = settings(SOME, max_examples=700)
KINDS = ("normal", "sparse", "whole", "constant", "two rows", "zeros", "tied columns", "one large", "low rank")
TYPES = ("float64", "float32", "float16", "int64", "uint8", "bool", ">f4", "complex64", "object", "bfloat16")
SCALES = (1.0, 1e-3, 1e-13, 1e8, 1e30, 1e38, 1e-42, 1e200, 1e-310)
TINY = {"steps": 3, "passes": 1, "read_steps": 5, "batch": 16, "max_iterations": 50}


def array(data: Any, columns: int | None = None, rows: int | None = None) -> Any:
    """An array as people have them, of any kind of values, unit, offset, type and layout; some with a hole."""
    n = data.draw(st.integers(1, 40), "rows") if rows is None else rows
    d = data.draw(st.integers(1, 8), "columns") if columns is None else columns
    draw = np.random.default_rng(data.draw(st.integers(0, 9), "seed"))
    kind, values = data.draw(st.sampled_from(KINDS), "kind"), draw.normal(size=(n, d))
    if kind == "sparse":
        values = np.maximum(values - 1, 0)
    elif kind == "whole":
        values = np.round(3 * values)
    elif kind in ("constant", "zeros"):
        values = np.full((n, d), 2.5 * (kind == "constant"))
    elif kind == "two rows":
        values = values[np.arange(n) % min(n, 2)]
    elif kind == "tied columns":
        values = np.repeat(values[:, :1], d, axis=1)
    elif kind == "one large":
        values[0, 0] = 1e6
    elif kind == "low rank":
        values = values[:, :1] @ draw.normal(size=(1, d))
    values = values * data.draw(st.sampled_from(SCALES), "scale") + data.draw(
        st.sampled_from([0, 0, 1, -1e6]), "offset"
    )
    if data.draw(st.integers(0, 7), "hole") == 0:
        values[-1, -1] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    kept = data.draw(st.sampled_from(TYPES), "type")
    with np.errstate(all="ignore"):
        if kept == "bfloat16":
            return torch.from_numpy(values).to(torch.bfloat16)
        made = values.astype(kept)
    layout = data.draw(st.sampled_from(["rows", "columns", "every other", "list", "torch"]), "layout")
    if layout == "columns":
        return np.asfortranarray(made)
    if layout == "every other":
        return np.repeat(made, 2, axis=0)[::2]
    if layout == "list":
        return made.tolist()
    return torch.from_numpy(made) if layout == "torch" and made.dtype.isnative and kept != "object" else made


def finite(what: Any, told: str) -> None:
    assert bool(torch.isfinite(torch.as_tensor(what)).all()), f"{told} is not finite and nothing was said"


def within(begun: float) -> None:
    assert time.perf_counter() - begun < LONGEST


@pytest.fixture(autouse=True)
def quiet_and_ended():
    """Notices are part of an answer here; a case without an end shows where it hangs."""
    faulthandler.dump_traceback_later(5 * LONGEST, exit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        yield
    faulthandler.cancel_dump_traceback_later()


def a_fit(data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(FINDERS)), "finder")
    fields = {k: v for k, v in {**QUICK[name], **TINY}.items() if k in FINDERS[name].model_fields}
    fields["width"] = data.draw(st.sampled_from([1, 2, 5, 20]), "width")
    fields = {k: min(v, fields["width"]) if k in ("k", "active") else v for k, v in fields.items()}
    rows, begun = array(data), time.perf_counter()
    try:
        features = FINDERS[name](**fields).fit(rows)
        codes = features.encode(rows)
    except UnmixError as error:
        assert str(error) and "\n" not in str(error)
        return
    finally:
        within(begun)
    finite(features.atoms, f"atoms of {name}")
    finite(codes.ragged().values, f"a code of {name}")
    finite(features.decode(codes), f"a reconstruction of {name}")


def an_encoding(data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(ENCODERS)), "encoder")
    rows, begun = array(data, columns=4), time.perf_counter()
    draw = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(6, 4, generator=draw))
    scale = data.draw(st.sampled_from([1.0, 1e-13, 1e8, 1e30]), "scale of atoms")
    try:
        features = replace(assemble(atoms * scale, torch.zeros(4), TopK(k=2)), encoder=name, rows=rows)
        codes = features.encode(rows)
    except UnmixError as error:
        assert str(error) and "\n" not in str(error)
        return
    finally:
        within(begun)
    finite(codes.ragged().values, f"a code of {name}")


def a_score(data: Any) -> None:
    name = data.draw(st.sampled_from(TABLE), "score")
    n = data.draw(st.sampled_from([1, 2, 12, 40, 200]), "rows of all")
    given = {part: array(data, rows=n) for part in ("codes", "z")}
    given |= {part: array(data, 4, n) for part in ("h", "reconstruction")}
    atoms, begun = torch.eye(4), time.perf_counter()
    parents = torch.tensor([-1, 0])
    inputs = Inputs(**given, atoms=atoms, truth=atoms, other=atoms, others=[atoms, atoms], parents=parents)
    try:
        outcome = SCORES[name]().measure(inputs)
    except UnmixError as error:
        assert str(error) and "\n" not in str(error)
        return
    finally:
        within(begun)
    finite(outcome.value, f"the value of {name}")


CASES = [a_fit, an_encoding, a_score]


@SOME
@given(data=st.data())
@pytest.mark.parametrize("case", CASES)
def test_arrays_of_every_kind_are_used_or_refused(case: Any, data: Any) -> None:
    case(data)


@pytest.mark.slow
@MANY
@given(data=st.data())
@pytest.mark.parametrize("case", CASES)
def test_many_arrays_of_every_kind_are_used_or_refused(case: Any, data: Any) -> None:
    case(data)
