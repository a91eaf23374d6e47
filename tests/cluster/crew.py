"""Clusters of real processes, and clients that call the API from inside a handler."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from gatecrew.common import config, notify
from gatecrew.register import status
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path(__file__).resolve().parent
ROLES: Final = ("worker", "gateway", "register")  # in the order in which they are best stopped
PATIENCE: Final = 20.0  # seconds for what takes milliseconds; when they are over, something hangs


class Failed(Exception):
    """What a call of the API raised: the name of its class and its message."""


class Guest:
    """A client of the application in ``app.py``."""

    def __init__(self, url: str, **options: Any) -> None:
        self._stack = contextlib.ExitStack()
        quiet = {"compression": None, "proxy": None, "ping_interval": None}
        self.connection = self._stack.enter_context(connect(url, **{**quiet, **options}))
        self._numbers = count(1)
        self._hello: dict[str, Any] | None = None
        self.results: dict[int, dict[str, Any]] = {}  #: of calls that were answered before others, asked earlier
        self._pushed: list[str | bytes] = []

    @property
    def hello(self) -> dict[str, Any]:
        """What the connect handler saw."""
        while self._hello is None:
            self._receive()
        return self._hello

    @property
    def id(self) -> str:
        return str(self.hello["id"])

    @property
    def worker(self) -> int:
        """The process that handled its connect event."""
        return int(self.hello["pid"])

    def send(self, name: str, *args: Any, raises: bool = False, **kwargs: Any) -> int:
        """Let a handler call something; with ``raises``, let it fail if that does. Return a number for :meth:`result`."""
        n = next(self._numbers)
        asked = {"n": n, "call": name, "args": args, "kwargs": kwargs, "raises": raises}
        self.connection.send(json.dumps(asked, default=lambda data: {"bytes": data.decode("latin1")}))
        return n

    def result(self, number: int) -> Any:
        """Return what a call returned.

        Raises:
            Failed: if it raised.
        """
        while number not in self.results:
            self._receive()
        result = self.results.pop(number)
        if "error" in result:
            raise Failed(f"{result['error']}: {result['message']}")
        return result["result"]

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Let a handler call something, and return what that returned."""
        return self.result(self.send(name, *args, **kwargs))

    def do(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Let a handler command something, and return when all gateways have carried it out."""
        commanded, confirmed = self.send(name, *args, **kwargs), self.send("flush")
        self.result(commanded)
        self.result(confirmed)

    def got(self) -> list[str | bytes]:
        """Return what was sent to it since it was last asked, by commands that gateways have carried out."""
        self.call("about")
        got, self._pushed = self._pushed, []
        return got

    def next(self) -> str | bytes:
        """Return the next message that was sent to it."""
        while not self._pushed:
            self._receive()
        return self._pushed.pop(0)

    def closed(self) -> tuple[int, str]:
        """Return the code and the reason with which the gateway closed it; 1006 if without."""
        try:
            while True:
                self._receive()
        except ConnectionClosed as closed:
            return (int(closed.rcvd.code), closed.rcvd.reason) if closed.rcvd else (1006, "")

    def leave(self) -> None:
        """Close the connection properly."""
        self._stack.close()

    def _receive(self) -> None:
        data = self.connection.recv(timeout=PATIENCE)
        said = json.loads(data) if isinstance(data, str) and data.startswith(('{"hello"', '{"n"')) else {}
        if "hello" in said:
            self._hello = said["hello"]
        elif "n" in said:
            self.results[said["n"]] = said
        else:
            self._pushed.append(data)


class Process:
    """One process of a cluster, and what it tells of itself."""

    def __init__(self, folder: Path, role: str, name: str, env: dict[str, str]) -> None:
        self.role = role
        self.name = name
        self.url = ""  #: where clients connect
        self.path = folder / f"{name}.log"
        ear = folder / f"{name}.ear"
        ear.unlink(missing_ok=True)
        self._ear = notify.listen(str(ear))
        self._ear.settimeout(0.05)
        with self.path.open("a") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "gatecrew", role, "--name", name],
                cwd=folder,
                env={**env, "NOTIFY_SOCKET": str(ear)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        return self.path.read_text()

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def ready(self) -> Self:
        """Return when it serves."""
        self.url = self._told("READY")["STATUS"]
        return self

    def stopping(self) -> None:
        """Return when it has begun to stop."""
        self._told("STOPPING")

    def _told(self, key: str) -> dict[str, str]:
        deadline = time.monotonic() + PATIENCE
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                told = notify.receive(self._ear) or {}
                if key in told:
                    return told
        raise AssertionError(f"{self.name} does not say {key}: {self.log}")

    def ended(self) -> int:
        """Return its exit code, once it has ended."""
        code = self._popen.wait(PATIENCE)
        self._ear.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end(self) -> None:
        """Kill it, if it still runs."""
        self._popen.kill()
        self.ended()


class Crew:
    """A cluster of real processes.

    Args:
        settings: its configuration, as ``gateway_listen="ws://127.0.0.1:0"``.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))  # a short path, for the sockets
        self.processes: dict[str, Process] = {}
        self._guests: list[Guest] = []
        defaults = {
            "cluster_run_dir": str(self.folder / "run"),
            "gateway_listen": "ws://127.0.0.1:0",
            "worker_app": "app:app",
        }
        self._settings = defaults | settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        try:
            codes = {name: self.stop(name) for role in ROLES for name in self.names(role)}
        finally:
            for process in self.processes.values():
                process.end()
            shutil.rmtree(self.folder)
        assert set(codes.values()) <= {0}, codes

    def variables(self, **settings: str) -> dict[str, str]:
        """Return the configuration as environment variables."""
        return {f"GATECREW_{key.upper()}": value for key, value in {**self._settings, **settings}.items()}

    def config(self, **settings: str) -> config.Config:
        """Return the configuration, for programs around the cluster."""
        return config.load(None, self.variables(**settings), {})

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a program of the cluster."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GATECREW_")}
        return {**inherited, "PYTHONPATH": str(HERE), **self.variables(**settings)}

    # Processes

    def begin(self, role: str, name: str, **settings: str) -> Process:
        """Start a process, with these settings on top of those of all, and do not wait for it."""
        process = self.processes[name] = Process(self.folder, role, name, self.environment(**settings))
        return process

    def start(self, *names: str, **settings: str) -> None:
        """Start processes and return when all of them serve. A name begins with the role."""
        for process in [self.begin(name.partition("-")[0], name, **settings) for name in names]:
            process.ready()

    def kill(self, name: str) -> None:
        """End a process at once."""
        self.processes.pop(name).end()

    def stop(self, name: str) -> int:
        """Stop a process gracefully, and return its exit code."""
        self.processes[name].signal(signal.SIGTERM)
        return self.ended(name)

    def ended(self, name: str) -> int:
        """Return the exit code of a process, once it has ended."""
        code = self.processes[name].ended()
        del self.processes[name]
        return code

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def names(self, role: str) -> list[str]:
        return [process.name for process in self.processes.values() if process.role == role]

    def stats(self, name: str) -> dict[str, Any]:
        """Return what a process last announced of itself."""
        return next((member for member in status.ask(self.config()) if member["name"] == name), {})

    # Clients

    def connect(self, gateway: str = "gateway-1", worker: str = "", path: str = "/", **options: Any) -> Guest:
        """Connect a client to this gateway that is handled by this worker, or by any. Which one it is falls by lot."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            guest = Guest(self.processes[gateway].url + path, **options)
            if not worker or guest.worker == self.pid(worker):
                self._guests.append(guest)
                return guest
            guest.leave()
        raise AssertionError(f"no client of {gateway} gets to {worker}")

    def meet(self) -> None:
        """Return when each gateway gives clients to each worker."""
        for gateway in self.names("gateway"):
            for worker in self.names("worker"):
                self.connect(gateway, worker)
        self.leave()

    def leave(self) -> None:
        """Let all clients leave."""
        while self._guests:
            self._guests.pop().leave()


@contextlib.contextmanager
def a_crew(*names: str, **settings: str) -> Iterator[Crew]:
    """Run a cluster of these processes."""
    with Crew(**settings) as crew:
        crew.start(*names)
        crew.meet()
        yield crew


def until(true: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)
