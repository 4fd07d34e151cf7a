"""Causal language models of the Hugging Face hub, by id and revision: read, and given the text in tokens of theirs.

What is compressed is the body's linear layers. The head, which often shares its weights with the embedding, and the
embedding stay in float32, as everywhere here. The package `transformers` is needed.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossboard.errors import UsageError
from lossboard.protocol import Model

PROBE = 8  # tokens on which the parts are held to the whole
CLOSE = 1e-3  # of logits, beside the largest


class Causal(nn.Module):
    """Tokens (N, T) to logits (N, T, V): a model without its head, and the head as a matrix and not as a layer."""

    def __init__(self, body: nn.Module, head: nn.Module, tied: bool) -> None:
        super().__init__()
        self.body = body
        self.head = None if tied else nn.Parameter(_matrix(head).detach().clone())
        bias = getattr(head, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.body(input_ids=tokens, use_cache=False).last_hidden_state
        weight = self.body.get_input_embeddings().weight if self.head is None else self.head  # type: ignore[operator]
        return F.linear(hidden, weight, self.bias)


@functools.lru_cache(maxsize=1)
def pretrained(model: Model) -> tuple[Causal, Any]:
    """The network in float32, in evaluation mode, and its tokenizer. Weights are read from safetensors alone.

    Raises:
        UsageError: `transformers` is not installed, the model cannot be had, or its logits are not a body's outputs
            times a matrix.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UsageError("models of the hub need the package transformers: pip install 'lossboard[lm]'") from error
    where = {"revision": model.revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.repository, **where)
        whole = AutoModelForCausalLM.from_pretrained(
            model.repository, use_safetensors=True, dtype=torch.float32, **where
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise UsageError(f"'{model.repository}' at {model.revision} cannot be read: {first}") from error
    whole.eval()
    _linear(whole)
    head = whole.get_output_embeddings()
    tied = head is not None and head.weight is whole.get_input_embeddings().weight
    if head is None or not isinstance(head, nn.Linear):
        raise UsageError(f"'{model.repository}': its head is no linear layer, which is all that is known here")
    network = Causal(whole.base_model, head, tied).eval()
    _held_to(whole, network, model.repository)
    return network, tokenizer


def _linear(network: nn.Module) -> None:
    """Replace GPT-2's layers, whose matrices are stored the other way, by linear ones."""
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv1D):
                columns, rows = layer.weight.shape
                made = nn.Linear(columns, rows)
                made.weight.data, made.bias.data = layer.weight.data.T.contiguous(), layer.bias.data
                setattr(parent, name, made)


def _matrix(head: nn.Module) -> Tensor:
    weight = head.weight
    assert isinstance(weight, Tensor)
    return weight


@torch.no_grad()
def _held_to(whole: nn.Module, network: Causal, repository: str) -> None:
    """Refuse a model whose parts do not make the whole: with a cap on logits, a factor, or a projection between."""
    tokens = torch.arange(PROBE)[None]
    wanted, found = whole(input_ids=tokens, use_cache=False).logits, network(tokens)
    if found.shape != wanted.shape or (found - wanted).abs().max() > CLOSE * wanted.abs().max():
        raise UsageError(f"'{repository}': its logits are not its last hidden states times a matrix; it is not known")


def tokens(text: bytes, tokenizer: Any) -> Tensor:
    """A text in a model's tokens (N,), without any that mark its ends."""
    found = tokenizer(text.decode("utf-8"), add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(found, dtype=torch.int64)
