"""Gradients that are to have gradients of their own, as a penalty on gradients needs. No kernel computes those.

A backward pass that writes into memory itself would be recorded wrongly by autograd, and the second derivative would be
wrong in silence. One that still has its inputs gives way to torch's operations; one that has not refuses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels.registry import Unsupported


def differentiated(x: Tensor) -> bool:
    """Whether autograd must know of what is computed from x. Under forward mode it says that no kernel has that."""
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


def by_definition(
    function: Callable[..., Any], inputs: Sequence[Tensor | None], upstream: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients by these inputs of what a function of them returns, which torch can differentiate again.

    For ``backward`` where ``torch.is_grad_enabled()``: it is so under ``create_graph`` alone. ``function`` is made of
    torch's operations and returns as many tensors as there are upstream gradients. Memory is the function's own.
    """
    with torch.enable_grad():
        found = function(*inputs)
        values = found if isinstance(found, tuple) else (found,)
        wanted = [x for x in inputs if x is not None and x.requires_grad]
        gradients = iter(torch.autograd.grad(values, wanted, upstream, create_graph=True))
    return [next(gradients) if x is not None and x.requires_grad else None for x in inputs]


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass whose gradients have none of their own.

    Raises:
        Unsupported: in it, where they are to have some.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *upstream: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise Unsupported("the gradients of this kernel have none of their own (create_graph): use impl='eager'")
        return backward(ctx, *upstream)

    return refusing
