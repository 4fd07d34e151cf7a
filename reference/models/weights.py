"""How networks with rectified linear units are initialised (He et al., ICCV 2015)."""

import torch
from torch import nn


def he_normal(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every convolution and linear layer, in the order they are declared; biases become zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
