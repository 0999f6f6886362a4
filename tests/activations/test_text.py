from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmix.activations.text import mended, open_text, read_text, standard_library_text
from unmix.core.errors import Notice, UsageError


def test_standard_library_is_large_and_titled() -> None:
    corpus = open_text("standard-library")
    titles, texts = [title for title, _ in corpus], [text for _, text in corpus]
    assert len(set(texts)) == len(texts) and min(map(len, texts)) >= 20
    assert "json.decoder.JSONDecoder.decode" in titles and "topic: assignment" in titles
    assert not any(title.startswith(("test.", "lib2to3.", "site-packages")) for title in titles)
    # A fair mix from the start: help topics and many modules within the first thousand.
    assert any(title.startswith("topic: ") for title in titles[:1000])
    assert len({title.split(".")[0] for title in titles[:1000]}) > 50
    assert sum(map(len, texts)) > 5 * 150_000


def test_standard_library_order_is_fixed_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "words enough for a document, number"
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(f'"""{words} 1"""\nraise SystemExit("imported")\n')
    methods = "".join(f'    def {name}(self):\n        """{words} 3"""\n' for name in "fg")
    (tmp_path / "one.py").write_text(f'class A:\n    """{words} 2"""\n{methods}')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "skipped.py").write_text(f'"""{words} 4"""')
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    first, second = standard_library_text(), standard_library_text()
    assert first == second
    found = {title: text for title, text in first if not title.startswith("topic: ")}
    assert found == {"pack": f"{words} 1", "one.A": f"{words} 2", "one.A.f": f"{words} 3"}
    topics = [title for title, _ in first if title.startswith("topic: ")]
    assert len(topics) > 50 and topics != sorted(topics)


def test_passages_are_split_at_blank_lines_and_titled_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\r\n\r\n  \r\nthree\r\n\r\n\r\nfour\n")
    assert read_text(path, shortest=1) == [("a.txt:1", "one\ntwo"), ("a.txt:5", "three"), ("a.txt:8", "four")]
    assert [title for title, _ in read_text(path, shortest=9)] == ["a.txt:1", "a.txt:8"]
    assert len(read_text(path)) == 1


def test_folder_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("hello there")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "first\u2028still"}, ensure_ascii=False)
        + "\n\n"
        + json.dumps({"title": "T", "text": "second"})
        + "\n",
        encoding="utf-8",
    )
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe")
    assert read_text(tmp_path) == [
        ("a.jsonl:1", "first\u2028still"),
        ("T", "second"),
        ("sub/b.md:1", "hello there"),
    ]
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"txt": 1}\n')
    with pytest.raises(UsageError, match=r'a.jsonl: line 2 has no field "text"'):
        read_text(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": \n')
    with pytest.raises(UsageError, match=r"a.jsonl: line 2 is not JSON"):
        read_text(tmp_path)


def test_strange_encoding_names_file_byte_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(UsageError, match=r"a.txt: byte 3 is not utf-8 text; .* --encoding latin-1"):
        read_text(path)
    assert read_text(path, "latin-1")[0][1] == "café"
    path.write_bytes(b"\xef\xbb\xbfcaf\xe9")
    with pytest.raises(UsageError, match="byte 6 "):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbfplain")
    assert read_text(path)[0][1] == "plain"
    with pytest.raises(UsageError, match="encoding=klingon: no such encoding"):
        read_text(path, "klingon")


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\n ")
    with pytest.raises(UsageError, match="the text is empty"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="no such file or folder; known names: standard-library"):
        open_text(str(tmp_path / "none.txt"))
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="has no text files"):
        read_text(tmp_path / "sub")


def test_text_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes("the cat sat".encode(encoding))
        with pytest.raises(UsageError, match=rf"a\.txt: byte 0 .*give --encoding {encoding}"):
            read_text(path)
        assert read_text(path, encoding) == [("a.txt:1", "the cat sat")]
    path.write_bytes("the cat sat".encode("utf-16-le"))
    for encoding in ("utf-8", "latin-1"):
        with pytest.raises(UsageError, match=r"a\.txt: character 1 is NUL.*utf-16-le"):
            read_text(path, encoding)
    assert read_text(path, "utf-16-le") == [("a.txt:1", "the cat sat")]
    for encoding in ("base64", "undefined"):
        with pytest.raises(UsageError, match="no such encoding"):
            read_text(path, encoding)
    for name in ("a.csv", "a.parquet", "a.json", "a.txt.gz"):
        (tmp_path / name).write_text("text\nthe cat\n")
        with pytest.raises(UsageError, match=r"is no plain text; write its texts to a \.jsonl"):
            read_text(tmp_path / name)
    path.write_text("the cat sat")
    with pytest.warns(Notice, match=r"4 files are no plain text and are left out, such as a\.csv"):
        assert read_text(tmp_path) == [("a.txt:1", "the cat sat")]


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "web.ndjson"
    path.write_text('{"text": "a\\ud83d b"}\n{"text": ""}\n{"title": "\\udc00", "text": "\\ud83d\\ude00"}\n')
    with pytest.warns(Notice, match=r"web\.ndjson: 1 lines have an empty text"):
        corpus = read_text(path)
    with pytest.warns(Notice, match=r"1 texts hold half of a surrogate pair.* the first is web\.ndjson:1"):
        assert mended(corpus) == [("web.ndjson:1", "a\ufffd b"), ("\ufffd", "\U0001f600")]
    plain = [("title", "caf\xe9 \ufffd \U0001f600")]
    assert mended(plain) == plain
    path.write_text('{"content": "x", "url": "y"}\n')
    with pytest.raises(UsageError, match='line 1 has no field "text" that is a string; its fields are content, url'):
        read_text(path)
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(UsageError, match="line 1 is JSON that cannot be read"):
        read_text(path)
