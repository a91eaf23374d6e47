"""The configuration: one TOML file, environment variables over it, flags over those.

:func:`load` reads and checks it, :func:`reference` documents it. All values are plain data in frozen dataclasses, one per
section. Durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .addresses import Address, parse
from .errors import ConfigError
from .security import check_link_address, check_run_dir
from .settings import Reader, setting, settings_of, table, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
ROUTERS = ("sticky", "random", "least_loaded")


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError("expected at most 63 letters, digits, dots, dashes or underscores, a letter or digit first")


def _check_listen(text: str) -> None:
    parse(text, "ws")


def _check_link(text: str) -> None:
    if text != "ipc":
        try:
            parse(text, "tcp", ports=True)
        except ValueError as error:
            raise ValueError(
                f'{error}; expected "ipc" or an address and ports, as in "tcp://127.0.0.1:2900-2999"'
            ) from None


def _check_app(text: str) -> None:
    if text and not _ATTRIBUTE.fullmatch(text):
        raise ValueError('expected "module:attribute", as in "chat.server:app"')


def _check_router(text: str) -> None:
    if text not in ROUTERS and not _ATTRIBUTE.fullmatch(text):
        raise ValueError(f'expected {", ".join(ROUTERS)} or "module:function"')


def _check_register(text: str) -> None:
    if text not in ("all", "none") and not re.fullmatch(r"[1-9][0-9]*", text):
        raise ValueError('expected "all", "none" or the number of a register, from 1')


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """``[cluster]``: what all processes of a cluster must agree on."""

    name: str = setting("gatecrew", "Names the cluster and its run directory.", check=_check_name)
    run_dir: str = setting(
        "",
        "Directory of the sockets between processes. Private: mode 0700, refused if somebody else owns it.",
        shown="`$XDG_RUNTIME_DIR/gatecrew/<name>`, or `/tmp/gatecrew-<uid>/<name>` without that variable",
    )
    registers: tuple[str, ...] = setting(
        ("ipc",),
        'Where the registers listen: `"ipc"` (a socket in `run_dir`) or `"tcp://127.0.0.1:7270"`. Two survive the loss of one.',
    )
    secret: str = setting(
        "",
        "Shared by all processes of the cluster; a process that does not know it is refused. Never logged.",
        secret=True,
    )
    insecure: bool = setting(default=False, meaning="Allow plain tcp between processes beyond loopback.")
    probe_interval: float = setting(0.5, "Seconds between probes on an idle link.", low=0.01)
    dead_after: float = setting(2.0, "A peer that is silent for so many seconds is dead.", low=0.02)
    lane_buffer: int = setting(
        33554432, "Bytes on one link that the peer has not acknowledged; past it the sender waits.", low=65536
    )

    @property
    def directory(self) -> Path:
        """The run directory, absolute."""
        return Path(self.run_dir or default_run_dir(self.name, os.environ)).absolute()

    def ipc_address(self, name: str) -> str:
        """Return the address of the socket with this name in the run directory."""
        return f"ipc://{self.directory}/{name}.sock"

    def register_addresses(self) -> list[str]:
        """Return where the registers are, in the order of their numbers: register-1 is the first."""
        addresses: list[str] = []
        sockets = 0
        for text in self.registers:
            sockets += text == "ipc"
            name = "register" if sockets == 1 else f"register-{sockets}"
            addresses.append(self.ipc_address(name) if text == "ipc" else text)
        return addresses

    def register_address(self, name: str) -> str:
        """Return where the register with this name (``register-1``) listens.

        Raises:
            ConfigError: if ``registers`` has none for it.
        """
        addresses = dict(zip(self.register_names(), self.register_addresses(), strict=True))
        if name not in addresses:
            raise ConfigError(f"[cluster] registers: there is none for {name}, expected {' or '.join(addresses)}")
        return addresses[name]

    def register_names(self) -> list[str]:
        """Return the names of all registers."""
        return [f"register-{number}" for number in range(1, len(self.registers) + 1)]


@dataclass(frozen=True, slots=True)
class RegisterConfig:
    """``[register]``: the processes that know who is alive."""

    run: tuple[str, ...] = setting(
        ("all",),
        "Which registers of `[cluster] registers` `gatecrew start` runs on this machine: `all`, `none` or their numbers, from 1.",
        check=_check_register,
    )


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``[gateway]``: the processes that hold the clients."""

    listen: tuple[str, ...] = setting(
        ("ws://127.0.0.1:7272",),
        "Where clients connect: `ws://host:port`, IPv6 in brackets, port 0 for any free one.",
        check=_check_listen,
    )
    processes: int = setting(1, "Gateways on this machine; they share the ports.", low=0, high=999)
    link: str = setting(
        "ipc",
        'Where workers reach the gateways: `"ipc"`, or the address of this machine and a range of ports, one for each gateway, '
        'as in `"tcp://127.0.0.1:2900-2999"`.',
        check=_check_link,
    )
    pages: str = setting("", "Folder served to plain HTTP GETs on the listeners; none if empty.")
    ping_interval: float = setting(25.0, "Seconds between pings to a client; 0 for never.", low=0)
    missed_pongs: int = setting(2, "Unanswered pings after which a client is closed.", low=1)
    ping_data: str = setting(
        "",
        "If set, this text is sent as a message instead of a WebSocket ping, and any message of the client answers it.",
    )
    open_timeout: float = setting(10.0, "Seconds that a client has for the opening handshake.", low=0.01)
    close_timeout: float = setting(5.0, "Seconds that a client has for the closing handshake.", low=0.01)
    max_message: int = setting(1048576, "Bytes of the largest message that a client may send.", low=1)
    compression: bool = setting(default=False, meaning="Offer permessage-deflate.")
    subprotocols: tuple[str, ...] = setting((), "WebSocket subprotocols that are offered, in order of preference.")
    client_buffer: int = setting(1048576, "Bytes unsent towards one client past which it is closed as slow.", low=1024)
    client_pending: int = setting(
        256, "Events of one client not yet acknowledged past which its socket is not read.", low=1
    )
    drain_timeout: float = setting(
        10.0, "Seconds that a stopping gateway waits until the last events of its clients are handled.", low=0
    )
    event_buffer: int = setting(
        67108864, "Bytes of events not yet acknowledged, of all clients, past which no socket is read.", low=1024
    )
    router: str = setting(
        "sticky",
        f"Which worker gets a new client: {', '.join(f'`{name}`' for name in ROUTERS)} or `module:function`.",
        check=_check_router,
    )
    hooks: str = setting("", "Module with `worker_connected(name)` and `worker_gone(name, reason)`.")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """``[worker]``: the processes that run the handlers."""

    app: str = setting("", "The application, `module:attribute`.", check=_check_app)
    processes: int = setting(_cores, "Workers on this machine.", low=0, high=999, shown="number of cores")
    concurrency: int = setting(1000, "Handlers that one worker runs at once.", low=1)
    credit: int = setting(1000, "Events that one gateway may have outstanding at one worker.", low=1)
    threads: int = setting(16, "Threads for handlers written with `def`.", low=1)
    handler_timeout: float = setting(30.0, "Seconds after which a handler is given up; 0 for never.", low=0)
    query_timeout: float = setting(2.0, "Seconds that a query waits for the gateways.", low=0.01)
    drain_timeout: float = setting(10.0, "Seconds that a stopping worker may take to finish.", low=0)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``: what the processes say."""

    level: str = setting("info", "The least level that is logged.", choices=("debug", "info", "warning", "error"))
    format: str = setting("text", "For people or for programs.", choices=("text", "json"))
    file: str = setting("", "File that is appended to; standard error if empty.")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. ``path`` is the file that it was read from."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    register: RegisterConfig = field(default_factory=RegisterConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    path: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the file, or else the current one: relative paths in the configuration start there."""
        return (self.path.parent if self.path else Path()).absolute()

    def local_registers(self) -> list[str]:
        """Return the names of the registers that run on this machine."""
        names = self.cluster.register_names()
        if "all" in self.register.run:
            return names
        return [name for name in names if name.removeprefix("register-") in self.register.run]

    def link_address(self, name: str, key: str) -> str:
        """Return where a gateway binds its link: a socket, or an address and perhaps a range of ports.

        Over ipc the key is part of it: a hung process that comes back to an end removes its own socket, not its successor's.
        """
        return self.cluster.ipc_address(f"{name}-{key}") if self.gateway.link == "ipc" else self.gateway.link

    def listen_addresses(self) -> list[Address]:
        """Return the parsed ``[gateway] listen``."""
        return [parse(text, "ws") for text in self.gateway.listen]


_SECTIONS = {
    "cluster": ClusterConfig,
    "register": RegisterConfig,
    "gateway": GatewayConfig,
    "worker": WorkerConfig,
    "log": LogConfig,
}


def default_run_dir(name: str, env: Mapping[str, str]) -> str:
    """Return the run directory of a cluster that does not set one."""
    runtime = env.get("XDG_RUNTIME_DIR")
    return f"{runtime}/gatecrew/{name}" if runtime else f"/tmp/gatecrew-{os.getuid()}/{name}"  # noqa: S108  # prepare_run_dir checks who owns it


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Read and check the configuration.

    Args:
        path: the TOML file, or None for none.
        env: environment variables; those named ``GATECREW_<SECTION>_<KEY>`` go over the file.
        flags: keyed ``"gateway.processes"``; they go over both. None means not given.

    Raises:
        ConfigError: names the place, the key, what was found and what is allowed.
    """
    reader = Reader(found for section, cls in _SECTIONS.items() for found in settings_of(section, cls).values())
    if path is not None:
        reader.file(str(path), _read_toml(path))
    reader.environment(env)
    reader.flags(flags)
    values = reader.values
    config = Config(**{section: cls(**values[section]) for section, cls in _SECTIONS.items()}, path=path)
    return _resolve(config, env, reader.sources)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _resolve(config: Config, env: Mapping[str, str], sources: Mapping[str, str]) -> Config:
    """Fill in what depends on other settings, and check each of them and how they fit together."""
    for section in _SECTIONS:
        verify(section, getattr(config, section), sources)
    cluster = config.cluster
    directory = config.folder / (cluster.run_dir or default_run_dir(cluster.name, env))
    cluster = replace(cluster, run_dir=str(directory))
    config = replace(config, cluster=cluster)

    def where(name: str) -> str:
        section, _, key = name.partition(".")
        return sources.get(name, f"[{section}] {key}")

    check_run_dir(cluster.run_dir, where=where("cluster.run_dir"))
    if not cluster.registers:
        raise ConfigError(f"{where('cluster.registers')}: found none, expected one or more")
    if cluster.dead_after < 2 * cluster.probe_interval:
        raise ConfigError(
            f"{where('cluster.dead_after')}: found {cluster.dead_after:g}, expected at least {2 * cluster.probe_interval:g}, "
            f"twice the probe_interval of {cluster.probe_interval:g}: otherwise one late probe looks like death"
        )
    for address in cluster.registers:
        _check_meeting_place(config, address, where("cluster.registers"))
    _check_meeting_place(config, config.gateway.link, where("gateway.link"))
    _check_numbers(config, where)
    return config


def _check_meeting_place(config: Config, address: str, where: str) -> None:
    if address != "ipc":
        check_link_address(address, insecure=config.cluster.insecure, where=where)
        beyond = not address.startswith("ipc:") and not parse(address, "tcp", ports=True).loopback
        if beyond and not config.cluster.secret:
            raise ConfigError(f"{where}: {address} can be reached from other machines, so [cluster] secret must be set")


def _check_numbers(config: Config, where: Callable[[str], str]) -> None:
    gateway = config.gateway
    if gateway.link != "ipc":
        link = parse(gateway.link, "tcp", ports=True)
        ports = link.last - link.first + 1
        if link.first and ports < gateway.processes:
            raise ConfigError(
                f"{where('gateway.link')}: {ports} port{'s' * (ports > 1)}, but [gateway] processes is {gateway.processes}: "
                "each gateway needs one of its own"
            )
    if gateway.event_buffer < gateway.max_message:
        raise ConfigError(
            f"{where('gateway.event_buffer')}: found {gateway.event_buffer}, expected at least the {gateway.max_message} of "
            "max_message"
        )
    if len(config.register.run) > 1 and not {"all", "none"}.isdisjoint(config.register.run):
        raise ConfigError(f'{where("register.run")}: "all" and "none" stand alone')
    for number in config.register.run:
        if number.isdecimal() and int(number) > len(config.cluster.registers):
            raise ConfigError(
                f"{where('register.run')}: there is no register {number}, [cluster] registers has {len(config.cluster.registers)}"
            )


def reference() -> str:
    """Return the documentation of all settings, in Markdown."""
    parts: list[str] = []
    for section, cls in _SECTIONS.items():
        assert cls.__doc__ is not None, "each section says what it is for"
        title, _, meaning = cls.__doc__.partition(": ")
        parts += [
            f"## {title}",
            "",
            meaning[0].upper() + meaning[1:],
            "",
            *table(settings_of(section, cls).values()),
            "",
        ]
    return "\n".join(parts)
