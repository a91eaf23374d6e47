"""What a process tells whoever started it, over real sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from gatecrew.common.notify import Notifier, listen, receive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ear(run_dir: Path) -> Iterator[socket.socket]:
    with listen(str(run_dir / "ear")) as sock:
        yield sock


@pytest.fixture
def notifier(ear: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier(ear.getsockname())
    yield notifier
    notifier.close()


def test_what_is_told_is_heard_in_order(ear: socket.socket, notifier: Notifier) -> None:
    assert notifier.send(READY="1", STATUS="ws://127.0.0.1:7272 a=b")
    assert notifier.send(WATCHDOG="1")

    assert receive(ear) == {"READY": "1", "STATUS": "ws://127.0.0.1:7272 a=b"}
    assert receive(ear) == {"WATCHDOG": "1"}
    assert receive(ear) is None


def test_lines_of_a_value_become_one(ear: socket.socket, notifier: Notifier) -> None:
    notifier.send(STATUS="cannot import\nREADY=1")

    assert receive(ear) == {"STATUS": "cannot import READY=1"}


def test_a_long_value_is_cut(ear: socket.socket, notifier: Notifier) -> None:
    assert notifier.send(READY="1", STATUS="ü" * 10_000)

    fields = receive(ear)
    assert fields is not None
    assert fields["READY"] == "1"
    assert fields["STATUS"].startswith("ü" * 1000)


def test_nobody_who_listens_is_no_error(run_dir: Path) -> None:
    assert not Notifier("").send(READY="1")

    gone = Notifier(str(run_dir / "nobody"))
    assert not gone.send(READY="1")
    gone.close()
    gone.close()
    assert not gone.send(READY="1")


def test_somebody_who_does_not_read_stops_nobody(ear: socket.socket, notifier: Notifier) -> None:
    while notifier.send(WATCHDOG="1"):
        pass

    assert receive(ear) == {"WATCHDOG": "1"}


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract sockets are Linux's")
def test_an_abstract_address_begins_with_an_at_sign(run_dir: Path) -> None:
    with listen(f"\0{run_dir}") as ear:
        notifier = Notifier(f"@{run_dir}")
        assert notifier.send(READY="1")
        notifier.close()

        assert receive(ear) == {"READY": "1"}


def test_a_path_that_is_taken_is_an_error_and_leaves_no_socket_open(run_dir: Path, ear: socket.socket) -> None:
    with pytest.raises(OSError, match="in use"):
        listen(str(run_dir / "ear"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=100))
def test_any_datagram_is_understood(run_dir: Path, ear: socket.socket, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.sendto(data, ear.getsockname())

    assert isinstance(receive(ear), dict)
