"""Recipes: frozen, validated configurations with one verb, and the tables that name them."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from unmix.core.digest import digest
from unmix.core.errors import UsageError, suggest
from unmix.core.named import foreign, load_class, parts_of, permission, runnable, trusted


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

    def __init__(self, /, **fields: Any) -> None:
        for name, value in fields.items():
            field = type(self).model_fields.get(name)
            if isinstance(value, bool) and field is not None and _counts(field.annotation):
                raise UsageError(f"{type(self).__name__}.{name}={value}: must be a number")
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

    @property
    def code(self) -> str | None:
        """What this recipe imports or runs that is not unmix's: "module:Name", or a command; None where nothing."""
        return None

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

    entries: name -> "module:Class". Importing a table imports none of its modules. base: "module:Class" of the noun's
    base class, of which a class from another package must be a subclass; without one none is taken.
    """

    noun: str
    entries: dict[str, str]
    base: str

    def __init__(self, noun: str, entries: dict[str, str], base: str = "") -> None:
        self.noun, self.entries, self.base = noun, entries, base

    def __getitem__(self, name: str) -> type[Any]:
        """The class of that name, or of a class "my.module:Class" of a package that is trusted by name.

        Raises `UsageError`, before anything is imported, for any other name; and for a class of another kind.
        """
        if name in self.entries:
            return load_class(self.entries[name])
        if ":" not in name or not self.base:
            raise UsageError(f"{self.noun}={name}: no such {self.noun}; {suggest(name, self.entries)}")
        parts_of(name, self.noun)
        if not trusted(name):
            if foreign(name) is None:
                raise UsageError(f"{self.noun}={name}: of unmix only these; {suggest(name, self.entries)}")
            raise UsageError(f"{self.noun}={name}: is a class from outside unmix, {permission(name)}")
        cls, base = load_class(name), load_class(self.base)
        if not (isinstance(cls, type) and issubclass(cls, base) and cls is not base):
            raise UsageError(f"{self.noun}={name}: is no class of recipes of {self.noun}s; subclass {self.base}")
        return cls

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def make(self, value: Any) -> Any:
        """A recipe from a recipe, a name, or a dict with `kind`.

        Raises `UsageError` for an unknown kind, one of a package that is not trusted, an unknown field, a value out
        of range, and a recipe that would run code or a command which nobody typed or trusts.
        """
        if isinstance(value, Recipe):
            inside = foreign(type(value).__module__) is None
            if inside and not any(_named(value, target) for target in self.entries.values()):
                raise UsageError(f"{self.noun}: {value.kind} is no {self.noun}; {suggest('', self.entries)}")
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise UsageError(f"{self.noun}: expected a recipe, a name or a dict with 'kind', got {value!r}")
        fields = dict(value)
        made = self[fields.pop("kind")](**fields)
        if made.code is not None and not runnable(made.code):
            raise UsageError(f"{self.noun}: {made.kind} runs {made.code}, {permission(made.code)}")
        return made


def _named(value: Recipe, target: str) -> bool:
    return target == f"{type(value).__module__}:{type(value).__name__}"


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{cls.__name__}.{place}={first['input']!r}: no such field; {suggest(place, cls.model_fields)}"
    if first["type"] == "missing":
        return f"{cls.__name__}.{place}: must be given"
    if isinstance(own := first.get("ctx", {}).get("error"), UsageError):  # of a recipe inside, which names its field
        return f"{cls.__name__}.{place}: {own}" if place else f"{cls.__name__}: {own}"
    message = problem(first)
    if not place:
        return f"{cls.__name__}: {message}"
    return f"{cls.__name__}.{place}={first['input']!r}: {message}"


def _counts(annotation: Any) -> bool:
    """Whether a field holds a number, which pydantic would take true for."""
    return bool({int, float} & {annotation, *get_args(annotation)}) and bool not in get_args(annotation)


# What pydantic says of a value of another type, in words that name what would be right.
_RIGHT = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be finite",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list",
    "list": "must be a list",
    "sequence": "must be a list",
    "dict": 'must be fields in braces, such as {"kind": "MLP"}',
}


def problem(found: Mapping[str, Any]) -> str:
    """What is wrong with a value, from one of pydantic's errors: a phrase that says what would be right."""
    kind = found["type"].partition("_")[0]
    if kind in _RIGHT and not found["type"].endswith(("_too_short", "_too_long", "_mismatch")):
        return _RIGHT[kind]
    return str(found["msg"]).removeprefix("Value error, ").replace("Input should", "should")


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
