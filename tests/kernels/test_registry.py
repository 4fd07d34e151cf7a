"""The catalogue of kernels, their contract, and how they are compiled."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import registry
from kernels.registry import catalogue, implementation, kernel, missing
from reference.methods import MethodError, UnknownMethod

ROOT = Path(__file__).parents[2]
OPERATIONS = ["cross_entropy", "linear_cross_entropy", "linear_decoupled_softmax", "logsumexp", "softmax"]
EVERY = [found for op in OPERATIONS for found in catalogue(op).values()]


@pytest.mark.parametrize("found", EVERY, ids=lambda found: f"{found.op}-{found.id}")
def test_contract(found):
    """What the suite relies on; that values and gradients are right is each operation's own test."""
    definition = importlib.import_module(f"reference.ops.{found.op}")
    assert callable(getattr(definition, found.op))
    assert found.function.__doc__
    assert sys.modules[found.module].__doc__
    assert found.module.startswith(f"kernels.{found.op}.")
    assert found.device in ("any", "cpu", "cuda")


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_has_a_baseline_and_a_choice(op):
    assert {"eager", "compiled", "auto"} <= set(catalogue(op))


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(UnknownMethod, match="did you mean two_pass"):
        implementation("softmax", "twopass")
    with pytest.raises(UnknownMethod, match="no operation 'sofmax'; there are"):
        catalogue("sofmax")


def test_ids_are_checked():
    with pytest.raises(MethodError, match="lower-case"):
        kernel("softmax", id="Fast")(lambda x, out: None)
    with pytest.raises(MethodError, match="has this id"):
        kernel("softmax", id="eager")(lambda x, out: None)


def test_an_absent_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "gpu.py").write_text("import triton\n")
    monkeypatch.setitem(sys.modules, "triton", None)
    package = sys.modules["kernels.softmax"]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_missing", {})
    for cached in (catalogue, implementation):
        cached.cache_clear()
    try:
        assert missing("softmax") == {"gpu": "triton"}
        with pytest.raises(UnknownMethod, match="needs the package triton"):
            implementation("softmax", "gpu")
    finally:
        for cached in (catalogue, implementation):
            cached.cache_clear()


SCRIPT = """
import sys, torch, kernels
from kernels import vectors
torch.set_num_threads(1)
for impl in ("two_pass", "online", "three_pass_reload", "three_pass_recompute"):
    for n in (1, 7, 8, 100, 5000):
        x = torch.randn(2, n) * 9 - 5e4
        x[1, n // 2] = -torch.inf if n > 1 else 0
        y, exact = kernels.softmax(x, impl=impl), torch.softmax(x.double(), -1)
        large = exact > 1e-37
        assert ((y - exact) / exact)[large].abs().max() < (1e-6 if vectors.FMA else 3e-5), (impl, n)
        assert y[~large].abs().sum() < 1e-30
        x[0, n // 3] = torch.nan
        assert kernels.softmax(x, impl=impl)[0].isnan().all()
module = sys.modules["kernels.softmax.online"]
print(vectors.LANES, vectors.AVX512, sum(module._rows.stats.cache_misses.values()))
"""


def run(**environment):
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@pytest.mark.parametrize("features", ["+sse2,+avx,+avx2,+fma", "+sse2"])
def test_processors_without_wide_vectors(features):
    name = {"NUMBA_CPU_NAME": "x86-64"} if sys.platform == "linux" and os.uname().machine == "x86_64" else {}
    if not name:
        pytest.skip("these features are of x86-64")
    assert run(NUMBA_CPU_FEATURES=features, **name)[:2] == ["8", "False"]


def test_compiled_code_is_kept_between_processes():
    run()
    assert run()[2] == "0"
