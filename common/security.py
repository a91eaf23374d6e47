"""What may talk to what: the addresses of links, and the private run directory.

Only :func:`prepare_run_dir` touches the file system.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from .addresses import parse
from .errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

#: The longest path of a unix socket, in bytes: macOS has room for 104, Linux for 108, with a final NUL.
SOCKET_PATH_LIMIT: Final = 103
#: Of these, what is kept for the name of a socket in the run directory ("gateway-999-abcdefgh.sock").
SOCKET_NAME_ROOM: Final = 26


def check_link_address(address: str, *, keys: bool, insecure: bool, where: str) -> None:
    """Allow an address at which processes of a cluster meet over tcp.

    Args:
        address: ``tcp://host:port``, or a range of ports.
        keys: whether the cluster has keys.
        insecure: whether plain tcp beyond loopback was asked for by name.
        where: names the setting in an error, such as ``chat.toml: [gateway] link``.

    Raises:
        ConfigError: if nobody could connect to it, or it is beyond loopback with neither ``keys`` nor ``insecure``.
    """
    parsed = parse(address, "tcp", ports=True)
    if parsed.wildcard:
        raise ConfigError(
            f"{where}: found {address}, to which nobody can connect; "
            "expected the address of this machine at which the other processes reach it"
        )
    if not (parsed.loopback or keys or insecure):
        raise ConfigError(
            f"{where}: {address} would carry everything in the clear beyond this machine, from and to anybody. Make keys "
            'with gatecrew keys and name them in [cluster] key and keys, or use "ipc" if all processes run here. Only on a '
            "network that lets nobody else in, such as WireGuard: insecure = true"
        )


def check_run_dir(path: Path, *, where: str) -> None:
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


def prepare_run_dir(path: Path) -> None:
    """Make sure that the run directory exists and that nobody else can enter or replace it.

    Missing directories are created with mode 0700.

    Args:
        path: absolute.

    Raises:
        ConfigError: if it cannot be created, is no directory, belongs to somebody else or is open to others, or if others could
            put another one in its place.
    """
    try:
        for missing in reversed([path, *path.parents]):
            # mkdir(parents=True) would give the mode to the last one only
            if not missing.exists():
                missing.mkdir(mode=0o700, exist_ok=True)
        own = path.lstat()
        above = [status for parent in path.parents for status in (parent.lstat(), parent.stat())]
    except OSError as error:
        raise ConfigError(f"[cluster] run_dir: {path} cannot be created: {error.strerror}") from error
    uid = os.getuid()
    problem = _run_dir_problem(own, uid) or next(filter(None, (_parent_problem(status, uid) for status in above)), "")
    if problem:
        raise ConfigError(f"[cluster] run_dir: {path} {problem}")


def _run_dir_problem(own: os.stat_result, uid: int) -> str:
    if not stat.S_ISDIR(own.st_mode):
        return "is not a directory (nor may it be a symbolic link)"
    if own.st_uid != uid:
        return f"belongs to the user with id {own.st_uid}, expected {uid}, who runs this; choose another directory"
    if stat.S_IMODE(own.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(own.st_mode):04o}), expected 0700; run chmod 0700 on it if it is yours alone"
    return ""


def _parent_problem(parent: os.stat_result, uid: int) -> str:
    """Say why the owner of a directory above ours, or anybody, could put another one in its place."""
    if parent.st_uid not in (0, uid):
        return f"stands in a directory of the user with id {parent.st_uid}; choose another place"
    anybody = stat.S_ISDIR(parent.st_mode) and parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX
    return "stands in a directory in which everybody may write; choose another place" if anybody else ""
