"""The servers under test: how they are started, looked at and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROLES = ("register", "gateway", "worker")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """A figure cannot be had: something does not start, or loses connections."""


@dataclass(frozen=True)
class Server:
    """What answers on one port: one process or several. ``front`` is the one that holds the clients."""

    name: str
    port: int
    processes: Mapping[str, subprocess.Popen[bytes]]
    front: str

    def cpu_seconds(self) -> float:
        """Return the user and system time of all processes and their threads so far."""
        ticks = 0
        for process in self.processes.values():
            after_the_name = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_the_name[11]) + int(after_the_name[12])
        return ticks / TICKS

    def memory(self) -> int:
        """Return the resident bytes of the process that holds the clients."""
        return int(Path(f"/proc/{self._front_pid}/statm").read_text().split()[1]) * PAGE

    def descriptors(self) -> int:
        """Return how many files and sockets the process that holds the clients has open."""
        return len(list(Path(f"/proc/{self._front_pid}/fd").iterdir()))

    @property
    def _front_pid(self) -> int:
        return self.processes[self.front].pid


class Subject(Protocol):
    """Something that can be measured."""

    name: str

    def start(self) -> AbstractContextManager[Server]:
        """Start a server that answers, and end it on leaving."""


class Bare:
    """The single process of ``bare.py``."""

    name = "bare"

    @contextmanager
    def start(self) -> Iterator[Server]:
        port = free_port()
        with _running({"bare": [str(HERE / "bare.py"), str(port)]}, dict(os.environ), port) as processes:
            yield Server(self.name, port, processes, "bare")


class Cluster:
    """One register, one gateway and one worker of the package in ``source``, which need not be installed."""

    def __init__(self, name: str, source: Path) -> None:
        self.name = name
        self._source = source

    @contextmanager
    def start(self) -> Iterator[Server]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="gatecrew-") as folder:
            package = Path(folder, "gatecrew")
            package.symlink_to(self._source)
            env = {key: value for key, value in os.environ.items() if not key.startswith("GATECREW_")}
            env |= {
                "PYTHONPATH": f"{folder}:{HERE}",
                "GATECREW_CLUSTER_RUN_DIR": f"{folder}/run",
                "GATECREW_GATEWAY_LISTEN": f"ws://127.0.0.1:{port}",
                "GATECREW_WORKER_APP": "app:app",
                "GATECREW_LOG_LEVEL": "warning",
            }
            commands = {role: ["-m", "gatecrew", role, "--name", f"{role}-1"] for role in ROLES}
            with _running(commands, env, port) as processes:
                yield Server(self.name, port, processes, "gateway")


@contextmanager
def worktree(revision: str) -> Iterator[Cluster]:
    """Check an older commit out beside this one, for as long as it is measured."""
    name = _git("rev-parse", "--short", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="gatecrew-") as folder, ExitStack() as stack:
        stack.callback(_git, "worktree", "prune")
        stack.callback(_git, "worktree", "remove", "--force", f"{folder}/{name}")
        _git("worktree", "add", "--quiet", "--detach", f"{folder}/{name}", name)
        yield Cluster(name, Path(folder, name))


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def _running(
    commands: Mapping[str, list[str]], env: dict[str, str], port: int
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run python with each of these arguments until the block is left. It is entered when the port answers."""
    with tempfile.TemporaryFile() as log:
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for role, arguments in commands.items():
                processes[role] = subprocess.Popen(
                    [sys.executable, *arguments], env=env, cwd="/", stdout=log, stderr=log
                )
            try:
                _wait_for_echo(port, processes)
            except BenchError as error:
                log.seek(0)
                raise BenchError(f"{error}\n{log.read().decode(errors='replace')[-4000:]}") from None
            yield processes
        finally:
            _end(list(processes.values()))


def _wait_for_echo(port: int, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for role, process in processes.items():
            if process.poll() is not None:
                raise BenchError(f"the {role} ended with {process.returncode}")
        try:
            with connect(f"ws://127.0.0.1:{port}", compression=None, open_timeout=5) as client:
                client.send("e?")
                if client.recv(timeout=deadline - time.monotonic()) == "e?":
                    return
        except (OSError, WebSocketException):
            time.sleep(0.1)
    raise BenchError(f"the {', '.join(processes)} did not answer in 30 s")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()
