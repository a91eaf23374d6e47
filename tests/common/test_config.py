"""The configuration: what it is by default, how its settings must fit together, and its document."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from gatecrew.common import wire
from gatecrew.common.addresses import parse
from gatecrew.common.config import (
    PROTOCOLS,
    ROUTERS,
    ClusterConfig,
    Config,
    GatewayConfig,
    for_listener,
    load,
    reference,
)
from gatecrew.common.errors import ConfigError
from gatecrew.gateway import protocols
from gatecrew.gateway.placement import router
from hypothesis import given
from hypothesis import strategies as st

Read = Callable[[str], Config]

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a file with this text."""

    def read(text: str) -> Config:
        path = tmp_path / "chat.toml"
        path.write_text(text)
        return load(path, {}, {})

    return read


def error_of(read: Read, text: str) -> str:
    """Return what is wrong with a file, without the folder of its name."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    return re.sub(r"\S*/chat\.toml", "chat.toml", str(caught.value))


def test_without_anything_it_is_the_defaults() -> None:
    assert load(None, {}, {}) == Config()


def test_a_file_variables_and_flags_are_read(tmp_path: Path) -> None:
    path = tmp_path / "chat.toml"
    path.write_text(
        '[gateway]\nlisten = ["ws://127.0.0.1:7272"]\nprocesses = 2\n[worker]\napp = "chat:app"\nprocesses = 4\n'
    )

    config = load(
        path, {"GATECREW_LOG_LEVEL": "debug", "HOME": "/"}, {"worker.processes": 5, "gateway.processes": None}
    )

    assert config.gateway == GatewayConfig(listen=("ws://127.0.0.1:7272",), processes=2)
    assert (config.worker.app, config.worker.processes) == ("chat:app", 5)
    assert config.log.level == "debug"
    assert config.path == path


def test_relative_paths_start_at_the_folder_of_the_file(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_dir / "sub").mkdir()
    (run_dir / "sub" / "chat.toml").write_text('[cluster]\nrun_dir = "run"\n[gateway]\npages = "pages"\n')
    monkeypatch.chdir(run_dir)

    config = load(Path("sub/chat.toml"), {"GATECREW_LOG_FILE": "chat.log"}, {})
    monkeypatch.chdir("/")

    folder = run_dir / "sub"
    assert config.folder == folder
    assert config.cluster.directory == folder / "run"
    assert config.gateway.pages == str(folder / "pages")
    assert config.log.file == str(folder / "chat.log")


def test_without_a_file_relative_paths_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load(None, {"GATECREW_CLUSTER_RUN_DIR": "run"}, {}).cluster.directory == tmp_path / "run"


def test_absolute_paths_stay() -> None:
    assert load(None, {"GATECREW_LOG_FILE": "/var/log/chat.log"}, {}).log.file == "/var/log/chat.log"


def test_the_run_directory_is_of_this_user_and_cluster() -> None:
    assert ClusterConfig(name="chat").directory == Path(f"/tmp/gatecrew-{os.getuid()}/chat")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path, {}, {})
        assert str(caught.value) == f"{path}: cannot be read: {why}"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[gateway\n", r"not TOML: .*line 1"),
        (b"[log]\nlevel = 'info'\nlevel = 'info'\n", r"not TOML: .*line 3"),
        (b"[worker]\nprocesses = " + b"1" * 5000, "not TOML: "),
        (b"[log]\nfile = '\xff'", "not UTF-8: "),
    ],
)
def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "chat.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {why}"):
        load(path, {}, {})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[cluster]\nname = "a/b"', '[cluster] name: found "a/b", expected at most 63 letters, digits, dots'),
        ("[cluster]\nregisters = []", "[cluster] registers: found none, expected one or more"),
        (
            '[cluster]\nregisters = ["ipx"]',
            '[cluster] registers: found "ipx", not of the form tcp://host:port; expected "ipc"',
        ),
        (
            '[cluster]\nregisters = ["tcp://127.0.0.1:0"]',
            '[cluster] registers: found "tcp://127.0.0.1:0", expected a port other',
        ),
        (
            '[cluster]\nregisters = ["tcp://127.0.0.1:1-2"]',
            '[cluster] registers: found "tcp://127.0.0.1:1-2", a range of ports',
        ),
        (
            '[cluster]\nregisters = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"]',
            "[cluster] registers: found tcp://127.0.0.1:1 twice",
        ),
        (
            '[cluster]\nregisters = ["tcp://10.0.0.1:7270"]',
            "[cluster] registers: tcp://10.0.0.1:7270 would carry everything",
        ),
        ('[cluster]\nkey = "a.key"', "[cluster] key: expected both key and keys, or neither"),
        ('[gateway]\nlink = "tcp://10.0.0.1:2900"', "[gateway] link: tcp://10.0.0.1:2900 would carry everything"),
        ('[gateway]\nlink = "tcp://*:2900"', "[gateway] link: found tcp://*:2900, to which nobody can connect"),
        (
            '[gateway]\nlink = "ws://127.0.0.1:2900"',
            '[gateway] link: found "ws://127.0.0.1:2900", not of the form tcp://',
        ),
        ("[gateway]\nlisten = []", "[gateway] listen: found none, expected one or more addresses"),
        ('[gateway]\nlisten = ["ws://h:1", "ws://h:1"]', "[gateway] listen: found ws://h:1 twice"),
        (
            '[gateway]\nlisten = ["7272"]',
            '[gateway] listen: found "7272", 7272 is not one of ws, wss, tcp, tls, unix; expected a URL as in',
        ),
        (
            '[gateway]\nlisten = ["tcp://*:1?max_mesage=5"]',
            "[gateway] listen: tcp://*:1?max_mesage=5: there is no option max_mesage; did you mean max_message?",
        ),
        (
            '[gateway]\nlisten = ["tcp://*:1?max_message=many"]',
            '[gateway] listen: tcp://*:1?max_message=many: max_message: found "many", expected a whole number, at least 1',
        ),
        (
            '[gateway]\nlisten = ["tcp://*:1?processes=2"]',
            "[gateway] listen: tcp://*:1?processes=2: there is no option processes; there are protocol, tls_cert, tls_key,",
        ),
        (
            '[gateway]\nlisten = ["ws://*:1?max_message=3000000"]',
            "[gateway] listen: ws://*:1?max_message=3000000: found client_buffer = 2097152 and max_message = 3000000, expected",
        ),
        (
            '[gateway]\nlisten = ["ws://*:1?protocol=text"]',
            "[gateway] listen: ws://*:1?protocol=text: protocol: found text, expected a URL with tcp or tls for that",
        ),
        (
            '[gateway]\nlisten = ["wss://*:1"]',
            "[gateway] listen: wss://*:1: expected tls_cert and tls_key, as options or as keys of [gateway]",
        ),
        (
            '[gateway]\nlisten = ["tcp://*:1?proxy_protocol=true"]',
            "[gateway] listen: tcp://*:1?proxy_protocol=true: proxy_protocol: expected trusted_proxies, for nobody else",
        ),
        ('[gateway]\nlisten = ["ws://h:1", "ws://h:1?ping_interval=0"]', "[gateway] listen: found ws://h:1 twice"),
        (
            '[gateway]\nlisten = ["unix:/run/x"]\nprocesses = 2',
            "[gateway] listen: unix:/run/x cannot be shared by 2 gateways, expected processes = 1",
        ),
        ('[gateway]\nprotocol = "lines"', '[gateway] protocol: found "lines", expected websocket, text, frame, raw or'),
        ('[gateway]\ntrusted_proxies = ["x"]', '[gateway] trusted_proxies: found "x", expected an address, a network'),
        ('[gateway]\nrouter = "round"', '[gateway] router: found "round", expected sticky, random, least_loaded or'),
        ('[gateway]\nsubprotocols = ["a b"]', '[gateway] subprotocols: found "a b", expected a name without spaces'),
        ('[worker]\napp = "chat.py"', '[worker] app: found "chat.py", expected "module:attribute"'),
        ('[register]\nrun = ["0"]', '[register] run: found "0", expected "all", "none" or the number'),
        ('[register]\nrun = ["2"]', "[register] run: found 2, but [cluster] registers has 1; they are numbered from 1"),
        ('[register]\nrun = ["1", "none"]', '[register] run: found 1, none, but "all" and "none" stand alone'),
        (f'[cluster]\nrun_dir = "/{"x" * 80}"', f"[cluster] run_dir: /{'x' * 80} has 81 bytes, expected at most 76"),
    ],
)
def test_what_cannot_work_is_named_with_its_place(read: Read, text: str, error: str) -> None:
    assert error_of(read, text).startswith(f"chat.toml: {error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "[cluster]\nprobe_interval = 1.5",
            "chat.toml: [cluster] probe_interval: found dead_after = 2 and probe_interval = 1.5, expected dead_after at least",
        ),
        (
            "[cluster]\nprobe_interval = 1.5\ndead_after = 2.5",
            "chat.toml: [cluster] dead_after and chat.toml: [cluster] probe_interval: found dead_after = 2.5 and",
        ),
        (
            '[gateway]\nlink = "tcp://127.0.0.1:2900-2901"\nprocesses = 3',
            "chat.toml: [gateway] link and chat.toml: [gateway] processes: found 2 ports in tcp://127.0.0.1:2900-2901 for 3",
        ),
        (
            '[gateway]\nlink = "tcp://127.0.0.1:2900"\nprocesses = 2',
            "chat.toml: [gateway] link and chat.toml: [gateway] processes: found 1 port in tcp://127.0.0.1:2900 for 2",
        ),
        (
            "[gateway]\nmax_message = 3000000",
            "chat.toml: [gateway] max_message: found client_buffer = 2097152 and max_message = 3000000, expected client_buffer",
        ),
        (
            "[gateway]\nevent_buffer = 1024",
            "chat.toml: [gateway] event_buffer: found event_buffer = 1024 and max_message = 1048576, expected event_buffer",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_named(read: Read, text: str, error: str) -> None:
    assert error_of(read, text).startswith(error)


def test_the_variable_or_flag_at_fault_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^GATECREW_CLUSTER_PROBE_INTERVAL: found dead_after = 2"):
        load(None, {"GATECREW_CLUSTER_PROBE_INTERVAL": "9"}, {})
    with pytest.raises(ConfigError, match=r"^command line: \[worker\] app: found"):
        load(None, {}, {"worker.app": "chat"})


@pytest.mark.parametrize(
    "text",
    [
        "[cluster]\nprobe_interval = 1\ndead_after = 2",
        '[gateway]\nlink = "tcp://127.0.0.1:0"\nprocesses = 9',
        '[gateway]\nlink = "tcp://127.0.0.1:2900-2901"\nprocesses = 2',
        '[gateway]\nlisten = ["ws://127.0.0.1:0", "ws://127.0.0.1:0", "ws://[::1]:7272"]',
        '[gateway]\nlisten = ["unix:/run/a", "unix:/run/b?protocol=frame", "tcp://*:1?protocol=devices:Meter"]',
        '[gateway]\nlisten = ["wss://*:1", "tls://*:2"]\ntls_cert = "a.pem"\ntls_key = "a.key"',
        '[gateway]\nlisten = ["tcp://*:1"]\nproxy_protocol = true\ntrusted_proxies = ["10.0.0.0/8", "::1", "unix"]',
        '[gateway]\nrouter = "chat.rules:choose"\nsubprotocols = ["chat.v1"]',
        "[gateway]\nmax_message = 64\nclient_buffer = 1024\nevent_buffer = 1024",
        '[cluster]\nregisters = ["ipc", "ipc", "tcp://localhost:7270"]\n[register]\nrun = ["1", "3"]',
        '[register]\nrun = ["none"]',
        "[register]\nrun = []",
    ],
)
def test_what_can_work_is_taken(read: Read, text: str) -> None:
    assert read(text) != read("")


def test_each_listener_has_the_section_with_its_own_options() -> None:
    gateway = GatewayConfig(ping_interval=5.0, tls_key="/etc/own.key")
    folder = Path("/srv/chat")

    def of(url: str) -> GatewayConfig:
        return for_listener(gateway, url, folder)

    assert of("ws://*:80") == replace(gateway, listen=("ws://*:80",), protocol="websocket")
    assert of("tcp://*:80").protocol == of("tls://*:80?tls_cert=x").protocol == "text"
    assert of("unix:/run/x").protocol == "websocket"
    url = "wss://*:443?ping_interval=0&tls_cert=own.pem&origins=https://a,https://b&compression=true"
    assert of(url) == replace(
        gateway,
        listen=("wss://*:443",),
        protocol="websocket",
        ping_interval=0.0,
        tls_cert="/srv/chat/own.pem",
        origins=("https://a", "https://b"),
        compression=True,
    )


def test_registers_have_names_and_addresses() -> None:
    cluster = ClusterConfig(run_dir="/run/chat", registers=("ipc", "tcp://127.0.0.1:7270", "ipc"))

    assert cluster.register_names() == ["register-1", "register-2", "register-3"]
    assert cluster.register_addresses() == [
        "ipc:///run/chat/register-1.sock",
        "tcp://127.0.0.1:7270",
        "ipc:///run/chat/register-3.sock",
    ]
    assert cluster.register_address("register-2") == "tcp://127.0.0.1:7270"
    with pytest.raises(
        ConfigError, match=r"there is none for register-4, expected register-1 or register-2 or register-3"
    ):
        cluster.register_address("register-4")


@pytest.mark.parametrize(
    ("run", "names"),
    [
        (("all",), ["register-1", "register-2", "register-3"]),
        (("none",), []),
        ((), []),
        (("3", "1"), ["register-1", "register-3"]),
    ],
)
def test_a_machine_runs_the_registers_that_it_is_told_to(run: tuple[str, ...], names: list[str]) -> None:
    env = {"GATECREW_CLUSTER_REGISTERS": "ipc,ipc,ipc", "GATECREW_REGISTER_RUN": ",".join(run)}

    assert load(None, env, {}).local_registers() == names


def test_the_link_of_a_gateway_is_a_socket_of_this_run_or_an_address() -> None:
    cluster = ClusterConfig(run_dir="/run/chat")

    assert Config(cluster=cluster).link_address("gateway-2", "abcdefgh") == "ipc:///run/chat/gateway-2-abcdefgh.sock"
    link = "tcp://127.0.0.1:2900-2999"
    assert Config(gateway=GatewayConfig(link=link)).link_address("gateway-2", "abcdefgh") == link


@given(st.integers(1, 65535), st.integers(0, 300), st.integers(0, 300))
def test_a_range_of_ports_has_one_for_each_gateway(first: int, more: int, processes: int) -> None:
    last = min(first + more, 65535)
    env = {"GATECREW_GATEWAY_LINK": f"tcp://127.0.0.1:{first}-{last}", "GATECREW_GATEWAY_PROCESSES": str(processes)}
    try:
        config = load(None, env, {})
    except ConfigError:
        assert processes > last - first + 1
    else:
        assert processes <= last - first + 1
        assert parse(config.gateway.link, "tcp", ports=True).last == last


def test_the_largest_message_fits_into_a_frame_between_processes(read: Read) -> None:
    largest = re.search(r"at most ([\d_]+)", error_of(read, "[gateway]\nmax_message = 99999999999"))

    assert largest
    assert int(largest[1]) <= wire.MAX_FRAME // 2


@pytest.mark.parametrize("name", ROUTERS)
def test_each_router_that_may_be_named_is_there(name: str) -> None:
    assert router(load(None, {"GATECREW_GATEWAY_ROUTER": name}, {}).gateway.router, Random())


def test_each_protocol_that_may_be_named_is_there() -> None:
    assert {"websocket", *protocols.PROTOCOLS} == set(PROTOCOLS)


def test_the_document_has_the_settings_as_they_are() -> None:
    text = DOCUMENT.read_text()
    found = text[text.index("\n## Reference") + 1 :]

    assert found == reference() + "\n", f"write the reference anew: {DOCUMENT} says how"


def test_the_document_says_how_to_write_it_anew() -> None:
    assert "print(reference())' >> docs/configuration.md" in DOCUMENT.read_text()


def test_the_examples_of_the_document_work(read: Read) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)

    assert len(examples) > 3
    for example in examples:
        assert tomllib.loads(example)
        read(example)


def test_the_errors_of_the_document_are_those_of_the_code(read: Read) -> None:
    said = re.findall(r"^ {4}Error: (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    with pytest.raises(ConfigError) as caught:
        load(None, {"GATECREW_WORKER_THREADS": "many"}, {})

    assert [line.replace("/srv/chat/gatecrew.toml", "chat.toml") for line in said] == [
        error_of(read, "[gateway]\nproceses = 1"),
        str(caught.value),
    ]
