"""Common corruptions of images (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261): those that need no data.

Each takes inputs (N, channels, height, width) in [0, 1] and a generator, and returns inputs of that shape in [0, 1].
How severe they are is ours.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Corruption = Callable[[Tensor, Generator], Tensor]

NOISE = 0.15  # standard deviation
BLUR = 1.0  # standard deviation of the filter in pixels
CONTRAST = 0.4  # share of the distance to the image's mean that is left
BRIGHTER = 0.25  # added to every pixel
TURN = 20.0  # degrees, either way, at most


def noise(x: Tensor, generator: Generator) -> Tensor:
    """Normal noise on every pixel."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (x + NOISE * drawn.to(x.device)).clamp(0, 1)


def blur(x: Tensor, generator: Generator) -> Tensor:
    """A Gaussian filter of 5 x 5 pixels; borders are continued."""
    weight = torch.exp(-(torch.arange(-2.0, 3.0, dtype=x.dtype, device=x.device) ** 2) / (2 * BLUR**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(padded, weight, groups=x.shape[1])
    return F.conv2d(across, weight.mT, groups=x.shape[1]).clamp(0, 1)


def contrast(x: Tensor, generator: Generator) -> Tensor:
    """Pixels nearer to the mean of their image."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + CONTRAST * (x - mean)


def brightness(x: Tensor, generator: Generator) -> Tensor:
    """Every pixel brighter."""
    return (x + BRIGHTER).clamp(0, 1)


def rotation(x: Tensor, generator: Generator) -> Tensor:
    """Turned about the middle by a random angle, bilinear; what comes in from outside is 0."""
    angle = (2 * torch.rand(len(x), generator=generator) - 1).to(x) * torch.pi / 180 * TURN
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).clamp(0, 1)


def corruptions(shape: torch.Size) -> dict[str, Corruption]:
    """Those that mean something for inputs (N, channels, height, width): of single pixels noise alone."""
    of_images: dict[str, Corruption] = {
        "blur": blur,
        "contrast": contrast,
        "brightness": brightness,
        "rotation": rotation,
    }
    return {"noise": noise, **(of_images if shape[-1] > 1 else {})}
