"""temporary"""

import torch


def softmax_logits(kind, shape, dtype, generator):
    return torch.randn(*shape, generator=generator).to(dtype)


def linear_cross_entropy_inputs(kind, n, d, v, dtype, generator):
    draw = generator
    weight = torch.randn(v, d, generator=draw) / d**0.5
    target = (v ** torch.rand(n, generator=draw)).long().clamp(max=v) - 1
    likely = weight[target] + 0.3 * weight[(v ** torch.rand(n, generator=draw)).long().clamp(max=v) - 1]
    hidden = 13 * likely + 1.6 * torch.randn(n, d, generator=draw)
    return hidden.to(dtype), weight.to(dtype), target
