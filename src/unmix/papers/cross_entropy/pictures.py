"""Pictures: photographs from a zip or folder, the 92 objects, and the features of an ImageNet network on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmix.activations.imagenet import efficientnet_lite0
from unmix.core.digest import file_digest
from unmix.core.errors import Failure, UsageError
from unmix.core.pictures import SUFFIXES, picture_names
from unmix.core.pixels import read_pictures
from unmix.core.seeds import Stream

SIDE = 224
OBJECTS = "Kriegeskorte_Neuron2008_supplementalData.mat"
MARKS = ("human", "face", "animal", "natural")


def digest_of(path: str | Path) -> str:
    """Digest of the bytes of a file, or of a folder's images and MATLAB files; raises `UsageError` for neither."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (*SUFFIXES, ".mat"))
    if not files:
        raise UsageError(f"{path}: no such file, or a folder without images")
    return file_digest(*files)


def photographs(path: str | Path, count: int | None = None, side: int = SIDE, rng: int | Stream = 0) -> Tensor:
    """Photographs of a zip or folder as [n, 3, side, side] in [0, 1], in the order of their names.

    The middle square of each is scaled bilinearly. count: draws that many at random; None takes all. Raises
    `UsageError` for a path without images or with fewer than count, `Failure` for an image that cannot be read.
    """
    names = picture_names(path)
    if not names:
        raise UsageError(f"{path}: has no images ({', '.join(SUFFIXES)})")
    if count is not None:
        if count > len(names):
            raise UsageError(f"count={count}: {path} has {len(names)} images")
        stream = rng if isinstance(rng, Stream) else Stream(rng)
        chosen = stream.child("photographs").numpy().choice(len(names), count, replace=False)
        names = [names[place] for place in sorted(chosen)]
    found = read_pictures(path, names, lambda picture: _scaled(torch.from_numpy(np.array(picture)), side))[1]
    return torch.from_numpy(found)


def objects(path: str | Path, side: int = SIDE) -> tuple[Tensor, dict[str, np.ndarray]]:
    """The 92 objects of Kriegeskorte et al. 2008 as [92, 3, side, side] in [0, 1], and what each of them is.

    path: the MATLAB file of their supplement, or its folder. The marks are human, face, animal, natural: [92] bool.
    Raises `UsageError` where the file is missing, `Failure` where it holds something else.
    """
    from scipy.io import loadmat

    path = Path(path)
    file = path / OBJECTS if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file; the supplement of Kriegeskorte et al. 2008 has it")
    try:
        stimuli = loadmat(file)["stimuli_92objs"].ravel()
        pictures = torch.stack([_scaled(torch.from_numpy(np.array(s["image"])), side) for s in stimuli])
        marks = {mark: np.array([bool(s[mark].ravel()[0]) for s in stimuli]) for mark in MARKS}
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise Failure(f"{file}: not the file of the 92 objects ({error})") from None
    return pictures, marks


def efficientnet_features(pictures: Tensor, trained: bool, batch: int = 32) -> Tensor:
    """Features [n, 1280] of images [n, 3, h, w] in [0, 1]: the mean over places of the last convolution.

    trained: with the ImageNet weights of the package, else the same network at its random start. Raises `UsageError`
    where the packages are missing.
    """
    network = efficientnet_lite0(trained)
    with torch.no_grad():
        return torch.cat([network(part).mean((2, 3)) for part in pictures.split(batch)])


def _scaled(image: Tensor, side: int) -> Tensor:
    """The middle square of an image [h, w, 3] of bytes as [3, side, side] in [0, 1]."""
    height, width, channels = image.shape
    if channels != 3:
        raise ValueError(f"{channels} channels")
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = image[top : top + edge, left : left + edge].permute(2, 0, 1).float() / 255
    return torch.nn.functional.interpolate(
        square[None], (side, side), mode="bilinear", align_corners=False, antialias=True
    )[0].clamp(0, 1)
