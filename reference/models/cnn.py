"""A small convolutional network for 28x28 grey images, of four layers as in experiments on MNIST."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.weights import he_normal


class CNN(nn.Module):
    """Images (N, channels, side, side), side a multiple of 4 -> logits (N, C).

    Two 3x3 convolutions, each with a 2x2 max-pool, a hidden layer of 64 and the head. ReLU comes after the pool: the
    same function for a quarter of the work. Weights are He-normal, drawn layer by layer from ``generator``; biases
    start at zero.
    """

    def __init__(self, channels: int, side: int, classes: int, generator: torch.Generator, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(2 * width * (side // 4) ** 2, 64)
        self.head = nn.Linear(64, classes)
        he_normal(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = halved(self.first(x)).relu_()
        x = halved(self.second(x)).relu_()
        x = self.hidden(x.flatten(1)).relu_()
        return self.head(x)


def halved(x: Tensor) -> Tensor:
    """2x2 max-pool (N, C, h, w) -> (N, C, h / 2, w / 2), sides even; without gradients it records no positions."""
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(x[..., ::2], x[..., 1::2])
