"""What may talk to what: link addresses, the proof that a process knows the cluster's secret, and the private run directory.

The addresses and proofs are pure; only :func:`prepare_run_dir` touches the file system.
"""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from .addresses import parse
from .errors import ConfigError

#: The longest path of a unix socket: ``sun_path`` has 108 bytes, one of them for the final NUL.
SOCKET_PATH_LIMIT = 107
#: Of these, what is kept for the name of a socket in the run directory ("worker-999-abcdefgh.notify").
SOCKET_NAME_ROOM = 26


def check_link_address(address: str, *, insecure: bool, where: str) -> None:
    """Allow an address at which processes of a cluster meet: ``ipc://path``, or ``tcp://host:port`` (or port range) on loopback.

    Args:
        address: where a register or a gateway is reached by the other processes.
        insecure: whether plain tcp beyond loopback was asked for by name.
        where: names the setting in an error, such as ``chat.toml: [gateway] link``.

    Raises:
        ConfigError: if the address is malformed, nobody could connect to it, or it is tcp beyond loopback and not ``insecure``.
    """
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        if not path.startswith("/") or len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ConfigError(
                f"{where}: found {address!r}, expected an absolute path of at most {SOCKET_PATH_LIMIT} bytes after ipc://"
            )
        return
    try:
        parsed = parse(address, "tcp", ports=True)
    except ValueError as error:
        raise ConfigError(
            f"{where}: found {address!r}, {error}; expected ipc:///path/to.sock or tcp://127.0.0.1:7270"
        ) from None
    if parsed.wildcard:
        raise ConfigError(
            f"{where}: found {address!r}, to which nobody can connect; "
            "expected the address of this machine at which the other processes reach it"
        )
    if not parsed.loopback and not insecure:
        raise ConfigError(
            f"{where}: {address} would carry everything in the clear beyond this machine. Use ipc or 127.0.0.1 if all "
            "processes run here; if the network between the machines is private or encrypted (WireGuard, for example), "
            "set insecure = true in [cluster] and a secret"
        )


def proof(secret: str, speaker_key: str, listener_key: str, purpose: str) -> bytes:
    """Return what the speaker shows to the listener to prove that it knows the secret of the cluster.

    Both keys are new at each start of a process, so a proof that was overheard is of no use towards another process or in the
    other direction. Without a secret the proof is empty.

    Args:
        secret: the ``secret`` of ``[cluster]``; "" for none.
        speaker_key: the key of the process that proves.
        listener_key: the key of the process that it talks to.
        purpose: what the proof is for; a proof for one purpose is none for another.
    """
    if not secret:
        return b""
    # Each part is preceded by its length, so that no two lists of parts give the same bytes.
    parts = (part.encode() for part in (purpose, speaker_key, listener_key))
    return hmac.digest(secret.encode(), b"".join(b"%d:%s" % (len(part), part) for part in parts), "sha256")


def proves(given: bytes, secret: str, speaker_key: str, listener_key: str, purpose: str) -> bool:
    """Tell whether ``given`` is the :func:`proof` of these; without a secret only an empty one is."""
    return hmac.compare_digest(given, proof(secret, speaker_key, listener_key, purpose))


def check_run_dir(path: str, *, where: str) -> None:
    """Check that sockets in this directory have paths that the system can take.

    Raises:
        ConfigError: if the path is too long.
    """
    room = SOCKET_PATH_LIMIT - 1 - SOCKET_NAME_ROOM
    length = len(os.fsencode(path))
    if length > room:
        raise ConfigError(
            f"{where}: {path} has {length} bytes, expected at most {room}, because the path of a socket in it "
            f"may have {SOCKET_PATH_LIMIT}; set a shorter one, such as /tmp/chat"
        )


def prepare_run_dir(path: Path, *, where: str = "[cluster] run_dir") -> None:
    """Make sure that the run directory exists and that nobody else can enter or replace it.

    Missing directories are created with mode 0700.

    Raises:
        ConfigError: if the path is too long, cannot be created, is no directory, is owned by somebody else or open to
            others, or stands in a directory in which others could replace it.
    """
    check_run_dir(str(path), where=where)
    try:
        for missing in reversed([path, *path.parents]):
            # mkdir(parents=True) would give the mode to the last one only
            if not missing.exists():
                missing.mkdir(mode=0o700, exist_ok=True)
        parent, own = path.parent.stat(), path.lstat()
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be created: {error.strerror}") from error
    problem = _run_dir_problem(own, os.getuid()) or _parent_problem(parent, os.getuid())
    if problem:
        raise ConfigError(f"{where}: {path} {problem}")


def _run_dir_problem(own: os.stat_result, uid: int) -> str:
    if not stat.S_ISDIR(own.st_mode):
        return "is not a directory (nor may it be a symbolic link)"
    if own.st_uid != uid:
        return f"belongs to the user with id {own.st_uid}, expected {uid}, who runs this; choose another directory"
    if stat.S_IMODE(own.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(own.st_mode):04o}), expected 0700; run chmod 0700 on it if it is yours alone"
    return ""


def _parent_problem(parent: os.stat_result, uid: int) -> str:
    """Say why the owner of the parent, or anybody, could put another directory in the place of ours."""
    if parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
        return "stands in a directory in which everybody may write; choose another place"
    if parent.st_uid not in (0, uid):
        return f"stands in a directory of the user with id {parent.st_uid}; choose another place"
    return ""
