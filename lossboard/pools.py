"""Pools: functions from items to an iterator of results, in any order. joblib's loky on this machine; Dask and Ray."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from filelock import FileLock, Timeout

from lossboard import paths
from lossboard.errors import UsageError

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
    """A worker process was killed (out of memory, a crash in native code); its item gave no result.

    ``items`` are those that took workers along, where the pool can tell.
    """

    def __init__(self, message: str, items: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.items = items


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


def dask(work: Callable[[Any], Any], items: Iterable[Any], jobs: int, gpus: float = 0) -> Iterator[Any]:
    """The Dask cluster at DASK_SCHEDULER_ADDRESS; without one, ``jobs`` workers on this machine.

    Dask hands an item to another worker when one dies. ``gpus`` are asked for as the resource "GPU", which workers are
    started with (``dask worker --resources GPU=1``).

    Raises:
        WorkerDied: items killed one worker after the other; all others have given their results.
    """
    from dask import config
    from distributed import Client, KilledWorker, as_completed

    os.environ.update(ONE_THREAD)
    here = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    needs = {"GPU": gpus} if gpus else None
    items, lost = list(items), []
    with Client(**({} if config.get("scheduler-address", None) else {**here, "resources": needs})) as client:
        waiting = dict(zip(client.map(_OneThread(work), items, pure=False, resources=needs), items, strict=True))
        for future in as_completed(list(waiting)):
            item = waiting.pop(future)
            try:
                yield future.result()
            except KilledWorker as error:
                lost.append((error, item))
    if lost:
        raise WorkerDied(str(lost[0][0]).split("\n")[0], [item for _, item in lost])


def ray(work: Callable[[Any], Any], items: Iterable[Any], jobs: int, gpus: float = 0) -> Iterator[Any]:
    """The Ray cluster at RAY_ADDRESS; without one, ``jobs`` workers on this machine.

    Ray tries an item four times when its workers die. Each takes one processor and ``gpus``.

    Raises:
        WorkerDied: items killed one worker after the other; all others have given their results.
    """
    import ray as engine
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

    os.environ.update(ONE_THREAD)
    here = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    engine.init(log_to_driver=False, logging_level="error", **({} if os.environ.get("RAY_ADDRESS") else here))
    if not os.environ.get("RAY_ADDRESS") and gpus > engine.cluster_resources().get("GPU", 0):
        engine.shutdown()
        raise UsageError(f"--gpus {gpus:g}: Ray finds fewer on this machine")
    one_thread = _OneThread(work)
    task = engine.remote(max_retries=3, num_cpus=1, num_gpus=gpus)(lambda item: one_thread(item))
    lost = []
    try:
        waiting = {task.remote(item): item for item in items}
        while waiting:
            (ready,), _ = engine.wait(list(waiting), num_returns=1)
            item = waiting.pop(ready)
            try:
                yield engine.get(ready)
            except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
                lost.append((error, item))
            except RayTaskError as error:  # what the work raised
                raise error.cause from None
    finally:
        engine.shutdown()
    if lost:
        raise WorkerDied(str(lost[0][0]).split("\n")[0], [item for _, item in lost])


POOLS: dict[str, Callable[..., Iterator[Any]]] = {"loky": loky, "dask": dask, "ray": ray}
PACKAGES = {"dask": "distributed", "ray": "ray"}


def named(name: str, gpus: float = 0) -> Pool:
    """The pool of this name, whose items take so many GPUs.

    Raises:
        UsageError: there is none, its package is not installed, or it cannot share out GPUs.
    """
    if name not in POOLS:
        raise UsageError(f"no pool '{name}'; there are: {', '.join(POOLS)}")
    if name not in PACKAGES:
        if gpus:
            raise UsageError(f"--gpus is for --pool dask and ray; workers of '{name}' see every GPU of this machine")
        return loky
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise UsageError(f"--pool {name} needs the package {PACKAGES[name]}: pip install -e .[{name}]")
    return functools.partial(POOLS[name], gpus=gpus)


class _OneThread:
    """The work, in a worker that somebody else started."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __call__(self, item: Any) -> Any:
        os.environ.update(ONE_THREAD)  # read when torch is imported
        return self.work(item)


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
        pool = ProcessPoolExecutor(max_workers=1, context=_spawned())
        try:
            result = pool.submit(_Guarded(work), item).result()
        except TerminatedWorkerError as error:
            raise WorkerDied(str(error).split("\n")[0]) from error
        finally:
            pool.shutdown(wait=True, kill_workers=True)  # one that ends by itself takes two seconds to
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
        self.work, self.parent = work, os.getpid()  # which may be gone before the worker looks

    def __call__(self, item: Any) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not any(thread.name == _WATCH for thread in threading.enumerate()):
            threading.Thread(target=_end_with_parent, args=(self.parent,), name=_WATCH, daemon=True).start()
        return self.work(item)


_WATCH = "lossboard-parent-watch"


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
