"""Fuzz: what recipes, options, shards, features and checkpoints hold is right, or it is told in one sentence."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from unmix.activations.shards import ShardRows, ShardWriter
from unmix.core.errors import UnmixError, UsageError
from unmix.core.items import VectorItems
from unmix.core.options import parse, recipes
from unmix.core.recipe import Recipe
from unmix.finders import FINDERS
from unmix.finders.features import Features
from unmix.interop.folder import read

from ..contracts.test_recipes import TABLES
from ..interop import made, test_dictionary_learning, test_sparsify

OFTEN = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2000)
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "mean", "Linear", "SAE", "nothing", "a:b", "é", "0", "../x"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "width", "k", "x"]), inner),
    max_leaves=4,
)


@OFTEN
@given(noun=st.sampled_from(sorted(TABLES)), data=st.data())
def test_a_recipe_from_json_is_valid_or_refused(noun: str, data: Any) -> None:
    table = TABLES[noun]
    kind = data.draw(st.sampled_from(sorted(table)))
    names = st.sampled_from([*getattr(table[kind], "model_fields", {}), "nothing"])
    value = {**data.draw(st.dictionaries(names, PLAIN, max_size=4)), "kind": kind}
    try:
        recipe = table.make(value)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(recipe, Recipe)
    again = table.make(json.loads(json.dumps(recipe.as_dict(), allow_nan=False)))
    assert again == recipe and again.digest == recipe.digest and str(recipe)


@OFTEN
@given(noun=st.sampled_from(sorted(TABLES)), value=PLAIN)
def test_whatever_is_given_as_a_recipe_is_told(noun: str, value: Any) -> None:
    try:
        made = TABLES[noun].make(value)
    except UsageError:
        return
    assert isinstance(made, Recipe)


WORDS = st.text(st.sampled_from('finder=.TopKSAE,width0123456789[]{}"-+eE naninf\n'), max_size=24)


@OFTEN
@given(
    words=st.lists(
        WORDS | st.builds("{}={}".format, st.sampled_from(["finder", "finder.width", "TopKSAE.k", "seed"]), WORDS),
        max_size=3,
    )
)
def test_options_are_recipes_or_refused(words: list[str]) -> None:
    try:
        made = recipes(FINDERS, "finder", parse(words), ["TopKSAE"])
    except UsageError as error:
        assert str(error)
        return
    assert all(isinstance(recipe, Recipe) for recipe in made)


def harmed(content: bytes, data: Any) -> bytes:
    """Some bytes changed, cut off, left out or put in."""
    assume(content)
    place = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "add", "digit"]))
    if how == "cut":
        return content[:place]
    if how == "drop":
        return content[:place] + content[place + data.draw(st.integers(1, 9)) :]
    if how == "add":
        return content[:place] + data.draw(st.binary(min_size=1, max_size=9)) + content[place:]
    if how == "digit":
        return (
            content[:place]
            + data.draw(st.sampled_from(list(b'0123456789"{}[],:-eE.tfn'))).to_bytes()
            + content[place + 1 :]
        )
    return content[:place] + bytes([content[place] ^ (1 << data.draw(st.integers(0, 7)))]) + content[place + 1 :]


def changed(text: str, data: Any) -> str:
    """A JSON text with one value, anywhere in it, replaced or left out."""
    whole = json.loads(text)
    here = whole
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        assume(keys)
        key = data.draw(st.sampled_from(keys))
        if isinstance(here[key], (dict, list)) and here[key] and data.draw(st.booleans()):
            here = here[key]
            continue
        if data.draw(st.booleans()):
            here[key] = data.draw(PLAIN)
        else:
            del here[key]
        return json.dumps(whole)


def harm(folder: Path, data: Any) -> None:
    """One file of a folder is harmed."""
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    if path.suffix == ".json" and data.draw(st.booleans()):
        path.write_text(changed(path.read_text(), data))
    else:
        path.write_bytes(harmed(path.read_bytes(), data))


def tried(whole: Path, data: Any, use: Callable[[Path], Any]) -> Any:
    """What `use` makes of a harmed copy of a folder; None where it says in one sentence that it cannot."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(whole, copy)
        harm(copy, data)
        try:
            return use(copy)
        except UnmixError as error:
            assert str(error) and "\n" not in str(error)
            return None


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "acts"
    with ShardWriter(folder, 3, key="k", about={"layer": "l"}, shard_bytes=48) as writer:
        writer.append(np.arange(21, dtype=np.float32).reshape(7, 3))
        writer.finish(VectorItems(np.arange(7)))
    return folder


@OFTEN
@given(data=st.data())
def test_harmed_shards_are_seen(shards: Path, data: Any) -> None:
    def use(folder: Path) -> tuple[torch.Tensor, int]:
        rows = ShardRows(folder)
        rows.verify()
        return rows.take(np.arange(len(rows))), len(rows.items)

    if (found := tried(shards, data, use)) is not None:
        assert torch.equal(found[0], torch.arange(21.0).view(7, 3)) and found[1] == 7


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.features("TopK").save(tmp_path_factory.mktemp("fuzz") / "features")


@OFTEN
@given(data=st.data())
def test_harmed_features_are_seen(stored: Path, data: Any) -> None:
    found = tried(stored, data, Features.load)
    if found is not None:
        assert torch.equal(found.atoms, Features.load(stored).atoms)
        found.encode(made.rows())


@pytest.fixture(scope="module", params=["saelens", "dictionary_learning", "sparsify"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / request.param
    if request.param == "saelens":
        return made.saelens(folder, "jumprelu")
    if request.param == "sparsify":
        return test_sparsify.folder_of(folder)
    return test_dictionary_learning.folder_of(folder, "AutoEncoderTopK")


@OFTEN
@given(data=st.data())
def test_harmed_checkpoints_of_other_libraries_are_read_or_refused(checkpoint: Path, data: Any) -> None:
    found = tried(checkpoint, data, read)
    if found is not None:
        assert found.shape == (made.M, made.D)
        found.encode(made.rows())
