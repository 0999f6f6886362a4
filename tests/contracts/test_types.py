"""What a user's type checker sees: the marker, the names that are imported late, and fields that may be left out."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import unmix

ROOT = Path(unmix.__file__).parent

CALLS = """
from unmix import Fista, SparseWorld, TopKSAE, mcc, replace

world = SparseWorld(latents=64, width=32, active=3)
sae = TopKSAE(width=64, k=3)
features = replace(sae.fit(world.sample(100).x), encoder=Fista(penalty=0.02))
reveal_type(features)
reveal_type(features.atoms)
reveal_type(mcc(features.encode(world.sample(100, rng=1).x), world.sample(100, rng=1).z).value)
reveal_type(sae.but(k=4))
TopKSAE(width=64, k="three")
TopKSAE(widht=64)
"""


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").is_file()


def test_late_names_are_the_typed_names():
    tree = ast.parse(Path(unmix.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    typed = {
        name.asname: f"{line.module}:{name.name}"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    assert typed == {name: f"unmix.{module}:{name}" for name, module in unmix._WHERE.items()}
    for name in typed:
        assert getattr(unmix, name) is getattr(importlib.import_module(f"unmix.{unmix._WHERE[name]}"), name)


def test_defaults_are_given_by_keyword():
    """A checker takes a field with `Field(3)` for one that must be given, with `Field(default=3)` not."""
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Field" and node.args
    ]
    assert not wrong


@pytest.mark.slow
def test_a_checker_without_plugins(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(CALLS, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n", encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    said = [line.partition(": ")[2] for line in checked.stdout.splitlines()]
    assert said[:-1] == [
        'note: Revealed type is "unmix.finders.features.Features"',
        'note: Revealed type is "torch._tensor.Tensor"',
        'note: Revealed type is "float"',
        'note: Revealed type is "unmix.finders.topk_sae.TopKSAE"',
        'error: Argument "k" to "TopKSAE" has incompatible type "str"; expected "int"  [arg-type]',
        'error: Unexpected keyword argument "widht" for "TopKSAE"; did you mean "width"?  [call-arg]',
    ]
