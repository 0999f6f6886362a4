"""The README: its ten lines are the example's, and the numbers under them and in the text are what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unmix.scores.matching import dictionary_chance

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "ten_lines.py"


def test_ten_lines_print_what_stands_under_them(capsys: pytest.CaptureFixture[str]) -> None:
    code = EXAMPLE.read_text(encoding="utf-8")
    assert f"```python\n{code}```" in README
    exec(compile(code, str(EXAMPLE), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    shown = re.search(r"ten_lines.py` prints:\n\n```\n(.*?)```", README, re.S)
    assert shown is not None and len(printed) == 4
    for here, there in zip(printed, shown[1].splitlines(), strict=True):
        assert re.sub(r"[\d.]+", "", here) == re.sub(r"[\d.]+", "", there)
        numbers = ([float(text) for text in re.findall(r"\d\.\d+", line)] for line in (here, there))
        assert [*next(numbers)] == pytest.approx([*next(numbers)], abs=0.03)


def test_the_chance_level_it_quotes() -> None:
    assert "have a mean matched cosine of\n  0.80" in README
    assert dictionary_chance(128, 128, 8) == pytest.approx(0.80, abs=0.005)
