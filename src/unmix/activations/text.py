"""Text: corpora as lists of (title, text); the standard library's own documentation, or a user's files."""

from __future__ import annotations

import ast
import codecs
import json
import os
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from unmix.core.errors import Failure, UsageError, notice
from unmix.core.recipe import Table
from unmix.core.seeds import Stream

Corpus = list[tuple[str, str]]
SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".ndjson")
TABLES = (
    ".csv",
    ".tsv",
    ".json",
    ".parquet",
    ".arrow",
    ".xlsx",
    ".pdf",
    ".docx",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".zip",
)
MARKS = {"utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "lib2to3", "__pycache__"}
SKIPPED |= {"pydoc_data", "turtledemo", "ensurepip", "__phello__", "lib-dynload"}


def standard_library_text() -> Corpus:
    """The help topics of pydoc, and the docstrings of the standard library's modules, classes and functions.

    -> [(title, text)], titles such as "json.decoder.JSONDecoder.decode" or "topic: assignment". Files are parsed,
    not imported; equal texts are kept once; the order is shuffled, the same for the same Python version.
    """
    from pydoc_data.topics import topics

    found: dict[str, str] = {}
    for name in sorted(topics):
        found.setdefault(topics[name].strip(), f"topic: {name}")
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(_sources(root)):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0].startswith("_sysconfigdata"):
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        for title, text in _docstrings(path, module):
            found.setdefault(text.strip(), title)
    texts = [(title, text) for text, title in found.items() if len(text) >= 20]
    order = Stream(0, ("standard library",)).numpy().permutation(len(texts))
    return [texts[i] for i in order]


def _sources(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in docstrings are not this reader's concern
        tree = ast.parse(path.read_bytes(), str(path))
    waiting: list[tuple[str, ast.AST]] = [(module, tree)]
    while waiting:
        title, node = waiting.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if (text := ast.get_docstring(node)) is not None:
                yield title, text
            kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            waiting += [(f"{title}.{part.name}", part) for part in reversed(node.body) if isinstance(part, kinds)]


def read_text(path: str | Path, encoding: str = "utf-8", shortest: int = 200) -> Corpus:
    """A user's text: a .txt, .md, .rst or .py file, a .jsonl file with a field "text", or a folder of them.

    Files are split at blank lines into passages, titled "name:line"; a passage shorter than `shortest` characters
    is joined with the next. A line of a .jsonl file is one passage, titled by its "title" where it has one.
    Raises `UsageError` for a missing or empty text, a strange encoding (file, byte and what to do), tables and
    archives or a bad line, and `Failure` for a file that the system does not open. A `Notice` says which files of a
    folder and how many empty lines are left out.
    """
    path = Path(path)
    try:
        "a".encode(encoding)
    except (LookupError, UnicodeError):
        raise UsageError(f"encoding={encoding}: no such encoding; use utf-8, latin-1, cp1252 or utf-16") from None
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file())
        found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        files = [p for p in found if p.suffix.lower() in SUFFIXES]
        if not files:
            raise UsageError(f"data={path}: the folder has no text files ({', '.join(SUFFIXES)})")
        if others := [p for p in found if p.suffix.lower() in TABLES]:
            notice(
                f"data={path}: {len(others)} files are no plain text and are left out, such as "
                f"{others[0].relative_to(path)}; write their texts to a .jsonl"
            )
    elif path.is_file():
        if path.suffix.lower() in TABLES:
            raise UsageError(
                f'data={path}: is no plain text; write its texts to a .jsonl, one line {{"text": "..."}} for each'
            )
        files = [path]
    else:
        raise UsageError(f"data={path}: no such file or folder")
    corpus: Corpus = []
    for file in files:
        text = _decoded(file, encoding)
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        lines = file.suffix.lower() in (".jsonl", ".ndjson")
        corpus += _json_lines(file, name, text) if lines else _passages(name, text, shortest)
    if not corpus:
        raise UsageError(f"data={path}: the text is empty; give a text with words in it")
    return corpus


def mended(corpus: Iterable[tuple[str, str]]) -> Corpus:
    """Titles and texts in which half a surrogate pair is U+FFFD, as a decoder would have it; whole pairs are joined.

    JSON may escape what is no character. A `Notice` says how many texts hold it and which is the first.
    """
    found, harmed = [], []
    for title, text in corpus:
        pair = (_characters(title), _characters(text))
        if "\ufffd" in pair[1] and pair[1] != text:
            harmed.append(pair[0])
        found.append(pair)
    if harmed:
        notice(
            f"data: {len(harmed)} texts hold half of a surrogate pair, which is no character and is read as U+FFFD; "
            f"the first is {harmed[0]}"
        )
    return found


def _characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def open_text(name: str, encoding: str = "utf-8") -> Corpus:
    """A corpus by its name in the table `TEXTS` ("standard-library"), or from a path as `read_text` does."""
    from unmix.activations import TEXTS

    table: Table = TEXTS
    if name in table.entries:
        return table[name]()
    if not Path(name).exists():
        raise UsageError(f"data={name}: no such file or folder; known names: {', '.join(table)}")
    return read_text(name, encoding)


def _decoded(path: Path, encoding: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: cannot be read ({error.strerror or error})") from None
    utf8 = codecs.lookup(encoding).name == "utf-8"
    skipped = 3 if utf8 and data.startswith(codecs.BOM_UTF8) else 0
    remedy = "name its encoding, such as --encoding latin-1 or utf-16-le"
    for other, marks in MARKS.items():
        if utf8 and data.startswith(marks):
            raise UsageError(f"{path}: byte 0 begins the mark of {other}; give --encoding {other}")
    try:
        text = data[skipped:].decode(encoding)
    except UnicodeError as error:
        place = getattr(error, "start", 0) + skipped
        raise UsageError(f"{path}: byte {place} is not {encoding} text; {remedy}") from None
    if (place := text.find("\0")) >= 0:
        raise UsageError(
            f"{path}: character {place} is NUL, which no text has; {remedy} or utf-16-le, or leave it out"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _passages(name: str, text: str, shortest: int) -> Corpus:
    passages: Corpus = []
    held, line, begun = "", 1, 1
    for part in re.split(r"(\n[ \t]*\n\s*)", text):
        if part.strip():
            begun = begun if held.strip() else line + part[: len(part) - len(part.lstrip())].count("\n")
            held += part
            if len(held.strip()) >= shortest:
                passages.append((f"{name}:{begun}", held.strip("\n")))
                held = ""
        elif held:
            held += part
        line += part.count("\n")
    if held.strip():
        passages.append((f"{name}:{begun}", held.strip()))
    return passages


def _json_lines(path: Path, name: str, text: str) -> Corpus:
    corpus: Corpus = []
    empty = 0
    # Not splitlines: JSON strings may hold the other characters it takes for ends of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}: line {number} is not JSON ({error.msg})") from None
        except (RecursionError, ValueError):  # nested without end, or a number of too many digits
            raise UsageError(f"{path}: line {number} is JSON that cannot be read; leave it out") from None
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            fields = f"; its fields are {', '.join(map(str, record))}"[:120] if isinstance(record, dict) else ""
            raise UsageError(f'{path}: line {number} has no field "text" that is a string{fields}')
        if record["text"].strip():
            corpus.append((str(record.get("title") or f"{name}:{number}"), record["text"]))
        else:
            empty += 1
    if empty:
        notice(f"{path}: {empty} lines have an empty text and are left out")
    return corpus
