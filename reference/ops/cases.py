"""Awkward inputs of every operation, by name: what an implementation is held to before it is timed.

    >>> sorted(softmax(one_shape=True))
    ['large', 'odd', 'plain']

Sizes around powers of two and 1, layouts that are not contiguous, logits of +-1e4, masks of -inf, infinities, NaN,
rows that are ignored. All are small. With ``one_shape`` they have one shape, dtype and layout: for implementations that
compile anew for each. Inputs are named as in the definition's signature, float32 on CPU; :func:`placed` has them
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Cases = dict[str, dict[str, Tensor]]
INF, NAN = math.inf, math.nan
ODD_ROWS = (  # each fills a row of ordinary numbers from its second place on
    (NAN,),
    (INF,),
    (-INF,),
    (INF, -INF),
    (NAN, INF),
    (1e38, -1e38),
    (1e4, -1e4),
)


def drawn(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Normal numbers of a standard deviation, float32."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, classes: int) -> Tensor:
    """Targets in [0, classes)."""
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(1))


def odd_rows(n: int) -> Tensor:
    """(9, n): a row for each of ODD_ROWS, one of -inf alone, and one of the lowest numbers."""
    x = drawn(len(ODD_ROWS) + 2, n)
    for row, values in zip(x, ODD_ROWS, strict=False):
        row[1 : 1 + len(values)] = torch.tensor(values)
    x[-2], x[-1] = -INF, -3e38
    return x


def far(rows: int, n: int) -> Tensor:
    """Numbers near 1e4 and -1e4, whose differences matter: alone, 1e4 would leave nothing of the others."""
    return drawn(rows, n) + 1e4 * drawn(rows, n, seed=2).sign()


def long_rows(n: int = 9000) -> Tensor:
    """(6, n): ordinary numbers but for one far into a row, beyond what a kernel sees first: far above the others, far
    below them, infinite, or NaN."""
    x = drawn(6, n)
    for row, value in zip(x, (100.0, 1e4, -1e4, -INF, INF, NAN), strict=False):
        row[n - 700] = value
    return x


def softmax(*, one_shape: bool = False) -> Cases:
    """Of x (..., n)."""
    odd = odd_rows(129)
    cases = {"plain": drawn(*odd.shape), "large": far(*odd.shape), "odd": odd}
    if not one_shape:
        cases |= {f"{n} logits": drawn(n) for n in (1, 127, 128, 129)}
        cases |= {"one class": drawn(3, 1), "long": drawn(2, 5000), "late": long_rows()}
        cases |= {"three dimensions": drawn(2, 3, 40)}
        cases |= {"transposed": drawn(40, 7).T, "every other": drawn(6, 130)[:, ::2]}
    return {name: {"x": x} for name, x in cases.items()}


def logsumexp(*, one_shape: bool = False) -> Cases:
    """Of x (..., n): as for softmax."""
    return softmax(one_shape=one_shape)


def cross_entropy(*, one_shape: bool = False) -> Cases:
    """Of logits (N, V) and target (N,): the matrices of softmax, masks, and rows that are ignored.

    None is +inf, for which the definition gives inf and torch's own NaN; nor are all of a row -3e38, where even a
    float64 log-sum-exp does not show how many there are.
    """
    logits = {name: inputs["x"] for name, inputs in softmax(one_shape=one_shape).items() if inputs["x"].ndim == 2}
    logits["odd"] = logits["odd"][:-1]
    logits = {name: x[(x != INF).all(1)] for name, x in logits.items()}
    if not one_shape:
        logits |= {f"{n} x {v}": drawn(n, v) for n, v in ((1, 1), (1, 300), (33, 127), (33, 128))}
        logits |= {"masked": drawn(9, 50), "ignoring": drawn(9, 50)}
    cases = {name: {"logits": x, "target": labels(*x.shape)} for name, x in logits.items()}
    if not one_shape:
        cases["masked"]["logits"][:, 1::3] = -INF
        cases["masked"]["target"] = 3 * labels(9, 17)
        cases["ignoring"]["target"][::4] = -100
    return cases


def linear(
    n: int = 37, d: int = 19, v: int = 123, *, scale: float = 1.0, bias: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """hidden (N, D) of that scale, weight (V, D), target (N,), and if so wanted bias (V,)."""
    found = {"hidden": drawn(n, d, scale=scale, seed=seed), "weight": drawn(v, d, scale=1.0, seed=seed + 1)}
    found["target"] = labels(n, v)
    return found | ({"bias": drawn(v, scale=1.0, seed=seed + 2)} if bias else {})


def linear_cross_entropy(*, one_shape: bool = False) -> Cases:
    """Of hidden (N, D), weight (V, D), target (N,) and bias (V,): masks are biases of -inf."""
    cases = {"plain": linear(), "large": linear(scale=1e3), "nan": linear()}  # 1e3: logits reach +-1e4
    cases["nan"]["hidden"][3, 5] = NAN
    if one_shape:
        return cases
    sizes = (1, 1, 1), (5, 4, 1), (1, 5, 300), (12, 16, 127), (12, 16, 128), (129, 33, 129), (300, 8, 2000)
    cases |= {f"{n} x {d} x {v}": linear(n, d, v) for n, d, v in sizes}
    cases |= {"bias": linear(bias=True), "masked": linear(bias=True), "ignoring": linear(), "transposed": linear()}
    cases["masked"]["bias"][1::3] = -INF
    cases["masked"]["target"] = 3 * labels(37, 41)
    cases["ignoring"]["target"][::3] = -100
    cases["several parts"] = linear(70, 8, 65_537, scale=6.0, bias=True)  # of rows, and of classes; few are likely
    cases["several parts"]["bias"][60_000:60_100] = -INF
    cases["several parts"]["target"].clamp_(max=59_999)[65:68] = -100
    for name in ("hidden", "weight"):
        cases["transposed"][name] = cases["transposed"][name].T.contiguous().T
    return cases


def present(
    n: int = 37, d: int = 19, classes: int = 123, most: int = 4, *, scale: float = 1.0, seed: int = 0
) -> dict[str, Tensor]:
    """hidden (N, D) of that scale, weight (L, D), positives (N, most): none, some or all of the places are taken."""
    found = linear(n, d, classes, scale=scale, seed=seed)
    del found["target"]
    draw = torch.Generator().manual_seed(3)
    found["positives"] = torch.rand(n, classes, generator=draw).argsort(1)[:, :most]
    found["positives"][torch.rand(found["positives"].shape, generator=draw) < 0.4] = -1
    found["positives"][0] = -1
    return found


def linear_decoupled_softmax(*, one_shape: bool = False) -> Cases:
    """Of hidden (N, D), weight (L, D) and positives (N, P): rows with all labels, too."""
    cases = {"plain": present(), "large": present(scale=1e3), "nan": present()}  # 1e3: logits reach +-1e4
    cases["nan"]["hidden"][3, 5] = NAN
    if one_shape:
        return cases
    sizes = (1, 1, 1, 1), (5, 4, 1, 1), (1, 5, 300, 9), (12, 16, 127, 3), (129, 33, 129, 2), (300, 8, 2000, 20)
    cases |= {f"{n} x {d} x {v}, {p}": present(n, d, v, p) for n, d, v, p in sizes}
    cases |= {"all": present(9, 5, 8, 8), "none": present(9, 5, 8, 2), "transposed": present()}
    cases["all"]["positives"][:5] = torch.arange(8)
    cases["none"]["positives"][:] = -1
    for name in ("hidden", "weight"):
        cases["transposed"][name] = cases["transposed"][name].T.contiguous().T
    return cases


def placed(cases: Cases, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Cases:
    """The same cases on another device, their floating-point inputs in another dtype."""

    def place(x: Tensor) -> Tensor:
        return x.to(device, dtype if x.is_floating_point() else x.dtype)

    return {name: {key: place(x) for key, x in inputs.items()} for name, inputs in cases.items()}


CASES: Mapping[str, Callable[..., Cases]] = {
    "softmax": softmax,
    "logsumexp": logsumexp,
    "cross_entropy": cross_entropy,
    "linear_cross_entropy": linear_cross_entropy,
    "linear_decoupled_softmax": linear_decoupled_softmax,
}
