"""A learnt encoder as a program of torch's own: the same numbers for any number of rows, where unmix is not there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.interop.encoder import write_encoder, write_encoder_of
from unmix.learners.diet import Diet
from unmix.networks.resnet import ResNet
from unmix.study.learning import learn
from unmix.worlds.images import Images

WORLD = Images(path="digits")
LEARNER = Diet(network=ResNet(channels=4, blocks=(1, 1)), width=4, steps=2, batch=32)
ALONE = """
import sys, numpy as np, torch
encoder = torch.export.load(sys.argv[1]).module()
assert isinstance(encoder, torch.nn.Module) and "unmix" not in sys.modules
np.save(sys.argv[3], encoder(torch.from_numpy(np.load(sys.argv[2]))).detach().numpy())
"""


def test_it_runs_without_unmix_and_gives_the_same_numbers(tmp_path):
    learnt = LEARNER.fit(WORLD)
    file = write_encoder(learnt, tmp_path / "encoder.pt2")
    encoder, x = torch.export.load(file).module(), WORLD.rows().x
    for count in (1, 2, 300):
        assert torch.allclose(encoder(x[:count]), learnt(x[:count]), atol=1e-5)
    np.save(tmp_path / "x.npy", x[:5].numpy())
    words = [str(file), str(tmp_path / "x.npy"), str(tmp_path / "h.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *words], check=True, cwd=tmp_path)
    assert np.allclose(np.load(tmp_path / "h.npy"), learnt(x[:5]).numpy(), atol=1e-5)
    with pytest.raises(UsageError, match=r"ends in \.pt2"):
        write_encoder(learnt, tmp_path / "encoder.bin")


def test_one_of_a_run_is_named(tmp_path):
    learn(WORLD, [LEARNER], tmp_path / "run", (0, 1))
    with pytest.raises(UsageError, match="name one by learner and seed"):
        write_encoder_of(tmp_path / "run", tmp_path / "encoder.pt2")
    assert write_encoder_of(tmp_path / "run", tmp_path / "encoder.pt2", seed=1).is_file()
    with pytest.raises(UsageError, match=r"no learnt representation of .*; known: \w+ seed \d"):
        write_encoder_of(tmp_path / "run", tmp_path / "encoder.pt2", learner="SimCLR")
