"""How long implementations take, measured side by side.

A machine is slower at one minute than at the next, so implementations take turns: each *round* gives one *sample* of
each, in a new order. A sample is the mean of as many calls as last for SAMPLE_S. On one thread of a CPU time is the
process's own, of all its threads, so that none can hide its work; other processes disturb it through the caches only.
On several threads it is the wall's; on CUDA it is the device's, with its L2 cache overwritten before every call.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat

import torch

SAMPLE_S = 1.5e-3  # a sample lasts so long at least: a thousand times what reading a clock takes
WARM = 2  # calls before any is timed: the first may compile
FEWEST = 6  # samples that bound a median at 95 %
MOST_CALLS = 1 << 20
NAN = math.nan

Call = Callable[[], object]
Clock = Callable[[Call, int], float]  # the seconds that so many calls take


@dataclass(frozen=True)
class Times:
    """Seconds of one call: the median of samples, within its 95 % interval (:func:`median_interval`) in this process.

    What differs between processes (where memory lies, the processor's clock) is not in it. An implementation that
    raised has ``failure``, and NaN for seconds.
    """

    median_s: float
    low_s: float
    high_s: float
    samples: int
    calls: int  # of each sample
    failure: str = ""
    least_s: float = NAN  # the fastest sample


def interleaved(
    work: Mapping[str, Call],
    *,
    device: str = "cpu",
    budget_s: float = 2.0,
    least_rounds: int = FEWEST,
    seed: int = 0,
    clock: Clock | None = None,
) -> dict[str, Times]:
    """Time calls in turn; what a call returns is dropped, and dropping it is timed.

    Args:
        work: the calls by name. Inputs are made before, so that none is timed.
        budget_s: seconds of the wall for all rounds; what comes before them (compilation, calibration) is not counted.
        least_rounds: so many are made even if they exceed the budget.
        seed: of the order in each round.
        clock: another than :func:`clock_of` the device.

    >>> found = interleaved({"sum": lambda: sum(range(1000))}, budget_s=0)
    >>> found["sum"].samples, found["sum"].failure
    (6, '')
    """
    measured = clock or clock_of(device)
    entrants = [_Entrant(name, call) for name, call in work.items()]
    for entrant in entrants:
        entrant.attempt(entrant.calibrate, measured)
    order, rounds = random.Random(seed), 0
    with _without_collection():
        end = time.perf_counter() + budget_s
        while (left := [e for e in entrants if not e.failure]) and (rounds < least_rounds or time.perf_counter() < end):
            order.shuffle(left)
            for entrant in left:
                entrant.attempt(entrant.sample, measured)
            gc.collect()
            rounds += 1
    return {entrant.name: entrant.times() for entrant in entrants}


def clock_of(device: str) -> Clock:
    """The clock for a device: the process's own time, the wall's with several threads, or CUDA events."""
    if torch.device(device).type == "cuda":
        return _cuda_clock(torch.device(device))
    return _counted(time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a median: the k-th smallest and k-th largest of n values, whatever their distribution.

    k is the largest with 2 P(B < k) <= 0.05 for B ~ Binomial(n, 1/2), the number of values below the median
    (Conover 1999, section 3.2). NaN for fewer than FEWEST values, for which there is none.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    (2.0, 8.0)
    """
    n, k, below = len(values), 0, 0  # below: 2^n P(B < k)
    while 40 * (below + math.comb(n, k)) <= 1 << n:
        below += math.comb(n, k)
        k += 1
    ordered = sorted(values)
    return (ordered[k - 1], ordered[n - k]) if k else (NAN, NAN)


@dataclass
class _Entrant:
    """One implementation while it is timed."""

    name: str
    call: Call
    calls: int = 1
    taken: list[float] = field(default_factory=list)
    failure: str = ""

    def attempt(self, step: Callable[[Clock], None], clock: Clock) -> None:
        try:
            step(clock)
        except Exception as error:  # whatever it raises is its result, and no other's
            self.failure = f"{type(error).__name__}: {error}"

    def calibrate(self, clock: Clock) -> None:
        """Find how many calls last for SAMPLE_S."""
        for _ in range(WARM):
            self.call()
        while (seconds := clock(self.call, self.calls)) < SAMPLE_S and self.calls < MOST_CALLS:
            wanted = math.ceil(1.1 * self.calls * SAMPLE_S / max(seconds, 1e-9))
            self.calls = min(wanted, 16 * self.calls, MOST_CALLS)

    def sample(self, clock: Clock) -> None:
        self.taken.append(clock(self.call, self.calls) / self.calls)

    def times(self) -> Times:
        if self.failure:
            return Times(NAN, NAN, NAN, len(self.taken), self.calls, self.failure)
        interval, least = median_interval(self.taken), min(self.taken)
        return Times(statistics.median(self.taken), *interval, len(self.taken), self.calls, least_s=least)


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is collected but where ``gc.collect`` is called, which looks at what is new only."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _counted(now_ns: Callable[[], int]) -> Clock:
    def seconds(call: Call, calls: int) -> float:
        start = now_ns()
        for _ in repeat(None, calls):
            call()
        return (now_ns() - start) * 1e-9

    return seconds


def _cuda_clock(device: torch.device) -> Clock:
    """Each call between two events, all enqueued before the first is waited for: launching is not timed."""
    flush = torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.int8, device=device)

    def seconds(call: Call, calls: int) -> float:
        with torch.cuda.device(device):
            pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(calls)]
            torch.cuda.synchronize()
            for start, stop in pairs:
                flush.zero_()
                start.record()
                call()
                stop.record()
            torch.cuda.synchronize()
            return 1e-3 * sum(start.elapsed_time(stop) for start, stop in pairs)

    return seconds
