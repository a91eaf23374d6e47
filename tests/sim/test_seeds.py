"""A thousand clusters, each with faults of its own."""

from __future__ import annotations

import pytest

from .scenario import verdict

EACH = 50  #: seeds of one test


@pytest.mark.parametrize("first", range(0, 1000, EACH))
def test_promises_are_kept_whatever_breaks(first: int) -> None:
    problems = [problem for problem in map(verdict, range(first, first + EACH)) if problem]

    assert not problems, "\n\n".join(problems)
