"""What kernels are measured on: sizes, how the probability is spread, and the trained model as an artifact."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lossboard.data import Dataset
from lossboard.errors import UsageError
from suites.kernels.inputs import (
    KINDS,
    MODEL,
    Model,
    decoupled_softmax_inputs,
    linear_cross_entropy_inputs,
    made_of,
    softmax_logits,
    trained,
)

DRAWN = [kind for kind in KINDS if kind != "model"]
TINY = Model(vocabulary=266, width=16, layers=1, heads=2, steps=60, batch=4, context=8, lr=1e-2, rows=40)
LINE = b"To be, or not to be: that is the question. "


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def text(name: str) -> Dataset:
    content = np.frombuffer(LINE * 60, np.uint8)
    return Dataset(name, {"all": content}, {"all": np.zeros(0, np.int64)}, 0, (), "text", "test")


def no_text(name: str) -> Dataset:
    raise AssertionError("the model is trained already")


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))


def likely(logits):
    """Mean number of classes above 2^-12, and the mean of the largest probability."""
    p = torch.softmax(logits.double(), -1)
    return (p > 2**-12).sum(-1).double().mean().item(), p.amax(-1).mean().item()


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sizes_and_dtypes(kind, dtype):
    found = linear_cross_entropy_inputs(kind, 30, 16, 500, dtype, seeded())
    hidden, weight, target = found
    assert (hidden.shape, weight.shape, target.shape) == ((30, 16), (500, 16), (30,))
    assert hidden.dtype == weight.dtype == dtype
    assert target.dtype == torch.int64
    assert 0 <= target.min() <= target.max() < 500
    logits = softmax_logits(kind, (3, 5, 70), dtype, seeded())
    assert (logits.shape, logits.dtype) == ((3, 5, 70), dtype)
    assert not any(tensor.requires_grad for tensor in (logits, *found))


@pytest.mark.parametrize("kind", DRAWN)
def test_the_generator_decides_and_the_dtype_rounds(kind):
    def both(dtype, seed):
        found = linear_cross_entropy_inputs(kind, 30, 16, 500, dtype, seeded(seed))
        return (*found, softmax_logits(kind, (4, 70), dtype, seeded(seed)))

    torch.manual_seed(0)
    first = both(torch.float32, 0)
    torch.manual_seed(1)
    second, other, half = both(torch.float32, 0), both(torch.float32, 1), both(torch.bfloat16, 0)
    assert all(map(torch.equal, first, second))
    assert not any(map(torch.equal, first, other))
    for a, b in zip(first, half, strict=True):
        assert torch.equal(a.to(b.dtype), b)


def test_zipf_is_peaked_on_its_targets_and_normal_is_not():
    (hidden, weight, _), zipf = (
        linear_cross_entropy_inputs(kind, 200, 256, 8192, torch.float32, seeded()) for kind in DRAWN
    )
    many, top = likely(hidden @ weight.T)
    assert many > 500
    assert top < 0.05
    hidden, weight, target = zipf
    few, top = likely(hidden @ weight.T)
    assert few < 8192 / 50
    assert top > 0.5
    right = (hidden @ weight.T).argmax(1) == target
    assert right.double().mean() > 0.8
    low = (target < 91).double().mean().item()  # the root of 8192: half of Zipf's probability
    assert low == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("kind", DRAWN)
def test_rows_have_some_labels_each_once(kind):
    hidden, weight, positives = decoupled_softmax_inputs(kind, 400, 64, 500, 5, torch.float32, seeded())
    assert (hidden.shape, weight.shape, positives.shape) == ((400, 64), (500, 64), (400, 5))
    counts = (positives >= 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3, 4, 5}
    assert positives.max() < 500
    for row, count in zip(positives.tolist(), counts.tolist(), strict=True):
        assert len(set(row[:count])) == count
        assert row[count:] == [-1] * (5 - count)
    logits = hidden @ weight.T
    own = logits[torch.arange(400), positives[:, 0]].mean() - logits.mean()
    assert (own > 9) == (kind == "zipf")
    with pytest.raises(UsageError, match="one label a row"):
        decoupled_softmax_inputs("model", 4, 4, 8, 2, torch.float32, seeded())


def test_peaked_logits_are_like_the_products():
    hidden, weight, _ = linear_cross_entropy_inputs("zipf", 400, 512, 4096, torch.float32, seeded())
    few, top = likely(hidden @ weight.T)
    few_drawn, top_drawn = likely(softmax_logits("zipf", (400, 4096), torch.float32, seeded(1)))
    assert few_drawn == pytest.approx(few, rel=0.3)
    assert top_drawn == pytest.approx(top, abs=0.1)
    assert softmax_logits("zipf", (3, 1), torch.float32, seeded()).isfinite().all()


def test_an_unknown_kind():
    with pytest.raises(UsageError, match="no inputs of kind 'zip'; did you mean zipf"):
        softmax_logits("zip", (2, 3), torch.float32, seeded())
    with pytest.raises(UsageError, match="no inputs of kind 'zip'"):
        linear_cross_entropy_inputs("zip", 2, 3, 4, torch.float32, seeded())


def test_the_model_has_learnt_and_is_kept(root):
    first = trained(TINY, text)
    losses = first.tensors["losses"]
    assert losses[:3].mean() > 4
    assert losses[-10:].mean() < 2  # a line of 13 tokens
    second = trained(TINY, no_text)
    assert first.sha256 == second.sha256
    hidden, weight, target = linear_cross_entropy_inputs(
        "model", 40, 16, 266, torch.float32, seeded(), model=TINY, data=no_text
    )
    value = torch.nn.functional.cross_entropy(hidden @ weight.T, target)
    assert value < 2.5  # of text that it was not trained on
    logits = softmax_logits("model", (40, 266), torch.float32, seeded(), model=TINY, data=no_text)
    torch.testing.assert_close(logits, hidden @ weight.T)


def test_rows_of_the_model_are_chosen_by_the_generator(root):
    def rows(n, seed):
        return linear_cross_entropy_inputs("model", n, 16, 266, torch.bfloat16, seeded(seed), model=TINY, data=text)

    assert all(map(torch.equal, rows(9, 0), rows(9, 0)))
    assert not torch.equal(rows(9, 0)[0], rows(9, 1)[0])
    (hidden, _, target), kept = rows(40, 0), trained(TINY, no_text).tensors
    assert (hidden.dtype, hidden.shape) == (torch.bfloat16, (40, 16))
    assert target.sort().values.equal(kept["target"].sort().values)
    for n, d, v in [(41, 16, 266), (9, 17, 270), (9, 16, 267)]:
        with pytest.raises(UsageError, match=f"up to 40 x 16 x 266, not {n} x {d} x {v}"):
            linear_cross_entropy_inputs("model", n, d, v, torch.float32, seeded(), model=TINY, data=no_text)


def test_targets_are_the_tokens_that_follow(root):
    kept = trained(TINY, text).tensors
    assert kept["hidden"].shape == (40, 16)
    assert len(set(kept["target"].tolist())) == 12
    assert torch.equal(kept["target"][:27], kept["target"][13:])  # the line has 13 tokens, " be" twice


def test_a_text_that_is_too_short(root):
    model = dataclasses.replace(TINY, rows=1000)
    with pytest.raises(UsageError, match="held-out tokens of tinyshakespeare are too few for 1000 rows"):
        trained(model, text)


def test_what_made_the_model():
    found, other = made_of(MODEL), made_of(Model(seed=1))
    assert found != other
    assert {**found, "seed": 1} == other
    assert all(found["source"].values())
    assert {"data", "torch", "lr", "vocabulary"} <= found.keys()


def test_the_module_does_not_import_torch():
    code = "import sys, suites.kernels.inputs; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    checkout = Path(sys.modules["suites.kernels.inputs"].__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=checkout).returncode == 0
