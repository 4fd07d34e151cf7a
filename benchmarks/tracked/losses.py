"""Losses: values and gradient of a batch of logits, eagerly."""

from __future__ import annotations

import torch

from .base import Timed, may_be_absent
from .inputs import labels, normal, sizes


class Losses(Timed):
    """The mean loss of logits (N, C), and its gradient, at the author's defaults."""

    version = "1"
    params = (["ce", "focal", "gce", "js", "ldr", "nce_rce", "sce", "sqen"], ["1024x100"])
    param_names = ("loss", "shape")

    def setup(self, loss: str, shape: str) -> None:
        with may_be_absent():
            from reference.methods import catalogue
        if loss not in catalogue("loss"):
            raise NotImplementedError(f"this commit has no loss '{loss}'")
        n, classes = sizes(shape)
        self.function = catalogue("loss")[loss].function
        self.logits, self.target = normal(n, classes).clone().requires_grad_(), labels(n, classes)
        self.time_gradient(loss, shape)

    def time_gradient(self, loss: str, shape: str) -> None:
        torch.autograd.grad(self.function(self.logits, self.target).mean(), self.logits)
