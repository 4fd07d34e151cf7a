"""A small convolutional network for 28x28 grey images: the 4-layer network of experiments on MNIST."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CNN(nn.Module):
    """Images (N, channels, side, side), side a multiple of 4 -> logits (N, C): two 5x5 convolutions, two linear layers.

    Weights are He-normal, drawn layer by layer from ``generator``; biases start at zero.
    """

    def __init__(self, channels: int, side: int, classes: int, generator: torch.Generator, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 5, padding=2)
        self.second = nn.Conv2d(width, 2 * width, 5, padding=2)
        self.hidden = nn.Linear(2 * width * (side // 4) ** 2, 128)
        self.head = nn.Linear(128, classes)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        x = F.relu(self.hidden(x.flatten(1)))
        return self.head(x)
