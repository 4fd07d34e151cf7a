"""What benchmarks share: one thread, torch imported before anything is timed, and how they are measured."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
if home := os.environ.get("ASV_ENV_DIR"):  # beside the commit's files, where asv removes it with them
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(home, "project", ".lossboard", "compiled")

import numba  # noqa: F401  here, as torch, so that it is imported once for all benchmarks and not timed
import torch

from .memory import measurable

torch.set_num_threads(1)


class Timed:
    """Processor seconds of a call: in each of two rounds 5 samples, then up to 20 within 1.5 seconds."""

    timer = time.process_time
    repeat = (5, 20, 1.5)


class Measured:
    """Bytes at the peak of a call beyond those that were live before it: one number, without an interval."""

    unit = "bytes"

    def setup(self, *params: object) -> None:
        measurable()
        super().setup(*params)  # type: ignore[misc]


@contextlib.contextmanager
def may_be_absent() -> Iterator[None]:
    """What is imported inside may be younger than the commit that is measured.

    Raises:
        NotImplementedError: it is; asv then skips the benchmark.
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"this commit has no such thing: {error}") from error
