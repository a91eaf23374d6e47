"""Keys between processes: CURVE encrypts every tcp link and proves both ends, and a list says which keys take part.

A *key* has two parts. The secret one lies in a file of its own on one machine. The public one stands in a list, the same on all
machines, of lines ``HOST PUBLIC``: the host as it stands in the addresses of that machine, so that who connects knows the key
that must be there. A host may have several keys, which is how they are changed without a pause. The list is read anew when it
changes, and what is no longer in it is out.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from .errors import ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from pathlib import Path

_log = logging.getLogger("gatecrew.keys")

SUFFIX: Final = ".key"  #: of the file of a secret key
LIST: Final = "keys"  #: the file of the public ones
LOOK_EVERY: Final = 2.0  #: seconds between looks at the list
HANDSHAKE_LIMIT: Final = 10.0  #: seconds that a connection may take to prove itself
MAX_FILE: Final = 1024 * 1024  #: bytes of a list
BURST: Final = 100  #: questions answered before other work of the loop gets its turn
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_HOST: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}")
_ZAP: Final = "inproc://zeromq.zap.01"  # RFC 27 of ZeroMQ
_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

PublicKeys = Mapping[str, tuple[bytes, ...]]  # by host; 32 bytes each


class Keys:
    """The secret key of this process, and the public keys of all that may take part.

    Args:
        key: the file of the secret key.
        known: the file of the public ones.

    Raises:
        ConfigError: if a file cannot be read, holds something else or is open to others, or if the key is not in the list.
    """

    def __init__(self, key: Path, known: Path) -> None:
        self.file = known
        self._secret = _read_secret(key)
        self.public = _public(self._secret)
        self._mark, text = _read_list(known)
        self._by_host = parse(text, str(known))
        self._hosts = _hosts(self._by_host)
        self._looked = 0.0
        self.version = 0  #: rises with each change of the list
        if self.public not in self._hosts:
            raise ConfigError(f"{known}: has no line for the key in {key}, whose public part is {self.public.hex()}")

    def of(self, host: str) -> tuple[bytes, ...]:
        """Return the public keys of a host, the last in the list first."""
        return self._by_host.get(host, ())

    def host(self, public: bytes) -> str | None:
        """Return whose public key this is, or None if it may not take part."""
        return self._hosts.get(public)

    def look(self, now: float) -> None:
        """Read the list anew if it has changed. One that cannot be read changes nothing, and is logged."""
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        try:
            mark = _mark(self.file.stat())
            if mark == self._mark:
                return
            self._mark = mark  # it is complained of once
            self._mark, text = _read_list(self.file)
            self._by_host = parse(text, str(self.file))
        except (OSError, ConfigError) as error:
            _log.error("the list of keys stays as it was: %s", error)
            return
        self._hosts = _hosts(self._by_host)
        self.version += 1
        _log.info("the list of keys has changed: %d may take part", len(self._hosts))

    def serve(self, socket: zmq.Socket[bytes], domain: str) -> None:
        """Let a socket that will bind take only who proves a key, and ask for each of them."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # with nobody to ask, nobody comes in

    def dial(self, socket: zmq.Socket[bytes], server: bytes) -> None:
        """Let the next connections of a socket prove our key, and take only who proves to be the server."""
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SERVERKEY, server)


class Guard:
    """Stands at a socket that binds, and lets in whose key is in the list. Needs a running loop.

    Args:
        loop: the loop that runs.
        socket: the socket, before it binds.
        keys: ours and theirs.
        refused: is told the public key and the address of who is not let in.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        keys: Keys,
        refused: Callable[[bytes, str], None],
    ) -> None:
        self.keys = keys
        self.refused = refused
        self._domain = f"gatecrew-{next(_numbers)}"
        _Zap.guards[self._domain.encode()] = self
        _Zap.begin(loop)
        socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_LIMIT * 1000))
        keys.serve(socket, self._domain)

    def lets_in(self, public: bytes, address: str, now: float) -> bool:
        """Tell whether the owner of this key may come in."""
        self.keys.look(now)
        if self.keys.host(public) is not None:
            return True
        self.refused(public, address)
        return False

    def close(self) -> None:
        """Leave; for the last one, nobody answers any more, so that nobody comes in."""
        if _Zap.guards.pop(self._domain.encode(), None) and not _Zap.guards:
            _Zap.end()


_numbers = count(1)


class _Zap:
    """Where ZeroMQ asks, before a peer is let in, whether it may be: one place for all sockets of the process."""

    guards: Final[dict[bytes, Guard]] = {}  # by the domain that ZeroMQ names
    _socket: zmq.Socket[bytes] | None = None
    _loop: asyncio.AbstractEventLoop

    @classmethod
    def begin(cls, loop: asyncio.AbstractEventLoop) -> None:
        if cls._socket is None:
            cls._socket = zmq.Context.instance().socket(zmq.REP)
            cls._socket.setsockopt(zmq.LINGER, 0)
            cls._socket.bind(_ZAP)
            cls._loop = loop
            loop.add_reader(cls._socket.FD, cls._readable)
            loop.call_soon(cls._readable)  # what came before the descriptor was watched raised no edge

    @classmethod
    def end(cls) -> None:
        assert cls._socket is not None, "it was begun with the first guard"
        cls._loop.remove_reader(cls._socket.FD)
        cls._socket.unbind(_ZAP)  # now, for the next one; closing takes its time
        cls._socket.close()
        cls._socket = None

    @classmethod
    def _readable(cls) -> None:
        for _ in range(BURST):
            if cls._socket is None or not int(cls._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            cls._socket.send_multipart(cls._answer(cls._socket.recv_multipart()))
        cls._loop.call_soon(cls._readable)

    @classmethod
    def _answer(cls, question: list[bytes]) -> list[bytes]:
        version, number, domain, address, _, mechanism, *credentials = question
        guard = cls.guards.get(domain)
        if mechanism == b"CURVE" and guard is not None:
            public = credentials[0]
            if guard.lets_in(public, address.decode(), cls._loop.time()):
                return [version, number, b"200", b"", public.hex().encode(), b""]
        return [version, number, b"400", b"this key is not in the list", b"", b""]


class Failures:
    """Tells of each connection of a socket that could not prove itself, or whose other end could not. Needs a running loop.

    Args:
        loop: the loop that runs.
        socket: the socket, before it connects.
        told: is told whether it was our key that was refused.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: zmq.Socket[bytes], told: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._watched = socket
        self._socket = socket.get_monitor_socket(_FAILED)
        self._told = told
        loop.add_reader(self._socket.FD, self._readable)
        loop.call_soon(self._readable)

    def _readable(self) -> None:
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = parse_monitor_message(self._socket.recv_multipart())["event"]
            self._told(event == zmq.EVENT_HANDSHAKE_FAILED_AUTH)

    def close(self) -> None:
        """Tell no more; to be called before the socket is closed."""
        self._loop.remove_reader(self._socket.FD)
        self._watched.disable_monitor()
        self._socket.close(linger=0)


def user(frame: zmq.Frame) -> bytes:
    """Return the public key that the sender of a frame proved."""
    return bytes.fromhex(str(frame.get("User-Id")))


def parse(text: str, where: str) -> dict[str, tuple[bytes, ...]]:
    """Read a list of public keys: lines of a host and a key, of which ``#`` begins a comment.

    Raises:
        ConfigError: names the line that is something else.
    """
    found: dict[str, tuple[bytes, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _HOST.fullmatch(words[0]) or not _KEY.fullmatch(words[1]):
            raise ConfigError(f"{where}: line {number}: expected a host and a public key of 64 hexadecimal digits")
        found[words[0]] = (bytes.fromhex(words[1]), *found.get(words[0], ()))
    return found


def make(folder: Path, hosts: Iterable[str]) -> list[Path]:
    """Make a key for each host: a file ``HOST.key`` with the secret part, and a line in the list ``keys`` with the public one.

    Returns:
        The files of the secret keys.

    Raises:
        ConfigError: if a host is none, has a key in this folder already, or if a file cannot be written.
    """
    hosts = list(dict.fromkeys(hosts))
    files = [folder / f"{host}{SUFFIX}" for host in hosts]
    for host, file in zip(hosts, files, strict=True):
        if not _HOST.fullmatch(host):
            raise ConfigError(f"{host!r} is no host, expected one as it stands in addresses, such as 10.0.0.1")
        if file.exists():
            raise ConfigError(f"{file} is there already, and stays; make new keys in another folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for host, file in zip(hosts, files, strict=True):
            public, secret = (z85.decode(part) for part in zmq.curve_keypair())
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(f"{secret.hex()}\n")
            with (folder / LIST).open("a") as out:
                out.write(f"{host} {public.hex()}\n")
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return files


def _hosts(by_host: PublicKeys) -> dict[bytes, str]:
    return {public: host for host, keys in by_host.items() for public in keys}


def _read_secret(file: Path) -> bytes:
    try:
        with file.open() as source:
            found = os.fstat(source.fileno())
            text = source.read(1000).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[cluster] key: {file} cannot be read: {_reason(error)}") from None
    # a group may read what root gives it, as Kubernetes does with its secrets
    open_to = 0o037 if found.st_uid == 0 else 0o077
    if stat.S_IMODE(found.st_mode) & open_to:
        raise ConfigError(
            f"[cluster] key: {file} is open to others (mode {stat.S_IMODE(found.st_mode):04o}), expected 0600; "
            "if others could read it, make a new key"
        )
    if not _KEY.fullmatch(text):  # never shown
        raise ConfigError(f"[cluster] key: {file} holds no secret key, expected what gatecrew keys writes")
    return bytes.fromhex(text)


def _read_list(file: Path) -> tuple[tuple[int, ...], str]:
    try:
        with file.open() as source:
            found = os.fstat(source.fileno())
            text = source.read(MAX_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[cluster] keys: {file} cannot be read: {_reason(error)}") from None
    if found.st_mode & stat.S_IWOTH:
        raise ConfigError(f"[cluster] keys: everybody may write to {file}, and let anybody in; run chmod o-w on it")
    if len(text) > MAX_FILE:
        raise ConfigError(f"[cluster] keys: {file} is longer than {MAX_FILE} bytes")
    return _mark(found), text


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is no text"


def _mark(found: os.stat_result) -> tuple[int, ...]:
    """Return what is another one after each change of a file."""
    return found.st_mtime_ns, found.st_size, found.st_ino


def _public(secret: bytes) -> bytes:
    return z85.decode(zmq.curve_public(z85.encode(secret)))
