"""From a compressor's answer to a record: written to bytes, read again, and the network that they make judged."""

from __future__ import annotations

import contextlib
import dataclasses
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
from reference.metrics.scores import each_nll
from reference.metrics.similarity import cka, connectivity
from suites.compression.networks import Subject, outputs

ON_THE_WAY = 2000  # training rows on which networks between two are judged
STEPS = 10  # from one to the other


def record(cell: Cell, method: Method, subject: Subject) -> Record:
    """What a cell gave."""
    start = time.process_time()
    setting = cell.task.parts["setting"]
    network, inputs = subject.given(setting), {f"{name}.inputs": r for name, r in subject.ranges(setting).items()}
    (found, took), extra_bytes = watched(lambda: compressed(cell, method, subject, network))
    whole = {name: p.detach().cpu() for name, p in network.named_parameters()} | found | inputs
    file = packing.encode(whole)
    values = {name: w for name, w in packing.unpacked(packing.decode(file)).items() if name not in inputs}
    if not all(bool(value.isfinite().all()) for value in values.values()):
        return recorded(cell, "diverged", {}, seconds=time.process_time() - start, bits=fingerprint(values.values()))
    small = loaded(network, values).eval()
    metrics = judged(small, subject)
    metrics |= sizes(whole, file, subject) | {"flops": flops(small, subject.calibration)}
    metrics |= layerwise(whole) | {"compress_s": took, "extra_bytes": extra_bytes}
    if cell.task.parts["training"].twice and "training" in method.supplied:
        other = subject.again()
        again, _ = compressed(cell, method, subject, other, batches="further again")
        metrics |= side_by_side(small, loaded(other, packing.unpacked(again)).eval(), subject)
    return recorded(cell, "ok", metrics, seconds=time.process_time() - start, bits=fingerprint(values.values()))


def compressed(
    cell: Cell, method: Method, subject: Subject, network: nn.Module, batches: str = "further"
) -> tuple[dict[str, Packed | Tensor], float]:
    """The parameters of the network that the method changes, and the processor seconds that it took."""
    given: dict[str, Any] = dict(cell.task.parts["setting"].given())
    if "training" in method.supplied:
        given["training"] = subject.training(batches)
    if "generator" in method.supplied:
        given["generator"] = subject.stream("compressor")
    params = {key: cell.params[key] for key in inspect.signature(method.function).parameters if key in cell.params}
    start = time.process_time()
    with subject.device if subject.device.type != "cpu" else contextlib.nullcontext():  # where tensors are made
        found: dict[str, Packed | Tensor] = method.function(network, subject.calibration, **given, **params)
    return {name: _on_cpu(value) for name, value in found.items()}, time.process_time() - start


def _on_cpu(value: Any) -> Any:
    """A tensor, or a dataclass of some, in the memory from which it is written."""
    if isinstance(value, Tensor):
        return value.cpu()
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    return dataclasses.replace(value, **{f.name: _on_cpu(getattr(value, f.name)) for f in dataclasses.fields(value)})


def side_by_side(network: nn.Module, other: nn.Module, subject: Subject) -> dict[str, float]:
    """How two networks lie to each other: on the line between them on training rows, and by outputs on test rows."""
    inputs, target = subject.rows.inputs[:ON_THE_WAY], subject.rows.target[:ON_THE_WAY].flatten()
    ends = dict(network.named_parameters()), dict(other.named_parameters())

    def error(t: float) -> float:
        between = loaded(
            network, {name: torch.lerp(p.detach(), ends[1][name].detach(), t) for name, p in ends[0].items()}
        )
        return float((outputs(between, inputs).argmax(1) != target).double().mean())

    found = connectivity([error(step / STEPS) for step in range(STEPS + 1)])
    test = subject.rows.test_inputs
    return {"connectivity": found, "cka": cka(outputs(network, test), outputs(other, test))}


def judged(network: nn.Module, subject: Subject) -> dict[str, float]:
    """Metrics of a network on the test rows, beside those of the full one."""
    pieces: dict[str, list[Tensor]] = {}
    for logits, logits_full, target in subject.beside(network):
        log_p, full = (torch.log_softmax(each.double(), 1) for each in (logits, logits_full))
        of_row = {
            "confidence": top_label(log_p, target).confidence,
            "right": top_label(log_p, target).right,
            "right_before": top_label(full, target).right,
            "same": (log_p.argmax(1) == full.argmax(1)).double(),
            "nll": each_nll(log_p, target),
            "nll_full": each_nll(full, target),
            "kl": (full.exp() * (full - log_p)).sum(1),
        }
        for name, values in of_row.items():
            pieces.setdefault(name, []).append(values)
    rows = {name: torch.cat(values) for name, values in pieces.items()}
    loss = float(rows["nll"].mean())
    found = {
        "accuracy": float(rows["right"].mean()),
        "full": float(rows["right_before"].mean()),
        "drop": float((rows["right_before"] - rows["right"]).mean()),
        "agreement": float(rows["same"].mean()),
        "ece": equal_width(rows["confidence"], rows["right"]).ece,
        "nll": loss,
        "nll_full": float(rows["nll_full"].mean()),
        "kl": float(rows["kl"].mean()),
    }
    return found | ({"perplexity": math.exp(min(loss, 700.0))} if subject.rows.text else {})


def sizes(parameters: packing.Parameters, file: bytes, subject: Subject) -> dict[str, float]:
    """Bytes of the file, and what they are in bits for a weight and beside the full network's."""
    full = len(packing.encode({name: p.detach().cpu() for name, p in subject.network.named_parameters()}))
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
