"""The exceptions of Gatecrew.

* :exc:`GatecrewError`
    * :exc:`ConfigError`: a configuration that cannot work: which key, in which file, and what is allowed.
    * :exc:`ListenError`: an address that cannot be listened on: it is in use, or not of this machine.
    * :exc:`AppError`: a handler module that cannot be loaded or is put together wrongly.
    * :exc:`Fenced`: a gateway that others took for lost, and that must not go on.
    * :exc:`ClientIdError`: a string that is not a client id (also a :exc:`ValueError`).
    * :exc:`HandlerTimeout`: a handler ran past its time limit.
    * :exc:`TurnDropped`: a handler that was given up goes on recording commands.
    * :exc:`TokenError`: a token that does not let its client in.
    * :exc:`QueryError`: a question that got no answer.
        * :exc:`PartialAnswer`: some gateways did not answer in time (also a :exc:`TimeoutError`).
    * :exc:`Unreachable`: commands that could not be handed to the gateways they are for.
    * :exc:`LinkError`: a peer on the internal wire broke its rules; caught by the link, which drops the peer.
        * :exc:`WireError`: bytes that are not a frame of this wire.
"""

from __future__ import annotations


class GatecrewError(Exception):
    """The base of all errors that Gatecrew raises on purpose."""


class ConfigError(GatecrewError):
    """A configuration that cannot work: which key, in which file, and what is allowed."""


class ListenError(GatecrewError):
    """An address that cannot be listened on: it is in use, or not of this machine."""


class AppError(GatecrewError):
    """A handler module that cannot be loaded or is put together wrongly."""


class Fenced(GatecrewError):
    """A gateway was taken for lost by the others, and must not go on."""


class ClientIdError(GatecrewError, ValueError):
    """A string that is not a client id."""


class HandlerTimeout(GatecrewError):
    """A handler ran past its time limit and was given up."""


class TurnDropped(GatecrewError):
    """A handler that was given up goes on recording commands; they would not be sent."""


class TokenError(GatecrewError):
    """A token that nobody is let in by."""


class QueryError(GatecrewError):
    """A question that got no answer."""


class PartialAnswer(QueryError, TimeoutError):
    """Some gateways did not answer a query before its deadline.

    ``answer`` is what the others said, put together as if they were all; ``missing`` are the names of those that did not.
    """

    def __init__(self, answer: object, missing: list[str]) -> None:
        super().__init__(f"no answer from {', '.join(missing)} before the deadline")
        self.answer = answer
        self.missing = missing


class Unreachable(GatecrewError):
    """Commands could not be handed to the gateways they are for."""


class LinkError(GatecrewError):
    """A peer on the internal wire broke its rules."""


class WireError(LinkError):
    """Bytes that are not a frame of this wire."""
