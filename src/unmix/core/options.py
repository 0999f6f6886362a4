"""Options of the command line: `finder.k=32`, lists `a,b` and ranges `0..4`, parsed without importing torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from unmix.core.errors import UsageError, suggest
from unmix.core.named import typed
from unmix.core.recipe import Table


def parse(words: Iterable[str]) -> dict[str, list[Any]]:
    """`key=value` words to a dict from key to its list of values.

    >>> parse(["finder=PCA,NMF", "finder.width=8", "seed=0..2"])
    {'finder': ['PCA', 'NMF'], 'finder.width': [8], 'seed': [0, 1, 2]}
    """
    options: dict[str, list[Any]] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not key or not text:
            raise UsageError(f"{word!r}: expected key=value, such as finder.k=32")
        if key in options:
            raise UsageError(f"{key}: given twice; write the values as {key}=a,b")
        options[key] = values(text)
    return options


def values(text: str) -> list[Any]:
    """The values of one option: a JSON value, a comma-separated list of them, or a range `first..last`."""
    if text[:1] in "[{":
        try:
            return [json.loads(text)]
        except json.JSONDecodeError as error:
            raise UsageError(f"{text!r}: not JSON ({error})") from None
    first, dots, last = text.partition("..")
    if dots and first.lstrip("-").isdigit() and last.lstrip("-").isdigit():
        low, high = int(first), int(last)
        if high < low:
            raise UsageError(f"{text!r}: the range is empty; write the smaller number first")
        return list(range(low, high + 1))
    return [_value(part) for part in text.split(",") if part]


def recipes(
    table: Table,
    noun: str,
    options: dict[str, list[Any]],
    default: list[str],
    fill: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> list[Any]:
    """Every recipe of one noun that the options ask for: kinds, `noun.field` for all, `Kind.field` for one.

    fill: gives further fields of a class, from those that the options give. Used keys are taken out of `options`.
    Raises `UsageError` for an unknown kind or field.
    """
    kinds = options.pop(noun, default)
    shared = _taken(options, f"{noun}.")
    made = []
    for kind in kinds:
        cls = table[str(kind)]
        own = {**shared, **_taken(options, f"{kind}."), **_taken(options, f"{str(kind).rpartition(':')[2]}.")}
        fields = getattr(cls, "model_fields", {})
        for field in own:
            if field not in fields:
                raise UsageError(f"{kind}.{field}: no such field; {suggest(field, fields)}")
        with typed():
            for combination in itertools.product(*own.values()):
                given = dict(zip(own, combination, strict=True))
                made.append(cls(**given, **(fill(cls, given) if fill else {})))
    return made


def fields(cls: Any, options: dict[str, list[Any]]) -> dict[str, Any]:
    """The options that are fields of one recipe: a list where the field holds several values, else its one value.

    Used keys are taken out of `options`. Raises `UsageError` for several values of a field that holds one.
    """
    found = {}
    for name, field in cls.model_fields.items():
        if name in options:
            values = options.pop(name)
            several = "tuple" in str(field.annotation)
            if len(values) != 1 and not several:
                raise UsageError(f"{name}: one value here, got {len(values)}")
            found[name] = tuple(values) if several else values[0]
    return found


def finish(options: dict[str, list[Any]], known: Iterable[str]) -> None:
    """Raise `UsageError` for options that nothing has used."""
    for key in options:
        raise UsageError(f"{key}: no such option here; {suggest(key, list(known))}")


def _taken(options: dict[str, list[Any]], prefix: str) -> dict[str, list[Any]]:
    keys = [key for key in options if key.startswith(prefix)]
    return {key.removeprefix(prefix): options.pop(key) for key in keys}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return float(text)
    except ValueError:
        return {"True": True, "False": False, "None": None, "none": None}.get(text, text)
