"""From a compressor's answer to a record: written to bytes, read again, and the network that they make judged."""

from __future__ import annotations

import inspect
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from lossboard.measure.memory import watched
from lossboard.problem import fingerprint
from lossboard.protocol import Cell
from lossboard.records import Record
from lossboard.run import recorded
from reference.compressors import packing
from reference.compressors.layers import layers, positions, weight
from reference.compressors.packing import Packed
from reference.compressors.training import loaded
from reference.methods import Method
from reference.metrics.bins import equal_width
from reference.metrics.predictions import top_label
from reference.metrics.scores import nll
from suites.compression.networks import Subject, outputs


def record(cell: Cell, method: Method, subject: Subject) -> Record:
    """What a cell gave."""
    start = time.process_time()
    setting = cell.task.parts["setting"]
    network, inputs = subject.given(setting), {f"{name}.inputs": r for name, r in subject.ranges(setting).items()}
    (found, took), extra_bytes = watched(lambda: compressed(cell, method, subject, network))
    whole = {name: p.detach() for name, p in network.named_parameters()} | found | inputs
    file = packing.encode(whole)
    values = {name: w for name, w in packing.unpacked(packing.decode(file)).items() if name not in inputs}
    if not all(bool(value.isfinite().all()) for value in values.values()):
        return recorded(cell, "diverged", {}, seconds=time.process_time() - start, bits=fingerprint(values.values()))
    small = loaded(network, values).eval()
    metrics = judged(outputs(small, subject.rows.test_inputs), subject)
    metrics |= sizes(whole, file, subject) | {"flops": flops(small, subject.calibration)}
    metrics |= layerwise(whole) | {"compress_s": took, "extra_bytes": extra_bytes}
    return recorded(cell, "ok", metrics, seconds=time.process_time() - start, bits=fingerprint(values.values()))


def compressed(
    cell: Cell, method: Method, subject: Subject, network: nn.Module
) -> tuple[dict[str, Packed | Tensor], float]:
    """The parameters of the network that the method changes, and the processor seconds that it took."""
    given: dict[str, Any] = dict(cell.task.parts["setting"].given())
    if "training" in method.supplied:
        given["training"] = subject.training()
    if "generator" in method.supplied:
        given["generator"] = subject.stream("compressor")
    params = {key: cell.params[key] for key in inspect.signature(method.function).parameters if key in cell.params}
    start = time.process_time()
    found: dict[str, Packed | Tensor] = method.function(network, subject.calibration, **given, **params)
    return found, time.process_time() - start


def judged(logits: Tensor, subject: Subject) -> dict[str, float]:
    """Metrics of the test rows by logits (M, C), beside those of the full network."""
    target = subject.rows.test_target.flatten()
    log_p, full = (torch.log_softmax(each.double(), 1) for each in (logits, subject.logits))
    confidence, right = top_label(log_p, target)
    _, right_before = top_label(full, target)
    loss = nll(log_p, target)
    found = {
        "accuracy": float(right.mean()),
        "full": float(right_before.mean()),
        "drop": float((right_before - right).mean()),
        "agreement": float((log_p.argmax(1) == full.argmax(1)).double().mean()),
        "ece": equal_width(confidence, right).ece,
        "nll": loss,
        "nll_full": nll(full, target),
        "kl": float((full.exp() * (full - log_p)).sum(1).mean()),
    }
    return found | ({"perplexity": math.exp(min(loss, 700.0))} if subject.rows.text else {})


def sizes(parameters: packing.Parameters, file: bytes, subject: Subject) -> dict[str, float]:
    """Bytes of the file, and what they are in bits for a weight and beside the full network's."""
    full = len(packing.encode({name: p.detach() for name, p in subject.network.named_parameters()}))
    zeros = sum(int((p.dense() == 0).sum()) for p in parameters.values() if not isinstance(p, Tensor))
    count = sum(math.prod(p.shape) for p in parameters.values() if not isinstance(p, Tensor))
    return {
        "bytes": float(len(file)),
        "ratio": full / len(file),
        "entropy_bytes": packing.entropy_bytes(parameters),
        "weight_bits": packing.weight_bits(parameters),
        "zeros": zeros / count,
    }


def layerwise(parameters: packing.Parameters) -> dict[str, float]:
    """Of every layer by its place, from 1: bits a weight, and the share of zeros."""
    packed = [value for value in parameters.values() if not isinstance(value, Tensor)]
    bits = {f"bits{i + 1:02}": packing.weight_bits({"": value}) for i, value in enumerate(packed)}
    return bits | {f"zeros{i + 1:02}": float((p.dense() == 0).double().mean()) for i, p in enumerate(packed)}


def flops(network: nn.Module, inputs: Tensor) -> float:
    """Multiplications and additions of a forward pass of one row with weights that are not zero."""
    times = positions(network, inputs[:1])
    return float(sum(2 * int((weight(layer) != 0).sum()) * times[name] for name, layer in layers(network).items()))
