"""The training of a small language model: windows at random, AdamW, a warm-up and a cosine to zero."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference.models.transformer import Transformer
from reference.ops.linear_cross_entropy import linear_cross_entropy

# hidden (N, D), classifier (V, D), target (N,) -> the mean; a kernel may return more where it is asked to
Loss = Callable[[Tensor, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Recipe:
    """How a language model is trained."""

    steps: int
    batch: int  # windows of a step
    context: int  # tokens of a window
    lr: float  # at its highest
    warmup: int = 20  # steps
    decay: float = 0.1  # of the matrices
    clip: float = 1.0  # the largest norm of a gradient
    betas: tuple[float, float] = (0.9, 0.95)


def fit(
    model: Transformer, tokens: Tensor, recipe: Recipe, generator: torch.Generator, loss: Loss = linear_cross_entropy
) -> Tensor:
    """Train in place to predict each next of the tokens (N,); returns the loss of each step in nats a token, (steps,).

    ``generator`` draws the windows. ``loss`` may be a kernel that does not keep the (batch x context, V) logits.
    """
    optimizer = _adamw(model, recipe)
    found = torch.empty(recipe.steps)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        inputs, target = windows(tokens, recipe.batch, recipe.context, generator)
        value = loss(model.hidden(inputs).flatten(0, 1), model.classifier, target.flatten())
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        found[step] = value.detach()
    return found


def _adamw(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """Weights decay, scales do not. One pass over the weights a step (fused): the embedding is most of them."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": recipe.decay},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step counted from 0: up in a line, then down by a cosine."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))


def windows(tokens: Tensor, batch: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows at random of tokens (N,): inputs (batch, context), and as targets the token after each."""
    starts = torch.randint(len(tokens) - context, (batch, 1), generator=generator)
    chosen = tokens[starts + torch.arange(context + 1)]
    return chosen[:, :-1], chosen[:, 1:]
