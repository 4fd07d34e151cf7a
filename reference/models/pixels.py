"""A network behind a fixed scaling of its inputs, so that attacks act on values in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scaled(nn.Module):
    """Inputs (N, channels, ...) in [0, 1] -> ``network((x - mean) / deviation)``, both one number a channel.

    ``flat`` has the network receive rows (N, features) in place of images.
    """

    def __init__(
        self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float], *, flat: bool = False
    ) -> None:
        super().__init__()
        self.network, self.flat = network, flat
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.scaled(x)
        return self.network(x.flatten(1) if self.flat else x)

    def scaled(self, x: Tensor) -> Tensor:
        """What the network sees of x (N, channels, ...), before it is flattened."""
        shape = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.deviation.view(shape)
