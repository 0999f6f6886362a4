"""Options of the command line: `finder.k=32`, lists `a,b` and ranges `0..4`, parsed without importing torch."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import Field

from unmix.core.errors import UsageError, suggest
from unmix.core.named import typed
from unmix.core.recipe import Table, problem

P = ParamSpec("P")
Made = TypeVar("Made")
MOST = 10_000  # values of one option, recipes of one command
Count = Annotated[int, Field(ge=1, le=10**9)]
_WHOLE = re.compile("-?[0-9]+")


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
        except RecursionError:
            raise UsageError(f"{_short(text)!r}: nested too deeply") from None
        except ValueError as error:
            raise UsageError(f"{_short(text)!r}: not JSON ({_short(error)})") from None
    first, dots, last = text.partition("..")
    if dots and _WHOLE.fullmatch(first) and _WHOLE.fullmatch(last):
        low, high = _whole(first), _whole(last)
        if high < low:
            raise UsageError(f"{text!r}: the range is empty; write the smaller number first")
        if high - low >= MOST:
            raise UsageError(f"{text!r}: {high - low + 1:,} values, at most {MOST:,} at a time")
        return list(range(low, high + 1))
    found = [_value(part) for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"{text!r}: holds no value")
    return found


def _whole(text: str) -> int:
    if len(text) > 18:
        raise UsageError(f"{_short(text)!r}: too large a number")
    return int(text)


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
        if math.prod(map(len, own.values())) > MOST:
            raise UsageError(f"{kind}: more than {MOST:,} recipes; give fewer values of its fields")
        with typed():
            for combination in itertools.product(*own.values()):
                given = dict(zip(own, combination, strict=True))
                made.append(cls(**given, **(fill(cls, given) if fill else {})))
    return made


def valid(name: str, value: Any, hint: Any) -> Any:
    """A value as the type `hint` has it; raises `UsageError` that names it, what was given and what would be right.

    hint: plain types, unions, literals and lists of them, with pydantic's constraints. Numbers must be finite, and
    true is none.
    """
    from pydantic import TypeAdapter, ValidationError

    plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    try:
        found = TypeAdapter(hint, config={"allow_inf_nan": False}).validate_python(plain)
    except ValidationError as error:
        raise UsageError(f"{name}={_short(plain)}: {problem(error.errors()[0])}") from None
    if isinstance(plain, bool) and not isinstance(found, bool):
        raise UsageError(f"{name}={_short(plain)}: must be a number")
    return found


def checked(function: Callable[P, Made]) -> Callable[P, Made]:
    """A function whose plain arguments (numbers, words, lists of them) are held against their annotations first."""
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def held(*positional: P.args, **named: P.kwargs) -> Made:
        if not hints:
            hints.update({n: h for n, h in get_type_hints(function, include_extras=True).items() if _is_plain(h)})
        bound = inspect.signature(function).bind(*positional, **named)
        for name in bound.arguments.keys() & hints.keys():
            bound.arguments[name] = valid(name, bound.arguments[name], hints[name])
        return function(*bound.args, **bound.kwargs)

    return held


def _is_plain(hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_plain(inner[0])
    if origin in (Union, types.UnionType, list, tuple, Sequence):
        return all(part is Ellipsis or _is_plain(part) for part in inner)
    return origin is Literal or hint in (int, float, str, bool, type(None))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def take(options: dict[str, list[Any]], key: str, hint: Any, default: Any) -> Any:
    """Take the values of an option out: a list where the hint is a list, else the one value; valid by the hint.

    Raises `UsageError` for several values of an option that has one, and as `valid`.
    """
    if key not in options:
        return default
    values = options.pop(key)
    if get_origin(hint) is list:
        return [valid(key, value, get_args(hint)[0]) for value in values]
    if len(values) != 1:
        raise UsageError(f"{key}: one value here, got {len(values)}; run once for each")
    return valid(key, values[0], hint)


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
    except (ValueError, RecursionError):
        pass
    try:
        return float(text)
    except ValueError:
        return {"True": True, "False": False, "None": None, "none": None}.get(text, text)
