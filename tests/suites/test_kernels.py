"""The kernel suite: what it measures of an implementation, and what it does with one that is wrong."""

from dataclasses import replace

import pytest
import torch

from kernels import registry
from lossboard import protocol, run
from lossboard.errors import LossboardError, UsageError
from suites import kernels as suite
from suites.kernels import rates
from suites.kernels.shapes import Kind, Shape

SUITE = protocol.load("kernels")
TINY = {
    "softmax": Shape((3, 300)),
    "logsumexp": Shape((3, 300)),
    "cross_entropy": Shape((5, 40)),
    "linear_cross_entropy": Shape((16, 8, 300), inputs="zipf"),
    "linear_decoupled_softmax": Shape((16, 8, 300, 4), inputs="zipf"),
}


@pytest.fixture(autouse=True)
def cheap_rates(tmp_path, monkeypatch):
    """The machine's rates take seconds to measure, and files of this checkout are not a test's to write."""
    monkeypatch.setattr(rates.paths, "local", lambda: tmp_path)
    measured = rates.measured
    monkeypatch.setattr(
        rates, "measured", lambda *a, **k: measured(*a, **{**k, "buffer_bytes": 1 << 16, "budget_s": 0.1})
    )


def cells(kind, ids, seed=1, shape=None):
    base = next(t for t in SUITE.tasks.values() if t.kind == kind)
    task = replace(base, name=f"{kind}/tiny").having(shape=shape or TINY[kind.split("-")[0]])
    return tuple(protocol.Cell(f"{kind}.{id}", task, seed, 0, {}) for id in ids)


def measured(kind, ids, **how):
    found = suite.run(
        protocol.Unit(cells(kind, ids, **how), 1.0), run.Context(run.suite_methods(SUITE), lambda name: None)
    )
    return {record.method.split(".")[1]: record for record in found}


def test_every_kind_has_its_control_and_every_method_a_kind():
    methods = run.suite_methods(SUITE)
    assert set(SUITE.controls.values()) <= methods.keys()
    assert {method.kind for method in methods.values()} == set(SUITE.kinds)
    assert methods["linear_cross_entropy.cut"].defaults == {"eps": 2.0**-12}


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("softmax", ["eager", "two_pass", "auto"]),
        ("logsumexp", ["eager", "online"]),
        ("cross_entropy", ["eager", "recompute", "in_place"]),
        ("linear_cross_entropy", ["eager", "blocked_exact", "cut"]),
        ("linear_cross_entropy-bf16", ["eager", "chunked"]),
        ("linear_decoupled_softmax", ["eager", "chunked", "cut"]),
    ],
)
def test_what_is_measured(kind, ids):
    found = measured(kind, ids)
    assert {id: (record.status, record.error) for id, record in found.items()} == dict.fromkeys(ids, ("ok", ""))
    assert found["eager"].metrics["speed"] == 1
    for record in found.values():
        assert record.metrics["both_s"] > 0
        assert record.metrics["roofline_share"] > 0
        assert record.metrics["read_gbps"] > 0
        exact = record.method.split(".")[1] not in ("cut",) and "bf16" not in kind
        assert record.metrics["largest_error"] < (1e-5 if exact else 0.5)


def test_memory_is_measured_of_the_first_seed():
    found = measured("softmax", ["eager", "two_pass"], seed=0, shape=Shape((8, 65536)))
    assert "extra_bytes" in found["two_pass"].metrics
    assert "forward_s" in measured("cross_entropy", ["eager"], seed=0)["eager"].metrics
    assert "extra_bytes" not in measured("softmax", ["two_pass"])["two_pass"].metrics


def wrong_tail(x, out):
    torch.softmax(x, -1, out=out)
    out[..., -1] *= 1.001


def overwritten(x, out):
    torch.softmax(x, -1, out=out)
    x.zero_()


def nan_for_large(x, out):
    torch.div(x.exp(), x.exp().sum(-1, keepdim=True), out=out)


def beside_eager(function, monkeypatch, **how):
    """Records of eager softmax, and of an implementation that is registered for this one call."""
    broken = registry.Kernel("softmax", "broken", function, __name__, "cpu", ("float32",), (), False, False, (), ())
    known = dict(registry.catalogue("softmax")) | {"broken": broken}
    monkeypatch.setattr(registry, "catalogue", lambda op: known)
    registry.implementation.cache_clear()
    try:
        return measured("softmax", ["broken", "eager"], **how)
    finally:
        monkeypatch.undo()
        registry.implementation.cache_clear()


@pytest.mark.parametrize("function", [wrong_tail, overwritten, nan_for_large], ids=lambda f: f.__name__)
def test_a_broken_implementation_is_shown_as_failing_and_gets_no_time(function, monkeypatch):
    found = beside_eager(function, monkeypatch)
    assert found["eager"].status == "ok"
    assert (found["broken"].status, found["broken"].metrics) == ("error", {})
    assert found["broken"].error.startswith("gate: ")


def lazy(x, out):
    if x.numel() < 60_000:
        torch.softmax(x, -1, out=out)


def nan_where_large(x, out):
    torch.softmax(x, -1, out=out)
    if x.numel() >= 60_000:
        out[..., 5] = float("nan")


def overwritten_where_large(x, out):
    torch.softmax(x, -1, out=out)
    if x.numel() >= 60_000:
        x.zero_()


def raises_where_large(x, out):
    torch.softmax(x, -1, out=out)
    if x.numel() >= 60_000:
        raise RuntimeError("too large")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lazy, "off by nan"),
        (nan_where_large, "off by nan"),
        (overwritten_where_large, "overwritten"),
        (raises_where_large, "too large"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_wrong_at_the_measured_shape_alone_gets_no_time_either(function, said, monkeypatch):
    found = beside_eager(function, monkeypatch, shape=Shape((3, 30_000)))
    assert found["eager"].status == "ok"
    assert found["eager"].metrics["largest_error"] < 1e-5, "the others' inputs are as they were"
    assert (found["broken"].status, found["broken"].metrics) == ("error", {})
    assert said in found["broken"].error


def test_units_are_processes_of_one_seed():
    track = SUITE.track("quick")
    asked = SUITE.cells(track, run.suite_methods(SUITE))
    units = list(suite.group(asked))
    assert sorted(cell.key for unit in units for cell in unit.cells) == sorted(cell.key for cell in asked)
    assert all(len({cell.seed for cell in unit.cells}) == 1 for unit in units)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_track_of_a_gpu_says_that_it_needs_one():
    with pytest.raises(LossboardError, match="CUDA"):
        measured("softmax-gpu", ["eager"])


def test_kinds_are_operations_on_devices():
    assert Kind.of("linear_cross_entropy-gpu-bf16") == Kind("linear_cross_entropy", "cuda", "bfloat16")
    assert Kind.of("softmax") == Kind("softmax", "cpu", "float32")


@pytest.mark.parametrize("wrong", [{"sizes": [4]}, {"sizes": [4, 0]}, {"sizes": [4, 4], "inputs": "zpif"}])
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises(UsageError):
        Shape(**{**wrong, "sizes": tuple(wrong["sizes"])})
