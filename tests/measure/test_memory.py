"""Peak memory of a call in a process of its own: of calls whose needs are known."""

import functools
import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lossboard.measure import memory
from lossboard.measure.memory import peak

MIB = 1 << 20
NEAR = MIB  # what else a process touches
measurable = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux")


def three_of(mib):
    """A call whose peak is two blocks beyond the one that it returns; the input is live before."""
    x = torch.ones(mib * MIB // 4)

    def call():
        a = x + 1
        b = a * 2
        return b + x

    return call


def in_place(mib):
    x = torch.ones(mib * MIB // 4)
    return lambda: [x.mul_(2), {"view": x[3:]}]


def holed(mib):
    """Two blocks, of which the first goes before a larger one comes: it does not fit where the first was."""

    def call():
        a, b = torch.ones(mib * MIB // 4), torch.ones(mib * MIB // 4)
        del a
        c = torch.ones(2 * mib * MIB // 4)
        return b.sum() + c.sum()

    return call


pinned = []


def crumbs(mib):
    """As much in small blocks at once, of which one stays: the memory before it cannot be cut off the heap's end."""

    def call():
        blocks = [torch.ones(8192) for _ in range(32 * mib)]
        pinned.append(blocks[-1])

    return call


def pieces(mib):
    """As much in small blocks one after the other: never more than one at a time."""
    return lambda: [torch.ones(MIB // 8).sum().item() for _ in range(2 * mib)]


def killed():
    return functools.partial(os.kill, os.getpid(), signal.SIGKILL)


def crashes():
    return functools.partial(os._exit, 7)


def hopeless():
    return functools.partial(torch.empty, 1 << 50)


def wrong(what):
    raise ValueError(f"no {what}")


def endless():
    return functools.partial(time.sleep, 600)


@measurable
@pytest.mark.parametrize("mib", [4, 64])
def test_the_peak_and_what_is_kept(mib):
    found = peak(three_of, (mib,), warm=(1,))
    assert found.status == "ok"
    assert found.kept_bytes == mib * MIB
    assert found.delta_bytes == pytest.approx(3 * mib * MIB, abs=NEAR)
    assert found.beyond_bytes == pytest.approx(2 * mib * MIB, abs=NEAR)


@measurable
@pytest.mark.parametrize(
    ("make", "times", "warm"), [(three_of, 3, 24), (three_of, 3, 96), (holed, 3, 24), (crumbs, 1, 24)]
)
def test_a_warm_call_hides_nothing(make, times, warm):
    """What it freed went back to the system and is counted again; its own peak is forgotten."""
    assert peak(make, (24,), warm=(warm,)).delta_bytes == pytest.approx(times * 24 * MIB, abs=NEAR)


@measurable
def test_what_was_live_before_is_not_kept():
    found = peak(in_place, (16,), warm=(1,))
    assert found.kept_bytes == 0
    assert found.delta_bytes < NEAR


@measurable
def test_blocks_one_after_the_other_count_once():
    assert peak(pieces, (64,), warm=(1,)).delta_bytes < 2 * NEAR


@measurable
@pytest.mark.parametrize(
    ("make", "arguments", "status", "message"),
    [
        (killed, (), "oom", "killed"),
        (hopeless, (), "oom", "can't allocate memory"),
        (crashes, (), "error", "code 7"),
        (wrong, ("such shape",), "error", "ValueError: no such shape"),
    ],
)
def test_what_ends_the_process_is_a_result(make, arguments, status, message):
    found = peak(make, arguments)
    assert found.status == status
    assert message in found.message
    assert math.isnan(found.beyond_bytes)


@measurable
def test_a_call_that_takes_too_long_is_ended():
    assert peak(endless, timeout_s=0.5).status == "timeout"


def test_where_nothing_tells_it_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    found = peak(three_of, (4,))
    assert math.isnan(found.delta_bytes)
    assert "not measured" in found.message


@measurable
def test_a_worker_of_joblib_can_measure():
    from lossboard.pools import loky

    (found,) = loky(_peak_there, [8], 1)
    assert found.beyond_bytes == pytest.approx(16 * MIB, abs=NEAR)


def _peak_there(mib):
    torch.set_num_threads(1)
    return peak(three_of, (mib,), warm=(1,))
