"""Who may come: what handshake handlers decide."""

from __future__ import annotations

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .crew import PATIENCE, Crew, until

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET: dict[str, Any] = {"compression": None, "proxy": None, "ping_interval": None, "open_timeout": PATIENCE}

ALERT = {"cluster_probe_interval": "0.1", "cluster_dead_after": "0.6"}  # a killed worker is soon known to be dead


@pytest.fixture(scope="module")
def door() -> Iterator[Crew]:
    settings = {"worker_app": "door_app:app", "gateway_auth_timeout": "0.4"}
    with Crew(**settings) as crew:
        crew.start("register-1", "gateway-1", "worker-1", "worker-2")
        yield crew


@contextlib.contextmanager
def guest(crew: Crew, path: str, **options: Any) -> Iterator[ClientConnection]:
    with connect(crew.processes["gateway-1"].url + path, **(QUIET | options)) as connection:
        yield connection


def refused(crew: Crew, path: str, **options: Any) -> tuple[int, str, str | None]:
    """Return status, body and Retry-After with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as error, guest(crew, path, **options):
        pass
    response = error.value.response
    return response.status_code, (response.body or b"").decode(), response.headers.get("Retry-After")


def hello(connection: ClientConnection) -> Any:
    return json.loads(connection.recv(PATIENCE))


def test_a_handler_sets_uid_groups_and_session_before_the_connect_handler_runs(door: Crew) -> None:
    with guest(door, "/?name=ann") as ann:
        assert hello(ann) == ["ann", {"name": "ann"}, None, True]


@pytest.mark.parametrize("status", [401, 403, 429, 499])
def test_a_handler_refuses_with_a_status_and_a_reason(door: Crew, status: int) -> None:
    found, body, retry_after = refused(door, f"/?status={status}&reason=caf%C3%A9%20closed")

    assert (found, retry_after) == (status, "7")
    assert "café closed" in body


def test_a_handler_that_leaves_it_to_others_lets_in(door: Crew) -> None:
    with guest(door, "/nameless") as somebody:
        assert hello(somebody) == [None, {}, None, False]


def test_a_handler_chooses_among_the_subprotocols_that_the_client_offers(door: Crew) -> None:
    with guest(door, "/?name=ann&subprotocol=v2", subprotocols=["v1", "v2"]) as ann:
        assert ann.subprotocol == "v2"
        assert hello(ann) == ["ann", {"name": "ann"}, "v2", True]
    assert refused(door, "/?name=ann&subprotocol=v3", subprotocols=["v1", "v2"])[0] == 500


def test_a_handler_that_fails_lets_nobody_in(door: Crew) -> None:
    assert refused(door, "/fails")[0] == 500
    assert refused(door, "/")[0] == 500
    until(lambda: "RuntimeError: no such door" in "".join(door.processes[name].log for name in door.names("worker")))


def test_a_page_of_another_host_is_not_even_asked_about(door: Crew) -> None:
    assert refused(door, "/?name=ann", origin="https://evil.example.com")[0] == 403


def test_who_does_not_say_in_time_who_it_is_is_closed(door: Crew) -> None:
    with guest(door, "/nameless") as silent, guest(door, "/nameless") as named, guest(door, "/?name=ann") as ann:
        for connection in (silent, named, ann):
            hello(connection)
        named.send("bind bob")
        with pytest.raises(ConnectionClosed) as closed:
            silent.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "auth_timeout")
        assert named.recv(PATIENCE) == "did bind bob"
        for connection in (named, ann):
            connection.send("stay")
            assert connection.recv(PATIENCE) == "did stay"
    until(lambda: door.stats("gateway-1").get("closed.auth_timeout") == 1)


def test_who_nobody_decides_on_is_refused_in_time() -> None:
    with Crew(worker_app="door_app:app", gateway_handshake_timeout="0.3", **ALERT) as crew:
        crew.start("register-1", "gateway-1")

        assert refused(crew, "/?name=ann")[::2] == (503, "1")
        crew.start("worker-1")
        assert refused(crew, "/hangs?name=ann")[::2] == (503, "1")
        crew.kill("worker-1")
        assert refused(crew, "/?name=ann")[::2] == (503, "1")
        until(lambda: crew.stats("gateway-1").get("handshake.undecided") == 3)


def test_who_comes_before_the_workers_waits_for_one_and_a_killed_worker_is_replaced() -> None:
    settings = {"worker_app": "door_app:app", "gateway_handshake_timeout": str(PATIENCE), **ALERT}
    with Crew(**settings) as crew, ThreadPoolExecutor() as pool:
        crew.start("register-1", "gateway-1")

        def come(name: str) -> Any:
            with guest(crew, f"/?name={name}") as connection:
                return hello(connection)

        early = pool.submit(come, "early")
        until(lambda: crew.stats("gateway-1").get("handshakes") == 1)
        crew.start("worker-1")
        assert early.result(PATIENCE) == ["early", {"name": "early"}, None, True]

        with guest(crew, "/?name=watcher") as watcher:
            hello(watcher)
            crew.start("worker-2")
            with socket.create_connection(("127.0.0.1", urlsplit(crew.processes["gateway-1"].url).port or 0)) as gone:
                request = "GET /hangs?name=gone HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade"
                key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"
                gone.sendall("\r\n".join([*request, *key, "", ""]).encode())
                pid = int(str(watcher.recv(PATIENCE)).split()[0])
                (hung,) = (name for name in crew.names("worker") if crew.pid(name) == pid)
                (other,) = set(crew.names("worker")) - {hung}
                crew.kill(hung)  # the other one is asked, and hangs, too
                assert watcher.recv(PATIENCE) == f"{crew.pid(other)} has gone"
            until(lambda: crew.stats("gateway-1")["handshakes"] == 0)
        assert come("late")[0] == "late"
        crew.kill(other)
