"""Objects by name: from a module, and from a file."""

from __future__ import annotations

import pytest

from unmix.core.errors import UsageError
from unmix.core.recipe import load_class


def test_an_object_in_a_file_is_loaded_once_and_hides_no_module(tmp_path):
    file = tmp_path / "json.py"
    file.write_text("class Here:\n    count = []\nHere.count.append(1)\n")
    first = load_class(f"{file}:Here")
    assert load_class(f"{file}:Here") is first and first.count == [1]
    assert load_class("json:loads")("1") == 1
    with pytest.raises(UsageError, match="no such file"):
        load_class(f"{tmp_path / 'none.py'}:Here")
    with pytest.raises(UsageError, match="has no There"):
        load_class(f"{file}:There")
