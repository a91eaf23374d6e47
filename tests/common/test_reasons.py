"""The reasons for which a gateway closes clients."""

from __future__ import annotations

from gatecrew.common import reasons
from gatecrew.common.reasons import Reason
from websockets.frames import Close

ALL = {name: value for name, value in vars(reasons).items() if isinstance(value, Reason)}


def test_each_has_its_own_name() -> None:
    assert ALL
    assert all(reason.name == name.lower() for name, reason in ALL.items())


def test_each_fits_into_a_close_frame() -> None:
    for reason in (*ALL.values(), reasons.GATEWAY_STOPPING.with_retry(30)):
        if reason is reasons.GATEWAY_LOST:
            continue  # nobody is there to be sent it
        Close(reason.code, reason.text).check()
        assert len(reason.text.encode()) <= 123  # RFC 6455, section 5.5: 125 with the code


def test_the_code_says_whether_to_come_back() -> None:
    back = {reason.name for reason in ALL.values() if reason.code in (1001, 1011, 1012, 1013, 3008)}

    assert back == {"slow", "pong_missed", "overloaded", "gateway_stopping", "internal_error"}


def test_a_program_can_read_when_to_come_back() -> None:
    assert reasons.GATEWAY_STOPPING.with_retry(2.35) == ("gateway_stopping", 1012, "gateway_stopping retry=2350")
