"""Pages of the reference, made from the tables, docstrings and signatures: called by conf.py."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

from unmix.shelf import SHELF

ROOMS = (
    ("core", "Rows, codes, samples, streams, costs"),
    ("worlds", "Where samples come from"),
    ("networks", "Recipes of modules"),
    ("learners", "What learns a representation"),
    ("finders", "What finds features"),
    ("encoders", "Inference over a dictionary"),
    ("scores", "What a result is worth"),
    ("regimes", "Lazy and rich learning"),
    ("activations", "Models and data to rows"),
    ("study", "Cells, store, engines and verbs"),
    ("report", "Pages and figures"),
    ("interop", "Other libraries' formats"),
)
TYPES = (("torch.Tensor", "Tensor"), ("numpy.ndarray", "ndarray"), ("collections.abc.", ""), ("pathlib.", ""))


def write(folder: Path) -> None:
    """One page for every noun of `unmix list`, and one for the functions and types of every package."""
    folder.mkdir(exist_ok=True)
    pages = {f"table-{noun}": _table(noun) for noun in SHELF}
    pages |= {f"package-{room}": _package(room, what) for room, what in ROOMS}
    for name, text in pages.items():
        _put(folder / f"{name}.md", text)
    nouns = "\n".join(f"table-{noun}" for noun in SHELF)
    rooms = "\n".join(f"package-{room}" for room, _ in ROOMS)
    _put(
        folder / "index.md",
        "# Reference\n\nRows are samples: `h` is `[n, d]`, atoms are `[m, d]`, codes `[n, m]`, true latents "
        "`[n, f]`; float32 unless said.\n\n## Recipes\n\n"
        "What `unmix list` names: frozen configurations with one verb.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{nouns}\n```\n\n## Functions and types\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{rooms}\n```\n",
    )


def _put(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:  # unchanged pages are not built again
        path.write_text(text, encoding="utf-8")


def _table(noun: str) -> str:
    parts = [f"# {noun.capitalize()}"]
    for name in SHELF[noun]:
        cls = SHELF[noun][name]
        parts += [f"## {name}", f"`{cls.__module__}.{cls.__qualname__}`", _prose(inspect.getdoc(cls) or "")]
        if getattr(cls, "equation", ""):
            parts.append(f"```text\n{cls.equation}\n```")
        if getattr(cls, "model_fields", {}):
            parts.append(_fields(cls))
        needs = ", ".join(f"`{need}`" for need in sorted(getattr(cls, "needs", ())))
        source = getattr(cls, "reference", "")
        facts = [f"Needs: {needs}." if needs else "", f"Source: {source}." if source else ""]
        if any(facts):
            parts.append(" ".join(fact for fact in facts if fact))
    return "\n\n".join(parts) + "\n"


def _fields(cls: Any) -> str:
    lines = ["| field | type | default |", "|---|---|---|"]
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else f"`{_cell(field.get_default(call_default_factory=True))}`"
        lines.append(f"| `{name}` | `{_cell(_plain(field.annotation))}` | {default} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ") or "''"


def _plain(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    for before, after in TYPES:
        text = text.replace(before, after)
    return re.sub(r"\b(?:typing|[a-z_]+(?:\.[a-z_]+)+)\.", "", text)


def _package(room: str, what: str) -> str:
    package = importlib.import_module(f"unmix.{room}")
    tabled = {place for table in SHELF.values() for place in table.entries.values()}
    parts = [f"# unmix.{room}", f"{what}."]
    for info in sorted(pkgutil.walk_packages(package.__path__, f"unmix.{room}."), key=lambda found: found.name):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        own = [
            (name, thing)
            for name, thing in vars(module).items()
            if not name.startswith("_")
            and (inspect.isfunction(thing) or inspect.isclass(thing))
            and thing.__module__ == info.name
            and f"{info.name}:{name}" not in tabled
            and inspect.getdoc(thing)
        ]
        if own:
            parts += [f"## {info.name}", _prose(inspect.getdoc(module) or "")]
            parts += [_member(name, thing) for name, thing in own]
    return "\n\n".join(parts) + "\n"


def _member(name: str, thing: Any) -> str:
    try:
        signature = str(inspect.signature(thing)) if inspect.isfunction(thing) else _fields_of(thing)
    except (TypeError, ValueError):
        signature = ""
    for before, after in TYPES:
        signature = signature.replace(before, after)
    parts = [f"### {name}", f"```python\n{name}{signature.replace(chr(39), '')}\n```", _prose(inspect.getdoc(thing))]
    if inspect.isclass(thing):
        verbs = [
            f"- `{verb}{_short(method)}`: {_inline(inspect.getdoc(method).splitlines()[0])}"
            for verb, method in vars(thing).items()
            if not verb.startswith("_") and inspect.isfunction(method) and inspect.getdoc(method)
        ]
        parts += ["\n".join(verbs)] if verbs else []
    return "\n\n".join(parts)


def _fields_of(cls: Any) -> str:
    annotations = getattr(cls, "__dataclass_fields__", {})
    return f"({', '.join(annotations)})" if annotations else ""


def _short(method: Any) -> str:
    return f"({', '.join(name for name in inspect.signature(method).parameters if name != 'self')})"


def _prose(text: str) -> str:
    """A docstring as paragraphs: what looks like markup in it is text."""
    return _inline(text)


def _inline(text: str) -> str:
    kept = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_\[\]<>{}$#|\\])", r"\\\1", part) for part in kept)
