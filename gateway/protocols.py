"""What may be spoken on a stream of bytes: bytes in, messages out, and back.

Pure. A user's own protocol is a class like those here: see :class:`Protocol` for the rules that it must keep, and
:mod:`gatecrew.testing.protocols` for what tests them.
"""

from __future__ import annotations

import importlib
import inspect
import operator
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from typing import Protocol as Interface

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_HEAD: Final = 4  #: bytes of the length of a frame
_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")


class TooBig(ValueError):
    """A message has more bytes than it may have."""


class Protocol(Interface):
    """What one connection speaks. There is an object for each, made by calling the class with ``max_message``.

    The rules:

    * However the stream is cut into pieces, the same messages come.
    * What :meth:`encode` makes of a message, :meth:`feed` at the other end makes that message of.
    * :meth:`feed` keeps what is not complete yet, and nothing else.
    """

    def feed(self, data: bytes, /) -> Iterable[str | bytes | None]:
        """Take what was read and return, or yield, the messages that are complete now; None for what is none, like a heartbeat.

        Raises:
            ValueError: if the stream is broken; the connection is closed. A generator may yield what is good before that.
        """

    def encode(self, message: str | bytes, /) -> bytes:
        """Return what is to be written for a message. As a static method, it is called once for all who get the same message.

        Raises:
            ValueError: if the protocol cannot say that; the message is dropped, counted, and the first such is logged.
        """


class Raw:
    """No protocol: whatever was read is a message, in bytes; what is sent goes as it is."""

    def __init__(self, max_message: int) -> None:
        self._max = max_message

    def feed(self, data: bytes) -> list[bytes]:
        """Return what was read, in pieces that are not too big."""
        return [data[at : at + self._max] for at in range(0, len(data), self._max)]

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return the message itself; text as UTF-8."""
        return message.encode() if isinstance(message, str) else message


class Text:
    """A line is a message, in UTF-8; a CR before the newline is no part of it. A line break in what is sent becomes a space."""

    def __init__(self, max_message: int) -> None:
        self._max = max_message
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that are complete now."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._rest += end
            line, self._rest = self._rest, bytearray()
            if line.endswith(b"\r"):
                del line[-1]
            if len(line) > self._max:
                raise TooBig
            yield str(line, "utf-8")
        self._rest += rest
        if len(self._rest) > self._max + 1:  # the last one may be the CR
            raise TooBig

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return the line. JSON means the same with spaces for its line breaks."""
        line = message.encode() if isinstance(message, str) else message
        return line.translate(_BLANKS) + b"\n"


class Frame:
    """Four bytes, the first the highest, say how long a frame is, themselves included; then comes the message, in bytes."""

    def __init__(self, max_message: int) -> None:
        self._max = max_message
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete now."""
        rest = self._rest
        rest += data
        at = 0
        try:
            while len(rest) - at >= _HEAD:
                size = int.from_bytes(rest[at : at + _HEAD])
                if size < _HEAD:
                    raise ValueError(f"a frame of {size} bytes, expected its 4 bytes of length at least")
                if size - _HEAD > self._max:
                    raise TooBig
                if len(rest) - at < size:
                    break
                start, at = at + _HEAD, at + size
                yield bytes(rest[start:at])
        finally:
            del rest[:at]

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return the frame; text goes as UTF-8."""
        payload = message.encode() if isinstance(message, str) else message
        return (_HEAD + len(payload)).to_bytes(_HEAD) + payload


PROTOCOLS: Final[dict[str, Callable[[int], Protocol]]] = {"text": Text, "frame": Frame, "raw": Raw}


class Spoken(NamedTuple):
    """What is spoken at one listener."""

    make: Callable[[int], Protocol]  #: called with ``max_message`` for each connection
    encode: Callable[[str | bytes], bytes] | None  #: the same for all connections, if it is


def spoken(name: str) -> Spoken:
    """Return the protocol with this name: one of :data:`PROTOCOLS`, or a user's own, ``module:Class``.

    Raises:
        ConfigError: if there is none, it cannot be imported, or is not made like :class:`Protocol`.
    """
    where = f"[gateway] protocol: {name}"
    found: Any = PROTOCOLS.get(name)
    if found is None:
        module, _, attribute = name.partition(":")
        try:
            found = operator.attrgetter(attribute)(importlib.import_module(module))
            probe = found(1024)
        except Exception as error:  # whatever the user's module does wrong
            raise ConfigError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
        for method in ("feed", "encode"):
            if not callable(getattr(probe, method, None)):
                raise ConfigError(f"{where} has no method {method}")
    shared = isinstance(inspect.getattr_static(found, "encode", None), staticmethod)
    return Spoken(found, found.encode if shared else None)
