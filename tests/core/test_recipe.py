"""Objects by name: from a module, and from a file; short names of recipes."""

from __future__ import annotations

import pytest

from unmix.core.errors import UsageError
from unmix.core.named import load_class, load_typed
from unmix.core.recipe import told_apart
from unmix.finders import FINDERS


def test_an_object_in_a_file_is_loaded_once_and_hides_no_module(tmp_path):
    file = tmp_path / "json.py"
    file.write_text("class Here:\n    count = []\nHere.count.append(1)\n")
    first = load_typed(f"{file}:Here")
    assert load_typed(f"{file}:Here") is first and first.count == [1]
    assert load_class("json:loads")("1") == 1
    with pytest.raises(UsageError, match="no such file"):
        load_typed(f"{tmp_path / 'none.py'}:Here")
    with pytest.raises(UsageError, match="has no There"):
        load_typed(f"{file}:There")
    for name in ("_Here", "Here.__init__", ""):
        with pytest.raises(UsageError, match=r"written file\.py:name"):
            load_typed(f"{file}:{name}")


def test_recipes_of_one_kind_go_by_the_fields_in_which_they_differ():
    topk, pca = FINDERS["TopKSAE"], FINDERS["PCA"](width=8)
    few, many = topk(width=64, k=4), topk(width=64, k=8)
    names = told_apart([few, many, pca, few])
    assert names == {few.digest: "TopKSAE(k=4)", many.digest: "TopKSAE(k=8)", pca.digest: "PCA"}
    near = [topk(width=64, lr=lr) for lr in (1e-3, 1.0000001e-3)]
    assert len(set(told_apart(near).values())) == 2
    assert told_apart([]) == {}
