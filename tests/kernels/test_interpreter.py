"""Triton's kernels without a GPU: their tests in its interpreter, which must be chosen before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
if torch.cuda.is_available():
    pytest.skip("with a GPU these files run on it, by themselves", allow_module_level=True)

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("test_triton_*.py"))


def test_there_is_something_to_run():
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(file):
    command = [sys.executable, "-W", "ignore", "-m", "pytest", str(file), "-q", "-p", "no:cacheprovider", "--tb=short"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    found = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert " passed" in found.stdout
