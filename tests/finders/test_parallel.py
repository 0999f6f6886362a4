"""Fits in slices of a batch and in several processes: the result of one process on whole batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.watch import Checkpoint
from unmix.finders.features import Features
from unmix.finders.linear import PCA
from unmix.finders.sae import SAE
from unmix.finders.thresholds import BatchTopKSAE, JumpReLUSAE
from unmix.finders.topk_sae import TopKSAE
from unmix.study import verbs
from unmix.study.study import Results
from unmix.worlds.sparse import SparseWorld

WORLD = SparseWorld(latents=24, width=12, active=2, noise=0.01)
COMMON: dict[str, Any] = {"width": 32, "steps": 30, "batch": 64, "lr": 1e-2}
SPARSE = {**COMMON, "lr": 3e-3, "aux_k": 4, "dead_after": 200}


def together() -> list[Any]:
    """Finders that two processes fit together, dead latents and all that looks at a whole batch included."""
    return [
        TopKSAE(**SPARSE, k=3),
        TopKSAE(**SPARSE, k=3, accumulate=2),
        TopKSAE(**SPARSE, k=3, split="atoms"),
        BatchTopKSAE(**SPARSE, k=3),
        JumpReLUSAE(**SPARSE, active=3),
        SAE(**COMMON, active=3, dead_after=200),
        SAE(**COMMON, active=3, encoder="Gated", revive="aux", aux_k=4, dead_after=200),
        SAE(**COMMON, encoder={"kind": "Matryoshka", "k": 3}, accumulate=2),
    ]


def rows() -> torch.Tensor:
    return WORLD.sample(500, 0).x


def same(one: Features, other: Features, start: torch.Tensor) -> None:
    """Equal but for rounding, which training magnifies: small beside what the fit has moved."""
    moved = (one.atoms - start).abs().max()
    assert moved > 0.05
    assert (one.atoms - other.atoms).abs().max() < 5e-3 * moved
    h = rows()[:100]
    assert torch.allclose(one.reconstruct(h), other.reconstruct(h), atol=5e-3)
    assert other.about["fvu"] == pytest.approx(one.about["fvu"], rel=1e-2, abs=1e-3)
    assert other.about["l0"] == pytest.approx(one.about["l0"], rel=1e-2, abs=0.05)


def begun(finder: Any) -> torch.Tensor:
    """The atoms before the first step, nearly: those after one with hardly any learning rate."""
    return finder.but(steps=1, lr=1e-12, accumulate=1).fit(rows(), 1).atoms


@pytest.mark.parametrize(
    "finder",
    [
        TopKSAE(**SPARSE, k=3),
        JumpReLUSAE(**SPARSE, penalty=1e-3),
        SAE(**COMMON, active=3, dead_after=200),
        SAE(**COMMON, penalty=0.01, sparsity="tanh"),
    ],
    ids=str,
)
def test_a_batch_in_slices_gives_the_same_features(finder):
    whole = finder.fit(rows(), 1)
    same(whole, finder.but(accumulate=4).fit(rows(), 1), begun(finder))


def test_slices_that_cannot_be_are_refused_before_the_first_step():
    for finder, match in (
        (TopKSAE(**SPARSE, k=3, accumulate=3), "not to be cut into 3 equal slices"),
        (BatchTopKSAE(**SPARSE, k=3, accumulate=2), "chosen in the whole batch"),
        (JumpReLUSAE(**SPARSE, active=3, accumulate=2), "active is of the whole batch"),
        (SAE(**COMMON, encoder={"kind": "BatchTopK", "k": 3}, accumulate=2), "use BatchTopKSAE"),
    ):
        with pytest.raises(UsageError, match=match):
            finder.fit(rows(), 1)
    with pytest.raises(UsageError, match="accumulate=2 must be 1 where atoms are split"):
        TopKSAE(**SPARSE, k=3, accumulate=2, split="atoms")


def test_how_a_fit_is_run_enters_its_digest_only_where_it_is_not_as_usual():
    plain = TopKSAE(**SPARSE, k=3)
    assert "accumulate" not in plain.as_dict() and "split" not in plain.as_dict()
    assert plain.but(accumulate=2).as_dict()["accumulate"] == 2
    assert TopKSAE(**{k: v for k, v in plain.but(split="atoms").as_dict().items() if k != "kind"}).split == "atoms"


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from unmix.core import parallel
from unmix.core.watch import Checkpoint
from unmix.finders.linear import PCA
from unmix.study import verbs
from tests.finders.test_parallel import WORLD, Kept, rows, sharded_codes, together
out = Path(sys.argv[1])
digests = []
for number, finder in enumerate(together()):
    features = finder.fit(rows(), 1)
    digests.append(features.digest)
    if parallel.rank() == 0:
        features.save(out / str(number))
for number in (0, 2):
    finder = together()[number].but(steps=60)
    whole = finder.fit(rows(), 1, Kept(out / f"kept-{number}"))
    assert (out / f"kept-{number}" / "checkpoint.safetensors").is_file()
    features = finder.fit(rows(), 1, Checkpoint(out / f"kept-{number}", "again"))
    digests.append(features.digest)
    assert (whole.atoms - features.atoms).abs().max() < 1e-5, number
sharded_codes()
verbs.fit(WORLD, together()[:1] + [PCA(width=4)], out / "run", samples=(400,), test=100)
(out / f"rank-{parallel.rank()}.txt").write_text(" ".join(digests))
"""


class Kept(Checkpoint):
    """Keeps the twelfth state it is offered, as if the run had been killed then, and leaves it in the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "kept", seconds=0)
        self.offered = 0

    def save(self, state: Any) -> None:
        self.offered += 1
        if self.offered == 12:
            super().save(state)

    def done(self) -> None:
        pass


def sharded_codes() -> None:
    """Codes and reconstructions with the atoms split are those of all atoms in one place, ties included."""
    from unmix.core import parallel
    from unmix.kernels.sharded import decode_sharded, encode_sharded
    from unmix.kernels.topk import decode, encode_topk

    draw = torch.Generator().manual_seed(0)
    weight, h = torch.randn(51, 7, generator=draw), torch.randn(40, 7, generator=draw)
    weight[30] = weight[5]
    bias, own = torch.randn(51, generator=draw) * 0.1, parallel.shares(51)[parallel.rank()]
    bias[30] = bias[5]
    values, indices = encode_sharded(h, weight[own], bias[own], 6, own.start)
    wanted = encode_topk(h, weight, bias, 6)
    assert torch.allclose(values, wanted[0], atol=1e-6)
    active = wanted[0] > 0
    assert torch.equal(indices[active], wanted[1][active])
    made = decode_sharded(values, indices, weight[own], h[0], own.start)
    assert torch.allclose(made, decode(*wanted, weight, h[0]), atol=1e-5)


def test_two_processes_give_the_features_of_one(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank-0.txt").read_text() == (tmp_path / "rank-1.txt").read_text()
    for number, finder in enumerate(together()):
        same(finder.fit(rows(), 1), Features.load(tmp_path / str(number)), begun(finder.but(accumulate=1)))
    # The verbs as well: the first process stores, once.
    two = Results(tmp_path / "run")
    one = verbs.fit(WORLD, [together()[0], PCA(width=4)], tmp_path / "one", samples=(400,), test=100)
    assert not two.failures and list(two.table()["finder"]) == ["PCA", "TopKSAE"]
    assert two.table()["mcc"].to_numpy() == pytest.approx(one.table()["mcc"].to_numpy(), abs=5e-3)


def test_sharded_codes_with_one_process_are_the_codes():
    sharded_codes()
