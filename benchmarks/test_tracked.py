"""The timed benchmarks of ``tracked`` under pytest-benchmark, for a quick look before and after a change.

``nox -s bench`` runs this; the tests of the project do not.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cases import Case, cases


@pytest.mark.parametrize("case", cases("time_"), ids=str)
def test_time(benchmark: Any, case: Case) -> None:
    try:
        call = case.ready()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    benchmark(call)
