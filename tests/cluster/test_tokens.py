"""Who comes by a token stays as long as that is good, wherever in the cluster."""

from __future__ import annotations

import json
from time import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from gatecrew import BlockingCluster
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .crew import PATIENCE, Crew
from .token_app import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(worker_app="token_app:app") as crew:
        crew.start("register-1", "gateway-1", "gateway-2", "worker-1", "worker-2")
        yield crew


def token(uid: str, token_id: str = "", seconds: float = 600, age: float = 60) -> str:
    claims = {"sub": uid, "exp": time() + seconds, "iat": time() - age, "jti": token_id or f"of {uid}"}
    return jwt.encode(claims, SECRET)


def come(crew: Crew, text: str, gateway: str = "gateway-1", **options: Any) -> ClientConnection:
    options.setdefault("additional_headers", {"Authorization": f"Bearer {text}"})
    quiet: dict[str, Any] = {"compression": None, "proxy": None, "ping_interval": None, "open_timeout": PATIENCE}
    connection: ClientConnection = connect(crew.processes[gateway].url, **quiet, **options)
    return connection


def refused(crew: Crew, text: str, gateway: str = "gateway-1") -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as error, come(crew, text, gateway):
        pass
    response = error.value.response
    return response.status_code, (response.body or b"").decode().partition(": ")[2].strip(".\n")


def closed(connection: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as error:
        connection.recv(PATIENCE)
    assert error.value.rcvd is not None
    return error.value.rcvd.code, error.value.rcvd.reason


def ask(connection: ClientConnection, what: str) -> str | bytes:
    connection.send(what)
    return connection.recv(PATIENCE)


def test_a_token_in_the_subprotocols_is_answered_with_theirs(crew: Crew) -> None:
    with come(crew, "", additional_headers={}, subprotocols=["bearer", token("ann")]) as ann:
        assert ann.subprotocol == "bearer"
        assert json.loads(ann.recv(PATIENCE)) == ["ann", "bearer"]
    assert refused(crew, "nonsense")[0] == 401


def test_a_connection_ends_with_its_token_unless_that_is_renewed(crew: Crew) -> None:
    with come(crew, token("ann", seconds=1)) as short, come(crew, token("ann", seconds=1)) as renewed:
        for connection in (short, renewed):
            connection.recv(PATIENCE)
        assert ask(renewed, f"renew {token('bob')}") == "token_invalid: it is another uid's"
        assert ask(renewed, f"renew {token('ann')}") == "done"

        assert closed(short) == (3000, "token_expired")
        assert ask(renewed, "stay") == "done"


def test_tokens_of_a_uid_are_revoked_at_all_gateways(crew: Crew) -> None:
    with (
        come(crew, token("eve"), "gateway-1") as one,
        come(crew, token("eve"), "gateway-2") as other,
        come(crew, token("ann"), "gateway-2") as ann,
    ):
        for connection in (one, other, ann):
            connection.recv(PATIENCE)

        assert ask(ann, "revoke uid eve") == "done"

        assert closed(one) == closed(other) == (3000, "token_revoked")
        for gateway in ("gateway-1", "gateway-2"):
            assert refused(crew, token("eve", age=5), gateway) == (401, "token_revoked")
        with come(crew, token("eve", age=0)) as later:  # after the log-out, another log-in
            assert json.loads(later.recv(PATIENCE)) == ["eve", None]
        assert ask(ann, "stay") == "done"


def test_one_token_is_revoked_from_outside(crew: Crew) -> None:
    with come(crew, token("fay", "t1"), "gateway-1") as one, come(crew, token("fay", "t2"), "gateway-2") as other:
        for connection in (one, other):
            connection.recv(PATIENCE)

        with BlockingCluster(crew.config()) as cluster:
            cluster.revoke(token_id="t1")

        assert closed(one) == (3000, "token_revoked")
        assert refused(crew, token("fay", "t1"), "gateway-2") == (401, "token_revoked")
        assert ask(other, "stay") == "done"


def test_what_was_revoked_is_known_to_whoever_joins_later() -> None:
    with Crew(worker_app="token_app:app") as crew:
        crew.start("register-1", "gateway-1", "worker-1")
        with BlockingCluster(crew.config()) as cluster:
            cluster.revoke(uid="eve")

        crew.start("worker-2")  # knows it from the gateway
        crew.stop("worker-1")
        crew.start("gateway-2")  # knows it from the worker
        assert refused(crew, token("eve"), "gateway-2") == (401, "token_revoked")
        crew.stop("gateway-1")
        crew.start("worker-3")
        crew.stop("worker-2")
        crew.start("gateway-3")
        assert refused(crew, token("eve"), "gateway-3") == (401, "token_revoked")
