"""Folders of somebody else: no verb and no load runs code that they name with nothing trusted; words say so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmix.activations import COLLECTORS
from unmix.activations.data import Data
from unmix.activations.modules import ModuleActivations
from unmix.cli import app
from unmix.core.errors import UnmixError, UsageError
from unmix.core.named import SAFE, own_environment, trusting
from unmix.core.options import parse, recipes
from unmix.encoders import ENCODERS
from unmix.encoders.greedy import Omp
from unmix.finders import FINDERS
from unmix.finders.controls import RandomAtoms
from unmix.finders.features import Features
from unmix.learners.diet import Diet
from unmix.learners.representation import Representation
from unmix.networks import NETWORKS
from unmix.networks.built import Built
from unmix.networks.mlp import MLP
from unmix.networks.wrapped import OnSphere
from unmix.scores.judging import JUDGES
from unmix.scores.similarity import SIMILARITIES
from unmix.study import verbs
from unmix.study.inside import open_inside
from unmix.study.learning import Learned, learn
from unmix.study.probing import probe_learned
from unmix.study.study import Results
from unmix.study.trusting import trust_learned
from unmix.worlds.images import Images

from ..contracts.test_recipes import TABLES

# Importing it leaves a file; its classes and functions are of every kind that is asked for.
MARKER = """
import os
from pathlib import Path

Path(os.environ["MARKER"]).touch()

import torch
from unmix.encoders.greedy import Omp
from unmix.finders.controls import RandomAtoms

class Atoms(RandomAtoms):
    pass

class Pursuit(Omp):
    pass

class Plain:
    pass

def build(**arguments):
    return torch.nn.Flatten()

borrowed = os.path.join
"""
NAMES = (
    "stranger:Atoms",
    "stranger:build",
    ".stranger:Atoms",
    "..stranger:Atoms",
    "stranger.py:Atoms",
    "./stranger.py:Atoms",
    "{folder}/stranger.py:Atoms",
    ".stranger.py:Atoms",
    "stranger..inner:Atoms",
    ":Atoms",
    "stranger:",
    "_stranger:Atoms",
    "stranger:Atoms.__init__",
    "os:system",
    "builtins:exec",
    "unmix:Study",
    "unmix.core.recipe:importlib.util",
    "unmix.worlds.files:os.path.join",
    "unmix.networks.built:torch.load",
    "unmix.core.named:Path.touch",
    "unmix.scores.judging.command:CommandJudge",
    "unmix.activations.models:DottedModel",
    "unmix.__main__:main",
    "unmix.nothing:Atoms",
)


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What must not appear. The module that leaves it lies in the current folder and on the path as well."""
    monkeypatch.delenv("UNMIX_TRUST", raising=False)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    for name in ("stranger", ".stranger", "_stranger"):
        (tmp_path / f"{name}.py").write_text(MARKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "marker"
    for name in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[name]


@pytest.mark.parametrize("noun", [*TABLES])
def test_no_table_imports_what_nobody_trusts(noun: str, marker: Path, tmp_path: Path) -> None:
    for name in NAMES:
        for value in (name.format(folder=tmp_path), {"kind": name.format(folder=tmp_path)}):
            with pytest.raises(UsageError) as told:
                TABLES[noun].make(value)
            assert "\n" not in str(told.value) and not marker.exists()


@pytest.mark.parametrize("given", ["", ",", " , ", "other", "strange", "stranger.inner", "os,unmix"])
def test_trust_is_in_whole_names(given: str, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMIX_TRUST", given)
    for path in ("stranger:Atoms", ".stranger:Atoms", "stranger.py:Atoms", ":Atoms"):
        with pytest.raises(UsageError, match=r"stranger|Atoms"):
            FINDERS[path]
    assert not marker.exists()


@pytest.mark.parametrize("given", [".", "./stranger.py", ".stranger", "stranger.", "_stranger", "a b"])
def test_what_is_no_name_of_a_package_is_not_trusted(
    given: str, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMIX_TRUST", given)
    with pytest.raises(UsageError, match="is no name of a package"):
        FINDERS["stranger:Atoms"]
    with pytest.raises(UsageError, match="is no name of a package"), trusting([given]):
        pass
    assert not marker.exists()


def test_of_a_trusted_package_only_its_own_classes_of_the_kind(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMIX_TRUST", "other, stranger")
    assert FINDERS.make({"kind": "stranger:Atoms", "width": 3}).kind == "stranger:Atoms" and marker.exists()
    assert issubclass(ENCODERS["stranger:Pursuit"], Omp)
    for table, path, said in (
        (FINDERS, "stranger:Pursuit", "is no class of recipes of finders"),
        (ENCODERS, "stranger:Atoms", "is no class of recipes of encoders"),
        (FINDERS, "stranger:Plain", "is no class of recipes of finders"),
        (FINDERS, "stranger:build", "is no class of recipes of finders"),
        (FINDERS, "stranger:RandomAtoms", "no class or function that stranger itself defines"),
        (FINDERS, "stranger:borrowed", "no class or function that stranger itself defines"),
        (FINDERS, "stranger:os.path.join", "no class or function that stranger itself defines"),
        (FINDERS, "stranger:Atoms.fit.__globals__", "is not written"),
    ):
        with pytest.raises(UsageError, match=said):
            table[path]


def test_a_recipe_from_a_plain_dict_that_names_code_is_refused(marker: Path, tmp_path: Path) -> None:
    for name in names(tmp_path):
        built: dict[str, Any] = {"kind": "Built", "path": name}
        for table, value in (
            (NETWORKS, built),
            (NETWORKS, {"kind": "OnSphere", "network": built}),
            (NETWORKS, {"kind": "PosteriorMean", "network": {"kind": "OnSphere", "network": built}}),
            (SIMILARITIES, {"kind": "Network", "make": name}),
            (COLLECTORS, {"kind": "ModuleActivations", "model": name}),
        ):
            with pytest.raises(UsageError) as told:
                made = table.make(value)
                # Of unmix's own it is known, where it would be called, that they make no module.
                if table is NETWORKS:
                    made.build((1, 8, 8), 4)
                elif table is SIMILARITIES:
                    made.bind(np.zeros((3, 1, 8, 8)))
                else:
                    made.collect(np.zeros((3, 1, 8, 8)), "acts")
            assert "\n" not in str(told.value) and not marker.exists()


def test_a_command_is_run_where_the_judge_itself_is_given(marker: Path) -> None:
    command = f"{sys.executable} -c \"open(r'{marker}', 'w')\""
    with pytest.raises(UsageError, match=r"runs .*not run where a folder or a plain dict names it"):
        JUDGES.make({"kind": "CommandJudge", "command": command})
    assert JUDGES.make(JUDGES["CommandJudge"](command=command)).command == command and not marker.exists()


def test_unmix_builds_modules_of_its_own_and_calls_nothing_else() -> None:
    for path in ("unmix.study.verbs:fit", "unmix.core.store:write_text", "unmix.core.recipe:Recipe"):
        with pytest.raises(UsageError, match="makes no torch module"):
            Built(path=path, arguments={"path": "x", "text": "y"}).build((1, 8, 8), 4)
    with pytest.raises(UsageError, match="itself defines"):
        Built(path="unmix.networks.built:torch.load", arguments={"f": "x"}).build((1, 8, 8), 4)
    made = NETWORKS.make({"kind": "Built", "path": "unmix.learners.supervised:Head", "arguments": {"width": 3}})
    assert made.code is None
    with pytest.raises(UsageError, match="does not take"):
        made.build((1, 8, 8), 4)


# ---- whole folders, each altered in one place ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of fit and compare on activations, and a run of learn, as their maker would hand them on."""
    root = tmp_path_factory.mktemp("whole")
    x = Images(path="digits").sample(40, 0).x
    ModuleActivations(model="torch.nn:Flatten", layer="").collect(np.asarray(x), root / "acts")
    verbs.fit(
        Data(path=str(root / "acts"), transforms=("Center",)), [RandomAtoms(width=8, k=2)], root / "run", seeds=(0, 1)
    )
    verbs.compare(root / "run", [Omp(k=2)], l0=2.0, seeds=(0,))
    network = OnSphere(network=MLP(hidden=(4,)))
    learn(Images(path="digits"), [Diet(network=network, width=4, steps=2, batch=16, augment=None)], root / "learnt")
    return root


def edited(file: Path, change: Callable[[Any], Any]) -> None:
    stored = json.loads(file.read_text())
    change(stored)
    file.write_text(json.dumps(stored))


def put(*path: Any) -> Callable[[Any, Any], None]:
    """A change that puts a value in a place of nested dicts."""

    def change(stored: Any, value: Any) -> None:
        for part in path[:-1]:
            stored = stored[part]
        stored[path[-1]] = value

    return change


def kind(name: str) -> Any:
    return {"kind": name}


def built(name: str) -> Any:
    return {"kind": "Built", "path": name, "arguments": {}}


CELLS: dict[str, tuple[Callable[[Any, Any], None], Callable[[str], Any]]] = {
    "finder": (put("cell", "finder"), kind),
    "encoder of the finder": (
        put("cell", "finder"),
        lambda name: {"kind": "SAE", "active": 2.0, "encoder": kind(name)},
    ),
    "encoder": (put("cell", "encoder"), kind),
    "encoder inside": (put("cell", "encoder"), lambda name: {"kind": "Refine", "first": kind(name), "then": "Omp"}),
    "world": (put("cell", "world"), kind),
    "world inside": (put("cell", "world"), lambda name: {"kind": "Labelled", "world": kind(name)}),
    "mixing": (put("cell", "world"), lambda name: {"kind": "PairWorld", "mixing": kind(name)}),
    "transition": (put("cell", "world"), lambda name: {"kind": "TransitionWorld", "transition": kind(name)}),
    "transform": (put("cell", "world", "transforms"), lambda name: [kind(name)]),
}
LEARNT: dict[str, tuple[Callable[[Any, Any], None], Callable[[str], Any]]] = {
    "learner": (put("learning", "learner", "kind"), str),
    "network": (put("learning", "learner", "network"), kind),
    "network inside": (
        put("learning", "learner", "network"),
        lambda name: {"kind": "OnSphere", "network": built(name)},
    ),
    "network built": (put("learning", "learner", "network"), built),
    "augmentation": (put("learning", "learner", "augment"), kind),
    "initialisation": (put("learning", "learner", "init"), kind),
    "decoder": (put("learning", "learner"), lambda name: {"kind": "Reconstruction", "decoder": kind(name)}),
    "world": (put("learning", "world"), kind),
}
NETWORK: dict[str, tuple[Callable[[Any, Any], None], Callable[[str], Any]]] = {
    "network": (put("network"), kind),
    "network inside": (put("network"), lambda name: {"kind": "OnSphere", "network": built(name)}),
    "network built": (put("network"), built),
}


def refused(*calls: Callable[[], Any], marker: Path) -> None:
    for call in calls:
        with pytest.raises(UnmixError) as told:
            call()
        assert not marker.exists() and "\n" not in str(told.value), told.value


def names(folder: Path) -> Iterator[str]:
    yield from (name.format(folder=folder) for name in NAMES)


@pytest.mark.parametrize("place", CELLS)
def test_cells_run_no_code(place: str, whole: Path, tmp_path: Path, marker: Path) -> None:
    run = shutil.copytree(whole / "run", tmp_path / "run")
    change, value = CELLS[place]
    reads = [lambda: Results(run).cells(), lambda: verbs.compare(run, ["Omp"], 2.0)]
    if place in ("finder", "encoder", "encoder inside", "encoder of the finder"):
        reads.append(lambda: Results(run).table())
    for name in names(tmp_path):
        for file in (run / "cells").glob("*.json"):
            edited(file, lambda stored, name=name: change(stored, value(name)))
        refused(*reads, marker=marker)


def test_features_run_no_code(whole: Path, tmp_path: Path, marker: Path) -> None:
    folder = shutil.copytree(next((whole / "run" / "fits").iterdir()), tmp_path / "features")
    for name in names(tmp_path):
        for value in (kind(name), {"kind": "Refine", "first": kind(name), "then": "Omp"}):
            edited(folder / "features.json", lambda stored, value=value: stored.update(encoder=value))
            refused(lambda: Features.load(folder), marker=marker)


@pytest.mark.parametrize("place", NETWORK)
def test_representations_run_no_code(place: str, whole: Path, tmp_path: Path, marker: Path) -> None:
    learnt = shutil.copytree(whole / "learnt", tmp_path / "learnt")
    change, value = NETWORK[place]
    folder = next(path for path in (learnt / "learned").iterdir() if path.is_dir())
    world = Images(path="digits")
    start = Diet(network=MLP(hidden=(4,)), width=4, steps=2, batch=16, augment=None)
    for name in names(tmp_path):
        edited(folder / "representation.json", lambda stored, name=name: change(stored, value(name)))
        refused(
            lambda: Representation.load(folder),
            lambda: Representation.load(folder, trust=frozenset({"other"})),
            lambda: probe_learned(learnt),
            lambda: learn(world, [start], tmp_path / "new", start=folder),
            marker=marker,
        )


@pytest.mark.parametrize("place", LEARNT)
def test_what_was_learnt_runs_no_code(place: str, whole: Path, tmp_path: Path, marker: Path) -> None:
    learnt = shutil.copytree(whole / "learnt", tmp_path / "learnt")
    change, value = LEARNT[place]
    for name in names(tmp_path):
        for file in (learnt / "learned").glob("*.json"):
            edited(file, lambda stored, name=name: change(stored, value(name)))
        refused(lambda: probe_learned(learnt), marker=marker)
        for read in (lambda: trust_learned(learnt), lambda: Learned(learnt).table()):
            with contextlib.suppress(UnmixError):  # of unmix's own it is known, where it is called, what they make
                read()
            assert not marker.exists()


def test_activations_run_no_code(whole: Path, tmp_path: Path, marker: Path) -> None:
    acts, run = (shutil.copytree(whole / part, tmp_path / part) for part in ("acts", "run"))
    for file in (run / "cells").glob("*.json"):
        edited(file, lambda stored: put("cell", "world", "path")(stored, str(acts)))
    x = np.asarray(Images(path="digits").sample(40, 0).x)
    for name in names(tmp_path):
        edited(acts / "manifest.json", lambda stored, name=name: stored["about"].update(model=name))
        refused(lambda: open_inside(run, data=x), marker=marker)


OPENING = (
    "status {run}",
    "table {run}",
    "table {run} --csv {out}.csv",
    "export {run} --codes {out}.csv --features {out}2.csv",
    "export {run} --to saelens -o {out}",
    "report {run} -o {out}.html",
    "atlas {run} -o {out}",
    "compare {run} encoder=Omp",
    "trust {run} size=1",
    "downstream {run} data={x}",
    "downstream {run} data={x} --dry-run",
    "steer {run} 0 --amount 1 data={x}",
    "concepts {run} {y}",
    "probe {run} {y}",
    "explain {run}",
    "match {run} {run} seed=0,1",
    "score {run}",
    "fit digits finder=RandomAtoms --start {run} -o {out}",
    "fit digits finder=RandomAtoms --start {fit} -o {out}",
)
READING = (
    "fit {acts} finder=RandomAtoms finder.width=4 -o {out}",
    "choose {acts} finder=RandomAtoms finder.width=4 -o {out}",
    "activations torch.nn:Flatten --data {acts} -o {out}",
    "import {fit} -o {out}",
    "status {learnt}",
    "table {learnt}",
    "report {learnt} -o {out}.html",
)
LEARNING = (
    "probe {learnt}",
    "trust {learnt}",
    "export {learnt} --encoder {out}.pt2",
    "learn digits learner=Diet Diet.width=4 Diet.steps=2 Diet.augment=None --start {representation} -o {out}",
)


@pytest.mark.parametrize("words", [*OPENING, *LEARNING, *READING])
def test_no_verb_runs_code_of_a_folder(words: str, whole: Path, tmp_path: Path, marker: Path) -> None:
    """Every place of a run that can hold a name holds one, in a run on activations that name code as well."""
    parts = {part: shutil.copytree(whole / part, tmp_path / part) for part in ("run", "acts", "learnt")}
    fit = sorted((parts["run"] / "fits").iterdir())[0]
    representation = next(path for path in (parts["learnt"] / "learned").iterdir() if path.is_dir())
    edited(parts["acts"] / "manifest.json", lambda stored: stored["about"].update(model="stranger:build"))
    for file in (parts["run"] / "fits").glob("*/features.json"):
        edited(file, lambda stored: stored.update(encoder=kind("stranger:Pursuit")))
    for number, file in enumerate(sorted((parts["run"] / "cells").glob("*.json"))):
        edited(file, lambda stored: put("cell", "world", "path")(stored, str(parts["acts"])))
        if "downstream" in words or "steer" in words:
            continue  # so far that the model is asked for
        edited(
            file,
            lambda stored, own=("Atoms", "build")[number % 2]: put("cell", "finder")(stored, kind(f"stranger:{own}")),
        )
    if "downstream" in words or "steer" in words:
        shutil.copytree(whole / "run" / "fits", parts["run"] / "fits", dirs_exist_ok=True)
    for file in (parts["learnt"] / "learned").glob("*.json"):
        edited(file, lambda stored: put("learning", "learner", "network")(stored, built("stranger:build")))
    edited(representation / "representation.json", lambda stored: stored.update(network=built("stranger:build")))
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, np.asarray(Images(path="digits").sample(40, 0).x))
    np.save(y, np.arange(40) % 2)
    places = {**parts, "fit": fit, "representation": representation, "out": tmp_path / "out", "x": x, "y": y}
    said = ""
    try:
        app(args=words.format(**places).split(), standalone_mode=False)
    except UnmixError as error:
        said = str(error)
    assert not marker.exists() and not any("stranger" in module for module in sys.modules)
    assert "stranger" in said or words in READING, said
    assert "\n" not in said


def test_a_model_that_is_typed_is_opened_beside_activations_that_name_it(whole: Path, tmp_path: Path) -> None:
    x = np.asarray(Images(path="digits").sample(40, 0).x)
    with pytest.raises(UsageError, match=r"set UNMIX_TRUST=torch, or name it yourself: model=torch\.nn:Flatten"):
        open_inside(whole / "run", data=x)
    (tmp_path / "net.py").write_text("import torch\nbuild = torch.nn.Flatten\n")
    assert open_inside(whole / "run", model="torch.nn:Flatten", data=x).facts(Results(whole / "run"))["groups"] > 1
    with trusting({"torch"}):
        assert isinstance(open_inside(whole / "run", data=x).reader.model, torch.nn.Flatten)
    with pytest.raises(UsageError, match="not those that the rows were made with"):
        open_inside(whole / "run", model="net.py:build", data=x)


def test_the_current_folder_stands_for_no_library(whole: Path, tmp_path: Path, marker: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(whole / "run", here / "run")
    for name in ("typer", "numpy", "torch", "pydantic", "numexpr", "bottleneck", "kernels", "dask", "sitecustomize"):
        (here / f"{name}.py").write_text(MARKER)
    (here / ".numba_config.yaml").write_text("cache_dir: elsewhere\n")
    (here / "matplotlibrc").write_text("text.usetex: True\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(verbs.__file__).parents[2])}
    command = [sys.executable, "-m", "unmix", "compare", "run", "encoder=Fista", "--engine", "processes"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Fista" in done.stdout, done.stderr
    assert not marker.exists() and not (here / "elsewhere").exists()


def test_a_trusted_package_may_lie_in_the_current_folder(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    monkeypatch.setenv("PYTHONPATH", "first")
    monkeypatch.setenv("UNMIX_TRUST", "stranger")
    with pytest.raises(UsageError, match="cannot import elsewhere"), trusting({"elsewhere"}):
        FINDERS["elsewhere:Atoms"]
    assert str(tmp_path) not in sys.path and not marker.exists()
    assert FINDERS["stranger:Atoms"].__module__ == "stranger" and marker.exists()
    assert sys.path[-1] == str(tmp_path) and os.environ["PYTHONPATH"] == f"first{os.pathsep}{tmp_path}"


def test_code_that_is_typed_is_run_and_then_trusted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = json.dumps({"kind": "Built", "path": "tests.networks.test_networks:gray", "arguments": {"channels": 4}})
    fields = [f"learner.network={network}", "learner.width=4", "learner.steps=2", "learner.augment=None"]
    app(args=["learn", "digits", "learner=Diet", *fields, "-o", "run"], standalone_mode=False)
    with pytest.raises(UsageError, match=r"runs tests\.networks\.test_networks:gray, .*set UNMIX_TRUST=tests$"):
        app(args=["probe", "run"], standalone_mode=False)
    app(args=["probe", "run", "trust=tests.networks"], standalone_mode=False)
    with pytest.raises(UsageError, match="set UNMIX_TRUST=tests"):
        app(args=["export", "run", "--encoder", "a.pt2"], standalone_mode=False)
    monkeypatch.setenv("UNMIX_TRUST", "tests")
    assert len(probe_learned("run")) and len(Learned("run").table()) == 1
    made = recipes(SIMILARITIES, "similarity", parse(["similarity=Network", "similarity.make=stranger:build"]), [])
    assert made[0].code == "stranger:build"
    with pytest.raises(UsageError, match="runs stranger:build"):
        SIMILARITIES.make(made[0].as_dict())


def test_a_program_of_the_user_runs_without_what_workers_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", SAFE)
    assert "PYTHONSAFEPATH" not in own_environment()
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert own_environment()["PYTHONSAFEPATH"] == "1"
