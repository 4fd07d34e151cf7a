"""A small language model: a decoder of transformer blocks (Vaswani et al., NeurIPS 2017, arXiv:1706.03762).

As such models are built now: normalisation before each layer (Xiong et al., ICML 2020, arXiv:2002.04745), rotary
positions (Su et al. 2021, arXiv:2104.09864), no biases, and the weights of GPT-2 at the start.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 10000.0  # of the wavelengths of the positions
STD = 0.02  # of the weights at the start


class Transformer(nn.Module):
    """Tokens (N, T), integers in [0, vocabulary) -> logits (N, T, vocabulary) of the token after each.

    ``width`` D is a multiple of twice the ``heads``. Positions are relative, so any T will do. ``tied``: the classifier
    is the embedding (Press & Wolf, EACL 2017, arXiv:1608.05859). Weights are normal, drawn layer by layer from
    ``generator``; scales start at one.

    >>> model = Transformer(65, torch.Generator().manual_seed(0), width=32, layers=2, heads=4)
    >>> model(torch.zeros(3, 10, dtype=torch.int64)).shape
    torch.Size([3, 10, 65])
    """

    def __init__(
        self,
        vocabulary: int,
        generator: torch.Generator,
        *,
        width: int = 192,
        layers: int = 4,
        heads: int = 6,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} must be a multiple of 2 x {heads} heads: rotary positions turn pairs")
        self.head_width = width // heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)
        gpt2_normal(self, generator, layers)

    @property
    def classifier(self) -> Tensor:
        """The weight (vocabulary, D) that makes logits of hidden states."""
        return (self.embedding if self.head is None else self.head).weight

    def hidden(self, tokens: Tensor) -> Tensor:
        """The states (N, T, D) that the classifier takes; that at t depends on the tokens up to t alone."""
        x = self.embedding(tokens)
        turns = rotations(tokens.shape[1], self.head_width, x)
        for block in self.blocks:
            x = block(x, turns)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.hidden(tokens)
        return F.linear(states, self.classifier) if self.head is None else self.head(states)


class Block(nn.Module):
    """(N, T, D) -> the same: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention_out(self.attended(self.attention_norm(x), turns))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))

    def attended(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Each position's mean of the values up to it, weighted by how its query fits their keys, head by head."""
        split = self.queries_keys_values(x).unflatten(2, (3, self.heads, self.head_width))
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (N, heads, T, D / heads) each
        y = F.scaled_dot_product_attention(turned(q, turns), turned(k, turns), v, is_causal=True)
        return y.transpose(1, 2).flatten(2)


def rotations(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, width / 2) of the positions' angles, in the dtype and on the device of ``like``."""
    each = torch.arange(0, width, 2, device=like.device, dtype=like.dtype) / width
    angles = torch.arange(length, device=like.device, dtype=like.dtype)[:, None] * BASE**-each
    return angles.cos(), angles.sin()


def turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """(..., T, d): the pairs (i, i + d / 2) of each position turned by its angles; products then know distances."""
    cos, sin = turns
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def gpt2_normal(model: nn.Module, generator: torch.Generator, layers: int) -> None:
    """Draw the weights of GPT-2 (Radford et al. 2019), in the order they are declared.

    Those that write to the residual stream, which adds two a layer, are smaller by the root of their number.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            shrink = (2 * layers) ** -0.5 if name.endswith("_out.weight") else 1.0
            nn.init.normal_(parameter, std=STD * shrink, generator=generator)
