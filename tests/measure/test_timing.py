"""Times of implementations in turn: by a clock that is made up, so that every number is known."""

import gc
import math
import random

import pytest
import torch

from lossboard.measure import interleaved
from lossboard.measure.timing import FEWEST, SAMPLE_S, clock_of, median_interval


class Made:
    """A call that takes what the next of its seconds says, and says when it was called."""

    def __init__(self, name, log, *seconds):
        self.name, self.log, self.seconds, self.made = name, log, seconds, 0

    def __call__(self):
        self.made += 1
        self.log.append(self.name)


def clock(call, calls):
    """The seconds of a call in rotation, times calls; the first sample shows the first."""
    for _ in range(calls):
        call()
    sample = sum(1 for name in call.log if name == call.name) // calls
    return calls * call.seconds[sample % len(call.seconds)]


def test_medians_and_intervals():
    log = []
    work = {"steady": Made("steady", log, 0.25), "odd": Made("odd", log, 0.1, 0.2, 0.3, 0.4, 9.0)}
    found = interleaved(work, clock=clock, budget_s=0, least_rounds=25)
    assert found["steady"].median_s == found["steady"].low_s == found["steady"].high_s == 0.25
    assert (found["odd"].median_s, found["odd"].low_s, found["odd"].high_s) == (0.3, 0.2, 0.4)
    assert {(times.samples, times.calls) for times in found.values()} == {(25, 1)}


def test_a_sample_is_long_enough_and_its_mean_is_of_one_call():
    log = []
    (times,) = interleaved({"short": Made("short", log, 1e-6)}, clock=clock, budget_s=0).values()
    assert SAMPLE_S <= times.calls * 1e-6 < 2 * SAMPLE_S
    assert times.median_s == pytest.approx(1e-6)


def test_each_round_has_every_call_once_in_an_order_of_the_seed():
    def rounds(seed):
        log = []
        interleaved({n: Made(n, log, 1.0) for n in "abcd"}, clock=clock, budget_s=0, least_rounds=20, seed=seed)
        timed = "".join(log)[-80:]
        return [timed[i : i + 4] for i in range(0, 80, 4)]

    found = rounds(0)
    assert all(sorted(each) == list("abcd") for each in found)
    assert len(set(found)) > 5
    assert found == rounds(0) != rounds(1)


def test_what_raises_is_failed_and_the_others_go_on():
    calls = iter(range(1000))

    def late():
        if next(calls) > 4:
            raise RuntimeError("no more")

    def early():
        raise ValueError("no such size")

    found = interleaved(
        {"late": late, "early": early, "fine": lambda: None}, budget_s=0, clock=lambda call, n: call() or 1.0
    )
    assert found["early"].failure == "ValueError: no such size"
    assert found["late"].failure == "RuntimeError: no more"
    assert math.isnan(found["early"].median_s)
    assert (found["early"].samples, found["late"].samples, found["fine"].samples) == (0, 2, FEWEST)
    assert found["fine"].failure == ""
    assert found["fine"].median_s == 1.0


def test_no_garbage_is_collected_while_timed():
    enabled = []
    interleaved({"looks": lambda: enabled.append(gc.isenabled())}, budget_s=0, clock=lambda call, n: call() or 1.0)
    assert enabled[-FEWEST:] == [False] * FEWEST
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_garbage_is_collected_between_rounds():
    class Cycle:
        alive = 0

        def __init__(self):
            self.own = self
            Cycle.alive += 1

        def __del__(self):
            Cycle.alive -= 1

    seen = []

    def leave_garbage():
        seen.append(Cycle.alive)
        Cycle()

    interleaved({"a": leave_garbage}, budget_s=0, least_rounds=50, clock=lambda call, n: call() or 1.0)
    assert max(seen[-49:]) == 0


def test_the_budget_ends_the_rounds(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("lossboard.measure.timing.time.perf_counter", lambda: next(now))
    (times,) = interleaved({"a": lambda: None}, budget_s=9.5, least_rounds=1, clock=lambda call, n: 1.0).values()
    assert times.samples == 10


@pytest.mark.parametrize("n", [6, 7, 20, 101])
def test_the_interval_covers_the_median(n):
    """Of 4,000 draws of n numbers with median 0, at least 95 % less four standard errors."""
    draw = random.Random(n)
    covered = 0
    for _ in range(4000):
        low, high = median_interval([draw.expovariate(1) - math.log(2) for _ in range(n)])
        covered += low <= 0 <= high
    assert covered / 4000 > 0.95 - 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_fewer_than_six_bound_nothing():
    assert all(map(math.isnan, median_interval([1.0] * (FEWEST - 1))))
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)


def test_work_in_another_thread_is_counted():
    """Where one thread is asked for."""
    from threading import Thread
    from time import process_time

    def busy():
        end = process_time() + 0.05
        while process_time() < end:
            pass

    def hidden():
        other = Thread(target=busy)
        other.start()
        other.join()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert clock_of("cpu")(hidden, 1) >= 0.05
    finally:
        torch.set_num_threads(before)


def test_a_process_that_sleeps_takes_no_time_of_its_own():
    """The clock of one thread is the process's; of several, the wall's."""
    from time import sleep

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = clock_of("cpu")(lambda: sleep(0.05), 1)
        torch.set_num_threads(2)
        shared = clock_of("cpu")(lambda: sleep(0.05), 1)
    finally:
        torch.set_num_threads(before)
    assert alone < 0.04 < 0.05 <= shared
