"""Every reason for which a gateway itself closes a client: a name that is counted, a close code, a text for the client.

The code tells the client whether to come back (RFC 6455, section 7.4, and the IANA registry of close codes): after 1001,
1011, 1012, 1013 and 3008 it should, after the others the same would happen again.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why a client is closed: ``name`` for logs and counters, ``code`` and ``text`` for the close frame."""

    name: str
    code: int
    text: str

    def with_retry(self, delay: float) -> Reason:
        """Return the same reason with so many seconds after which to come back, which programs can read: ``retry=<ms>``."""
        return self._replace(text=f"{self.text} retry={round(delay * 1000)}")


SLOW = Reason("slow", 1013, "too slow: more was waiting for you than client_buffer allows")
PONG_MISSED = Reason("pong_missed", 3008, "no answer to pings")
OPEN_TIMEOUT = Reason("open_timeout", 1002, "the handshake took too long")
OVERLOADED = Reason("overloaded", 1013, "too many events wait for the workers: come again later")
GATEWAY_STOPPING = Reason("gateway_stopping", 1012, "gateway_stopping")
TOO_BIG = Reason("too_big", 1009, "message over max_message")
TOO_MANY_FRAGMENTS = Reason("too_many_fragments", 1008, "message of more frames than max_fragments")
MESSAGE_TIMEOUT = Reason("message_timeout", 1008, "message_timeout")
TOO_MANY = Reason("too_many", 1008, "too_many")
IDLE = Reason("idle", 1008, "idle")
NOT_UTF8 = Reason("not_utf8", 1007, "text that is not UTF-8")
PROTOCOL_ERROR = Reason("protocol_error", 1002, "not RFC 6455")
INTERNAL_ERROR = Reason("internal_error", 1011, "a failure of the gateway")
AUTH_TIMEOUT = Reason("auth_timeout", 1008, "auth_timeout")
TOO_MANY_DEVICES = Reason("too_many_devices", 1008, "too_many_devices")
TOKEN_EXPIRED = Reason("token_expired", 3000, "token_expired")
TOKEN_REVOKED = Reason("token_revoked", 3000, "token_revoked")
GATEWAY_LOST = Reason("gateway_lost", 1006, "gateway_lost")  # told to handlers only: the client is not there any more

_ALL: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, Reason))


def named(code: int, text: str) -> str:
    """Return the name of the reason with this close code and text, or of one that came with a time to come back; empty if none."""
    return next((reason.name for reason in _ALL if reason.code == code and text.startswith(reason.text)), "")
