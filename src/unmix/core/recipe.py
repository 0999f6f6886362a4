"""Recipes: frozen, validated configurations with one verb, and the tables that name them."""

from __future__ import annotations

import difflib
import html
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from unmix.core.digest import digest
from unmix.core.errors import UsageError

TRUST = "UNMIX_TRUST"  # environment variable: packages, with commas, whose classes may be named in options and runs


class Recipe(BaseModel):
    """A frozen, validated configuration: its fields are all there is to it, and learned values never live in it.

    Recipes compare, hash and print by value, and go to and from JSON by their `kind`, the class name.
    Raises `UsageError`, naming the field, what was given and what would be right.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        arbitrary_types_allowed=True,
        use_enum_values=True,
        allow_inf_nan=False,
    )
    reference: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UsageError(_sentence(type(self), error)) from None

    @property
    def kind(self) -> str:
        """The name of this class in tables and JSON: its `name` where it has one, else the class name.

        A class from outside unmix goes by its dotted path, "my_methods:Farthest", so that a stored run can find it.
        """
        cls = type(self)
        outside = cls.__module__.partition(".")[0] != "unmix" and "<locals>" not in cls.__qualname__
        return f"{cls.__module__}:{cls.__qualname__}" if outside else getattr(cls, "name", cls.__name__)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values: `kind` first, then every field, nested recipes likewise."""
        return {"kind": self.kind, **{name: _plain(getattr(self, name)) for name in type(self).model_fields}}

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return type(self)(**{**{n: getattr(self, n) for n in type(self).model_fields}, **changes})

    @property
    def digest(self) -> str:
        """Hexadecimal digest of kind and fields; equal recipes have equal digests on every machine."""
        return digest(self.as_dict())

    def __str__(self) -> str:
        changed = [
            f"{name}={_short(getattr(self, name))}"
            for name, field in type(self).model_fields.items()
            if field.is_required() or getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        return f"{self.kind}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        """The fields as a table, for notebooks; those that differ from their defaults are bold."""
        lines = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            changed = field.is_required() or value != field.get_default(call_default_factory=True)
            shown = html.escape(_short(value))
            lines.append(f"<tr><td>{name}</td><td>{f'<b>{shown}</b>' if changed else shown}</td></tr>")
        return f"<table><caption>{html.escape(self.kind)}</caption>{''.join(lines)}</table>"


def told_apart(recipes: Iterable[Recipe]) -> dict[str, str]:
    """Digest -> short name: the kind, and where there are several of one kind the fields in which those differ."""
    kinds: dict[str, dict[str, Recipe]] = {}
    for recipe in recipes:
        kinds.setdefault(recipe.kind, {})[recipe.digest] = recipe
    found: dict[str, str] = {}
    for kind, alike in kinds.items():
        fields = [name for name in type(next(iter(alike.values()))).model_fields if _differs(alike.values(), name)]
        for number, recipe in alike.items():
            told = ", ".join(f"{name}={_brief(getattr(recipe, name))}" for name in fields)
            found[number] = f"{kind}({told})" if told else kind
    return found


class Table(Mapping[str, type[Any]]):
    """Names of one noun's classes, resolved when asked for: `FINDERS["TopKSAE"]` imports its module then.

    entries: name -> "module:Class". Importing a table imports none of its modules.
    """

    noun: str
    entries: dict[str, str]

    def __init__(self, noun: str, entries: dict[str, str]) -> None:
        self.noun, self.entries = noun, entries

    def __getitem__(self, name: str) -> type[Any]:
        if name in self.entries:
            return load_class(self.entries[name])
        if ":" not in name:
            raise UsageError(f"{self.noun}={name}: no such {self.noun}; {suggest(name, self.entries)}")
        if not trusted(name, frozenset(os.environ.get(TRUST, "").split(","))):
            package = name.partition(":")[0].partition(".")[0]
            raise UsageError(
                f"{self.noun}={name}: a class from outside unmix is imported where its package is trusted by name; "
                f"set {TRUST}={package}"
            )
        cls = load_class(name)
        if not (isinstance(cls, type) and issubclass(cls, Recipe)):
            raise UsageError(f"{self.noun}={name}: is no class of recipes; subclass the base class of {self.noun}s")
        return cls

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def make(self, value: Any, trust: frozenset[str] = frozenset()) -> Any:
        """A recipe from a recipe, a name, or a dict with `kind`; `trust` names modules outside unmix.

        Raises `UsageError` for an unknown kind, an unknown field or a value out of range.
        """
        if isinstance(value, Recipe):
            inside = type(value).__module__.startswith("unmix.")
            if inside and not any(_named(value, target) for target in self.entries.values()):
                raise UsageError(f"{self.noun}: {value.kind} is no {self.noun}; {suggest('', self.entries)}")
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise UsageError(f"{self.noun}: expected a recipe, a name or a dict with 'kind', got {value!r}")
        fields = dict(value)
        kind = fields.pop("kind")
        if ":" in kind and trusted(kind, trust):
            return load_class(kind)(**fields)
        return self[kind](**fields)


def trusted(path: str, trust: frozenset[str]) -> bool:
    """Whether "module:attribute" lies in a package of which some module is trusted by name."""
    return path.split(":")[0].split(".")[0] in {name.split(".")[0] for name in trust}


def load_class(path: str) -> Any:
    """The object named "module:attribute" or "file.py:attribute"; raises `UsageError` where it does not exist."""
    module_name, _, attribute = path.partition(":")
    try:
        module = _from_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: cannot import {module_name} ({error})") from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise UsageError(f"{path}: {module_name} has no {part}; {suggest(part, vars(module))}")
        target = getattr(target, part)
    return target


def _from_file(name: str) -> ModuleType:
    """The module in a file, run once; under a name of its own, so that it hides no installed one."""
    file = Path(name).resolve()
    own = f"{file.stem}_{digest(str(file))}"
    if own not in sys.modules:
        if not file.is_file():
            raise UsageError(f"{name}: no such file")
        spec = importlib.util.spec_from_file_location(own, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[own] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[own]
            raise
    return sys.modules[own]


def suggest(given: str, known: Mapping[str, Any] | list[str]) -> str:
    """One phrase: the near matches of a misspelt name, or all names where there is none."""
    names = [name for name in known if not name.startswith("_")]
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    near = near or [name for name in names if given and name.lower().startswith(given.lower())][:3]
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "known: " + (", ".join(names[:24]) + (" ..." if len(names) > 24 else "") if names else "none")


def _named(value: Recipe, target: str) -> bool:
    return target == f"{type(value).__module__}:{type(value).__name__}"


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{cls.__name__}.{place}={first['input']!r}: no such field; {suggest(place, cls.model_fields)}"
    if first["type"] == "missing":
        return f"{cls.__name__}.{place}: must be given"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if not place:
        return f"{cls.__name__}: {message}"
    return f"{cls.__name__}.{place}={first['input']!r}: {message}"


def _plain(value: Any) -> Any:
    if isinstance(value, Recipe):
        return value.as_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _differs(recipes: Iterable[Recipe], name: str) -> bool:
    return len({json.dumps(_plain(getattr(recipe, name)), sort_keys=True) for recipe in recipes}) > 1


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else _short(value)


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, Recipe) else json.dumps(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."
