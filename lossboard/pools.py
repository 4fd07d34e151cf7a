"""Pools: functions from items to an iterator of results, in any order. joblib's loky here; others are as short."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from filelock import FileLock, Timeout

from lossboard import paths

Pool = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[Any]]

# One thread a process, one process a core; a waiting thread must not burn the core another process needs. glibc asks
# for huge pages: a step goes through megabytes.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class WorkerDied(Exception):
    """A worker process was killed (out of memory, a crash in native code); its item gave no result."""


def loky(work: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    """``jobs`` worker processes on this machine.

    Raises:
        WorkerDied: a worker was killed; items without a result may be handed to a new pool.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    os.environ.update(ONE_THREAD)
    task = delayed(_Guarded(work))
    finished = False
    try:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            # n_jobs=1 would mean this process, which a dying unit must not take along; pre_dispatch bounds the rest
            items = list(items)
            processes = max(min(jobs, len(items)), 2)
            parallel = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
            yield from parallel(task(item) for item in items)
        finished = True
    except (TerminatedWorkerError, BrokenProcessPool) as error:
        raise WorkerDied(str(error).split("\n")[0]) from error
    finally:
        if not finished:  # an error or Ctrl-C: what the workers are at is lost, nothing else
            get_reusable_executor().shutdown(wait=False, kill_workers=True)


def alone(work: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    """Each item in a process of its own, one after the other, on as many threads as the work asks for.

    Two runs at once take turns: the second waits until the first is done.

    Raises:
        WorkerDied: the process was killed.
    """
    lock = FileLock(paths.local() / "alone.lock")
    paths.local().mkdir(exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print("another run measures on this machine; waiting until it is done", flush=True)
        lock.acquire()
    try:
        yield from _one_by_one(work, items)
    finally:
        lock.release()


def _one_by_one(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    for item in items:
        pool, finished = ProcessPoolExecutor(max_workers=1, context=_spawned()), False
        try:
            result = pool.submit(_Guarded(work), item).result()
            finished = True
        except TerminatedWorkerError as error:
            raise WorkerDied(str(error).split("\n")[0]) from error
        finally:
            pool.shutdown(wait=finished, kill_workers=not finished)
        yield result


def _spawned() -> Any:
    from joblib.externals.loky.backend import get_context

    return get_context("loky")


def serial(work: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    """This process; for debugging, and where processes are not to be had."""
    return map(work, items)


class _Guarded:
    """The work, in a worker that leaves Ctrl-C to its parent and ends when its parent is gone."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __call__(self, item: Any) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not any(thread.name == _WATCH for thread in threading.enumerate()):
            threading.Thread(target=_end_with_parent, args=(os.getppid(),), name=_WATCH, daemon=True).start()
        return self.work(item)


_WATCH = "lossboard-parent-watch"


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
