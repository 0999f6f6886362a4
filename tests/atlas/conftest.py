"""Small atlases of text, images and numbers, with hostile names and a dead feature, and a browser to open them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.atlas.bundle import write_atlas
from unmix.core.codes import Codes
from unmix.core.items import ImageItems, Items, TextItems, VectorItems

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "\u2028\u2029'\"`${window.pwned=1}\\",
    "__proto__",
    "\u202eesrever",
    "\ud800",
)
DEAD = 5
FEATURES = 150
WORDS = (
    "[CLS]",
    *HOSTILE,
    "harbour",
    "##ing",
    "boat",
    "sail",
    "wind",
    "the",
    "a",
    "of",
    "and",
    "stone",
    "tide",
    "rope",
)


@dataclass(frozen=True)
class Case:
    """What an atlas was written from, and where it is."""

    codes: Codes
    items: Any
    atoms: torch.Tensor
    options: dict[str, Any]
    index: Path

    def read(self, name: str) -> Any:
        """What a data file hands to the page."""
        return read(self.index, name)


def read(index: Path, name: str) -> Any:
    """What the data file `name` beside an index.html hands to the page."""
    text = (index.parent / "data" / f"{name}.js").read_text(encoding="ascii")
    head = f'atlasData("{name}",'
    assert text.startswith(head) and text.endswith(");\n")
    return json.loads(text[len(head) : -3])


def text_items() -> TextItems:
    """Forty documents of 60 tokens, of which the first is no row; the last nine repeat the text of number 30."""
    rng = np.random.default_rng(3)
    bodies = rng.integers(1, len(WORDS), (40, 60))
    bodies[31:] = bodies[30]
    bodies[:, 0] = 0
    stream = bodies.reshape(-1).astype(np.int32)
    titles = tuple(f"document {i} {HOSTILE[i % 3]}" for i in range(40))
    return TextItems(stream, np.arange(0, 2401, 60), np.flatnonzero(stream != 0), WORDS, titles)


def text_codes(items: TextItems) -> Codes:
    """Features that fire on a word each, one on every tenth row, feature 7 in document 2 only; feature 5 never."""
    rng = np.random.default_rng(4)
    words = items.stream[items.places]
    dense = np.zeros((len(items), FEATURES), np.float32)
    for feature in range(FEATURES):
        rows = np.flatnonzero(words == 1 + feature % (len(WORDS) - 1))
        dense[rows, feature] = rng.gamma(3, 1, len(rows)) + 0.05
    dense[:, DEAD] = 0
    dense[::8, 3] = rng.gamma(2, 1, len(dense[::8]))
    dense[:, 7] = np.where(items.documents() == 2, rng.gamma(3, 1, len(dense)), 0)
    return Codes(torch.from_numpy(dense), None, FEATURES).ragged()


def write(folder: Path, codes: Codes, items: Items, atoms: torch.Tensor, **options: Any) -> Case:
    """An atlas at `folder`."""
    filled = {
        "title": f"A title {HOSTILE[0]}",
        "subtitle": HOSTILE[1],
        "verdict": f"Trust it {HOSTILE[2]}.",
        **options,
    }
    return Case(codes, items, atoms, filled, write_atlas(folder, codes=codes, items=items, atoms=atoms, **filled))


def table() -> pd.DataFrame:
    """Extra columns with NaN, infinity, text and hostile names."""
    agreement = np.linspace(1, 0, FEATURES)
    agreement[4], agreement[6] = np.nan, np.inf
    return pd.DataFrame(
        {
            "seed agreement": agreement,
            HOSTILE[0]: [HOSTILE[1] if i % 2 else None for i in range(FEATURES)],
            "name": ["the sea" if i == 9 else None for i in range(FEATURES)],
        }
    )


@pytest.fixture(scope="session")
def text_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Text with hostile tokens and titles, a dead feature, and a table."""
    items = text_items()
    atoms = torch.randn(FEATURES, 12, generator=torch.Generator().manual_seed(1))
    atoms[11] = atoms[10] + 0.01
    about = {"model": "none", HOSTILE[1]: HOSTILE[0]}
    return write(
        tmp_path_factory.mktemp("text") / "atlas", text_codes(items), items, atoms, table=table(), about=about
    )


@pytest.fixture(scope="session")
def image_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Digits of eight by eight pixels with signed codes and atoms as pictures."""
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[:400], labels[:400]
    pca = PCA(10, random_state=0).fit(pixels)
    codes = Codes(torch.from_numpy(pca.transform(pixels).astype(np.float32)), None, 10)
    items = ImageItems((pixels.reshape(-1, 8, 8) * 15.9).astype(np.uint8), tuple(f"digit {i}" for i in labels))
    atoms = torch.from_numpy(pca.components_.astype(np.float32))
    return write(tmp_path_factory.mktemp("image") / "atlas", codes, items, atoms, atom_images=True, about={})


@pytest.fixture(scope="session")
def vector_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Rows that are known by number only, and rectangular codes."""
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(200, 3, generator=generator)
    indices = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(200)])
    items = VectorItems(np.arange(1000, 1200))
    return write(
        tmp_path_factory.mktemp("vector") / "atlas", Codes(values, indices, 9), items, torch.eye(9), about={}
    )
