"""Frames of RFC 6455 as the server sees them: messages into frames, the bytes of a client into messages.

Most of what clients send are messages in one frame each. :class:`Inbox` takes those itself, several times faster than
the general parser, and leaves the rest (control frames, fragments, compressed frames, large frames that come in pieces,
and all that is wrong) to :class:`websockets.protocol.Protocol`, frame by frame.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, Final

from websockets.frames import BINARY, CLOSE, CONT, TEXT, CloseCode, Frame
from websockets.protocol import OPEN, SERVER, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover  (a platform for which websockets has no compiled wheel)
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.extensions import Extension
    from websockets.typing import LoggerLike

#: Section 5.2: FIN and opcode, the MASK bit, and the two lengths that say that the length follows.
_TEXT_HEAD: Final = 0x81
_BINARY_HEAD: Final = 0x82
_FIN: Final = 0x80
_BINARY: Final = 0x02
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
#: A frame that is cut off by the end of what was read is held back if it is at most this long. With more, a client that
#: sends byte by byte would be expensive, because what is held back is joined to each piece.
_HOLD: Final = 4096
#: The size of a frame whose length is cut off.
_UNKNOWN: Final = 1 << 65

_SHORT_TEXT: Final = [bytes((_TEXT_HEAD, length)) for length in range(_LENGTH_16)]
_SHORT_BINARY: Final = [bytes((_BINARY_HEAD, length)) for length in range(_LENGTH_16)]
_medium = struct.Struct("!BBH").pack
_long = struct.Struct("!BBQ").pack
_Utf8 = codecs.getincrementaldecoder("utf-8")


def encode(data: str | bytes) -> bytes:
    """Return the frame that carries a message to any client without extensions: text for str, binary for bytes."""
    if type(data) is str:
        payload = data.encode()
        head, short = _TEXT_HEAD, _SHORT_TEXT
    else:
        payload = data  # type: ignore[assignment]  # what is not str is bytes
        head, short = _BINARY_HEAD, _SHORT_BINARY
    length = len(payload)
    if length < _LENGTH_16:
        return short[length] + payload
    return (_medium(head, _LENGTH_16, length) if length < 1 << 16 else _long(head, _LENGTH_64, length)) + payload


def close_reason(text: str) -> str:
    """Return as much of a reason as fits into a close frame: 123 bytes, no character cut in two (section 5.5)."""
    return text.encode()[:123].decode(errors="ignore")


class Parser(Protocol):
    """The general parser; a close frame may come in the midst of a message, as any control frame (section 5.4)."""

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame."""
        if frame.opcode is CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Inbox:
    """The bytes of one open connection into messages.

    Args:
        max_message: bytes of the largest message that is taken.
        extensions: what was negotiated.
        logger: for failures of the parser, which are bugs.
        max_fragments: frames of which a message may consist.

    After :meth:`feed` or :meth:`drain`, if ``stirred`` is true, set it to False, write ``protocol.data_to_send()``, and
    see whether ``protocol.state`` changed.

    ``others`` counts the frames that were no whole messages, and ``inflated``, until it is set to 0, the
    bytes of messages where compression was negotiated.

    """

    __slots__ = (
        "_fragments",
        "_hold",
        "_message",
        "_owed",
        "_rest",
        "_utf8",
        "inflated",
        "max_fragments",
        "max_message",
        "others",
        "protocol",
        "stirred",
    )

    def __init__(
        self, max_message: int, extensions: Sequence[Extension], logger: LoggerLike, max_fragments: int = 4096
    ) -> None:
        self.max_message = max_message
        self.max_fragments = max_fragments
        self.protocol = Parser(SERVER, state=OPEN, max_size=max_message, logger=logger)
        self.protocol.extensions = list(extensions)
        self.stirred = False
        self._hold = min(_HOLD, max_message)
        self._rest = b""  # the beginning of a frame that is held back
        self._owed = 0  # bytes of a large frame that the protocol has not got yet
        self._message: list[str | bytes] | None = None  # the fragments of an unfinished message
        self._fragments = 0
        self._utf8: codecs.IncrementalDecoder | None = None  # of a message that is text
        self.others = 0
        self.inflated = 0

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun to come."""
        return bool(self._rest or self._owed or self._message is not None)

    def feed(self, data: bytes) -> list[str | bytes]:
        """Take what was read from the socket and return the messages that are complete now."""
        messages: list[str | bytes] = []
        if self._rest or self._owed:
            data = self._go_on(data, messages)
        at = 0
        end = len(data)
        while at < end:
            start = at + 6
            if start <= end and _MASKED <= data[at + 1] < _MASKED + _LENGTH_16:
                stop = start + data[at + 1] - _MASKED
            else:
                start, stop = _measure(data, at, end)
            if stop > end:
                self._cut_off(data[at:], stop - at, messages)
                break
            head = data[at]
            if (
                _TEXT_HEAD <= head <= _BINARY_HEAD
                and self._message is None
                and stop - start <= self.max_message
                and data[at + 1] & _MASKED
            ):
                payload = apply_mask(data[start:stop], data[start - 4 : start])
                try:
                    messages.append(str(payload, "utf-8") if head == _TEXT_HEAD else payload)
                except UnicodeDecodeError as error:
                    self._not_utf8(error)
                    break
            elif not self._slowly(data[at:stop], messages):
                self._after_the_end(data[stop:])
                break
            at = stop
        return messages

    def drain(self, data: bytes) -> None:
        """Take what was read from the socket after the closing handshake began: only a close frame matters."""
        self.stirred = True
        self.protocol.receive_data(self._rest + data)
        self.protocol.events_received()
        self._rest = b""
        self._message = None

    def _go_on(self, data: bytes, messages: list[str | bytes]) -> bytes:
        """Put what was held back in front of the data; give the protocol what it is owed; return the rest."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
            return data
        owed = self._owed
        self._owed = max(0, owed - len(data))
        if not self._slowly(data[:owed], messages):
            self._after_the_end(data[owed:])
            return b""
        return data[owed:]

    def _after_the_end(self, data: bytes) -> None:
        """Discard what follows a close frame or an error (section 5.5.1)."""
        if data:
            self.drain(data)

    def _cut_off(self, piece: bytes, size: int, messages: list[str | bytes]) -> None:
        """Take the beginning of a frame of so many bytes."""
        head = piece[0]
        if size >= _UNKNOWN:
            self._rest = piece
        elif (
            size <= min(self._hold, self.max_message - (self.protocol.current_size or 0))
            and head & ~_FIN <= _BINARY
            and piece[1] & _MASKED
        ):
            self._rest = piece
            self._foresee(piece)
        elif self._slowly(piece, messages):
            self._owed = size - len(piece)

    def _foresee(self, piece: bytes) -> None:
        """Fail if the beginning of a frame of text is not UTF-8: nobody need wait for the end of it (section 8.1)."""
        utf8 = _Utf8()
        if piece[0] & ~_FIN == CONT:
            if self._message is None or self._utf8 is None or self.protocol.extensions:  # compressed, perhaps
                return
            utf8.setstate(self._utf8.getstate())
        elif piece[0] & ~_FIN != TEXT or self._message is not None:
            return
        start, _ = _measure(piece, 0, len(piece))
        if start >= len(piece):  # of the payload, nothing has come
            return
        try:
            utf8.decode(apply_mask(piece[start:], piece[start - 4 : start]))
        except UnicodeDecodeError as error:
            self._rest = b""
            self._not_utf8(error)

    def _slowly(self, data: bytes, messages: list[str | bytes]) -> bool:
        """Let the protocol take at most one frame; return whether the connection is still open."""
        self.stirred = True
        protocol = self.protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            # made of frames only: the request was read by another protocol
            if isinstance(frame, Frame):
                try:
                    self._frame(frame, messages)
                except UnicodeDecodeError as error:
                    self._not_utf8(error)
        return protocol.state is OPEN

    def _frame(self, frame: Frame, messages: list[str | bytes]) -> None:
        self.others += 1
        opcode = frame.opcode
        if opcode is CONT:  # the protocol has seen to the order and the size
            self._fragments += 1
        elif opcode is TEXT or opcode is BINARY:
            self._message = []
            self._fragments = 1
            self._utf8 = _Utf8() if opcode is TEXT else None
        else:
            return
        message = self._message
        if message is None:  # what came after an error
            return
        if self._fragments > self.max_fragments:
            self._message = None
            self.protocol.fail(CloseCode.POLICY_VIOLATION, f"a message of more than {self.max_fragments} fragments")
            return
        if self.protocol.extensions:
            self.inflated += len(frame.data)
        if frame.data or frame.fin:
            # a view would keep alive all that was read with it
            message.append(self._utf8.decode(frame.data, frame.fin) if self._utf8 is not None else bytes(frame.data))
        if frame.fin:
            messages.append("".join(message) if self._utf8 is not None else b"".join(message))  # type: ignore[arg-type]
            self._message = None

    def _not_utf8(self, error: UnicodeDecodeError) -> None:
        self.stirred = True
        self._message = None
        self.protocol.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")


def _measure(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where the payload of the frame starts and stops; past the end if that is cut off."""
    if end - at < 2:
        return end + 1, at + _UNKNOWN
    second = data[at + 1]
    length = second & ~_MASKED
    start = at + 2
    if length >= _LENGTH_16:
        start += 2 if length == _LENGTH_16 else 8
        if start > end:
            return end + 1, at + _UNKNOWN
        length = int.from_bytes(data[at + 2 : start])
    if second & _MASKED:
        start += 4
    return start, start + length
