"""The configuration: one TOML file, environment variables over it, flags over those.

:func:`load` reads and checks it, :func:`reference` documents it. All values are plain data in frozen dataclasses, one per
section. Durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .addresses import parse, parse_listen
from .errors import ConfigError
from .security import check_link_address, check_run_dir
from .settings import Reader, read_options, setting, settings_of, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROTOCOLS = ("websocket", "text", "frame", "raw")
ROUTERS = ("sticky", "random", "least_loaded")
IPC = "ipc"  #: in the place of an address: a socket in the run directory
KIB = 1024
MIB = 1024 * KIB

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s]*")  # RFC 6454, section 7.1
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_name(text: str) -> None:
    """Raise ValueError if this is no name for a cluster."""
    if not _NAME.fullmatch(text):
        raise ValueError("expected at most 63 letters, digits, dots, dashes or underscores, a letter or digit first")


def _check_listen(text: str) -> None:
    try:
        parse_listen(text)
    except ValueError as error:
        raise ValueError(
            f'{error}; expected a URL as in "ws://127.0.0.1:7272" or "tcp://*:7273?protocol=text"'
        ) from None


def _check_protocol(text: str) -> None:
    if text and text not in PROTOCOLS and not _ATTRIBUTE.fullmatch(text):
        raise ValueError(f'expected {", ".join(PROTOCOLS)} or "module:Class"')


def _check_proxy(text: str) -> None:
    if text != "unix":
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise ValueError('expected an address, a network as in "10.0.0.0/8", or "unix"') from None


def _check_meeting(text: str, example: str, *, ports: bool) -> None:
    if text != IPC:
        try:
            parse(text, "tcp", ports=ports)
        except ValueError as error:
            raise ValueError(f'{error}; expected "{IPC}" or an address as in "{example}"') from None


def _check_register(text: str) -> None:
    _check_meeting(text, "tcp://127.0.0.1:7270", ports=False)
    if text != IPC and not parse(text, "tcp").first:
        raise ValueError("expected a port other than 0, for the others could not know it")


def _check_link(text: str) -> None:
    _check_meeting(text, "tcp://127.0.0.1:2900-2999", ports=True)


def _check_metrics(text: str) -> None:
    if text:
        try:
            parse(text, "http", ports=True)
        except ValueError as error:
            raise ValueError(f'{error}; expected an address as in "http://127.0.0.1:9400-9499"') from None


def _check_subprotocol(text: str) -> None:
    if not _TOKEN.fullmatch(text):
        raise ValueError("expected a name without spaces, as in chat.v1")


def _check_origin(text: str) -> None:
    if text not in ("*", "null") and not _ORIGIN.fullmatch(text):
        raise ValueError(
            'expected scheme://host, with a port unless it is the usual one, as in "https://www.example.org", or "*"'
        )


def _check_app(text: str) -> None:
    if text and not _ATTRIBUTE.fullmatch(text):
        raise ValueError('expected "module:attribute", as in "chat.server:app"')


def _check_router(text: str) -> None:
    if text not in ROUTERS and not _ATTRIBUTE.fullmatch(text):
        raise ValueError(f'expected {", ".join(ROUTERS)} or "module:function"')


def _check_run(text: str) -> None:
    if text not in ("all", "none") and not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError('expected "all", "none" or the number of a register, from 1')


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """``[cluster]``: what all processes of a cluster must agree on."""

    name: str = setting("gatecrew", "Names the cluster and its run directory.", check=check_name)
    run_dir: str = setting(
        "",
        "Directory of the sockets between processes. Private: mode 0700, refused if others could get at it.",
        shown="`/tmp/gatecrew-<your id>/<name>`",
    )
    registers: tuple[str, ...] = setting(
        (IPC,),
        'Where the registers are: `"ipc"` (a socket in `run_dir`) or an address as in `"tcp://10.0.0.1:7270"`. '
        "Two survive the loss of one.",
        check=_check_register,
    )
    key: str = setting(
        "",
        "File with the secret key of this machine, made by `gatecrew keys`. With it, what goes over tcp between processes is "
        "encrypted, and only who has a key in `keys` takes part.",
    )
    keys: str = setting(
        "", "File with the public keys of all machines, as `gatecrew keys` writes it; read anew when it changes."
    )
    insecure: bool = setting(
        default=False,
        meaning="Allow tcp between processes beyond loopback without keys: whoever is on that network can read and command "
        "everything.",
    )
    probe_interval: float = setting(0.5, "Seconds between probes on an idle link.", low=0.01)
    dead_after: float = setting(
        2.0,
        "A process that is silent for so many seconds is dead to the others; at least twice `probe_interval`.",
        low=0.02,
    )
    lane_buffer: int = setting(
        32 * MIB, "Bytes on one link that the other end has not acknowledged; past it the sender waits.", low=64 * KIB
    )

    @property
    def directory(self) -> Path:
        """The run directory."""
        # not in XDG_RUNTIME_DIR: cron has none, and it goes away when its user logs out, the cluster does not
        return Path(self.run_dir or f"/tmp/gatecrew-{os.getuid()}/{self.name}")  # noqa: S108  # prepare_run_dir checks whose it is

    def register_names(self) -> list[str]:
        """Return the names of all registers."""
        return [f"register-{number}" for number in range(1, len(self.registers) + 1)]

    def register_addresses(self) -> list[str]:
        """Return where the registers are, in the order of their names."""
        return [
            self.ipc_address(name) if text == IPC else text
            for name, text in zip(self.register_names(), self.registers, strict=True)
        ]

    def register_address(self, name: str) -> str:
        """Return where the register with this name (``register-1``) listens.

        Raises:
            ConfigError: if ``registers`` has none for it.
        """
        addresses = dict(zip(self.register_names(), self.register_addresses(), strict=True))
        if name not in addresses:
            raise ConfigError(f"[cluster] registers: there is none for {name}, expected {' or '.join(addresses)}")
        return addresses[name]

    def ipc_address(self, name: str) -> str:
        """Return the address of the socket with this name in the run directory."""
        return f"ipc://{self.directory}/{name}.sock"


@dataclass(frozen=True, slots=True)
class RegisterConfig:
    """``[register]``: the processes that know who is alive."""

    run: tuple[str, ...] = setting(
        ("all",),
        "Which of `[cluster] registers` `gatecrew start` runs on this machine: `all`, `none` or their numbers, from 1.",
        check=_check_run,
    )


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``[gateway]``: the processes that hold the clients."""

    listen: tuple[str, ...] = setting(
        ("ws://127.0.0.1:7272",),
        "Where clients connect: `ws://host:port`, or with `wss`, `tcp` or `tls`, or `unix:/path`. Host `*` for all addresses of the "
        "machine, IPv6 in brackets, port 0 for any free one. Options as in `?ping_interval=0&max_message=1000` stand for the keys that "
        "are marked with \\*, for this listener alone.",
        check=_check_listen,
    )
    protocol: str = setting(
        "",
        "What clients speak: `websocket`, `text` (lines), `frame` (4 bytes of length), `raw` or your own, `module:Class`; if empty, "
        "`text` at `tcp` and `tls`, and otherwise `websocket`.",
        check=_check_protocol,
        per_listener=True,
    )
    tls_cert: str = setting(
        "",
        "File with the certificate and its chain, PEM, for `wss` and `tls`; read anew when it changes.",
        per_listener=True,
    )
    tls_key: str = setting("", "File with the secret key of that certificate, PEM.", per_listener=True)
    tls_client_ca: str = setting(
        "",
        "File with the certificates that those of clients must be signed by, PEM; clients need none if empty.",
        per_listener=True,
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Addresses or networks of proxies, or `unix`, whose word on where a client is counts: the header `X-Forwarded-For`, or the "
        "PROXY protocol.",
        check=_check_proxy,
        per_listener=True,
    )
    proxy_protocol: bool = setting(
        default=False,
        meaning="Every connection begins with a header of the PROXY protocol, version 2, and comes from one of `trusted_proxies`.",
        per_listener=True,
    )
    processes: int = setting(1, "Gateways on this machine; they share the ports.", low=0, high=999)
    link: str = setting(
        IPC,
        'Where workers reach the gateways: `"ipc"`, or the address of this machine and a range of ports, one for each gateway, '
        'as in `"tcp://10.0.0.2:2900-2999"`.',
        check=_check_link,
    )
    pages: str = setting("", "Folder served to plain HTTP GETs on the listeners; none if empty.")
    ping_interval: float = setting(25.0, "Seconds between pings to a client; 0 for never.", low=0, per_listener=True)
    missed_pongs: int = setting(2, "Unanswered pings after which a client is closed.", low=1, per_listener=True)
    ping_data: str = setting(
        "",
        "If set, this text is sent as a message instead of a WebSocket ping, and any message of the client answers it.",
        per_listener=True,
    )
    open_timeout: float = setting(
        10.0, "Seconds that a client has for the opening handshake.", low=0.01, per_listener=True
    )
    handshake_timeout: float = setting(
        5.0,
        "Seconds in which a worker has to decide on a handshake, if the application does so.",
        low=0.01,
        per_listener=True,
    )
    auth_timeout: float = setting(0.0, "Seconds after which a client without a uid is closed; 0 for never.", low=0)
    devices_per_uid: int = setting(
        0, "Clients that a uid may have in the whole cluster, of each kind of device; 0 for any number.", low=0
    )
    devices_over: str = setting(
        "kick_oldest",
        "What happens to one more: it takes the place of the oldest, or is refused.",
        choices=("kick_oldest", "refuse"),
    )
    close_timeout: float = setting(
        5.0, "Seconds that a client has for the closing handshake.", low=0.01, per_listener=True
    )
    drain_timeout: float = setting(
        10.0,
        "Seconds in which a stopping gateway lets its clients go; then as many for their last events to be handled.",
        low=0,
    )
    max_connections: int = setting(
        0, "Connections of one gateway, in whatever phase; 0 for as many as the system allows open files.", low=0
    )
    address_connections: int = setting(
        10_000, "Of those, connections from one address, of IPv6 from one /64; 0 for any number.", low=0
    )
    address_rate: float = setting(
        1000.0, "New connections a second from one address, five seconds' worth at once; 0 for any number.", low=0
    )
    reconnect_rate: int = setting(
        500, "Clients a second that each gateway can take from one that stops, which lets them go at that pace.", low=1
    )
    # a message has to fit into a frame between processes: see wire.MAX_FRAME
    max_message: int = setting(
        MIB, "Bytes of the largest message that a client may send.", low=1, high=64 * MIB, per_listener=True
    )
    max_fragments: int = setting(4096, "Frames of which a message may consist.", low=1, per_listener=True)
    message_timeout: float = setting(
        60.0,
        "Seconds that a message may take to come, from its first frame to the end of its last; 0 for any time.",
        low=0,
        per_listener=True,
    )
    max_handshake: int = setting(
        64 * KIB, "Bytes of the request with which a client opens a connection.", low=256, per_listener=True
    )
    message_rate: float = setting(
        1000.0,
        "Messages (pings and fragments, too) a second from one client, five seconds' worth at once; it is read no faster. 0 for any "
        "number.",
        low=0,
        per_listener=True,
    )
    byte_rate: int = setting(
        4 * MIB,
        "Bytes a second from one client, compressed ones and what they are inflated to; as `message_rate`.",
        low=0,
        per_listener=True,
    )
    rate_patience: float = setting(
        30.0,
        "Seconds for which a client may go on to send faster than that before it is closed.",
        low=0,
        per_listener=True,
    )
    idle_timeout: float = setting(
        0.0,
        "Seconds without a message after which a client is closed, at the latest a quarter later; 0 for never.",
        low=0,
        per_listener=True,
    )
    max_groups: int = setting(10_000, "Groups that one client may be in.", low=1)
    max_session: int = setting(16 * MIB, "Bytes of the session of one client, packed.", low=1, high=16 * MIB)
    max_name: int = setting(512, "Characters of a uid and of the name of a group.", low=1, high=512)
    compression: bool = setting(default=False, meaning="Offer permessage-deflate.", per_listener=True)
    subprotocols: tuple[str, ...] = setting(
        (),
        "WebSocket subprotocols that are offered, in order of preference.",
        check=_check_subprotocol,
        per_listener=True,
    )
    origins: tuple[str, ...] = setting(
        (),
        'Origins of web pages that may connect, as `"https://www.example.org"`, beside those of the host that they connect to; '
        '`"*"` for all.',
        check=_check_origin,
        per_listener=True,
    )
    client_buffer: int = setting(
        2 * MIB,
        "Bytes unsent towards one client past which it is closed as slow; at least `max_message`.",
        low=KIB,
        per_listener=True,
    )
    client_pending: int = setting(
        256, "Events of one client not yet acknowledged past which its socket is not read.", low=1
    )
    event_buffer: int = setting(
        64 * MIB,
        "Bytes of events not yet acknowledged, of all clients, past which no socket is read; at least `max_message`.",
        low=KIB,
    )
    router: str = setting(
        "sticky",
        f"Which worker gets a new client: {', '.join(f'`{name}`' for name in ROUTERS)} or `module:function`.",
        check=_check_router,
    )
    hooks: str = setting(
        "", "Module with functions that are told what happens: `worker_connected`, `worker_gone`, `event_given_up`."
    )


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
class MetricsConfig:
    """``[metrics]``: how the processes tell Prometheus, and whoever keeps them running, how they are."""

    listen: str = setting(
        "",
        "Where each process answers `/metrics`, `/healthz` and `/readyz`: an address with a port, or a range of which each "
        'process takes the first free one, as in `"http://127.0.0.1:9400-9499"`. There are no passwords. Nowhere if empty.',
        check=_check_metrics,
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. ``path`` is the file that it was read from, absolute."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    register: RegisterConfig = field(default_factory=RegisterConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    path: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the file, or else the current one: relative paths in the configuration start there."""
        return self.path.parent if self.path else Path.cwd()

    def local_registers(self) -> list[str]:
        """Return the names of the registers that run on this machine."""
        names = self.cluster.register_names()
        run = self.register.run
        return [name for name in names if "all" in run or name.removeprefix("register-") in run]

    def insecure_addresses(self) -> list[str]:
        """Return where processes meet beyond this machine without keys, as ``insecure`` allows."""
        addresses = () if self.cluster.key else (*self.cluster.registers, self.gateway.link)
        return [address for address in addresses if address != IPC and not parse(address, "tcp", ports=True).loopback]

    def link_address(self, name: str, key: str) -> str:
        """Return where a gateway binds its link: a socket, or an address and perhaps a range of ports.

        Over ipc the key is part of it: a hung process that comes back to an end removes its own socket, not its successor's.
        """
        return self.cluster.ipc_address(f"{name}-{key}") if self.gateway.link == IPC else self.gateway.link


_SECTIONS = {
    "cluster": ClusterConfig,
    "register": RegisterConfig,
    "gateway": GatewayConfig,
    "worker": WorkerConfig,
    "log": LogConfig,
    "metrics": MetricsConfig,
}


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Read and check the configuration.

    Args:
        path: the TOML file, or None for none.
        env: environment variables; those named ``GATECREW_<SECTION>_<KEY>`` go over the file.
        flags: keyed ``"gateway.processes"``; they go over both. None means not given.

    Raises:
        ConfigError: names the place, the key, what was found and what is allowed.
    """
    reader = Reader(setting for section, cls in _SECTIONS.items() for setting in settings_of(section, cls))
    if path is not None:
        reader.file(str(path), _read_toml(path))
    reader.environment(env)
    reader.flags(flags)
    sections = {section: cls(**reader.values[section]) for section, cls in _SECTIONS.items()}
    config = _with_absolute_paths(Config(**sections, path=path and path.absolute()))
    _check_cluster(config.cluster, reader)
    _check_registers(config, reader)
    _check_gateway(config, reader)
    return config


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _with_folder(gateway: GatewayConfig, folder: Path) -> GatewayConfig:
    def absolute(path: str) -> str:
        return str(folder / path) if path else ""

    return replace(
        gateway,
        pages=absolute(gateway.pages),
        tls_cert=absolute(gateway.tls_cert),
        tls_key=absolute(gateway.tls_key),
        tls_client_ca=absolute(gateway.tls_client_ca),
    )


def for_listener(gateway: GatewayConfig, url: str, folder: Path) -> GatewayConfig:
    """Return ``[gateway]`` as it is for one of its listeners: with the options of the URL, and the protocol by name.

    Args:
        gateway: the section.
        url: one of ``listen``; that of the result is without its options.
        folder: where relative paths start.

    Raises:
        ValueError: if an option is not allowed, or does not fit to the others.
    """
    listen = parse_listen(url)
    options = read_options(settings_of("gateway", GatewayConfig), listen.options)
    found = _with_folder(replace(gateway, listen=(listen.url,), **options), folder)  # type: ignore[arg-type]  # each is of its type
    usual = "text" if listen.scheme in ("tcp", "tls") else "websocket"
    if listen.scheme in ("ws", "wss"):
        if listen.options.get("protocol", usual) != usual:
            raise ValueError(f"protocol: found {found.protocol}, expected a URL with tcp or tls for that")
        found = replace(found, protocol=usual)
    elif not found.protocol:
        found = replace(found, protocol=usual)
    if listen.tls and not (found.tls_cert and found.tls_key):
        raise ValueError("expected tls_cert and tls_key, as options or as keys of [gateway]")
    if found.proxy_protocol and not found.trusted_proxies:
        raise ValueError("proxy_protocol: expected trusted_proxies, for nobody else may connect then")
    return found


def _with_absolute_paths(config: Config) -> Config:
    def absolute(path: str) -> str:
        return str(config.folder / path) if path else ""

    return replace(
        config,
        cluster=replace(
            config.cluster,
            run_dir=absolute(config.cluster.run_dir),
            key=absolute(config.cluster.key),
            keys=absolute(config.cluster.keys),
        ),
        gateway=_with_folder(config.gateway, config.folder),
        log=replace(config.log, file=absolute(config.log.file)),
    )


def _check_cluster(cluster: ClusterConfig, reader: Reader) -> None:
    check_run_dir(cluster.directory, where=reader.where("cluster.run_dir", "cluster.name"))
    if bool(cluster.key) != bool(cluster.keys):
        raise ConfigError(f"{reader.where('cluster.key', 'cluster.keys')}: expected both key and keys, or neither")
    if cluster.dead_after < 2 * cluster.probe_interval:
        raise ConfigError(
            f"{reader.where('cluster.dead_after', 'cluster.probe_interval')}: found dead_after = {cluster.dead_after:g} and "
            f"probe_interval = {cluster.probe_interval:g}, expected dead_after at least twice as long: otherwise one late probe "
            "looks like death"
        )


def _check_registers(config: Config, reader: Reader) -> None:
    cluster, run = config.cluster, config.register.run
    where = reader.where("cluster.registers")
    if not cluster.registers:
        raise ConfigError(f"{where}: found none, expected one or more")
    for address in cluster.registers:
        if address == IPC:
            continue
        check_link_address(address, keys=bool(cluster.key), insecure=cluster.insecure, where=where)
        if cluster.registers.count(address) > 1:
            raise ConfigError(f"{where}: found {address} twice, expected an address of its own for each register")
    where = reader.where("register.run")
    if len(run) > 1 and not {"all", "none"}.isdisjoint(run):
        raise ConfigError(f'{where}: found {", ".join(run)}, but "all" and "none" stand alone')
    for number in run:
        if number.isdecimal() and int(number) > len(cluster.registers):
            raise ConfigError(
                f"{where}: found {number}, but [cluster] registers has {len(cluster.registers)}; they are numbered from 1"
            )


def _check_gateway(config: Config, reader: Reader) -> None:
    cluster, gateway = config.cluster, config.gateway
    where = reader.where("gateway.listen")
    if not gateway.listen:
        raise ConfigError(f"{where}: found none, expected one or more addresses")
    for key, problem in _too_small(gateway):
        raise ConfigError(f"{reader.where(f'gateway.{key}', 'gateway.max_message')}: {problem}")
    found = set()
    for text in gateway.listen:
        listen = parse_listen(text)
        try:
            own = for_listener(gateway, text, config.folder)
        except ValueError as error:
            raise ConfigError(f"{where}: {text}: {error}") from None
        for _, problem in _too_small(own):
            raise ConfigError(f"{where}: {text}: {problem}")
        if listen.address is None and gateway.processes > 1:
            raise ConfigError(
                f"{where}: {listen.url} cannot be shared by {gateway.processes} gateways, expected processes = 1"
            )
        if listen.url in found and not listen.shared:
            raise ConfigError(f"{where}: found {listen.url} twice")
        found.add(listen.url)
    if gateway.link != IPC:
        check_link_address(
            gateway.link, keys=bool(cluster.key), insecure=cluster.insecure, where=reader.where("gateway.link")
        )
        link = parse(gateway.link, "tcp", ports=True)
        ports = link.last - link.first + 1
        if link.first and ports < gateway.processes:  # port 0 stands for as many as are needed
            raise ConfigError(
                f"{reader.where('gateway.link', 'gateway.processes')}: found {ports} port{'s'[: ports > 1]} in {gateway.link} for "
                f"{gateway.processes} processes, expected one for each"
            )


def _too_small(gateway: GatewayConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of buffers in which the largest message has no place, with what is wrong."""
    for key, size in (("client_buffer", gateway.client_buffer), ("event_buffer", gateway.event_buffer)):
        if size < gateway.max_message:
            yield key, f"found {key} = {size} and max_message = {gateway.max_message}, expected {key} at least as large"


def reference() -> str:
    """Return the documentation of all settings, in Markdown."""
    lines = ["## Reference"]
    for section, cls in _SECTIONS.items():
        assert cls.__doc__ is not None, "each section says what it is for"
        meaning = cls.__doc__.partition(": ")[2]
        lines += ["", f"### [{section}]", "", f"{meaning[0].upper()}{meaning[1:]}", ""]
        lines += table(settings_of(section, cls))
    return "\n".join(lines)
