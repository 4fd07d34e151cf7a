"""A multilayer perceptron with tanh units, as in tabular experiments on noisy labels (Zhu et al., ICML 2023)."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Features (N, d) -> logits (N, C) through hidden layers of these widths.

    Weights are Xavier-normal, drawn layer by layer from ``generator``; biases start at zero.
    """

    def __init__(self, features: int, hidden: Sequence[int], classes: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [features, *hidden, classes]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        for layer in layers:
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)
