"""The 8-layer convolutional network that experiments on CIFAR-10 with noisy labels train (Ma et al., ICML 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.weights import he_normal


class CNN8(nn.Module):
    """Images (N, channels, side, side), side a multiple of 8 -> logits (N, C).

    Three pairs of 3x3 convolutions, each pair followed by a 2x2 max-pool, a hidden layer of 256 and the head. Batch
    normalisation and ReLU follow every layer but the head, so only the head has a bias. Weights are He-normal, drawn
    layer by layer from ``generator``.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        classes: int,
        generator: torch.Generator,
        widths: tuple[int, int, int] = (64, 128, 196),
    ) -> None:
        super().__init__()
        blocks = []
        for width in widths:
            blocks += [_layer(channels, width), _layer(width, width), nn.MaxPool2d(2)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Linear(channels * (side // 8) ** 2, 256, bias=False)
        self.norm = nn.BatchNorm1d(256)
        self.head = nn.Linear(256, classes)
        he_normal(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(self.blocks(x).flatten(1))
        return self.head(F.relu(self.norm(x)))


def _layer(channels: int, width: int) -> nn.Sequential:
    """(N, channels, h, w) -> (N, width, h, w): 3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
