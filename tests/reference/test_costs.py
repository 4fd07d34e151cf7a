"""The least costs, counted another way: by tensors that are made, and by a count of torch's own products."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reference.ops import cases, costs
from reference.ops.cross_entropy import cross_entropy
from reference.ops.linear_cross_entropy import linear_cross_entropy
from reference.ops.linear_decoupled_softmax import linear_decoupled_softmax
from reference.ops.logsumexp import logsumexp
from reference.ops.softmax import softmax

DRAWN = {
    "softmax": (softmax, {"x": cases.drawn(6, 50)}, (6, 50)),
    "logsumexp": (logsumexp, {"x": cases.drawn(6, 50)}, (6, 50)),
    "cross_entropy": (cross_entropy, {"logits": cases.drawn(6, 50), "target": cases.labels(6, 50)}, (6, 50)),
    "linear_cross_entropy": (linear_cross_entropy, cases.linear(6, 8, 50), (6, 8, 50)),
    "linear_decoupled_softmax": (linear_decoupled_softmax, cases.present(6, 8, 50, 3), (6, 8, 50, 3)),
}


def size(*tensors):
    return sum(t.nbytes for t in tensors)


def test_every_operation_has_its_costs_and_cases():
    assert set(costs.COSTS) == set(cases.CASES) == set(DRAWN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", DRAWN)
def test_bytes_are_those_of_inputs_and_outputs(op, dtype):
    function, inputs, shape = DRAWN[op]
    inputs = cases.placed({"": inputs}, dtype=dtype)[""]
    cost = costs.COSTS[op](shape, dtype.itemsize, gradient=False)
    value = function(**inputs)
    assert (cost.bytes_read, cost.bytes_written) == (size(*inputs.values()), size(value))
    leaves = [x.requires_grad_() for x in inputs.values() if x.is_floating_point()]
    value = function(**inputs)
    upstream = torch.ones_like(value)
    gradients = torch.autograd.grad(value, leaves, upstream)
    both = costs.COSTS[op](shape, dtype.itemsize, gradient=True)
    assert both.bytes_read == size(*inputs.values(), upstream)
    assert both.bytes_written == size(value, *gradients)


@pytest.mark.parametrize("gradient", [False, True])
def test_products_are_those_that_torch_counts(gradient):
    function, inputs, shape = DRAWN["linear_cross_entropy"]
    for name in ("hidden", "weight"):
        inputs[name].requires_grad_(gradient)
    with FlopCounterMode(display=False) as counter:
        value = function(**inputs)
        if gradient:
            value.backward()
    assert costs.linear_cross_entropy(shape, 4, gradient).flops == counter.get_total_flops()


@pytest.mark.parametrize("op", ["softmax", "logsumexp", "cross_entropy"])
def test_operations_grow_with_the_elements(op):
    one, two = (costs.COSTS[op](shape, 4, gradient=True).flops / math.prod(shape) for shape in ((1, 10), (7, 1000)))
    assert one == two > costs.COSTS[op]((1, 10), 4, gradient=False).flops / 10
