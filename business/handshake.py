"""What a handshake handler decides: whether a client may come, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..common import messages as op
from ..common.errors import AppError
from .checks import name, names, payload, session_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..common.messages import Message
    from .client import Request

MAX_REASON = 1000  #: characters


@dataclass(frozen=True, slots=True)
class Token:
    """What a client came by: its connection is closed when that ends, or is revoked. Times are seconds since 1970."""

    expires: float
    id: str | None = None  #: for :meth:`~.commands.Commands.revoke`
    issued: float = 0.0  #: for the same: tokens of a uid that were issued later stay good

    def fields(self) -> list[Any]:
        """Return what travels."""
        return [float(self.expires), None if self.id is None else name("token id", self.id), float(self.issued)]


@dataclass(frozen=True, slots=True)
class Accept:
    """The client may come.

    Args:
        uid: the uid that it is bound to.
        device: what kind of device it is, if ``[gateway] devices_per_uid`` counts kinds apart.
        groups: that it is put into.
        session: with which it begins.
        subprotocol: one of those that it offers; None for what the gateway chose by its configuration.
        token: by which it may stay; None for as long as it likes.

    Raises:
        TypeError, ValueError: if one of these is not what it should be.
    """

    uid: str | None = None
    device: str = ""
    groups: Sequence[str] = ()
    session: Mapping[str, Any] = field(default_factory=dict)
    subprotocol: str | None = None
    token: Token | None = None

    def __post_init__(self) -> None:
        if self.uid is not None:
            name("uid", self.uid)
        if self.device:
            name("device", self.device)
        names("group", self.groups)
        session_map(self.session)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The client may not come.

    Args:
        status: of HTTP, from 400 to 599: 401 if it should say who it is, 403 if it must not, 429 if it comes too often.
        reason: that it is told. Browsers show neither to a page.
        retry_after: seconds after which it may come again.

    Raises:
        ValueError: if this is no status of a refusal, or the reason is too long.
    """

    status: int = 401
    reason: str = ""
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"status {self.status}, expected 400 to 599")
        if len(self.reason) > MAX_REASON:
            raise ValueError(f"a reason of {len(self.reason)} characters, expected at most {MAX_REASON}")
        payload(self.reason)


#: None leaves the decision to the next handler; if there is none, the client may come.
Decision = Accept | Refuse | None
FAILED = Refuse(500, "the handshake handler failed")


def answer(number: int, decision: object, request: Request) -> Message:
    """Return what tells a gateway of a decision.

    Raises:
        AppError: if it is none, or chooses a subprotocol that the client does not offer.
    """
    match decision:
        case None:
            return [op.ACCEPT, number, None, "", [], {}, None, None]
        case Accept(uid, device, groups, session, subprotocol, token):
            if subprotocol is not None and subprotocol not in request.subprotocols:
                raise AppError(f"on_handshake: chose the subprotocol {subprotocol!r}, which the client does not offer")
            fields = None if token is None else token.fields()
            joined, kept = names("group", groups), session_map(session)
            return [op.ACCEPT, number, uid, device, joined, kept, subprotocol, fields]
        case Refuse(status, reason, retry_after):
            return [op.REFUSE, number, int(status), reason, retry_after]
    raise AppError(f"on_handshake: decided on {type(decision).__name__}, expected Accept(...), Refuse(...) or None")
