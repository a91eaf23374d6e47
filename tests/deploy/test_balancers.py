"""The samples for load balancers, as they are but for their addresses, each in front of two real gateways."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from ..cluster.crew import Crew, Guest, until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
COMMANDS: Final = {
    "haproxy": ["haproxy", "-db", "-f", "{config}"],
    "nginx": [
        "nginx",
        "-p",
        "{folder}",
        "-e",
        "stderr",
        "-c",
        "{config}",
        "-g",
        "daemon off; pid nginx.pid; error_log stderr;",
    ],
}
FILES: Final = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
PACKAGES: Final = {"haproxy": "haproxy", "nginx": "nginx-light"}


def port_of(url: str) -> str:
    return url.rpartition(":")[2]


def a_free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def accepts(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for localhost, and its key."""
    file = tmp_path_factory.mktemp("tls") / "chat.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    written = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run([*command.split(), *written], capture_output=True, check=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Crew]:
    with Crew() as crew:
        crew.start("register-1", "gateway-1", "gateway-2", "worker-1")
        crew.meet()
        yield crew


@pytest.fixture(params=["haproxy", "nginx"])
def front(request: pytest.FixtureRequest, two_gateways: Crew, certificate: Path, tmp_path: Path) -> Iterator[str]:
    """Where clients connect to a load balancer that runs one of the samples."""
    name = request.param
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        reason = f"no {name} here; on Debian: apt-get install {PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    text = (DEPLOY / FILES[name]).read_text()
    port = a_free_port()
    temporary = [f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    for old, new in {
        "\nhttp {": " ".join(["\nhttp {", *temporary]),  # its own are for root alone
        ":443 " if name == "haproxy" else "443 ": f"127.0.0.1:{port} ",
        f"/etc/{name}/chat.pem": str(certificate),
        "10.0.0.1:7272": f"127.0.0.1:{port_of(two_gateways.processes['gateway-1'].url)}",
        "10.0.0.2:7272": f"127.0.0.1:{port_of(two_gateways.processes['gateway-2'].url)}",
        "00000": "00",  # a test needs fewer clients, and a laptop may not allow so many open files
    }.items():
        assert old in text or "http" in old, "the sample has what is replaced here"
        text = text.replace(old, new)
    config = tmp_path / FILES[name]
    config.write_text(text)
    command = [part.format(config=config, folder=tmp_path) for part in COMMANDS[name]]
    log = (tmp_path / "log").open("w+")
    with ExitStack() as stack:
        stack.enter_context(log)
        process = subprocess.Popen([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.send_signal, signal.SIGTERM)
        until(lambda: accepts(port) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield f"wss://localhost:{port}"


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def test_clients_get_through_to_both_gateways(front: str, trust: ssl.SSLContext, two_gateways: Crew) -> None:
    with ExitStack() as stack:
        guests = [Guest(front, ssl=trust, additional_headers={"X-Forwarded-For": "192.0.2.1"}) for _ in range(4)]
        for guest in guests:
            stack.callback(guest.leave)
        ports = {str(guest.hello["listener"]) for guest in guests}

        assert len(ports) == 2, "each has some"
        headers = dict(guests[0].hello["request"]["headers"])
        assert headers.get("x-forwarded-for", headers.get("X-Forwarded-For")) == "127.0.0.1", "not what the client said"


def test_while_a_gateway_is_away_the_other_takes_all(front: str, trust: ssl.SSLContext, two_gateways: Crew) -> None:
    url = two_gateways.processes["gateway-2"].url
    two_gateways.stop("gateway-2")

    try:
        for _ in range(4):
            guest = Guest(front, ssl=trust)
            assert guest.hello["listener"] == two_gateways.processes["gateway-1"].url
            guest.leave()
    finally:
        two_gateways.start("gateway-2", gateway_listen=url)
        two_gateways.meet()
