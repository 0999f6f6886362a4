"""Tables: every dialect with the numbers that it stands for, or refused by the line that can be read twice."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.tables import open_table

NAN, INF = float("nan"), float("inf")
INDEX = "taken for an index and left out"


def table(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_table(path)


def read(tmp_path, text, name="t.csv", **columns):
    return table(tmp_path, text, name).numbers(**columns).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("# features of layer 3\n1,2,3\n4,5,6\n", [[1, 2, 3], [4, 5, 6]]),
        ("% a\n# b,c\na,b,c\n1,2,3\n", [[1, 2, 3]]),
        ("#N/A,1\n#DIV/0!,2\n", [[NAN, 1], [NAN, 2]]),  # no comments
        ("a,b\n1,2,\n3,4,\n", [[1, 2], [3, 4]]),
        ("a,b,\n1,2,\n3,4,\n", [[1, 2], [3, 4]]),
        ("1,2,,,\n3,4,,,\n", [[1, 2], [3, 4]]),
        ("a;b\n1,5;2,5\n3;4\n", [[1.5, 2.5], [3, 4]]),
        ("a;b\n1.234,5;2\n3;4\n", [[1234.5, 2], [3, 4]]),
        ("1\u202f234,5;2\n-3;4\n", [[1234.5, 2], [-3, 4]]),
        ("1'234.5,2\n3,4\n", [[1234.5, 2], [3, 4]]),
        ('"1,234","2"\n"3,250.5","4"\n', [[1234, 2], [3250.5, 4]]),
        ('"1,5","2"\n"3,25","4"\n', [[1.5, 2], [3.25, 4]]),
        ("a\tb\n1\t2\n", [[1, 2]]),
        ("a|b\n1|2\n", [[1, 2]]),
        ("1.5 2.5\n 3   4\t\n", [[1.5, 2.5], [3, 4]]),
        ("sep=;\na;b\n1,5;2\n", [[1.5, 2]]),
        ('"a", "b"\n"1", "2"\n', [[1, 2]]),
        ("a,b\n 1 , 2 \n", [[1, 2]]),
        ("a,b\n1,2\n\n3,4\n\n", [[1, 2], [3, 4]]),
        ("x\n1\n\n2\n\n", [[1], [NAN], [2]]),  # of one column an empty line is a value
        ("a\r1\r2\r", [[1], [2]]),
        ("a,a\n1,2\n", [[1, 2]]),
        ("a,b\nTRUE,1\nfalse,2\n", [[1, 1], [0, 2]]),
        ("a,b\n5%,1\n7.5 %,2\n", [[0.05, 1], [0.075, 2]]),
        ("a\n1.5D+03\n-.5d-1\n", [[1500], [-0.05]]),
        ("a\n0x1F\n0x1.8p1\n", [[31], [3]]),
        ("a\n\u22121.5\n+2\n", [[-1.5], [2]]),
        ("a\ninf\n-Infinity\n1.#INF\n", [[INF], [-INF], [INF]]),
        ("a,b\nNA,1\n-,2\n.,3\nnull,4\n", [[NAN, 1], [NAN, 2], [NAN, 3], [NAN, 4]]),
        ("a\n9007199254740992\n-1\n", [[2**53], [-1]]),
        ("a\n1e-320\n0.1\n123456789.123456789\n", [[1e-320], [0.1], [123456789.123456789]]),
        ("0,1,2\n.5,.6,.7\n.8,.9,.1\n", [[0.5, 0.6, 0.7], [0.8, 0.9, 0.1]]),  # names, as pandas numbers them
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("x\n1", [[1]]),
    ],
)
def test_a_dialect_that_can_be_read_in_one_way_is(tmp_path, text, rows):
    assert np.array_equal(read(tmp_path, text), rows, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("My experiment\n1,2,3\n4,5,6\n", [[1, 2, 3], [4, 5, 6]], "line 1: 'My experiment' is taken for a title"),
        ("Run 7,,\n,,\na,b,c\n1,2,3\n4,5,6\n", [[1, 2, 3], [4, 5, 6]], "line 1: 'Run 7,,' is taken for a title"),
        (",a,b\n0,1.5,2\n1,3,4\n", [[1.5, 2], [3, 4]], INDEX),  # pandas
        (",,a\nx,0,1\nx,1,2\n", [[1], [2]], INDEX),
        (",400,402\n0,.6,.7\n1,.9,.1\n", [[0.6, 0.7], [0.9, 0.1]], INDEX),
        ('"a","b"\n"1",.5,2\n"2",3,4\n', [[0.5, 2], [3, 4]], INDEX),  # R
        ('"a" "b"\n"cat" .5 2\n"dog" 3 4\n', [[0.5, 2], [3, 4]], INDEX),
        ("a,b\n1,2\n# the end\n", [[1, 2]], r"1 comments .* left out \(line 3\)"),
    ],
)
def test_what_is_left_out_is_said(tmp_path, text, rows, said):
    with pytest.warns(Notice, match=said):
        assert read(tmp_path, text) == rows


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", Failure, "it is empty"),
        ("# a\n# b\n", Failure, "every line begins with # or %"),
        ("a,b\n1,2\n1,2,3\n", Failure, "line 3 has 3 fields where others have 2: '1,2,3'"),
        ("a,b\n1,2\n3\n", Failure, "line 3 has 1 fields where others have 2: '3'"),
        ("a,b\n1,2\n#5,6\n", Failure, "line 3 may be a row or a comment: '#5,6'"),
        ("a,b\n1,5,2,5\n2,5,3,5\n", UsageError, "line 1: 'a,b' has 2 fields and the rows below"),
        ("2\n1,2,3\n4,5,6\n", UsageError, "line 1: '2' has 1 fields"),
        ("x\n1,5\n2,7\n", UsageError, "line 1: 'x' may name the columns or be a row"),
        ("0,1,2\n3,4,5\n", UsageError, "line 1: '0,1,2' may name"),
        ("400,402\n.5,.6\n.8,.9\n", UsageError, "line 1: '400,402' may name"),
        ("0\n1.5\n", UsageError, "line 1: '0' may name"),
        ("t,x\ns,mV\n0,1\n1,2\n", UsageError, r"line 1 \('t,x'\) and line 2 \('s,mV'\) both have words"),
        (",a,a\n,x,y\n0,.1,.2\n1,.3,.4\n", UsageError, r"line 2 \(',x,y'\) both have words"),
        (",a,a\n,0,1\n0,.1,.2\n1,.3,.4\n", UsageError, "line 2: ',0,1' may name"),
        ("a,a\n0,1\n.1,.2\n.3,.4\n", UsageError, "line 2: '0,1' may name"),
        (",a\n0.5,1\n0.7,2\n", UsageError, "line 2 on: a first column without a name .* numbers such as 0.5"),
        ('"1,500","2"\n"3,250","4"\n', UsageError, "line 1: '1,500' may be two numbers"),
        ("1.000;2\n3;4\n", UsageError, "line 1: '1.000' may be two numbers"),
        ("1,5;2\n3.25;4\n", UsageError, "line 2: '3.25' may be two numbers"),
        ("a,b\n1_2,3\n", UsageError, r"column 'a' is not of numbers \(line 2: '1_2'\); leave out by data.drop=a"),
        ("a b,c\ncat,3\n", UsageError, r"leave out by 'data.drop=a b', or take one as labels: 'data.labels=a b'"),
        ("a,b,c\ncat,1,x\n", UsageError, r"columns 'a', 'c' are not of numbers \(line 2: 'cat', 'x'\).*drop=a,c, or"),
        ('"a,b",1..3\nx,y\n', UsageError, r"""leave out by 'data.drop=\["a,b", "1..3"\]'"""),
        ("1+2j,3\n", UsageError, "column '0' is not of numbers"),
        ("day,x\n2020-01-01,1\n", UsageError, "column 'day' is not of numbers"),
        ("a,b\nTRUE,1\n3,2\n", UsageError, r"column 'a' is of more than one kind of values \(line 2: 'TRUE'\)"),
        ("a,b\n5%,1\n7,2\n", UsageError, "column 'a' is of more than one kind of values"),
        ("id,a\n9007199254740993,1\n", UsageError, r"'id' is of more digits than float64 keeps \(line 2"),
        ("\u00b5,b\n1,2\n".encode("latin1"), Failure, "it is no text in UTF-8; save it so"),
        (bytes(range(256)), Failure, "not a whole table"),
        (b"a,b\n1,\x002\n", Failure, "bytes that are no text"),
        (b"PK\x03\x04....", Failure, "is a spreadsheet or zip archive"),
        (gzip.compress(b"a\n1\n", mtime=0), Failure, "its name must end in .gz"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(tmp_path, text, error, message):
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_marks_of_encodings_are_followed(tmp_path, encoding):
    text = "\ufeff" * (encoding == "utf-16-le") + "\u00e4,b\n1,2\n"
    assert table(tmp_path, text.encode(encoding)).names == ("\u00e4", "b")


def test_compressed_tables_are_read_and_cut_ones_refused(tmp_path):
    text = b"a,b\n" + b"1.5,2\n" * 500
    for suffix, pack in {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():
        assert read(tmp_path, pack(text), f"t.csv.{suffix}") == [[1.5, 2]] * 500
        with pytest.raises(Failure, match="not a whole table"):
            read(tmp_path, pack(text)[:-12], f"cut.csv.{suffix}")
        with pytest.raises(Failure, match="not a whole table"):
            read(tmp_path, text, f"plain.csv.{suffix}")


def test_a_late_thousand_and_a_late_word_are_seen(tmp_path):
    text = "a,b\n" + "1,2\n" * 300
    assert read(tmp_path, text + '"1,234.5",2\n')[-1] == [1234.5, 2]
    with pytest.raises(UsageError, match=r"column 'b' is not of numbers \(line 302: 'n.d.'\)"):
        read(tmp_path, text + "1,n.d.\n")
    with pytest.raises(Failure, match="line 302 has 3 fields"):
        read(tmp_path, text + "1,2,3\n")


def test_columns_are_dropped_and_named(tmp_path):
    text = "id,x,stage,x\n7,1,w,2\n8,3,,4\n"
    found = table(tmp_path, text)
    assert found.numbers(["id"], "stage").tolist() == [[1, 2], [3, 4]]
    assert found.numbers(["id", "2", "3"]).tolist() == [[1], [3]]
    assert found.column("stage").tolist() == ["w", ""] and found.column("id").tolist() == ["7", "8"]
    assert found.columns(["id", "3"]).tolist() == [[7, 2], [8, 4]]
    with pytest.raises(UsageError, match="2 columns are named 'x'; give the place, 1 and 3"):
        found.numbers(["x"])
    with pytest.raises(UsageError, match="no column 'stge'; did you mean stage"):
        found.numbers(["stge"])
    with pytest.raises(UsageError, match="no column is left"):
        found.numbers(["0", "1", "2", "3"])
    assert table(tmp_path, "01,b\nx,2\n").numbers(["1.0"]).tolist() == [[2]]  # as the command line reads 01


def test_numbers_of_rows_are_pointed_out(tmp_path):
    rows = "".join(f"{7 * i % 11},{i * i / 3},{i % 3}\n" for i in range(9))
    with pytest.warns(Notice, match=r"column 'id' counts the rows, or is whole and different.*data.drop=id"):
        read(tmp_path, f"id,a,b\n{rows}")
    with pytest.warns(Notice, match="columns 'id', 't' count the rows"):
        read(tmp_path, "id,t,a\n" + "".join(f"{i},{i / 10},{i % 3}\n" for i in range(9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, f"id,a,b\n{rows}", drop=["id"])
        read(tmp_path, "".join(f"{i},{i + 5}\n" for i in range(9)))  # of none more than of the others


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, bool])
def test_parquet_columns_of_every_kind(tmp_path, kind):
    pytest.importorskip("pyarrow", reason="pyarrow, which reads Parquet, is not installed")
    values = np.arange(12).reshape(6, 2).astype(kind) / (7 if kind is np.float32 else 1)
    pd.DataFrame(values, columns=["a", "b"]).to_parquet(tmp_path / "t.parquet")
    assert np.array_equal(open_table(tmp_path / "t.parquet").numbers(), values.astype(np.float64))


def test_parquet_by_its_types(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, which reads Parquet, is not installed")
    from decimal import Decimal

    folder = tmp_path / "year=2020"  # pyarrow would make a column of it
    folder.mkdir()
    frame = pd.DataFrame(
        {
            "level": pd.Categorical([20, 10, 20]),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "price": [Decimal("0.10"), Decimal("2.5"), None],
            "kind": pd.Categorical(["a", "b", None]),
            "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        }
    ).set_index(pd.Index(["x", "y", "z"], name="name"))
    frame.to_parquet(folder / "t.parquet")
    found = open_table(folder / "t.parquet")
    with pytest.warns(Notice, match=f"name: {INDEX}"):
        values = found.numbers(labels="kind")
    assert np.array_equal(values, [[20, 1, 0.1, 1, 2], [10, NAN, 2.5, 3, 4], [20, 3, NAN, 5, 6]], equal_nan=True)
    assert found.column("kind").tolist() == ["a", "b", ""] and found.column("name").tolist() == ["x", "y", "z"]
    with pytest.raises(UsageError, match=r"column 'kind' is not of numbers .*'a'"):
        found.numbers()
    for column, message in {
        "big": (pd.Series([2**53 + 1, 1]), r"of more digits than float64 keeps \(row 0"),
        "ragged": (pd.Series([[1.0], [1.0, 2.0]]), "lists of unlike lengths"),
        "nested": (pd.Series([{"a": 1}, {"a": 2}]), "is not of numbers"),
        "when": (pd.to_datetime(pd.Series(["2020-01-01"] * 2)), "is not of numbers"),
    }.values():
        pd.DataFrame({"a": [1, 2], "b": column}).to_parquet(tmp_path / "t.parquet")
        with pytest.raises(UsageError, match=message):
            open_table(tmp_path / "t.parquet").numbers()
    arrow.parquet.write_table(arrow.table([arrow.array([1, 2])] * 2, names=["a", "a"]), tmp_path / "t.parquet")
    assert open_table(tmp_path / "t.parquet").numbers().tolist() == [[1, 1], [2, 2]]
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:100])
    with pytest.raises(Failure, match=r"t\.parquet: not a whole table"):
        open_table(tmp_path / "t.parquet")
