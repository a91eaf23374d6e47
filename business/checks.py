"""What may be sent and how things may be called: checked where it is commanded, so that the mistake shows in its own line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..common import wire
from ..common.errors import WireError
from ..common.ids import gateway_of

if TYPE_CHECKING:
    from ..common.messages import Message

MAX_DATA: Final = 16 * 1024 * 1024  #: bytes (characters of text) of one message to clients, and of a packed session
MAX_COMMANDS: Final = 2 * MAX_DATA  #: bytes of one command, and of those that a handler records before they leave
MAX_NAME: Final = 512  #: characters of a uid or of a group's name


def payload(data: object) -> str | bytes:
    """Return what may be sent: str goes out as text, bytes as binary.

    Raises:
        TypeError: if it is neither.
        ValueError: if it is over :data:`MAX_DATA`, or text that UTF-8 cannot say (UnicodeEncodeError).
    """
    if type(data) is str:
        if not data.isascii():
            data.encode()
    elif type(data) is not bytes:
        if not isinstance(data, str | bytes | bytearray | memoryview):
            raise TypeError(
                f"a message is str (text) or bytes (binary), not {type(data).__name__}; json.dumps makes text of it"
            )
        return payload(str(data) if isinstance(data, str) else bytes(data))
    if len(data) > MAX_DATA:
        raise ValueError(f"a message of {len(data)}, expected at most {MAX_DATA}")
    return data


def size(message: Message) -> int:
    """Return the bytes of a command or a question.

    Raises:
        ValueError: if it is over :data:`MAX_COMMANDS`: so many clients or groups are in it.
    """
    bytes_ = len(wire.pack(message))
    if bytes_ > MAX_COMMANDS:
        raise ValueError(f"a command of {bytes_} bytes, expected at most {MAX_COMMANDS}: name fewer in one call")
    return bytes_


def name(kind: str, value: object) -> str:
    """Return a uid or the name of a group.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is empty, over :data:`MAX_NAME`, or not to be said in UTF-8 (UnicodeEncodeError).
    """
    if not isinstance(value, str):
        raise TypeError(f"a {kind} is a string, not {type(value).__name__}: {value!r}")
    if not value or len(value) > MAX_NAME:
        raise ValueError(f"a {kind} of {len(value)} characters, expected 1 to {MAX_NAME}")
    if not value.isascii():
        value.encode()
    return value


def names(kind: str, value: str | Iterable[str]) -> list[str]:
    """Return the names of one or many, as :func:`name` does."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [name(kind, value)]
    return [name(kind, one) for one in value]


def by_gateway(client_ids: Iterable[str]) -> dict[str, list[str]]:
    """Sort client ids by the keys of their gateways; each id once, in order.

    Raises:
        ClientIdError: if one is no client id.
    """
    sorted_ids: dict[str, list[str]] = {}
    for client_id in dict.fromkeys(client_ids):
        sorted_ids.setdefault(gateway_of(client_id), []).append(client_id)
    return sorted_ids


def session_map(session: object) -> dict[str, Any]:
    """Return a session as it will be read again: a map with text keys of what msgpack can say.

    Raises:
        TypeError: if it is no map, or holds what msgpack cannot say.
        ValueError: if a key in it is not text, or a number is too large.
    """
    if not isinstance(session, Mapping):
        raise TypeError(f"a session is a dict, not {type(session).__name__}")
    plain: dict[str, Any] = {}
    size = 0
    for key, value in session.items():
        if type(key) is not str:
            raise ValueError(f"session[{key!r}]: the keys of a session are strings, not {type(key).__name__}")
        try:
            # in lists, as it will be in a batch: so deep in there it must not be too deep to be packed
            packed = wire.pack([[[[[key, value]]]]])
            plain[key] = wire.unpack(packed)[0][0][0][0][1]
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if type(error) is TypeError else ValueError
            raise kind(f"session[{key!r}]: cannot be kept: {error}") from None
        except WireError:
            raise ValueError(
                f"session[{key!r}]: cannot be kept: it is nested too deep, or a key of a dict in it is no string"
            ) from None
        size += len(packed)
    if size > MAX_DATA:
        raise ValueError(f"a session of {size} bytes, expected at most {MAX_DATA}")
    return plain
