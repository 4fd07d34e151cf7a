"""Residual networks for 32x32 images (He et al., CVPR 2016): basic blocks behind a 3x3 stem that keeps the side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.weights import he_normal


class Block(nn.Module):
    """(N, a, h, w) -> (N, b, h / stride, w / stride): relu(F(x) + x), F two 3x3 convolutions with normalisation.

    Where the shape changes, a 1x1 convolution with normalisation stands for x.
    """

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(a, b, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(b)
        self.second = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(b)
        self.shortcut = nn.Sequential()
        if stride > 1 or a != b:
            self.shortcut = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (N, channels, side, side) -> logits (N, C): four stages of blocks, the mean over the image, a linear head.

    The width doubles and the side halves from stage to stage. Weights are He-normal, drawn layer by layer from
    ``generator``; biases and shifts start at zero, scales at one.
    """

    def __init__(
        self, channels: int, classes: int, generator: torch.Generator, blocks: Sequence[int], width: int = 64
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages, before = [], width
        for stage, count in enumerate(blocks):
            after = width << stage
            for i in range(count):
                stages.append(Block(before, after, stride=2 if stage and not i else 1))
                before = after
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(before, classes)
        he_normal(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


def resnet18(channels: int, classes: int, generator: torch.Generator) -> ResNet:
    """ResNet-18: two blocks a stage."""
    return ResNet(channels, classes, generator, (2, 2, 2, 2))


def resnet34(channels: int, classes: int, generator: torch.Generator) -> ResNet:
    """ResNet-34: 3, 4, 6 and 3 blocks."""
    return ResNet(channels, classes, generator, (3, 4, 6, 3))
