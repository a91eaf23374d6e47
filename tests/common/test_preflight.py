"""What is looked at before anything starts."""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING

import pytest
from gatecrew.common import config, curve, preflight
from gatecrew.common.errors import ListenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def look(run_dir: Path, **variables: str) -> dict[str, str]:
    """Return the line for each subject that was looked at, without the subject."""
    env = {f"GATECREW_{key.upper()}": value for key, value in variables.items()}
    found = config.load(None, {"GATECREW_CLUSTER_RUN_DIR": str(run_dir / "run"), **env}, {})
    lines = [line for _, line in preflight.report(preflight.checks(found))]
    return {line[6:19].strip(): f"{line[:4].strip()} {line[19:].strip()}" for line in lines}


def test_a_good_configuration_has_a_line_for_each_thing(run_dir: Path) -> None:
    found = look(run_dir, gateway_listen="ws://127.0.0.1:0", log_file=str(run_dir / "log"))

    assert [*found] == ["configuration", "run directory", "open files", "log file", "clients"]
    assert {line.split()[0] for line in found.values()} == {"ok"}


def test_a_unix_socket_is_in_use_if_somebody_answers(run_dir: Path) -> None:
    url = f"unix:{run_dir}/s?protocol=text"
    preflight.refuse_if_in_use(url)  # there is none
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{run_dir}/s")
        preflight.refuse_if_in_use(url)  # left behind
        sock.listen()
        with pytest.raises(ListenError, match=r"cannot listen on unix:.*: Address already in use"):
            preflight.refuse_if_in_use(url)


def test_what_is_in_use_is_named_with_its_setting(run_dir: Path, port: int) -> None:
    found = look(
        run_dir,
        cluster_registers=f"tcp://127.0.0.1:{port}",
        gateway_listen=f"ws://127.0.0.1:{port}",
        gateway_link=f"tcp://127.0.0.1:{port}",
        metrics_listen=f"http://127.0.0.1:{port}",
    )

    in_use = "Address already in use"
    assert found["register-1"] == f"fail [cluster] registers: cannot listen on tcp://127.0.0.1:{port}: {in_use}"
    assert found["clients"] == f"fail [gateway] listen: cannot listen on ws://127.0.0.1:{port}: {in_use}"
    assert found["links"] == f"fail [gateway] link: cannot listen on tcp://127.0.0.1:{port}: {in_use}"
    assert found["metrics"] == f"fail [metrics] listen: cannot listen on http://127.0.0.1:{port}: {in_use}"


def test_an_address_of_another_machine_is_none_to_listen_on(run_dir: Path) -> None:
    found = look(run_dir, gateway_listen="ws://192.0.2.1:7272")  # RFC 5737: nobody has it

    assert found["clients"].startswith("fail [gateway] listen: cannot listen on ws://192.0.2.1:7272: ")


def test_what_does_not_run_here_is_not_looked_at(run_dir: Path, port: int) -> None:
    found = look(
        run_dir,
        register_run="none",
        cluster_registers=f"tcp://127.0.0.1:{port}",
        gateway_processes="0",
        gateway_listen=f"ws://127.0.0.1:{port}",
    )

    assert [*found] == ["configuration", "run directory", "open files"]


def test_files_that_cannot_be_used_are_named(run_dir: Path) -> None:
    curve.make(run_dir, ["a"])
    (run_dir / "run").mkdir(mode=0o755)

    found = look(
        run_dir,
        cluster_key=str(run_dir / "nowhere"),
        cluster_keys=str(run_dir / "keys"),
        log_file=str(run_dir / "nowhere" / "log"),
    )

    assert found["run directory"].startswith("fail [cluster] run_dir: ")
    assert found["keys"] == f"fail [cluster] key: {run_dir}/nowhere cannot be read: No such file or directory"
    assert found["log file"].startswith("fail [log] file: cannot open ")
    assert look(run_dir, cluster_key=str(run_dir / "a.key"), cluster_keys=str(run_dir / "keys"))["keys"].startswith(
        "ok"
    )


def test_too_few_open_files_for_the_clients_that_are_wanted_would_not_work(run_dir: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    found = look(run_dir, gateway_max_connections=str(limit))

    assert found["open files"].startswith(
        f"fail a process may have {limit}, and [gateway] max_connections = {limit} needs"
    )
