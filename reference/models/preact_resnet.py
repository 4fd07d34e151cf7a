"""Residual networks with normalisation before each convolution (He et al., ECCV 2016, arXiv:1603.05027), as adversarial
training on 32x32 images uses them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.weights import he_normal


class Block(nn.Module):
    """(N, a, h, w) -> (N, b, h / stride, w / stride): F(x) + x, F twice normalisation, ReLU and a 3x3 convolution.

    Where the shape changes, a 1x1 convolution of the normalised x stands for x.
    """

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(a)
        self.first = nn.Conv2d(a, b, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(b)
        self.second = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(a, b, 1, stride, bias=False) if stride > 1 or a != b else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(x))
        beside = x if self.shortcut is None else self.shortcut(y)
        return self.second(F.relu(self.second_norm(self.first(y)))) + beside


class PreActResNet(nn.Module):
    """Images (N, channels, side, side) -> logits (N, C): a stem, four stages of blocks, the mean over the image, a
    head.

    The width doubles and the side halves from stage to stage; normalisation and ReLU come before the mean too. Weights
    are He-normal, drawn layer by layer from ``generator``; biases and shifts start at zero, scales at one.
    """

    def __init__(
        self, channels: int, classes: int, generator: torch.Generator, blocks: Sequence[int], width: int = 64
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        stages, before = [], width
        for stage, count in enumerate(blocks):
            after = width << stage
            for i in range(count):
                stages.append(Block(before, after, stride=2 if stage and not i else 1))
                before = after
        self.blocks = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)
        he_normal(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean((2, 3)))


def preact_resnet18(channels: int, classes: int, generator: torch.Generator) -> PreActResNet:
    """PreAct-ResNet-18: two blocks a stage."""
    return PreActResNet(channels, classes, generator, (2, 2, 2, 2))
