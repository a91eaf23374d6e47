"""The internal wire: frames between two processes, each one ZeroMQ message.

::

    0      2   3    4        8              16             24
    +------+---+----+--------+--------------+--------------+-----------
    | "GC" | v | k  |  lane  |     seq      |     ack      | payload ...
    +------+---+----+--------+--------------+--------------+-----------

``v`` is the major version, ``k`` the kind; the other numbers are big-endian and told in :mod:`.lane`. The first four bytes
and the text payload of REFUSE stay as they are for ever, so that any two versions can tell each other why they do not talk.
The payload of DATA is one msgpack array of messages (:mod:`.messages`): all that one process had for the other in one turn
of its event loop.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import msgpack

from .errors import WireError

if TYPE_CHECKING:
    from .messages import Message

VERSION: Final = 1
HEADER: Final = Struct(">2sBBIQQ")
MAX_FRAME: Final = 256 * 1024 * 1024  #: bytes; a larger frame is refused
MAX_BATCH: Final = 16 * 1024 * 1024  #: bytes; what one turn has for a peer beyond that travels as several batches
MAX_HELLO: Final = 4096  #: bytes; before a peer is known it is not believed more than this

# Kinds of frame. The connector says HELLO and repeats it until it hears WELCOME, REFUSE or RESET.
HELLO: Final = 1  #: payload: map
WELCOME: Final = 2  #: payload: map
REFUSE: Final = 3  #: payload: UTF-8 text, why; ends the lane
DATA: Final = 4  #: payload: batch
PROBE: Final = 5  #: "I am alive, I sent up to seq, I have up to ack"
NACK: Final = 6  #: as PROBE, and: "send again from ack + 1"
RESET: Final = 7  #: "I know of no such lane": start a new one
BYE: Final = 8  #: "I leave"

_MAGIC: Final = b"GC"
_pack = msgpack.Packer(use_bin_type=True).pack
_header = HEADER.pack
_HEADER_SIZE: Final = HEADER.size


def frame(kind: int, lane: int, seq: int = 0, ack: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _header(_MAGIC, VERSION, kind, lane, seq, ack) + payload


def read(data: bytes) -> tuple[int, int, int, int]:
    """Return kind, lane, seq and ack of a frame; its payload starts at byte 24.

    Raises:
        WireError: if this is not a frame of this version.
    """
    if len(data) < _HEADER_SIZE:
        raise WireError(
            f"a frame of {len(data)} bytes, shorter than its header" if data[:2] == _MAGIC else "not Gatecrew"
        )
    if len(data) > MAX_FRAME:
        raise WireError(f"a frame of {len(data)} bytes, over the limit of {MAX_FRAME}")
    magic, version, kind, lane, seq, ack = HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireError("not Gatecrew")
    if version != VERSION:
        raise WireError(f"wire version {version}, but this process speaks {VERSION}: run one version of Gatecrew")
    return kind, lane, seq, ack


def encode(messages: list[Message]) -> list[bytes]:
    """Return the payload for a batch of messages; several if it would be over :data:`MAX_BATCH`.

    Raises:
        TypeError, ValueError, OverflowError: if a message holds what msgpack cannot say, or is too long for a frame.
    """
    payload = _pack(messages)
    if len(payload) <= MAX_BATCH:
        return [payload]
    if len(messages) == 1:
        if len(payload) > MAX_FRAME - _HEADER_SIZE:
            raise ValueError(f"a message of {len(payload)} bytes, over what a frame of {MAX_FRAME} has room for")
        return [payload]
    half = len(messages) // 2
    return encode(messages[:half]) + encode(messages[half:])


def decode(data: bytes) -> list[Message]:
    """Return the messages of a DATA frame.

    Raises:
        WireError: if the payload is not one array of non-empty arrays, each of which starts with a number.
    """
    batch = unpack(memoryview(data)[_HEADER_SIZE:])
    if type(batch) is not list:
        raise WireError("a batch that is not an array")
    for message in batch:
        if type(message) is not list or not message or type(message[0]) is not int:
            raise WireError("a batch with something that is not a message")
    return batch


def decode_map(data: bytes) -> dict[str, Any]:
    """Return the payload of a HELLO or WELCOME frame.

    Raises:
        WireError: if it is not a map, or longer than such a thing is.
    """
    if len(data) > MAX_HELLO:
        raise WireError("a greeting that is too long")
    greeting = unpack(memoryview(data)[_HEADER_SIZE:])
    if type(greeting) is not dict:
        raise WireError("a greeting that is not a map")
    return greeting


def text(data: bytes) -> str:
    """Return the payload of a REFUSE frame, cut at 200 characters and fit for one line of a log."""
    said = data[_HEADER_SIZE : _HEADER_SIZE + 800].decode("utf-8", "replace")[:200]
    return "".join(char if char.isprintable() else "?" for char in said)


def pack(value: object) -> bytes:
    """Return any one value packed: a session, a greeting."""
    return _pack(value)  # type: ignore[no-any-return]


def unpack(data: bytes | memoryview) -> Any:
    """Return one packed value: None, numbers, texts, bytes, and lists and maps of them.

    No length is believed that is more than the bytes that there are.

    Raises:
        WireError: if it is not exactly one.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_refuse, max_ext_len=0)
    except (ValueError, MemoryError, msgpack.UnpackException) as error:  # also bad UTF-8, depth and what is left over
        raise WireError(f"not msgpack: {error}") from error


def _refuse(code: int, data: bytes) -> None:
    raise ValueError(f"an extension of type {code}")
