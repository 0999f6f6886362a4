"""What is on the shelf: the tables as text, for `unmix list` and `unmix show`."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

from unmix.core.errors import UsageError, suggest
from unmix.core.recipe import Table
from unmix.encoders import ENCODERS
from unmix.finders import FINDERS
from unmix.interop import FORMATS
from unmix.learners import LEARNERS
from unmix.networks import DECODERS, NETWORKS
from unmix.papers import STUDIES
from unmix.regimes import INITIALISATIONS
from unmix.scores import SCORES
from unmix.scores.judging import JUDGES
from unmix.scores.similarity import SIMILARITIES
from unmix.study import ENGINES
from unmix.worlds import MIXINGS, TRANSITIONS, WORLDS

SHELF = {
    "worlds": WORLDS,
    "mixings": MIXINGS,
    "transitions": TRANSITIONS,
    "networks": NETWORKS,
    "decoders": DECODERS,
    "learners": LEARNERS,
    "finders": FINDERS,
    "encoders": ENCODERS,
    "scores": SCORES,
    "similarities": SIMILARITIES,
    "judges": JUDGES,
    "engines": ENGINES,
    "studies": STUDIES,
    "initialisations": INITIALISATIONS,
    "formats": FORMATS,
}


def listing(noun: str = "") -> str:
    """One line for every entry of a noun, or of all nouns; read from the sources, so that nothing heavy is loaded."""
    if noun and noun not in SHELF:
        raise UsageError(f"{noun}: no such noun; {suggest(noun, SHELF)}")
    parts = []
    for name in [noun] if noun else list(SHELF):
        table = SHELF[name]
        width = max(len(entry) for entry in table)
        lines = [f"  {entry:<{width}}  {_first_line(table, entry)}" for entry in table]
        parts.append("\n".join([name, *lines]))
    return "\n\n".join(parts)


def page(kind: str) -> str:
    """Description, equation, fields with defaults, needs and reference of one recipe."""
    for table in SHELF.values():
        if kind in table:
            cls = table[kind]
            break
    else:
        raise UsageError(f"{kind}: no such recipe; {suggest(kind, {k: 0 for t in SHELF.values() for k in t})}")
    lines = [kind, "", inspect.getdoc(cls) or ""]
    if getattr(cls, "equation", ""):
        lines += ["", f"equation   {cls.equation}"]
    if getattr(cls, "reference", ""):
        lines += [f"reference  {cls.reference}"]
    if getattr(cls, "needs", None):
        lines += [f"needs      {', '.join(sorted(cls.needs))}"]
    fields = getattr(cls, "model_fields", {})
    if fields:
        lines += ["", "fields"]
        width = max(len(name) for name in fields)
        for name, field in fields.items():
            default = "required" if field.is_required() else f"= {field.get_default(call_default_factory=True)}"
            lines.append(f"  {name:<{width}}  {default}")
    return "\n".join(lines)


def _first_line(table: Table, entry: str) -> str:
    module, _, attribute = table.entries[entry].partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == attribute:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""
