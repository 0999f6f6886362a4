"""A vision network for `unmix activations`: ResNet-20 for CIFAR-10, with weights from a state dict.

    unmix activations docs/examples/resnet20.py:build --layer layer3 --data cifar10.zip:cifar10/test/ -o acts/ \
        'arguments={"weights": "resnet20-12fca82f.th"}' 'mean=[0.485,0.456,0.406]' 'deviation=[0.229,0.224,0.225]'

--data: a folder or .zip of pictures of 32 x 32. Without weights it is the network before training, a control.
Weights: those of akamaster/pytorch_resnet_cifar10 (BSD-2); the architecture is that of He et al. 2015, arXiv
1512.03385, section 4.2, with shortcuts that subsample and pad with zero channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu


class Block(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.extra = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        side = self.extra // 2
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet20(nn.Module):
    """Images [n, 3, 32, 32] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(x))))))
        return self.linear(out.mean((2, 3)))


def build(weights: str | None = None, seed: int = 0) -> ResNet20:
    """The network in evaluation mode: with the weights of a file, or at its random start by `seed`."""
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResNet20().eval()
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return network.eval()
