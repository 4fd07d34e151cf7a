"""How much memory a call needs at its peak, beyond what was live before it.

On a CPU a process of its own makes the inputs, resets its high-water mark and makes one call: ``delta_bytes`` is the
mark less what was resident just before. That counts what torch, numpy and libraries allocate alike, in pages touched.
On CUDA it is what torch's allocator counts. ``kept_bytes`` are the tensors that the call returned and that were not
live before: what the caller asked for (outputs, gradients). ``beyond_bytes``, the difference, is what the
implementation needs besides.

Processes are forked from one that has imported torch and ran nothing (multiprocessing's forkserver), so that each
costs milliseconds instead of an import. Work is named by a function of a module, which makes the call from plain
arguments: ``peak(make, (1024, "eager"))`` measures ``make(1024, "eager")()``.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

Make = Callable[..., Callable[[], object]]
Result = TypeVar("Result")
PROC = Path("/proc/self")
MAPPED_BYTES = 1 << 16  # blocks from this size on go back to the system when freed
ENDS_S = 10.0  # a process that has answered may clean up for so long
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
FIRST_TO_GO = "1000"  # of /proc/self/oom_score_adj: where memory runs out, the child is killed before its parent


@dataclass(frozen=True)
class Peak:
    """What a call needed. Bytes are NaN unless the status is "ok", and where they cannot be measured."""

    status: str  # "ok", "oom" (out of memory), "timeout" or "error"
    delta_bytes: float
    kept_bytes: float
    message: str = ""

    @property
    def beyond_bytes(self) -> float:
        """At the peak, beyond live inputs and what the call returned."""
        return self.delta_bytes - self.kept_bytes


def peak(
    make: Make,
    arguments: tuple[Any, ...] = (),
    *,
    warm: tuple[Any, ...] | None = None,
    device: str = "cpu",
    preload: Sequence[str] = (),
    timeout_s: float = 600.0,
) -> Peak:
    """The peak of ``make(*arguments)()`` over what is live once ``make`` has returned.

    Args:
        make: a function of a module; it makes the inputs and returns the call.
        warm: arguments of a call made before, so that code is loaded, compiled and not counted. Best the same: a small
            problem may take another way, and code is compiled for a shape. What the call keeps counts as live.
        preload: modules that the processes find imported, besides torch. The first call decides.
        timeout_s: after so long the process is killed.
    """
    if torch.device(device).type == "cuda":
        return _caught(lambda: _on_cuda(make, arguments, warm, torch.device(device)))
    if not (PROC / "clear_refs").exists():
        return _without("ok", f"peak memory is not measured on {sys.platform}: there is no {PROC / 'clear_refs'}")
    return _in_fresh_process((make, arguments, warm, torch.get_num_threads()), preload, timeout_s)


def _without(status: str, message: str) -> Peak:
    return Peak(status, math.nan, math.nan, message)


def _caught(measured: Callable[[], Peak]) -> Peak:
    """What was measured, or what an exception says."""
    try:
        return measured()
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _without("oom", str(error))
    except Exception as error:
        exhausted = "can't allocate memory" in str(error)  # torch's allocator on CPUs raises RuntimeError
        return _without("oom" if exhausted else "error", f"{type(error).__name__}: {error}")


# -- fresh processes -----------------------------------------------------------------------------------


def _in_fresh_process(job: tuple[Any, ...], preload: Sequence[str], timeout_s: float) -> Peak:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, *job), daemon=True)
    with _default_start_method("forkserver"):
        child.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            return _without("timeout", f"took more than {timeout_s:g} s")
        found: Peak = receiver.recv()
        child.join(ENDS_S)
        return found
    except EOFError:
        child.join()
        return _died(child.exitcode)
    finally:
        child.kill()
        child.join()
        receiver.close()


@contextmanager
def _default_start_method(name: str) -> Iterator[None]:
    """For a while. Children adopt their parent's, which in a worker of joblib is "loky": they would not know it."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(name, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def _died(code: int | None) -> Peak:
    """What a process that said nothing died of. Whoever sends SIGKILL is the kernel, out of memory."""
    if code == -signal.SIGKILL:
        return _without("oom", "the process was killed")
    return _without("error", f"the process ended with code {code}")


def _child(
    sender: Connection, make: Make, arguments: tuple[Any, ...], warm: tuple[Any, ...] | None, threads: int
) -> None:
    gc.freeze()  # what was there before needs no look: it is no call's, and a look copies its pages
    torch.set_num_threads(threads)
    sender.send(_caught(lambda: _on_cpu(make, arguments, warm)))


def _on_cpu(make: Make, arguments: tuple[Any, ...], warm: tuple[Any, ...] | None) -> Peak:
    """The peak in this process, which must be fresh."""
    (PROC / "oom_score_adj").write_text(FIRST_TO_GO)
    _return_what_is_freed()
    if warm is not None:
        make(*warm)()
    call = make(*arguments)
    live = _storages()
    _trim()
    (PROC / "clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    result = call()
    return Peak("ok", _resident("VmHWM") - before, _kept(result, live))


def watched(call: Callable[[], Result]) -> tuple[Result, float]:
    """What a call in this process returns, and the bytes by which memory rose at its peak (NaN where unknown).

    A rough form of :func:`peak` that costs nothing: what is free is given back before, but what libraries keep for
    themselves and the call uses again is not seen. For calls that need megabytes.
    """
    if not (PROC / "clear_refs").exists():
        return call(), math.nan
    _hand_back()
    (PROC / "clear_refs").write_text("5")
    before = _resident("VmRSS")
    result = call()
    return result, float(max(0, _resident("VmHWM") - before))


def _resident(which: str) -> int:
    """Bytes of this process in memory: VmRSS, now; VmHWM, at most (ru_maxrss would count the parent's)."""
    lines = (PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def _return_what_is_freed() -> None:
    """Have glibc map each larger block by itself: else freed ones stay resident, and the next are not counted."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def _trim() -> None:
    gc.collect()
    _hand_back()


def _hand_back() -> None:
    """What is free goes back to the system."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


# -- CUDA ----------------------------------------------------------------------------------------------


def _on_cuda(make: Make, arguments: tuple[Any, ...], warm: tuple[Any, ...] | None, device: torch.device) -> Peak:
    if warm is not None:
        make(*warm)()
    call = make(*arguments)
    gc.collect()
    live = _storages()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    return Peak("ok", torch.cuda.max_memory_allocated(device) - before, _kept(result, live))


# -- what is kept --------------------------------------------------------------------------------------


def _storages() -> set[int]:
    """The addresses of the memory of every tensor that is not frozen; those of a compiler's subclasses have none."""
    tensors = (found for found in gc.get_objects() if type(found) in (Tensor, torch.nn.Parameter))
    return {found.untyped_storage().data_ptr() for found in tensors}


def _kept(result: object, live: set[int]) -> int:
    """The bytes of the tensors in a result that were not live before, each piece of memory once."""
    storages = {found.untyped_storage().data_ptr(): found.untyped_storage().nbytes() for found in _tensors(result)}
    return sum(size for address, size in storages.items() if address not in live)


def _tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        yield from _tensors(list(result.values()))
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)
