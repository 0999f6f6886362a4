"""A learnt encoder as a file of torch's own, which runs where unmix is not installed."""

from __future__ import annotations

from pathlib import Path

from unmix.core.errors import UsageError
from unmix.core.store import replacing
from unmix.learners.representation import Representation
from unmix.study.probing import learnt_in


def write_encoder(learnt: Representation, path: str | Path) -> Path:
    """Write the encoder alone, without heads, as a program of `torch.export`; gives back where.

    `torch.export.load(path).module()` is then a torch module from float32 [n, *shape] to [n, width], for any n, with
    its norms as in eval mode. Raises `UsageError` for a name that does not end in .pt2.
    """
    import torch

    path = Path(path)
    if path.suffix != ".pt2":
        raise UsageError(f"encoder={path}: a program of torch.export; give a name that ends in .pt2")
    module, example = learnt.to("cpu").module.eval(), torch.zeros(2, *learnt.shape)
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    with replacing(path) as part, part.open("wb") as opened:
        torch.export.save(program, opened)
    return path


def write_encoder_of(run: str | Path, path: str | Path, learner: str | None = None, seed: int | None = None) -> Path:
    """`write_encoder` of the one representation in a run of `unmix learn` that learner and seed name.

    Raises `UsageError` where several fit.
    """
    found = learnt_in(run, learner, seed)
    if len(found) > 1:
        names = ", ".join(sorted({f"{job.learner.kind} seed {job.seed}" for job, _ in found}))
        raise UsageError(f"{run}: holds {len(found)} representations ({names}); name one by learner and seed")
    return write_encoder(found[0][1], path)
