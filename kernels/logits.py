"""What losses do to rows of logits (N, V): their log-sum-exp, and exp in place. In vectors for float32 on CPU.

Log-sum-exps are float64, so that exp(x - L) keeps the relative error of the softmax kernels; as float32, L = 16 alone
would cost 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from kernels.native import native, shared, threads
from kernels.rows import state, write


@native
def _lse(src, dst, rows, n):  # type: ignore[no-untyped-def]
    for i in range(rows):
        m, s = state(src + 4 * n * i, n)
        dst[i] = m + math.log(s) if s > 0.0 else (-math.inf if s == 0.0 else math.nan)


@native
def _scaled_exp(src, rows, n, lse, factor):  # type: ignore[no-untyped-def]
    for i in range(rows):
        m = np.float32(lse[i])
        write(src + 4 * n * i, src + 4 * n * i, n, m, math.exp(lse[i] - m), False, factor[i])


def in_vectors(logits: Tensor) -> bool:
    """Whether the vector kernels take these logits."""
    return logits.dtype is torch.float32 and logits.device.type == "cpu" and logits.is_contiguous()


def logsumexp(logits: Tensor) -> Tensor:
    """log sum_j exp(x_j) of logits (N, V): (N,) float64. Infinities and NaN as ``torch.logsumexp``."""
    if not in_vectors(logits):
        return torch.logsumexp(logits.double() if logits.dtype is torch.float64 else logits.float(), -1).double()
    rows, n = logits.shape
    out = torch.empty(rows, dtype=torch.float64)
    src, dst = logits.data_ptr(), out.numpy()
    shared(lambda i, j: _lse(src + 4 * n * i, dst[i:j], j - i, n), rows, threads(logits.numel()))
    odd = out.isnan()  # NaN so far where there is NaN or +inf
    if odd.any():
        out[odd] = torch.logsumexp(logits[odd], -1).double()
    return out


def scaled_exp_(logits: Tensor, lse: Tensor, factor: Tensor) -> Tensor:
    """factor_i exp(x_ij - L_i) in place, for logits (N, V), L (N,) float64 and factor (N,); returns the logits."""
    if not in_vectors(logits):
        return logits.sub_(lse.to(logits.dtype)[:, None]).exp_().mul_(factor.to(logits.dtype)[:, None])
    rows, n = logits.shape
    src, a, b = logits.data_ptr(), lse.numpy(), factor.double().numpy()
    shared(lambda i, j: _scaled_exp(src + 4 * n * i, j - i, n, a[i:j], b[i:j]), rows, threads(logits.numel()))
    increment_version(logits)
    return logits
