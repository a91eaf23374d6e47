"""How long clients may stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import reasons
from gatecrew.common.errors import LinkError
from gatecrew.gateway.client import Client, NoConnection
from gatecrew.gateway.credentials import Credentials

if TYPE_CHECKING:
    from gatecrew.common.reasons import Reason

EPOCH = 1_700_000_000.0  # the world's time when the clock begins


class Desk(Credentials):
    """With clocks that a test sets."""

    def __init__(self, auth_timeout: float = 0.0) -> None:
        self.now = 0.0
        self.shift = 0.0  # of the world's clock, which somebody may set
        super().__init__(auth_timeout, lambda: self.now, lambda: EPOCH + self.now + self.shift)

    def come(self, uid: str | None = None, expires: float | None = None) -> Client:
        client = Client("client", NoConnection(), [])
        client.uid = uid
        client.token = None if expires is None else [EPOCH + expires, None, 0.0]
        self.nameless(client)
        return client

    def over(self) -> list[tuple[Client, Reason]]:
        return list(self.due())


def test_who_has_no_uid_in_time_has_to_go() -> None:
    desk = Desk(auth_timeout=5)
    client, _ = desk.come(), desk.come("ann")

    desk.now = 4.9
    assert desk.over() == []
    desk.now = 5.2
    assert desk.over() == [(client, reasons.AUTH_TIMEOUT)]
    desk.now = 100
    assert desk.over() == []


def test_who_gets_a_uid_in_time_may_stay_until_it_is_taken_away() -> None:
    desk = Desk(auth_timeout=5)
    client = desk.come()
    client.uid = "ann"
    desk.watch(client)
    desk.now = 100
    assert desk.over() == []

    client.uid = None
    desk.nameless(client)
    desk.now = 104.9
    assert desk.over() == []
    desk.now = 105.2
    assert desk.over() == [(client, reasons.AUTH_TIMEOUT)]


def test_without_a_limit_nobody_has_to_say_who_it_is() -> None:
    desk = Desk()
    desk.come()
    desk.now = 1e9

    assert desk.over() == []


def test_who_came_by_a_token_goes_with_it() -> None:
    desk = Desk()
    client = desk.come("ann", expires=10)

    desk.now = 9.9
    assert desk.over() == []
    desk.now = 10.2
    assert desk.over() == [(client, reasons.TOKEN_EXPIRED)]


def test_a_token_may_be_renewed() -> None:
    desk = Desk()
    client = desk.come("ann", expires=10)
    client.token = [EPOCH + 20, None, 0.0]
    desk.watch(client)

    desk.now = 19
    assert desk.over() == []
    desk.now = 20.2
    assert desk.over() == [(client, reasons.TOKEN_EXPIRED)]


def test_who_has_a_token_and_no_uid_goes_for_whichever_is_first() -> None:
    desk = Desk(auth_timeout=5)
    client, other = desk.come(expires=10), desk.come(expires=3)

    desk.now = 3.2
    assert desk.over() == [(other, reasons.TOKEN_EXPIRED)]
    desk.now = 5.2
    assert desk.over() == [(client, reasons.AUTH_TIMEOUT)]


def test_a_token_ends_by_the_time_of_the_world() -> None:
    desk = Desk()
    client = desk.come("ann", expires=10)

    desk.shift = -5  # the clock was set back
    desk.now = 10.2
    assert desk.over() == []
    desk.now = 15.4
    assert desk.over() == [(client, reasons.TOKEN_EXPIRED)]


def test_who_is_gone_is_forgotten() -> None:
    desk = Desk(auth_timeout=5)
    desk.forget(desk.come())
    desk.now = 6

    assert desk.over() == []


def test_a_revoked_token_is_good_for_nothing() -> None:
    desk = Desk()
    assert desk.revoke("id", "t1", None, 60) == ["id", "t1", EPOCH, EPOCH + 60]
    assert desk.revoke("uid", "ann", EPOCH + 5, EPOCH + 60) == ["uid", "ann", EPOCH + 5, EPOCH + 60]

    later = EPOCH + 1000
    assert desk.fault("bob", [later, "t1", EPOCH]) is reasons.TOKEN_REVOKED
    assert desk.fault("bob", [later, "t2", EPOCH]) is None
    assert desk.fault("ann", [later, "t2", EPOCH + 5]) is reasons.TOKEN_REVOKED
    assert desk.fault("ann", [later, "t2", EPOCH + 6]) is None
    assert desk.fault("ann", None) is None
    assert desk.fault("bob", [EPOCH, "t2", EPOCH]) is reasons.TOKEN_EXPIRED


def test_what_is_known_already_is_no_news() -> None:
    desk = Desk()
    news = desk.revoke("id", "t1", None, 60)
    assert news is not None

    assert desk.revoke(*news) is None
    assert list(desk.revoked()) == [news]
    desk.now = 61
    assert list(desk.revoked()) == []


@pytest.mark.parametrize(
    "fields", [("name", "a", None, 1), ("id", 5, None, 1), ("id", "a", "b", 1), ("id", "a", None, "b")]
)
def test_what_cannot_be_revoked_is_refused(fields: tuple[Any, ...]) -> None:
    with pytest.raises(LinkError, match="revokes"):
        Desk().revoke(*fields)
