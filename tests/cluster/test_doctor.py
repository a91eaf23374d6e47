"""``gatecrew doctor``, with processes that hang and a link that is deaf."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from click.testing import CliRunner, Result
from gatecrew import cli

from .crew import Crew, until
from .proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator


def doctor(crew: Crew, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["doctor", *arguments], env=crew.variables())


@contextmanager
def hanging(crew: Crew, name: str) -> Iterator[None]:
    """Let a process hang, and at the end answer again."""
    crew.processes[name].signal(signal.SIGSTOP)
    try:
        yield
    finally:
        crew.processes[name].signal(signal.SIGCONT)
    until(lambda: doctor(crew).exit_code == 0)


def cells(result: Result) -> list[list[str]]:
    return [line.replace("no answer", "-").replace(" ms", "").split() for line in result.stdout.splitlines()]


def test_all_gateways_and_workers_answer_each_other(crew: Crew) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gatecrew", "doctor", "--json"],
        env=crew.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(ended.stdout)

    assert ended.stderr == ""
    assert set(found["registers"].values()) == {True}
    assert found["gateways"] == {"gateway-1": True, "gateway-2": True}
    assert [(pair["gateway"], pair["worker"]) for pair in found["pairs"]] == [
        ("gateway-1", "worker-1"),
        ("gateway-1", "worker-2"),
        ("gateway-2", "worker-1"),
        ("gateway-2", "worker-2"),
    ]
    assert all(pair["milliseconds"] > 0 for pair in found["pairs"])


def test_a_worker_that_hangs_is_named(crew: Crew) -> None:
    with hanging(crew, "worker-2"):
        result = doctor(crew, "--timeout", "1")

    assert result.exit_code == 1
    assert [row[0] for row in cells(result)] == ["GATEWAY", "gateway-1", "gateway-2"]
    assert [row[2] for row in cells(result)] == ["worker-2", "-", "-"]
    assert all(float(row[1]) >= 0 for row in cells(result)[1:])
    assert result.stderr == "Error: no answer in 1 s: gateway-1 - worker-2, gateway-2 - worker-2\n"


def test_a_gateway_that_hangs_is_named(crew: Crew) -> None:
    with hanging(crew, "gateway-2"):
        result = doctor(crew, "--timeout", "1")

    assert result.exit_code == 1
    assert cells(result)[2] == ["gateway-2", "-", "-"]
    assert "-" not in cells(result)[1]
    assert result.stderr == "Error: gateway-2 cannot be reached\n"


def test_a_link_that_is_up_but_deaf_is_named_counted_and_begun_anew() -> None:
    with ExitStack() as stack, Crew(cluster_dead_after="0.6", cluster_probe_interval="0.1") as crew:
        crew.start("register-1", "gateway-1")
        (path,) = (crew.folder / "run").glob("gateway-1-*.sock")
        proxy = stack.enter_context(Proxy(path))
        crew.start("worker-1")
        assert doctor(crew).exit_code == 0

        proxy.break_(Fault.SWALLOW, crew.pid("worker-1"))
        until(lambda: all(crew.stats(name).get("link.silent") for name in ("worker-1", "gateway-1")))
        result = doctor(crew, "--timeout", "1")
        proxy.heal()

        assert result.stderr == "Error: no answer in 1 s: gateway-1 - worker-1\n"
        until(lambda: doctor(crew).exit_code == 0)
