"""Training steps of TopK, BatchTopK and JumpReLU autoencoders, Adam, float32; all start from the same weights.

AuxK: a tenth of the latents is dead before every step and reconstructs the residual with its 64 largest. JumpReLU:
all thresholds start where k latents of a row are active.
"""

from __future__ import annotations

from tasks.topk_steps import (
    DenseTorch,
    DictionaryLearning,
    DictionaryLearningAuxK,
    EncoderProduct,
    Overcomplete,
    SAELens,
    SAELensAuxK,
    Sparsify,
    Unmix,
    UnmixAuxK,
    UnmixTorch,
)
from tasks.topk_thresholds import (
    DictionaryLearningBatch,
    DictionaryLearningJump,
    OvercompleteBatch,
    SAELensBatch,
    SAELensJump,
    UnmixBatch,
    UnmixBatchTorch,
    UnmixJump,
    UnmixJumpTorch,
)

SIZES = {
    "d384": {"b": 4096, "d": 384, "m": 6144, "k": 32},
    "d768": {"b": 4096, "d": 768, "m": 12288, "k": 32},
}
QUICK = {"small": {"b": 1024, "d": 128, "m": 2048, "k": 16}}
FLOOR = "encoder product"
UNIT = "step"

CONTENDERS = {
    FLOOR: EncoderProduct,
    "unmix": Unmix,
    "unmix, torch only": UnmixTorch,
    "sparsify": Sparsify,
    "overcomplete": Overcomplete,
    "dictionary_learning": DictionaryLearning,
    "SAELens": SAELens,
    "dense torch": DenseTorch,
    "unmix AuxK": UnmixAuxK,
    "dictionary_learning AuxK": DictionaryLearningAuxK,
    "SAELens AuxK": SAELensAuxK,
    "unmix BatchTopK": UnmixBatch,
    "unmix BatchTopK, torch": UnmixBatchTorch,
    "overcomplete BatchTopK": OvercompleteBatch,
    "dictionary_learning BatchTopK": DictionaryLearningBatch,
    "SAELens BatchTopK": SAELensBatch,
    "unmix JumpReLU": UnmixJump,
    "unmix JumpReLU, torch": UnmixJumpTorch,
    "dictionary_learning JumpReLU": DictionaryLearningJump,
    "SAELens JumpReLU": SAELensJump,
}
OWN = ("unmix", "unmix AuxK", "unmix BatchTopK", "unmix JumpReLU")
# (contender, other, the ratio other / contender that is wanted at least)
GOALS = {
    "d384": [(name, FLOOR, 1 / 1.8) for name in OWN],
    "d768": [(name, FLOOR, 1 / 1.45) for name in OWN],
    "": [
        ("unmix", "sparsify", 1.5),
        ("unmix", "overcomplete", 4.0),
        ("unmix", "dictionary_learning", 5.0),
        ("unmix", "SAELens", 6.0),
        ("unmix, torch only", "SAELens", 4.0),
    ],
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders whose start was not that of our own of the kind, or whose error did not fall: name -> why."""
    wrong = {}
    for name, facts in checks.items():
        kind = next((kind for kind in ("BatchTopK", "JumpReLU") if kind in name), "")
        common = checks.get(f"unmix {kind}".strip(), {}).get("fvu before")
        if facts and common is not None and abs(facts["fvu before"] - common) > 1e-3 * common:
            wrong[name] = f"starts at fvu {facts['fvu before']:.4f}, not {common:.4f}"
        elif facts and not facts["fvu after"] < facts["fvu before"]:
            wrong[name] = f"fvu does not fall ({facts['fvu before']:.4f} to {facts['fvu after']:.4f})"
    return wrong
