"""Every recipe of every table: documented, frozen, printable, and back from its own JSON."""

from __future__ import annotations

import json

import pytest

from unmix.core.errors import UsageError
from unmix.core.named import load_class, trusting
from unmix.encoders import ENCODERS
from unmix.finders import FINDERS
from unmix.learners import LEARNERS
from unmix.learners.augment import AUGMENTATIONS
from unmix.networks import DECODERS, NETWORKS
from unmix.papers import STUDIES
from unmix.regimes import INITIALISATIONS
from unmix.scores import SCORES
from unmix.scores.judging import JUDGES
from unmix.scores.similarity import SIMILARITIES
from unmix.study import ENGINES
from unmix.worlds import MIXINGS, TRANSITIONS, WORLDS

TABLES = {
    "augmentation": AUGMENTATIONS,
    "world": WORLDS,
    "mixing": MIXINGS,
    "transition": TRANSITIONS,
    "encoder": ENCODERS,
    "finder": FINDERS,
    "learner": LEARNERS,
    "network": NETWORKS,
    "decoder": DECODERS,
    "score": SCORES,
    "similarity": SIMILARITIES,
    "judge": JUDGES,
    "engine": ENGINES,
    "study": STUDIES,
    "initialisation": INITIALISATIONS,
}
ENTRIES = [(noun, name) for noun, table in TABLES.items() for name in table]
REQUIRED = {
    "Embedding": {"path": "none.npy"},
    "Built": {"path": "none:none"},
    "Network": {"make": "none:none"},
    "TimeContrastive": {"segments": 4, "length": 8},
    "SAE": {"active": 2.0},
    "JumpReLUSAE": {"active": 2.0},
    "SparseCoding": {"active": 2.0},
    "Exponentiated": {"penalty": 0.1},
    "Data": {"path": "digits"},
    "Images": {"path": "none.npz"},
    "MaskWorld": {"path": "none.npz"},
    "Series": {"path": "none.npz"},
    "DSprites": {"path": "none.npz"},
    "Shapes3D": {"path": "none.h5"},
    "MPI3D": {"path": "none.npz"},
    "Cars3D": {"path": "none"},
    "SmallNORB": {"path": "none"},
    "NaturalSprites": {"path": "none.csv"},
    "Natural": {"path": "none.csv"},
    "SynthSAEBench": {"latents": 64, "width": 16, "roots": 8},
    "MatchedWorld": {
        "latents": 6,
        "spectrum": (2.0, 1.0, 0.5, 0.2),
        "noise": (0.1, 0.1, 0.05, 0.01),
        "rates": (0.3, 0.1),
        "amplitudes": (1.0, 0.5),
        "shape": (0.0, 1.0, 2.0),
    },
}


def make(noun: str, name: str):
    return TABLES[noun][name](**REQUIRED.get(name, {}))


@pytest.mark.parametrize(("noun", "name"), ENTRIES)
def test_recipe_is_documented_frozen_and_round_trips(noun, name):
    cls = TABLES[noun][name]
    assert cls.__doc__ and len(cls.__doc__.split("\n")[0]) > 10
    for field in cls.model_fields:
        if noun in ("world", "mixing", "encoder", "finder", "learner", "network", "decoder"):
            documented = " ".join((base.__doc__ or "") for base in cls.__mro__ if base.__module__.startswith("unmix"))
            assert field in documented, f"{name}.{field} is not explained in the docstring"
    recipe = make(noun, name)
    with trusting({"none"}):
        again = TABLES[noun].make(json.loads(json.dumps(recipe.as_dict())))
    assert again == recipe or name == "Data"  # data are written with the digest of their content filled in
    assert again.digest == recipe.digest
    assert recipe.kind in str(recipe) or noun == "score"
    for field in cls.model_fields:
        with pytest.raises(Exception, match="frozen"):
            setattr(recipe, field, None)


@pytest.mark.parametrize(("noun", "name"), ENTRIES)
def test_unknown_field_is_an_error_that_names_it(noun, name):
    with pytest.raises(UsageError, match="no_such_option"):
        TABLES[noun][name](**REQUIRED.get(name, {}), no_such_option=1)


@pytest.mark.parametrize("noun", ["encoder", "finder", "learner", "network", "decoder", "world", "mixing"])
def test_science_recipes_carry_equation_and_reference(noun):
    for name in TABLES[noun]:
        if name == "Data":
            continue
        cls = TABLES[noun][name]
        assert cls.equation, name
        assert cls.reference or name == "Nearest", name


@pytest.mark.parametrize("noun", list(TABLES))
def test_unknown_kind_lists_near_matches(noun):
    name = next(iter(TABLES[noun]))
    with pytest.raises(UsageError, match=name):
        TABLES[noun].make({"kind": name[:-1] + "x"} if len(name) > 3 else {"kind": "x" + name})


def test_a_class_of_unmix_goes_by_its_name_alone():
    with pytest.raises(UsageError, match=r"of unmix only these; did you mean|of unmix only these; known: TopKSAE"):
        FINDERS.make({"kind": "unmix.finders.linear:PCA", "width": 3})
    with trusting({"unmix"}):
        assert FINDERS.make({"kind": "unmix.finders.linear:PCA", "width": 3}).width == 3


@pytest.mark.parametrize("noun", list(TABLES))
def test_classes_subclass_the_base_that_a_class_from_outside_must_have(noun):
    table = TABLES[noun]
    base = load_class(table.base)
    assert all(issubclass(table[name], base) and table[name] is not base for name in table)


def test_a_recipe_of_another_noun_is_refused():
    with pytest.raises(UsageError, match="PCA is no encoder"):
        ENCODERS.make(FINDERS.make({"kind": "PCA"}))
