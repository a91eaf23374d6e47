"""A history whose database fails, under handlers of a real worker."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from typing import TYPE_CHECKING

import pytest

from .crew import Crew, Failed, a_crew
from .history_app import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .crew import Guest


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with a_crew("register-1", "gateway-1", "worker-1", worker_app="gatecrew.tests.cluster.history_app:app") as crew:
        yield crew


@pytest.fixture
def ann(crew: Crew) -> Guest:
    return crew.connect()


@pytest.fixture
def bob(crew: Crew) -> Guest:
    return crew.connect()


@contextlib.contextmanager
def files_of_at_most(size: int, crew: Crew) -> Iterator[None]:
    """Let the worker write no file beyond this size, as a full disk would."""
    pid = crew.pid("worker-1")
    before, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (before, hard))


def test_a_full_disk_is_told_to_the_handler_and_nothing_else_stops(crew: Crew, ann: Guest, bob: Guest) -> None:
    last = ann.call("append", 1)

    with files_of_at_most(1 << 17, crew):
        with pytest.raises(Failed, match=r"HistoryError: .*disk"):
            ann.call("append", 1 << 18)
        assert bob.call("about")["pid"] == bob.worker

    assert [guest.call("append", 1 << 18) for guest in (ann, bob)] == [last + 1, last + 2]


def test_a_locked_database_is_told_to_the_handler_and_nothing_else_stops(crew: Crew, ann: Guest, bob: Guest) -> None:
    last = ann.call("append", 1)

    with contextlib.closing(sqlite3.connect(crew.folder / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        appended = ann.send("append", 1)
        assert bob.call("about")["pid"] == bob.worker
        with pytest.raises(Failed, match=r"HistoryError: .*database is locked"):
            ann.result(appended)
        other.execute("COMMIT")

    assert [guest.call("append", 1) for guest in (ann, bob)] == [last + 1, last + 2]
