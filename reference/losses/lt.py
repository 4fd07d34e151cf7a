"""LegendreTron (Lam et al., ICML 2023, arXiv:2301.11695)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from reference.methods import loss
from reference.softmax import log_softmax, pick

WIDTH, DEPTH = 4, 4  # of the convex network
UNITS = WIDTH * DEPTH
FED = WIDTH // 2  # units of a layer that hear the layer below; the others hear the scores alone
INNER = (DEPTH - 1, FED, WIDTH)


def initial(classes: int, generator: torch.Generator) -> Tensor:
    """The first values (P,) of the potential of d = classes - 1 scores.

    In this order: the units' weights on the scores (d, 16) and biases (16,); before softplus, the weights of layers 2
    to 4 on the layer below (3, 2, 4), of the output on layer 4 (4,), and of the convex network and the square (2,); two
    zeros; the output's weights on the scores (d,). Zeros fill P up to a multiple of 16: then the weights of every run
    begin on 64 bytes. The values are uniform within 1 / sqrt(inputs), as in a linear layer, and the convex network and
    the square begin with the weights log 2 and 1.
    """
    scores = classes - 1

    def uniform(count: int, inputs: int) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) / math.sqrt(inputs)

    first = uniform(UNITS * scores + UNITS, scores)
    inner = uniform(math.prod(INNER) + WIDTH, WIDTH)
    parts = [first, inner, torch.tensor([0.0, math.log(math.e - 1), 0.0, 0.0]), uniform(scores, scores)]
    return torch.cat([*parts, torch.zeros(-sum(map(len, parts)) % UNITS)])


def potential_slope(scores: Tensor, learned: Tensor) -> Tensor:
    """The gradient of the potential at the scores (N, d): (N, d)."""
    size = scores.shape[-1]
    sizes = [UNITS * size, UNITS, math.prod(INNER), WIDTH, 4, size]
    weights, bias, inner, last, mixture, skip = learned[: sum(sizes)].split(sizes)
    weights = weights.view(size, UNITS)
    inner = softplus(inner.view(*INNER, 1)) / WIDTH
    mixture = softplus(mixture)

    heard = (scores @ weights + bias).mT.split(WIDTH)  # by each layer, of the scores: (WIDTH, N)
    layers = [heard[0]]  # before softplus
    for below, direct in zip(inner, heard[1:], strict=True):
        fed = (below * softplus(layers[-1])).sum(1)
        layers.append(torch.cat([direct[:FED] + fed, direct[FED:]]))
    rates = [layer.sigmoid() for layer in layers]
    backward = [softplus(last)[:, None] / WIDTH * rates[-1]]  # the convex network's slope in each layer, last to first
    for above, rate in zip(inner.flip(0), rates[-2::-1], strict=True):
        backward.append((above * backward[-1][:FED, None]).sum(0) * rate)
    convex = torch.cat(backward[::-1]).mT @ weights.mT + skip
    return mixture[0] * convex + mixture[1] * scores


def link(logits: Tensor, *, learned: Tensor) -> Tensor:
    """Log-softmax of the potential's slope at the logits (N, C - 1) and a last zero: (N, C)."""
    slope = potential_slope(logits, learned)
    return log_softmax(torch.cat([slope, torch.zeros_like(slope[:, :1])], -1))


@loss(learned=initial, outputs=lambda classes: classes - 1, link=link, tags=("proper",))
def lt(logits: Tensor, target: Tensor, *, learned: Tensor) -> Tensor:
    r"""Log loss under a link learned with the network, the gradient of a convex potential, for logits (N, C - 1) and
    target (N,); returns (N,).

    $$ -\log p_y, \quad p = \mathrm{softmax}(\nabla F(z), 0), \quad F(z) = a \, \mathrm{ICNN}(z) + \frac{b}{2} \| z \|^2
    $$

    A proper loss whatever the potential, which is strongly convex, so that the link is invertible. ICNN is a convex
    network of 4 layers of 4 softplus units; a layer reads the scores, and half of its units the layer below, through
    weights kept positive by softplus, as are a and b. The gradient is written out. With F = ||z||^2 / 2 it is
    cross-entropy with the last logit held at zero.

    One potential, as in the authors' code; its normalisation of activations, initialised from data, is left out. The
    potential is trained with the network by the same optimiser, where the authors use Adam; its first values are ours.
    """
    return -pick(link(logits, learned=learned), target)
