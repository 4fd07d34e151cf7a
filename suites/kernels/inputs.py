"""What kernels are measured on: drawn inputs, and the hidden states of a language model that has learnt something.

Kinds: "normal" is what a network gives before it has learnt; "zipf" is drawn, frequent classes likelier (Zipf's law)
and most of the probability on the target; "model" comes from a model trained here, of :data:`MODEL`'s sizes, whose
probabilities are spread more. What gains from likely classes being few is to be shown on both.

The first two need no data. No text is in every installation with the same content, so in a fresh clone without a
network "model" cannot be had: it is for track cpu, and track quick is spared its minute of training.

All are on the CPU, of values drawn in float32 from ``generator`` alone: another dtype has the same ones, rounded.
None requires a gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lossboard.artifacts import Artifact, artifact
from lossboard.data import Dataset, load, pins
from lossboard.errors import UsageError
from lossboard.protocol import nearest
from lossboard.sources import source

if TYPE_CHECKING:
    from torch import Generator, Tensor, dtype

    from reference.models.language import Recipe
    from reference.models.transformer import Transformer

KINDS = ("normal", "zipf", "model")
MARGIN, NOISE = 13.0, 1.6  # of the target's logit over the others' mean, and their standard deviation
SECOND = 0.3  # of the margin: another frequent class that is likely too


@dataclass(frozen=True)
class Model:
    """The language model of the kind "model", and how it is trained: about a minute on one core."""

    dataset: str = "tinyshakespeare"
    vocabulary: int = 16384
    width: int = 256
    layers: int = 2
    heads: int = 4
    steps: int = 300
    batch: int = 8
    context: int = 64
    lr: float = 1e-3
    held_out: float = 0.1  # the share of the text, at its end, that is not trained on
    rows: int = 8192  # hidden states of held-out text that are kept
    seed: int = 0

    def recipe(self) -> Recipe:
        from reference.models.language import Recipe

        return Recipe(self.steps, self.batch, self.context, self.lr)


MODEL = Model()


Inputs = tuple["Tensor", "Tensor", "Tensor"]  # hidden (N, D), weight (V, D), target (N,) int64


def softmax_logits(
    kind: str,
    shape: Sequence[int],
    dtype: dtype,
    generator: Generator,
    *,
    model: Model = MODEL,
    data: Callable[[str], Dataset] = load,
) -> Tensor:
    """Logits of this shape, the classes last. "normal": standard; "zipf", "model": as the products of those inputs.

    Raises:
        UsageError: there is no such kind, or the model has other sizes.
    """
    import torch

    _known(kind)
    n, v = int(torch.Size(shape[:-1]).numel()), shape[-1]
    if kind == "normal":
        return torch.randn(*shape, generator=generator).to(dtype)
    if kind == "zipf":
        return _peaks(n, v, generator).reshape(*shape).to(dtype)
    hidden, weight, _ = _of_model(n, model.width, v, generator, model, data)
    return (hidden @ weight.T).reshape(*shape).to(dtype)


def linear_cross_entropy_inputs(
    kind: str,
    n: int,
    d: int,
    v: int,
    dtype: dtype,
    generator: Generator,
    *,
    model: Model = MODEL,
    data: Callable[[str], Dataset] = load,
) -> Inputs:
    """Hidden states, classifier and targets of these sizes; of "model" n of its rows, which ``generator`` chooses.

    Raises:
        UsageError: there is no such kind, or the model has other sizes.
    """
    _known(kind)
    if kind == "model":
        hidden, weight, target = _of_model(n, d, v, generator, model, data)
    else:
        hidden, weight, target = (_normal if kind == "normal" else _zipf)(n, d, v, generator)
    return hidden.to(dtype), weight.to(dtype), target


def decoupled_softmax_inputs(
    kind: str, n: int, d: int, classes: int, most: int, dtype: dtype, generator: Generator
) -> Inputs:
    """Hidden states (n, d), label embeddings (classes, d), and positives (n, most): -1 after a row's labels.

    Rows have 1 to ``most`` labels, as many of each number, of which those that are drawn twice count once. "normal":
    all are as likely; "zipf": few are frequent, and a hidden state is near the sum of its labels' embeddings.

    Raises:
        UsageError: there is no such kind, or it is "model", whose rows have one label.
    """
    import torch

    _known(kind)
    if kind == "model":
        raise UsageError("inputs of kind 'model' have one label a row: use 'normal' or 'zipf'")
    weight = torch.randn(classes, d, generator=generator) / d**0.5
    if kind == "normal":
        drawn = torch.randint(classes, (n, most), generator=generator)
    else:
        drawn = _frequent(n * most, classes, generator).view(n, most)
    drawn = drawn.sort(1).values
    drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -1
    drawn[torch.arange(most) > torch.randint(most, (n, 1), generator=generator)] = -1
    positives = drawn.sort(1, descending=True).values
    hidden = torch.randn(n, d, generator=generator)
    if kind == "zipf":
        own = weight[positives.clamp(min=0)] * (positives >= 0)[..., None]
        hidden = MARGIN * own.sum(1) + NOISE * hidden
    return hidden.to(dtype), weight.to(dtype), positives


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"no inputs of kind '{kind}'; {nearest(kind, KINDS)}")


# -- drawn -------------------------------------------------------------------------------------------------------------


def _normal(n: int, d: int, v: int, generator: Generator) -> Inputs:
    """Logits are about standard normal, targets uniform."""
    import torch

    weight = torch.randn(v, d, generator=generator) / d**0.5
    hidden = torch.randn(n, d, generator=generator)
    return hidden, weight, torch.randint(v, (n,), generator=generator)


def _zipf(n: int, d: int, v: int, generator: Generator) -> Inputs:
    """Each hidden state is near the embedding of its target and, less, of another frequent class."""
    import torch

    weight = torch.randn(v, d, generator=generator) / d**0.5
    target, second = (_frequent(n, v, generator) for _ in range(2))
    likely = weight[target] + SECOND * weight[second]
    return MARGIN * likely + NOISE * torch.randn(n, d, generator=generator), weight, target


def _peaks(n: int, v: int, generator: Generator) -> Tensor:
    """Logits (n, v) like the products of :func:`_zipf`, without the product."""
    import torch

    logits = NOISE * torch.randn(n, v, generator=generator)
    for height in (MARGIN, SECOND * MARGIN):
        logits[torch.arange(n), _frequent(n, v, generator)] += height
    return logits


def _frequent(n: int, v: int, generator: Generator) -> Tensor:
    """n classes of v, class j with a probability of about 1 / ((j + 1) log v)."""
    import torch

    return (v ** torch.rand(n, generator=generator)).long().clamp(max=v) - 1


# -- learnt ------------------------------------------------------------------------------------------------------------


def _of_model(n: int, d: int, v: int, generator: Generator, model: Model, data: Callable[[str], Dataset]) -> Inputs:
    import torch

    if (d, v) != (model.width, model.vocabulary) or n > model.rows:
        have = f"up to {model.rows} x {model.width} x {model.vocabulary}"
        raise UsageError(f"inputs of kind 'model' are N x D x V = {have}, not {n} x {d} x {v}")
    tensors = trained(model, data).tensors
    rows = torch.randperm(model.rows, generator=generator)[:n]
    return tensors["hidden"][rows], tensors["model.head.weight"], tensors["target"][rows]


def trained(model: Model = MODEL, data: Callable[[str], Dataset] = load) -> Artifact:
    """The trained model as an artifact: made at the first call, which takes about a minute, and then loaded.

    Its ``sha256`` belongs into the records of what was measured on it: weights differ in bits between processors.

    Tensors: the model's parameters as "model.<name>", "model.head.weight" (V, D) among them; "hidden" (rows, D) and
    "target" (rows,), of the first held-out tokens in their order; "losses" (steps,), of training, in nats a token.

    Raises:
        DataError: the text cannot be had.
        UsageError: the held-out text has fewer tokens than the rows that are asked for.
    """
    return artifact("language-model", made_of(model), functools.partial(_train, model, data))


def made_of(model: Model) -> Mapping[str, Any]:
    """What decides the weights, but for the processor: the text, the sizes, the code and the version of torch."""
    from importlib.metadata import version

    modules = ("reference.models.language", "reference.models.tokens", "kernels.linear_cross_entropy.chunked")
    code = {module: source(module) for module in modules}
    return {"data": pins()[model.dataset].digest, **asdict(model), "source": code, "torch": version("torch")}


def _train(model: Model, data: Callable[[str], Dataset]) -> dict[str, Tensor]:
    import torch

    import kernels
    from reference.models.language import fit
    from reference.models.transformer import Transformer

    tokens = _tokens(model, data)
    train = round(len(tokens) * (1 - model.held_out))
    if len(tokens) - train <= model.rows:
        raise UsageError(f"{len(tokens) - train} held-out tokens of {model.dataset} are too few for {model.rows} rows")
    generator = torch.Generator().manual_seed(model.seed)
    network = Transformer(
        model.vocabulary, generator, width=model.width, layers=model.layers, heads=model.heads, tied=False
    )
    # Exact, and without the logits: a form that leaves out small gradients leaves out all of them at first.
    loss = functools.partial(kernels.linear_cross_entropy, impl="chunked")
    losses = fit(network, tokens[:train], model.recipe(), generator, loss)
    held = tokens[train : train + model.rows + 1]
    weights = {f"model.{name}": parameter for name, parameter in network.named_parameters()}
    hidden, target = _states(network, held, model.context)
    return {"hidden": hidden, "target": target, "losses": losses, **weights}


def _tokens(model: Model, data: Callable[[str], Dataset]) -> Tensor:
    """The text as tokens (N,) of the vocabulary made of it."""
    from reference.models.tokens import words

    text = data(model.dataset).features["all"].tobytes()
    return words(text, model.vocabulary).encode(text)


def _states(network: Transformer, tokens: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Hidden (N, D) of all but the last of the tokens (N + 1,), in windows, and the tokens that come next (N,)."""
    import torch

    with torch.no_grad():
        hidden = [network.hidden(part[None])[0] for part in tokens[:-1].split(context)]
    return torch.cat(hidden), tokens[1:]
