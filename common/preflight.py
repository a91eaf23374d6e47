"""Whether a configuration would work on this machine: what can be known before anything starts.

Each part of Gatecrew has its list of checks, as :func:`checks` here: what they look at, and a function that looks.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from . import config as configuration
from . import supervisor
from .addresses import Address, parse, parse_listen
from .curve import Keys
from .errors import ConfigError, GatecrewError, ListenError
from .security import prepare_run_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .config import Config

_FEW_FILES: Final = 1024  # open files with which a gateway has next to no clients
_OWN_FILES: Final = 64  # that a gateway needs beside its clients


class Check(NamedTuple):
    """One thing to look at."""

    subject: str
    look: Callable[[], str]  #: returns what is found; raises GatecrewError if it would not work


def report(checks: Iterable[Check]) -> Iterator[tuple[bool, str]]:
    """Look at one thing after the other; yield whether it would work, and a line that says so."""
    for subject, look in checks:
        try:
            good, text = True, look()
        except GatecrewError as error:
            good, text = False, str(error)
        yield good, f"{'ok' if good else 'fail':<4}  {subject:<13}  {text}"


def checks(config: Config) -> list[Check]:
    """Return what there is to look at for any process, but for the application and what gateways read."""
    cluster, gateway = config.cluster, config.gateway
    found = [
        Check("configuration", lambda: str(config.path or "no file: the defaults")),
        Check("run directory", partial(_run_dir, cluster.directory)),
        Check("open files", partial(_open_files, gateway.max_connections)),
    ]
    if cluster.key:
        found.append(Check("keys", partial(_keys, cluster.key, cluster.keys)))
    if config.log.file:
        found.append(Check("log file", partial(_log_file, Path(config.log.file))))
    running = supervisor.find(cluster.directory)
    if running is not None:
        return [*found, Check("addresses", lambda: f"in use, as the cluster runs here, as process {running.pid}")]
    return [*found, *_addresses(config)]


def refuse_if_in_use(listen: str) -> None:
    """Look whether somebody listens there. Gateways share a port, and so would those of another cluster, silently.

    Args:
        listen: one of ``[gateway] listen``.

    Raises:
        ListenError: if so, or if the address is not of this machine.
    """
    _, _, address, path, _ = parse_listen(listen)
    if address is None:
        _refuse_if_answered(listen, path)
    elif address.first:
        _bind("[gateway] listen", listen, address, address.first)


def _addresses(config: Config) -> Iterator[Check]:
    gateway = config.gateway
    for name in config.local_registers():
        address = config.cluster.register_address(name)
        if address.startswith("tcp:"):
            yield Check(name, partial(_free, "[cluster] registers", address))
    if gateway.processes:
        for listen in gateway.listen:
            yield Check("clients", partial(_listen, listen))
        if gateway.link != configuration.IPC:
            yield Check("links", partial(_free, "[gateway] link", gateway.link, gateway.processes))
    if config.metrics.listen:
        processes = len(config.local_registers()) + gateway.processes + config.worker.processes
        yield Check("metrics", partial(_free, "[metrics] listen", config.metrics.listen, processes))


def _listen(text: str) -> str:
    refuse_if_in_use(text)
    return f"{text} is free"


def _free(setting: str, text: str, number: int = 1) -> str:
    """Say that so many of the ports of an address are free."""
    address = parse(text, text.partition(":")[0], ports=True)
    if not address.first:
        return f"{text}: any that is free"
    refused: list[ListenError] = []

    def free() -> Iterator[int]:
        for port in range(address.first, address.last + 1):
            try:
                _bind(setting, address.with_port(port), address, port)
            except ListenError as error:
                refused.append(error)
            else:
                yield port

    if len(list(islice(free(), number))) < number:
        raise refused[0]
    return f"{text} is free"


def _bind(setting: str, shown: str, address: Address, port: int) -> None:
    host = None if address.host == "*" else address.host
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, number, _, where in found:
            with socket.socket(family, kind, number) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(where)
    except OSError as error:
        raise ListenError(f"{setting}: cannot listen on {shown}: {error.strerror}") from error


def _refuse_if_answered(listen: str, path: str) -> None:
    """Look whether somebody listens on a unix socket; one that was left behind is in nobody's way."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise ListenError(f"[gateway] listen: cannot listen on {listen}: {error.strerror}") from error
    raise ListenError(f"[gateway] listen: cannot listen on {listen}: {os.strerror(errno.EADDRINUSE)}")


def _run_dir(path: Path) -> str:
    prepare_run_dir(path)
    return str(path)


def _open_files(connections: int) -> str:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return "no limit"
    needed = max(_FEW_FILES, connections + _OWN_FILES if connections else 0)
    if limit < needed:
        wanted = f"[gateway] max_connections = {connections} needs" if connections else "a gateway should have"
        raise GatecrewError(
            f"a process may have {limit}, and {wanted} {needed}; raise it by ulimit -Hn, LimitNOFILE= of systemd or --ulimit of Docker"
        )
    return f"{limit} a process, about as many as a gateway can have clients"


def _keys(key: str, known: str) -> str:
    Keys(Path(key), Path(known))
    return f"{key}, in the list {known}"


def _log_file(path: Path) -> str:
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"[log] file: cannot open {path}: {error.strerror}") from error
    return str(path)
