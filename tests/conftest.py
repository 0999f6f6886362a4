"""Shared fixtures: small worlds, and a guard that nothing touches global random state."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from unmix.worlds.sparse import SparseWorld

settings.register_profile("same examples in every run", derandomize=True)
settings.load_profile("same examples in every run")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone():
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state().clone())  # noqa: NPY002
    yield
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.fixture(scope="session")
def world() -> SparseWorld:
    return SparseWorld(latents=24, width=12, active=2, noise=0.01)


@pytest.fixture(scope="session")
def sample(world):
    return world.sample(600, 0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser that runs without a screen; skipped where there is none."""
    executable = os.environ.get("UNMIX_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("no chromium: set UNMIX_CHROMIUM to a browser, or install the package chromium")
    api = pytest.importorskip("playwright.sync_api")
    quiet = ("background-networking", "component-update", "sync")
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{word}" for word in quiet)]
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield opened
        opened.close()
