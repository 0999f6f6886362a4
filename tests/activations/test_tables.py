"""Tables of numbers: as people's programs write them, or refused by the name of the column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.activations.arrays import open_rows
from unmix.activations.data import Data
from unmix.activations.tables import read_table
from unmix.core.errors import Failure, UsageError

NAMED = [f"row {number}" for number in range(12)]
FRAME = pd.DataFrame(np.random.default_rng(0).standard_normal((12, 3)), columns=["a", "b", "c"])
R_TABLE = "a\tb\tc\n" + FRAME.set_axis(NAMED).to_csv(sep="\t", header=False)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("plain.csv", lambda path: FRAME.to_csv(path, index=False)),
        ("with the index, as pandas writes it.csv", FRAME.to_csv),
        (
            "named rows, as R writes them.csv",
            lambda path: FRAME.set_axis(NAMED).to_csv(path),
        ),
        ("columns by number, as pandas writes them.csv", lambda path: FRAME.set_axis(range(3), axis=1).to_csv(path)),
        ("numbers alone.csv", lambda path: FRAME.set_axis(range(3), axis=1).to_csv(path, index=False)),
        ("names of rows without a head, as R writes.tsv", lambda path: path.write_text(R_TABLE)),
        ("without names.csv", lambda path: FRAME.to_csv(path, index=False, header=False)),
        ("with a byte order mark.CSV", lambda path: FRAME.to_csv(path, index=False, encoding="utf-8-sig")),
        ("tabs.tsv", lambda path: FRAME.to_csv(path, index=False, sep="\t")),
    ],
)
def test_every_way_to_write_a_table_is_read_alike(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert np.allclose(read_table(path), FRAME, atol=1e-12)
    assert open_rows(path).shape == (12, 3)
    assert Data(path=str(path)).sample(5, 0).x.shape == (5, 3)


def test_parquet_is_a_table(tmp_path):
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(tmp_path / "t.parquet")
    assert np.array_equal(read_table(tmp_path / "t.parquet"), FRAME)
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:100])
    with pytest.raises(Failure, match=r"t\.parquet: not a whole table"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", Failure, "not a whole table"),
        ("a,b\n", UsageError, "no rows"),
        ("a,species\n1,cat\n2,dog\n", UsageError, "column 'species' is not of numbers"),
        ("a,b\n1,2\n,4\n", UsageError, "row 1, column 0 is nan"),
        (",4\n1,2\n", UsageError, "row 0, column 0 is nan"),
        ("a,b\n1,2,\n3,4,\n", UsageError, "row 0, column 1 is nan"),
        ("a,b\n1,2\n1,2,3\n", Failure, "not a whole table"),
        ("a\n1+2j\n", UsageError, "column 'a' is not of numbers"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, error, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        open_rows(path)


def test_bytes_that_are_no_text_are_a_failure(tmp_path):
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(Failure, match="not a whole table"):
        read_table(tmp_path / "x.csv")
