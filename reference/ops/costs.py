"""The least that each operation costs, by its definition: bytes read, bytes written, and floating-point operations.

    >>> softmax((1000,), 4, gradient=False)
    Cost(bytes_read=4000, bytes_written=4000, flops=5000)

The least of any algorithm: inputs read once, outputs written once, nothing in between. Where data does not fit a cache
an algorithm may need more: every softmax known reads a row twice out of cache. With ``gradient`` the outputs are those
of the forward and the backward pass, and the upstream gradient is an input; what passes between the two is not counted,
nor is a second reading of the inputs.

An operation is one addition, multiplication, comparison, exp or log. For the products of a linear layer only their
multiplications and additions count, which outnumber the rest by D. An implementation that leaves gradients out
does fewer.

Every function takes the shape of the problem, the bytes of an element of its floating-point tensors, and ``gradient``;
losses are of reduction "mean", a scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

INDEX_BYTES = 8  # of a target


@dataclass(frozen=True)
class Cost:
    """What no algorithm goes below."""

    bytes_read: int
    bytes_written: int
    flops: int


def softmax(shape: tuple[int, ...], element_bytes: int, gradient: bool) -> Cost:
    """Of logits (..., n): maximum, difference, exp, sum, quotient. Backwards y (g - sum_k g_k y_k), g upstream."""
    size = math.prod(shape)
    tensor = size * element_bytes
    return Cost(2 * tensor, 2 * tensor, 9 * size) if gradient else Cost(tensor, tensor, 5 * size)


def logsumexp(shape: tuple[int, ...], element_bytes: int, gradient: bool) -> Cost:
    """Of (..., n): maximum, difference, exp, sum. Backwards g exp(x - L): the exponentials, scaled."""
    size, rows = math.prod(shape), math.prod(shape[:-1])
    tensor, row = size * element_bytes, rows * element_bytes
    return Cost(tensor + row, row + tensor, 5 * size) if gradient else Cost(tensor, row, 4 * size)


def cross_entropy(shape: tuple[int, int], element_bytes: int, gradient: bool) -> Cost:
    """Of logits (N, V): a log-sum-exp. Backwards the exponentials, scaled, less 1 / N at the target."""
    rows, classes = shape
    size = rows * classes
    read, loss = size * element_bytes + rows * INDEX_BYTES, element_bytes
    if not gradient:
        return Cost(read, loss, 4 * size)
    return Cost(read + loss, loss + size * element_bytes, 5 * size)  # the upstream gradient is as large as the loss


def linear_cross_entropy(shape: tuple[int, int, int], element_bytes: int, gradient: bool) -> Cost:
    """Of hidden (N, D) and weight (V, D), shape (N, D, V): one product forwards, 2 N D V; three with the gradients.

    None of the (N, V) logits need reach memory.
    """
    rows, width, classes = shape
    factors, product = (rows + classes) * width * element_bytes, 2 * rows * width * classes
    read, loss = factors + rows * INDEX_BYTES, element_bytes
    if not gradient:
        return Cost(read, loss, product)
    return Cost(read + loss, loss + factors, 3 * product)


def linear_decoupled_softmax(shape: tuple[int, int, int, int], element_bytes: int, gradient: bool) -> Cost:
    """Of hidden (N, D), weight (L, D) and positives (N, P), shape (N, D, L, P): as linear cross-entropy."""
    rows, _, _, most = shape
    found = linear_cross_entropy(shape[:3], element_bytes, gradient)
    return replace(found, bytes_read=found.bytes_read + rows * (most - 1) * INDEX_BYTES)


COSTS: Mapping[str, Callable[..., Cost]] = {
    "softmax": softmax,
    "logsumexp": logsumexp,
    "cross_entropy": cross_entropy,
    "linear_cross_entropy": linear_cross_entropy,
    "linear_decoupled_softmax": linear_decoupled_softmax,
}
