"""A small convolutional network for 28x28 grey images, of four layers as in experiments on MNIST."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.weights import he_normal


class CNN(nn.Module):
    """Images (N, channels, side, side), side a multiple of 4 -> logits (N, C): two convolutions, two linear layers.

    A 3x3 convolution with a 2x2 max-pool, a 5x5 convolution of stride 2, a hidden layer of 64 and the head. ReLU comes
    after the pool: the same values and gradients from a quarter of the work. Weights are He-normal, drawn layer by
    layer from ``generator``; biases start at zero.
    """

    def __init__(self, channels: int, side: int, classes: int, generator: torch.Generator, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 5, stride=2, padding=2)
        self.hidden = nn.Linear(2 * width * (side // 4) ** 2, 64)
        self.head = nn.Linear(64, classes)
        he_normal(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(x), 2).relu_()
        x = self.second(x).relu_()
        x = self.hidden(x.flatten(1)).relu_()
        return self.head(x)
