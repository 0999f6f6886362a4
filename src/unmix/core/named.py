"""Code by name: which packages may be imported because a name says so, and what a dotted path reaches in them.

Names come from tables of unmix, from what a person types, and from folders that anybody may have written. Nothing is
imported before it is known that its package is unmix itself, trusted by name (`UNMIX_TRUST`, `trusting`), or typed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from unmix.core.digest import digest
from unmix.core.errors import UnmixError, UsageError, suggest

TRUST = "UNMIX_TRUST"  # environment variable: packages, with commas, whose classes may be named in options and runs
SAFE = "unmix"  # value of PYTHONSAFEPATH that the command sets for its workers, told apart from a user's own
RULE = "a file, a leading dot, an empty part and a name that begins with _ are never followed"

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_typed: ContextVar[bool] = ContextVar("typed", default=False)


@contextlib.contextmanager
def trusting(packages: Iterable[str]) -> Iterator[None]:
    """These packages, or modules, are trusted in the block, beside those of `UNMIX_TRUST`.

    What is made in it counts as read from a folder, even inside `typed`.
    """
    named = _trusted.set(_trusted.get() | _checked("trust", packages))
    read = _typed.set(False)
    try:
        yield
    finally:
        _typed.reset(read)
        _trusted.reset(named)


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """Recipes made in the block come from what a person typed, who may name code or a command that they run."""
    before = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(before)


def foreign(path: str) -> str | None:
    """The path "module:Name" where it leads out of unmix, else None."""
    return None if _top(path.partition(":")[0]) == "unmix" else path


def runnable(code: str) -> bool:
    """Whether a recipe that is made now may run this code: a person typed it, or its module is trusted."""
    return _typed.get() or trusted(code)


def permission(code: str) -> str:
    """Why code that nobody typed or trusts is not run and what to do, as the end of a message."""
    try:
        package = _top(parts_of(code)[0])
    except UsageError:
        return "which is not run where a folder or a plain dict names it; give the recipe itself"
    return (
        f"which is imported only where its package is trusted by name; if you trust its code, set {TRUST}={package}"
    )


def trusted(path: str) -> bool:
    """Whether the module of "module:Name", or a package around it, is trusted by name; never of other writings."""
    try:
        module = parts_of(path)[0]
    except UsageError:
        return False
    given = [name.strip() for name in os.environ.get(TRUST, "").split(",")]
    names = _trusted.get() | _checked(TRUST, filter(None, given))
    return any(module == name or module.startswith(f"{name}.") for name in names)


def parts_of(path: str, field: str = "") -> tuple[str, list[str]]:
    """Module and names of "module:Name", of an option `field`; raises `UsageError` for any other writing."""
    module, colon, name = path.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not colon or module.endswith(".py") or not all(map(_public, parts)):
        raise UsageError(f"{field}{'=' * bool(field)}{path!r}: is not written my.module:Name; {RULE}")
    return module, name.split(".")


def load_class(path: str) -> Any:
    """The class or function "module:Name" that the module defines; whether it may be imported is asked before.

    Of unmix it is defined in that very module; another package may hand on what it defines elsewhere in itself. What
    a module has imported is never reached. Raises `UsageError` where there is no such thing.
    """
    module, names = parts_of(path)
    found: Any = _imported(module, path)
    for name in names:
        found = _attribute(found, name, path)
        if not _defines(module, found):
            raise UsageError(f"{path}: {name} is no class or function that {module} itself defines")
    return found


def build_module(field: str, path: str, arguments: Mapping[str, Any]) -> Any:
    """The torch module that the class or function "module:Name" gives for keyword arguments.

    Of unmix only what says that it makes one. Raises as `load_class`, and `UsageError` that names the option `field`
    where it does not take the arguments, fails, or gives something else.
    """
    found = load_class(path)
    if foreign(path) is None and not _makes_module(found):
        raise UsageError(f"{field}={path}: makes no torch module")
    return called(field, path, found, arguments)


def called(field: str, path: str, found: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What `build_module` gives, by the class or function itself."""
    from torch import nn

    try:
        module = found(**arguments)
    except UnmixError:
        raise
    except Exception as error:
        does = "does not take" if isinstance(error, TypeError) else "fails with"
        raise UsageError(f"{field}={path}: {does} {dict(arguments)} ({_line(error)})") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{field}={path}: gave {type(module).__name__}, not a torch module")
    return module


def load_typed(path: str) -> Any:
    """The object "module:name" or "file.py:name" that a person named, whatever it is; never for names from a folder.

    Raises `UsageError` where it does not exist.
    """
    module, _, name = path.rpartition(":")
    if not module.endswith(".py"):
        parts_of(path)
    elif not all(map(_public, name.split("."))):
        raise UsageError(f"{path!r}: is no object of a file, written file.py:name")
    found: Any = _from_file(module) if module.endswith(".py") else _imported(module, path)
    for part in name.split("."):
        found = _attribute(found, part, path)
    return found


def own_environment() -> dict[str, str]:
    """The environment for a program that the user named: without what the command sets for its workers."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("PYTHONSAFEPATH", SAFE)}


def _public(part: str) -> bool:
    return part.isidentifier() and not part.startswith("_")


def _top(module: str | None) -> str:
    return str(module).partition(".")[0]


def _defines(module: str, found: Any) -> bool:
    home = getattr(found, "__module__", None)
    if foreign(module) is None:
        return home == module and isinstance(found, (type, types.FunctionType)) and "." not in found.__qualname__
    return _top(home) == _top(module) and callable(found)


def _checked(field: str, packages: Iterable[str]) -> frozenset[str]:
    names = frozenset(map(str, packages))
    for name in names:
        if not all(map(_public, name.split("."))):
            raise UsageError(f"{field}={name}: is no name of a package, such as my_methods; several with commas")
    return names


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _attribute(holder: Any, name: str, path: str) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError:
        where, known = path.rpartition(":")[0], vars(holder) if hasattr(holder, "__dict__") else {}
        raise UsageError(f"{path}: {where} has no {name}; {suggest(name, known)}") from None


def _imported(module: str, path: str) -> types.ModuleType:
    try:
        _find(_top(module))
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: cannot import {module} ({error})") from error
    except Exception as error:
        raise UsageError(f"{path}: importing {module} fails ({_line(error)})") from error


def _find(package: str) -> None:
    """Look for a package that is nowhere else in the current folder, which is then searched last, by workers too.

    The current folder is searched for nothing else: a file that lies beside a run must not be what an import finds.
    """
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    with contextlib.suppress(OSError):  # a folder that was deleted holds no module
        here = os.getcwd()
        if PathFinder.find_spec(package, [here]) is not None:
            sys.path.append(here)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))


def _makes_module(found: Any) -> bool:
    from torch import nn

    if isinstance(found, type):
        return issubclass(found, nn.Module)
    try:
        result = typing.get_type_hints(found).get("return")
    except NameError:  # a name that only type checkers import
        return False
    return isinstance(result, type) and issubclass(result, nn.Module)


def _from_file(name: str) -> types.ModuleType:
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
